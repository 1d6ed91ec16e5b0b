//! The Linux shim: taps, bridges, processes. It does what it is told and decides nothing.
//!
//! | room | what is in it |
//! |---|---|
//! | `cgroup` | a cgroup for each tender, where that can be had |
//! | `limit` | what a tender's process may use |
//! | `netlink` | messages to the kernel, and the little of rtnetlink that bridges and taps need |
//! | `sandbox` | what a daemon may ask of the kernel, and which files it may reach, once it has begun |
//! | `spawn` | one fork, a list of steps, one exec |
//! | `stray` | tenders that nobody knows any more |
//! | `sys` | all that is unsafe |
//! | `tap` | network interfaces that vanish with their holder |
//! | `taskstats` | what a process has read from and written to storage |
//! | `usage` | what a process has used, what went through its taps |
//! | `watch` | processes and their ends |
#![cfg(target_os = "linux")]

mod cgroup;
mod limit;
mod netlink;
pub mod sandbox;
mod spawn;
mod stray;
mod sys;
mod tap;
mod taskstats;
mod usage;
mod watch;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use fulmar_core::halves::{Abilities, Attempt, OsError, Signal, Status, Texts, Unit};
use fulmar_core::limits::ACCOUNTS_MAX;
use fulmar_core::policy::CpuSet;
use fulmar_host::info;
use fulmar_host::privilege::can_become;
use fulmar_host::shim::{Capacity, Exit, Found, Process, Shim, Start, Tap};
use fulmar_host::traffic::{BlockTraffic, TrafficLine};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, sched_getaffinity, setns, unshare};
use nix::sys::signal::Signal as OsSignal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::sysinfo::sysinfo;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, geteuid};

pub use self::cgroup::{Cgroups, NoCgroups};
use self::netlink::Netlink;
use self::spawn::Ground;
pub use self::taskstats::NotTold;
use self::taskstats::Taskstats;
pub use self::usage::LinuxMeter;
use self::watch::Watch;

/// How the kernel kills for want of memory.
const KILL: u8 = libc::SIGKILL as u8;

/// This host.
#[derive(Debug)]
pub struct LinuxShim {
    netlink: Netlink,
    watch: Watch,
    /// Nothing where it is not told.
    taskstats: Option<Taskstats>,
    null: File,
    /// Held open, so that it can be executed by users who cannot reach its folder, and an upgrade does not mix versions.
    tender: Option<File>,
    kvm: Option<File>,
    /// Where tenders start: one for all of them, since each costs the kernel half a millisecond and some 150 KiB.
    empty_network: Option<File>,
    net_control: OwnedFd,
    uid_base: Option<u32>,
    /// What tenders are called by, for whoever looks for them: [`stray::mark_of`] a folder that no other `vmmd` uses.
    folder: Vec<u8>,
    cgroups: Option<Cgroups>,
}

impl LinuxShim {
    /// Prepares to start `tender` processes under user ids from `uid_base` on, where this process may do that, for who uses this folder
    /// alone. A tender that is not there, or no program, is told by [`Shim::capacity`].
    ///
    /// # Errors
    /// Where the kernel has no rtnetlink or epoll for us.
    pub fn new(tender: &Path, uid_base: u32, folder: &Path) -> Result<Self, Errno> {
        let is_program =
            fs::metadata(tender).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(tender).ok();
        let null = File::open("/dev/null").map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        Ok(Self {
            netlink: Netlink::open()?,
            watch: Watch::new()?,
            taskstats: open_taskstats(),
            null,
            tender: opened.filter(|_| is_program),
            empty_network: empty_network(),
            net_control: socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?,
            kvm: OpenOptions::new().read(true).write(true).open("/dev/kvm").ok(),
            uid_base: can_become(uid_base, uid_base, ACCOUNTS_MAX.into()).then_some(uid_base),
            folder: stray::mark_of(folder),
            cgroups: None,
        })
    }

    /// Gives each tender a cgroup of its own, among these.
    #[must_use]
    pub fn with_cgroups(self, cgroups: Cgroups) -> Self {
        Self { cgroups: Some(cgroups), ..self }
    }

    /// How a unit ended, given what its parent is told; its cgroup is not needed any more.
    fn end_of(&mut self, unit: Unit, status: Status) -> Status {
        let Some(cgroups) = &mut self.cgroups else { return status };
        let killed = matches!(status, Status::Signal(KILL) | Status::Unknown);
        let status = if killed && cgroups.is_out_of_memory(unit) { Status::OutOfMemory } else { status };
        cgroups.remove(unit);
        status
    }

    /// Ends a process that shall not become a tender, without a trace.
    fn discard(pid: Pid) {
        // It is our child and has not been waited for, so the id is its own.
        let _ = nix::sys::signal::kill(pid, OsSignal::SIGKILL);
        while waitpid(pid, None) == Err(Errno::EINTR) {}
    }
}

impl Shim for LinuxShim {
    fn capacity(&mut self) -> Result<Capacity, OsError> {
        let failed = failed(Attempt::ReadCapacity);
        let set = sched_getaffinity(Pid::from_raw(0)).map_err(&failed)?;
        let mut cpus = CpuSet::EMPTY;
        for cpu in 0..nix::sched::CpuSet::count() {
            if set.is_set(cpu).map_err(&failed)? {
                let cpu = i64::try_from(cpu).unwrap_or(i64::MAX);
                // Beyond the bound it is not used.
                let _ = cpus.insert(cpu);
            }
        }
        let memory_mb = sysinfo().map_err(&failed)?.ram_total() / (1024 * 1024);
        let abilities = Abilities {
            accounts: self.uid_base.is_some(),
            taps: tap::is_possible(),
            kvm: self.kvm.is_some(),
            tender: self.tender.is_some(),
            solo5: false,
            memory_cgroup: self.cgroups.as_ref().is_some_and(Cgroups::bound_memory),
            pids_cgroup: self.cgroups.as_ref().is_some_and(Cgroups::bound_processes),
            // bhyve runs on FreeBSD.
            bhyve: None,
        };
        Ok(Capacity { cpus, memory_mb, abilities })
    }

    fn bridges(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), OsError> {
        self.netlink.links_of("bridge", each).map_err(failed(Attempt::ListBridges))
    }

    fn create_tap(&mut self, bridge: &[u8]) -> Result<Tap, OsError> {
        tap::create(&mut self.netlink, bridge)
    }

    fn release_taps(&mut self, taps: Vec<Tap>) {
        // They vanish with their last holder.
        drop(taps);
    }

    fn end_strays(&mut self, known: &[u32]) -> Result<u32, OsError> {
        let users = match self.uid_base {
            Some(base) => base..base.saturating_add(ACCOUNTS_MAX.into()),
            None => geteuid().as_raw()..geteuid().as_raw().saturating_add(1),
        };
        stray::end(&self.folder, &users, known).map_err(errno).map_err(failed(Attempt::WatchProcess))
    }

    fn sweep(&mut self) -> Result<u32, OsError> {
        let taps = tap::sweep(&mut self.netlink)?;
        let cgroups = self.cgroups.as_ref().map_or(Ok(0), Cgroups::sweep);
        Ok(taps + cgroups.map_err(errno).map_err(failed(Attempt::EnterCgroup))?)
    }

    fn spawn(
        &mut self,
        start: &Start<'_>,
        record: &mut dyn FnMut(Process) -> Result<(), OsError>,
    ) -> Result<Process, OsError> {
        let ground = Ground {
            program: self.tender.as_ref().ok_or(failed(Attempt::OpenTender)(Errno::ENOENT))?.as_fd(),
            null: self.null.as_fd(),
            kvm: self.kvm.as_ref().map(AsFd::as_fd),
            empty_network: self.empty_network.as_ref().map(AsFd::as_fd),
            net_control: self.net_control.as_fd(),
            uid_base: self.uid_base,
            folder: &self.folder,
        };
        let held = spawn::spawn(ground, start)?;
        let pid = held.pid;
        let begun = || {
            if let Some(cgroups) = &mut self.cgroups {
                cgroups.enter(start.plan, pid).map_err(errno).map_err(failed(Attempt::EnterCgroup))?;
            }
            let watching = failed(Attempt::WatchProcess);
            let pidfd = sys::open_pidfd(pid).map_err(&watching)?;
            // A process that failed already is no reason to give up here: its report says more.
            let process = match self.watch.identify(pid) {
                Err(Errno::ESRCH) => Process { pid: pid.as_raw().cast_unsigned(), started: 0 },
                result => result.map_err(&watching)?,
            };
            record(process)?;
            held.release()?;
            self.watch.add(start.plan.unit, process, pidfd).map_err(watching)?;
            Ok(process)
        };
        let result = begun();
        if result.is_err() {
            Self::discard(pid);
            if let Some(cgroups) = &mut self.cgroups {
                cgroups.remove(start.plan.unit);
            }
        }
        result
    }

    fn signal(&mut self, unit: Unit, signal: Signal) -> Result<bool, OsError> {
        let signal = match signal {
            Signal::Terminate => OsSignal::SIGTERM,
            Signal::Kill => OsSignal::SIGKILL,
        };
        self.watch.signal(unit, signal).map_err(failed(Attempt::SendSignal))
    }

    fn adopt(&mut self, unit: Unit, process: Process, _: Texts<'_>) -> Result<Found, OsError> {
        let runs = self.watch.adopt(unit, process).map_err(failed(Attempt::WatchProcess))?;
        Ok(if runs { Found::Running } else { Found::Gone(self.end_of(unit, Status::Unknown)) })
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    fn next_exit(&mut self) -> Option<Exit> {
        let Exit { unit, status } = self.watch.next_exit()?;
        Some(Exit { unit, status: self.end_of(unit, status) })
    }

    fn block_traffic(&mut self, each: &mut dyn FnMut(TrafficLine)) -> bool {
        let Some(taskstats) = &mut self.taskstats else { return false };
        for (process, pidfd) in self.watch.processes() {
            let pid = Pid::from_raw(process.pid.cast_signed());
            let Ok((read_bytes, written_bytes)) = taskstats.storage_bytes(pid) else { continue };
            // What was said was of this process, and not of a later one of its id, if it has not ended by now.
            if watch::lives(pidfd) == Ok(true) {
                each(TrafficLine(process, BlockTraffic { read_bytes, written_bytes }));
            }
        }
        true
    }
}

/// What tells how much is read and written, where we are told.
fn open_taskstats() -> Option<Taskstats> {
    let opened = Taskstats::open();
    if let Err(error) = &opened {
        info!("{error}");
    }
    opened.ok()
}

/// Whether what unikernels read and write would be measured.
///
/// # Errors
/// [`NotTold`].
pub fn check_taskstats() -> Result<(), NotTold> {
    Taskstats::open().map(drop)
}

/// The number of a failure.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// A network namespace with nothing in it, where one can be made. A thread makes it and is gone: ours stays where it is.
fn empty_network() -> Option<File> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).ok()?;
        let made = File::open("/proc/thread-self/ns/net").ok()?;
        // Only who may also join it can use it.
        setns(&made, CloneFlags::CLONE_NEWNET).ok().map(|()| made)
    };
    std::thread::scope(|scope| scope.spawn(make).join().ok().flatten())
}

/// The error of an attempt that failed.
fn failed(attempt: Attempt) -> impl Fn(Errno) -> OsError {
    move |errno| OsError { attempt, errno: errno as i32 }
}
