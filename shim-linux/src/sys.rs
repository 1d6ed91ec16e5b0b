//! The unsafe corner of the Linux shim: system calls that nix does not have, and the few calls between fork and exec.
#![allow(
    unsafe_code,
    reason = "ioctl on taps and pidfds, getxattr, pidfd_open, fork, execveat: each a few lines with its reason"
)]

use std::ffi::{CString, c_char, c_int, c_uint};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork};

/// Bytes of an interface's name with its NUL.
const INTERFACE_NAME_SIZE: usize = libc::IFNAMSIZ;

/// Makes the open `/dev/net/tun` a tap of this name, in which `%d` becomes the lowest free number. Returns the name that it
/// got. Without `%d` an existing tap that nobody holds is taken over.
pub(crate) fn attach_tap(tun: BorrowedFd<'_>, name: &str) -> Result<String, Errno> {
    // SAFETY: `ifreq` is plain numbers and unions of them; zeros are an empty request.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= INTERFACE_NAME_SIZE {
        return Err(Errno::ENAMETOOLONG);
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives here.
    Errno::result(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).map_err(|_| Errno::EILSEQ)
}

/// Whether a tap stays when its fd is closed.
pub(crate) fn keep_tap(tap: BorrowedFd<'_>, keep: bool) -> Result<(), Errno> {
    // SAFETY: TUNSETPERSIST takes a number and no pointer.
    Errno::result(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, c_int::from(keep)) }).map(drop)
}

/// A fd that becomes readable when the process ends. Close-on-exec.
pub(crate) fn open_pidfd(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: a new fd (they fit their type), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// As `struct pidfd_info` of the kernel's begins: what each version of it has.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// Ids of the process, its parent, its users and groups.
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_GET_INFO: libc::Ioctl = libc::_IOWR::<PidfdInfo>(0xff, 11);

/// The bit of a [`PidfdInfo`] that asks for how the process has ended, and says that it is told.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// How a process has ended, as `wait` has it, whoever its parent was: known as soon as that has waited for it. `ESRCH` or another error
/// where this kernel does not tell it.
pub(crate) fn exit_of_pidfd(pidfd: BorrowedFd<'_>) -> Result<Option<c_int>, Errno> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the kernel reads and writes one structure of the size that is part of the request's number. It lives here.
    Errno::result(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) })?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// Whether a file has this extended attribute, and it says 1.
pub(crate) fn has_attribute(path: &Path, name: &str) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let Ok(name) = CString::new(name) else { return false };
    let mut value = [0_u8; 1];
    // SAFETY: both texts end with a NUL, and the kernel writes at most the one byte that it is told of.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    length == 1 && value == *b"1"
}

/// Sends a signal to exactly the process of this pidfd.
pub(crate) fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without `siginfo` the call takes numbers only.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as c_int, no_info, 0) };
    Errno::result(sent).map(drop)
}

/// Forks and runs `child` in the new process, which ends when that returns. The memory of the new process is a copy of
/// one thread's view of a program that may have others, so `child` must not allocate, lock or panic.
pub(crate) fn fork_into(child: impl FnOnce()) -> Result<Pid, Errno> {
    // SAFETY: the new process runs only `child`, which keeps to what is allowed there, and `_exit`.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            child();
            // SAFETY: ends this process at once, without the exit handlers that belong to the other.
            unsafe { libc::_exit(127) }
        }
    }
}

/// Takes back what the parent, or who started it, changed about signals and a program inherits.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    for number in Signal::iterator().filter(|number| !matches!(number, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: no handler is installed, the default takes the place of "ignored".
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()
}

/// Duplicates a fd to a number of at least `least`, close-on-exec. The original stays.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: `F_DUPFD_CLOEXEC` takes numbers.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })
}

/// What exec does with a fd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtExec {
    /// The program has it.
    Stays,
    /// The program does not.
    Closes,
}

/// Puts the fd `from` also at `to`, which must be another number. Only for a process that is about to execute: what was at
/// `to` is closed whoever owned it.
pub(crate) fn place(from: RawFd, to: RawFd, at_exec: AtExec) -> Result<(), Errno> {
    let flags = if at_exec == AtExec::Closes { libc::O_CLOEXEC } else { 0 };
    // SAFETY: the new process owns none of its inherited fds, it only passes them on.
    Errno::result(unsafe { libc::dup3(from, to, flags) }).map(drop)
}

/// Closes all fds from `first` on. Only for a process that is about to execute: whoever owned them.
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    let flags: c_uint = 0;
    // SAFETY: the call takes three numbers; the new process owns none of its inherited fds.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first.cast_unsigned(), c_uint::MAX, flags) };
    Errno::result(done).map(drop)
}

/// Gives up all capabilities of this process; with "no new privileges" exec does not bring them back.
pub(crate) fn drop_capabilities() -> Result<(), Errno> {
    /// `_LINUX_CAPABILITY_VERSION_3`, of this process.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    // Effective, permitted, inheritable; twice.
    let none = [0u32; 6];
    // SAFETY: the kernel reads a header of two words and, in this version, two times three words.
    let done = unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), none.as_ptr()) };
    Errno::result(done).map(drop)
}

/// Pointers to texts, ended by a null, as exec wants them.
pub(crate) struct Pointers<'a> {
    pointers: Vec<*const c_char>,
    texts: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Pointers<'a> {
    /// Of texts that each end with a NUL; others are left out.
    pub(crate) fn new(texts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut pointers: Vec<_> =
            texts.filter(|text| text.last() == Some(&0)).map(|text| text.as_ptr().cast()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, texts: std::marker::PhantomData }
    }
}

/// Becomes the program behind `program`. Returns only when that fails.
pub(crate) fn execute(program: RawFd, arguments: &Pointers<'_>, environment: &Pointers<'_>) -> Errno {
    // SAFETY: both arrays end with a null, their texts end with NULs and are borrowed for as long as the arrays.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}
