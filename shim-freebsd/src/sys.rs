//! The conversations with FreeBSD, and the unsafe corner of this shim: system calls that nix does not have, and the few calls
//! between fork and exec.
#![allow(unsafe_code, reason = "ioctl, sysctl, cpuset, procctl, fork, fexecve: each a few lines with its reason")]

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use fulmar_core::policy::CpuSet;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::abi::{CPUSET_SIZE, PointingRequest, Request};
use crate::kernel::{AtExec, Ended, Held, Kernel, OpenFor, Sent, Steps};
use crate::spawn::{Failed, Pointers, Prepared, cpus_of};

unsafe extern "C" {
    /// The number of a module of the kernel; see modfind(2).
    fn modfind(name: *const std::ffi::c_char) -> c_int;
}

/// This host's kernel.
#[derive(Debug)]
pub(crate) struct FreeBsd {
    events: Kqueue,
}

impl FreeBsd {
    /// Watches nobody yet.
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { events: Kqueue::new()? })
    }
}

impl Kernel for FreeBsd {
    fn open(&self, path: &CStr, purpose: OpenFor) -> Result<OwnedFd, Errno> {
        let flags = match purpose {
            OpenFor::Frames => OFlag::O_RDWR | OFlag::O_NONBLOCK,
            OpenFor::Read => OFlag::O_RDONLY,
            OpenFor::Execute => OFlag::O_EXEC,
            OpenFor::Disk => OFlag::O_RDWR,
        };
        open(path, flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    fn socket(&self) -> Result<OwnedFd, Errno> {
        socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
    }

    fn ask(&self, fd: BorrowedFd<'_>, request: Request, data: &mut [u8]) -> Result<(), Errno> {
        if data.len() != request.size() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the kernel reads and writes as many bytes as the request says, and so many are there. They are alike for it
        // however they are aligned: it copies them. Requests whose bytes hold addresses go by `ask_pointing`.
        Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request.0.into(), data.as_mut_ptr()) }).map(drop)
    }

    fn ask_pointing(
        &self,
        fd: BorrowedFd<'_>,
        PointingRequest { request, length, address }: PointingRequest,
        data: &mut [u8],
        pointed: &mut [u8],
    ) -> Result<(), Errno> {
        length.put(data, &pointed.len().to_le_bytes());
        address.put(data, &pointed.as_mut_ptr().addr().to_le_bytes());
        pointed.as_mut_ptr().expose_provenance();
        let asked = self.ask(fd, request, data);
        // Nobody shall take it for an address later.
        address.put(data, &0_u64.to_le_bytes());
        asked
    }

    fn value(&self, path: &[i32], value: &mut [u8]) -> Result<usize, Errno> {
        let count = c_uint::try_from(path.len()).map_err(|_| Errno::EINVAL)?;
        let mut length = value.len();
        // SAFETY: the kernel reads `count` numbers, and writes at most `length` bytes, which are there.
        let done = unsafe {
            libc::sysctl(path.as_ptr(), count, value.as_mut_ptr().cast(), &raw mut length, std::ptr::null(), 0)
        };
        Errno::result(done).map(|_| length)
    }

    fn value_named(&self, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
        let mut length = value.len();
        // SAFETY: the name ends with a NUL, and the kernel writes at most `length` bytes, which are there.
        let done = unsafe {
            libc::sysctlbyname(name.as_ptr(), value.as_mut_ptr().cast(), &raw mut length, std::ptr::null(), 0)
        };
        Errno::result(done).map(|_| length)
    }

    fn set_value(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        let new = value.as_ptr().cast::<c_void>();
        // SAFETY: the name ends with a NUL, and the kernel reads as many bytes as it is told of, and writes none.
        let done =
            unsafe { libc::sysctlbyname(name.as_ptr(), std::ptr::null_mut(), std::ptr::null_mut(), new, value.len()) };
        Errno::result(done).map(drop)
    }

    fn has_module(&self, name: &CStr) -> bool {
        // SAFETY: the name ends with a NUL, and is only read.
        unsafe { modfind(name.as_ptr()) >= 0 }
    }

    fn cpus(&self) -> Result<CpuSet, Errno> {
        let mut bits = [0_u8; CPUSET_SIZE];
        // SAFETY: a `cpuset_t` is CPUSET_SIZE bytes (checked against the header), all of which may be any; -1 is this process.
        let done = unsafe {
            libc::cpuset_getaffinity(
                libc::CPU_LEVEL_WHICH,
                libc::CPU_WHICH_PID,
                -1,
                CPUSET_SIZE,
                bits.as_mut_ptr().cast(),
            )
        };
        Errno::result(done).map(|_| cpus_of(&bits))
    }

    fn names_in(&self, folder: &CStr) -> Result<Vec<Vec<u8>>, Errno> {
        let failed = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let folder = Path::new(std::ffi::OsStr::from_bytes(folder.to_bytes()));
        let names = std::fs::read_dir(folder).map_err(failed)?;
        names.map(|entry| entry.map(|entry| entry.file_name().into_vec()).map_err(failed)).collect()
    }

    fn fork(&self, prepared: &Prepared<'_>) -> Result<Held, Errno> {
        let (mine, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the new process runs only `take_steps`, which keeps to what is allowed there, a write, and `_exit`.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Held { pid: child.as_raw(), line: mine }),
            ForkResult::Child => {
                let mut line = theirs.as_raw_fd();
                let report = prepared.take_steps(&InNewProcess, theirs.as_fd(), &mut line).to_bytes();
                // If nobody hears it any more, there is nobody to tell.
                // SAFETY: the bytes are there, and the fd is whatever it is.
                unsafe { libc::send(line, report.as_ptr().cast(), report.len(), libc::MSG_NOSIGNAL) };
                // SAFETY: ends this process at once, without the exit handlers that belong to the other.
                unsafe { libc::_exit(127) }
            }
        }
    }

    fn release(&self, held: &Held) -> Result<(), Failed> {
        let lost = |error: std::io::Error| Failed { step: u8::MAX, errno: error.raw_os_error().unwrap_or(libc::EIO) };
        let mut line = UnixStream::from(held.line.try_clone().map_err(lost)?);
        // A process that failed is gone and does not hear it; its report does not get lost.
        let _ = line.write_all(&[1]);
        let mut report = [0; Failed::SIZE];
        match line.read_exact(&mut report) {
            Ok(()) => Err(Failed::from_bytes(report)),
            // The executed program does not have the fd any more.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }

    fn watch(&self, pid: i32) -> Result<(), Errno> {
        let ident = usize::try_from(pid).map_err(|_| Errno::ESRCH)?;
        let flags = EvFlags::EV_ADD | EvFlags::EV_ONESHOT;
        let event = KEvent::new(ident, EventFilter::EVFILT_PROC, flags, FilterFlag::NOTE_EXIT, 0, 0);
        self.events.kevent(&[event], &mut [], None).map(drop)
    }

    fn next_ended(&self) -> Option<Ended> {
        let mut events = [KEvent::new(0, EventFilter::EVFILT_PROC, EvFlags::empty(), FilterFlag::empty(), 0, 0)];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            match self.events.kevent(&[], &mut events, Some(now)) {
                Err(Errno::EINTR) => continue,
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            let [event] = &events;
            if let (Ok(pid), Ok(status)) = (i32::try_from(event.ident()), i32::try_from(event.data()))
                && event.fflags().contains(FilterFlag::NOTE_EXIT)
            {
                return Some(Ended { pid, status });
            }
        }
    }

    fn ended_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn signal(&self, pid: i32, signal: Sent) -> Result<(), Errno> {
        let signal = match signal {
            Sent::Terminate => Signal::SIGTERM,
            Sent::Kill => Signal::SIGKILL,
        };
        nix::sys::signal::kill(Pid::from_raw(pid), signal)
    }

    fn wait(&self, pid: i32) -> Result<(), Errno> {
        loop {
            match waitpid(Pid::from_raw(pid), None) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    fn wait_within(&self, pid: i32, milliseconds: u64) -> Result<Option<bool>, Errno> {
        let ident = usize::try_from(pid).map_err(|_| Errno::ESRCH)?;
        // One of its own: the ends of units are not to be heard here.
        let events = Kqueue::new()?;
        let flags = EvFlags::EV_ADD | EvFlags::EV_ONESHOT;
        let watched = KEvent::new(ident, EventFilter::EVFILT_PROC, flags, FilterFlag::NOTE_EXIT, 0, 0);
        let mut heard = [watched];
        let deadline = Instant::now() + Duration::from_millis(milliseconds);
        let mut changes: &[KEvent] = &[watched];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = libc::timespec {
                tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(0),
                tv_nsec: left.subsec_nanos().into(),
            };
            match events.kevent(changes, &mut heard, Some(left)) {
                // What was to be changed has been.
                Err(Errno::EINTR) => changes = &[],
                Ok(0) => return Ok(None),
                // One that has ended and was not waited for is told of at once, or is not found.
                Ok(_) | Err(Errno::ESRCH) => break,
                Err(errno) => return Err(errno),
            }
        }
        loop {
            match waitpid(Pid::from_raw(pid), None) {
                Err(Errno::EINTR) => {}
                Ok(status) => return Ok(Some(matches!(status, WaitStatus::Exited(_, 0)))),
                Err(errno) => return Err(errno),
            }
        }
    }

    fn pipe(&self) -> Result<(OwnedFd, OwnedFd), Errno> {
        nix::unistd::pipe2(OFlag::O_CLOEXEC)
    }
}

/// The steps of a new process, with the kernel.
struct InNewProcess;

impl Steps for InNewProcess {
    fn begin_anew(&self) -> Result<(), Errno> {
        nix::unistd::setsid()?;
        // SAFETY: no handler is installed, the default takes the place of "ignored".
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
        SigSet::empty().thread_set_mask()?;
        nix::unistd::chdir(c"/")
    }

    fn duplicate_above(&self, fd: BorrowedFd<'_>, least: RawFd) -> Result<RawFd, Errno> {
        // SAFETY: `F_DUPFD_CLOEXEC` takes numbers.
        Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })
    }

    fn place(&self, from: RawFd, to: RawFd, at_exec: AtExec) -> Result<(), Errno> {
        let command = if at_exec == AtExec::Closes { libc::F_DUP2FD_CLOEXEC } else { libc::F_DUP2FD };
        // SAFETY: both take numbers; the new process owns none of its inherited fds, it only passes them on.
        Errno::result(unsafe { libc::fcntl(from, command, to) }).map(drop)
    }

    fn close_from(&self, first: RawFd) -> Result<(), Errno> {
        // SAFETY: the call takes numbers; the new process owns none of its inherited fds.
        Errno::result(unsafe { libc::close_range(first.cast_unsigned(), c_uint::MAX, 0) }).map(drop)
    }

    fn pin(&self, cpus: &[u8]) -> Result<(), Errno> {
        // SAFETY: the kernel reads as many bytes as it is told of; -1 is this process.
        let done = unsafe {
            libc::cpuset_setaffinity(libc::CPU_LEVEL_WHICH, libc::CPU_WHICH_PID, -1, cpus.len(), cpus.as_ptr().cast())
        };
        Errno::result(done).map(drop)
    }

    fn limit(&self, resource: i32, value: u64) -> Result<(), Errno> {
        let value = libc::rlim_t::try_from(value).unwrap_or(libc::RLIM_INFINITY);
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: the kernel reads one `rlimit`, which lives here.
        Errno::result(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
    }

    fn forbid_privileges(&self) -> Result<(), Errno> {
        let mut enable: c_int = libc::PROC_NO_NEW_PRIVS_ENABLE;
        let enable = (&raw mut enable).cast();
        // SAFETY: the kernel reads one number; the id 0 is this process.
        let done = unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_NO_NEW_PRIVS_CTL, enable) };
        Errno::result(done).map(drop)
    }

    fn wait_for_word(&self, line: RawFd) -> Result<(), Errno> {
        let mut word = [0_u8; 1];
        loop {
            // SAFETY: the kernel writes at most the one byte that is there.
            let heard = unsafe { libc::recv(line, word.as_mut_ptr().cast(), word.len(), 0) };
            match Errno::result(heard) {
                Ok(1) => return Ok(()),
                Ok(_) => return Err(Errno::ECANCELED),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn execute(&self, program: RawFd, arguments: &Pointers<'_>, environment: &Pointers<'_>) -> Errno {
        // SAFETY: both arrays end with a null, their texts end with NULs and live as long as they.
        unsafe { libc::fexecve(program, arguments.first(), environment.first()) };
        Errno::last()
    }
}
