//! Starting a tender: one fork, a list of steps in the new process, one exec.
//!
//! Everything is prepared before the fork. Between fork and exec nothing allocates, locks or panics. The two processes share
//! a socket: over it the new one says which step failed (its closing by exec says that none did), and over it it waits
//! for the word that it has been recorded. If vmmd dies before that, the new process ends without becoming the tender: it
//! has closed its copies of all that is vmmd's, the other end of that socket among them.

use std::iter::once;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use fulmar_core::halves::{Attempt, IMAGE_FD, LaunchPlan, OsError, TAP_FD_FIRST, Tender};
use fulmar_core::limits::DEVICES_MAX;
use fulmar_host::shim::Start;
use nix::errno::Errno;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::setrlimit;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid, setsid};

use crate::failed;
use crate::limit::{Limits, limits};
use crate::stray::name_in;
use crate::sys::{self, AtExec, Pointers};

/// Standard fds, the image, the taps, the block devices, `/dev/kvm`, the socket that knows the taps, the status file.
const FDS_MAX: usize = TAP_FD_FIRST as usize + DEVICES_MAX + 3;

/// The whole environment of a tender.
const ENVIRONMENT: [&[u8]; 1] = [b"PATH=/usr/bin:/bin\0"];

/// The steps of the new process, in the order in which they are taken.
const STEPS: [Attempt; 8] = [
    Attempt::NewSession,
    Attempt::LeaveNetwork,
    Attempt::PlaceFds,
    Attempt::PinCpus,
    Attempt::SetLimits,
    Attempt::ChangeUser,
    Attempt::NoNewPrivileges,
    Attempt::Execute,
];

/// What the host gives to every tender.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// The tender program.
    pub(crate) program: BorrowedFd<'a>,
    /// `/dev/null`.
    pub(crate) null: BorrowedFd<'a>,
    /// `/dev/kvm`, where there is one.
    pub(crate) kvm: Option<BorrowedFd<'a>>,
    /// A network namespace with nothing in it; none where none can be made.
    pub(crate) empty_network: Option<BorrowedFd<'a>>,
    /// A socket of the host's own network namespace.
    pub(crate) net_control: BorrowedFd<'a>,
    /// The user id of account 0; none where users cannot be changed.
    pub(crate) uid_base: Option<u32>,
    /// What tenders are called by.
    pub(crate) folder: &'a [u8],
}

/// A process that waits for [`Held::release`] before it becomes the tender.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its id. It has not been waited for, so the id is its own.
    pub(crate) pid: Pid,
    line: OwnedFd,
}

/// All that the new process needs, ready before it exists.
struct Prepared<'a> {
    fds: [Option<BorrowedFd<'a>>; FDS_MAX],
    fds_len: usize,
    empty_network: Option<BorrowedFd<'a>>,
    cpus: CpuSet,
    limits: Limits,
    user: Option<u32>,
    program: BorrowedFd<'a>,
    line: BorrowedFd<'a>,
    arguments: Pointers<'a>,
    environment: Pointers<'a>,
}

/// Forks. The new process takes its steps at once and then waits.
pub(crate) fn spawn(ground: Ground<'_>, start: &Start<'_>) -> Result<Held, OsError> {
    let prepare = failed(Attempt::PrepareProcess);
    let (mine, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).map_err(&prepare)?;
    let mut words = start.plan.argv.with_nul();
    let called = name_in(ground.folder, words.next().unwrap_or(b"\0"));
    let prepared = prepare_fds(ground, start)
        .and_then(|(fds, fds_len)| {
            let Start { plan, .. } = start;
            Ok(Prepared {
                fds,
                fds_len,
                empty_network: ground.empty_network,
                cpus: cpus_of(plan)?,
                limits: limits(plan, fds_len as u64, largest_file(start.blocks)?, ground.uid_base.is_some()),
                user: ground.uid_base.map(|base| base.saturating_add(u32::from(plan.account))),
                program: ground.program,
                line: theirs.as_fd(),
                arguments: Pointers::new(once(called.as_slice()).chain(words)),
                environment: Pointers::new(ENVIRONMENT.into_iter()),
            })
        })
        .map_err(prepare)?;
    let pid = sys::fork_into(|| prepared.run()).map_err(failed(Attempt::Fork))?;
    Ok(Held { pid, line: mine })
}

impl Held {
    /// Lets the process become the tender, and waits until it has.
    pub(crate) fn release(self) -> Result<(), OsError> {
        // A process that failed is gone and does not hear it; its report does not get lost.
        let _ = send(self.line.as_raw_fd(), &[1], MsgFlags::MSG_NOSIGNAL);
        let mut report = [0; 5];
        loop {
            return match recv(self.line.as_raw_fd(), &mut report, MsgFlags::MSG_WAITALL) {
                Err(Errno::EINTR) => continue,
                // The executed program does not have the fd any more.
                Ok(0) => Ok(()),
                Ok(_) => Err(read_report(report)),
                Err(errno) => Err(failed(Attempt::Execute)(errno)),
            };
        }
    }
}

fn read_report([step, errno @ ..]: [u8; 5]) -> OsError {
    let attempt = STEPS.get(usize::from(step)).copied().unwrap_or(Attempt::Execute);
    OsError { attempt, errno: i32::from_ne_bytes(errno) }
}

/// Which fd goes where: the index is the number that the tender finds it at.
fn prepare_fds<'a>(ground: Ground<'a>, start: &Start<'a>) -> Result<([Option<BorrowedFd<'a>>; FDS_MAX], usize), Errno> {
    let Start { plan, console, image, taps, blocks, status, .. } = *start;
    let mut fds = [None; FDS_MAX];
    let kvm = if plan.tender == Tender::Hvt { Some(ground.kvm.ok_or(Errno::ENODEV)?) } else { None };
    let devices = taps.iter().map(|tap| tap.fd.as_fd()).chain(blocks.iter().map(AsFd::as_fd));
    let control = (!taps.is_empty()).then_some(ground.net_control);
    let given =
        [ground.null, console, console, image].into_iter().chain(devices).chain(kvm).chain(control).chain([status]);
    let mut len = 0;
    for fd in given {
        *fds.get_mut(len).ok_or(Errno::E2BIG)? = Some(fd);
        len += 1;
    }
    Ok((fds, len))
}

const _: () = assert!(IMAGE_FD == 3 && TAP_FD_FIRST == 4, "the order in `prepare_fds`");

/// Bytes of the largest of these files.
fn largest_file(files: &[OwnedFd]) -> Result<u64, Errno> {
    files.iter().try_fold(0, |largest: u64, file| Ok(largest.max(fstat(file)?.st_size.try_into().unwrap_or(0))))
}

fn cpus_of(plan: &LaunchPlan<'_>) -> Result<CpuSet, Errno> {
    let mut cpus = CpuSet::new();
    for cpu in plan.cpus.iter() {
        cpus.set(usize::try_from(cpu).map_err(|_| Errno::EINVAL)?)?;
    }
    Ok(cpus)
}

/// What happens in the new process. Nothing here may allocate, lock or panic.
impl Prepared<'_> {
    fn run(&self) {
        let mut line = self.line.as_raw_fd();
        let Err((step, errno)) = self.take_steps(&mut line);
        let [a, b, c, d] = (errno as i32).to_ne_bytes();
        // If nobody hears it any more, there is nobody to tell.
        let _ = send(line, &[step, a, b, c, d], MsgFlags::MSG_NOSIGNAL);
    }

    /// Each error is the number of its step in [`STEPS`]. `line` is where the line is, also when it has moved.
    fn take_steps(&self, line: &mut RawFd) -> Result<std::convert::Infallible, (u8, Errno)> {
        let at = |step: u8| move |errno: Errno| (step, errno);
        // Signals to vmmd's group, such as those of a terminal, are not for unikernels.
        setsid().map_err(at(0))?;
        sys::reset_signals().map_err(at(0))?;
        nix::unistd::chdir("/").map_err(at(0))?;
        if let Some(network) = self.empty_network {
            setns(network, CloneFlags::CLONE_NEWNET).map_err(at(1))?;
        }
        let program = self.place_fds(line).map_err(at(2))?;
        sched_setaffinity(Pid::from_raw(0), &self.cpus).map_err(at(3))?;
        for (resource, value) in self.limits.iter().flatten() {
            setrlimit(*resource, *value, *value).map_err(at(4))?;
        }
        match self.user {
            Some(id) => change_user(id),
            // It may be root, in a container or a namespace: it keeps nothing of that but the number.
            None => sys::drop_capabilities(),
        }
        .map_err(at(5))?;
        set_no_new_privs().map_err(at(6))?;
        wait_for_release(*line).map_err(at(7))?;
        Err((7, sys::execute(program, &self.arguments, &self.environment)))
    }

    /// Puts the fds in their places and closes all others. The line and the program stand behind the tender's until exec
    /// closes them; returns where the program is.
    fn place_fds(&self, line: &mut RawFd) -> Result<RawFd, Errno> {
        let end = RawFd::try_from(self.fds_len).map_err(|_| Errno::EINVAL)?;
        let (line_place, program, rest) = (end, end + 1, end + 2);
        // First all out of the way, since one's place may be where another is now.
        let mut moved = [0; FDS_MAX];
        for (moved, fd) in moved.iter_mut().zip(self.fds.iter().flatten()) {
            *moved = sys::duplicate_above(*fd, rest)?;
        }
        let line_moved = sys::duplicate_above(self.line, rest)?;
        let program_moved = sys::duplicate_above(self.program, rest)?;
        *line = line_moved;
        for (place, moved) in (0..end).zip(moved) {
            sys::place(moved, place, AtExec::Stays)?;
        }
        sys::place(line_moved, line_place, AtExec::Closes)?;
        sys::place(program_moved, program, AtExec::Closes)?;
        *line = line_place;
        sys::close_from(rest)?;
        Ok(program)
    }
}

fn change_user(id: u32) -> Result<(), Errno> {
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

fn wait_for_release(line: RawFd) -> Result<(), Errno> {
    let mut word = [0];
    match recv(line, &mut word, MsgFlags::empty()) {
        Ok(1) => Ok(()),
        Ok(_) => Err(Errno::ECANCELED),
        Err(errno) => Err(errno),
    }
}
