//! The system calls that the standard library does not have. Every one checks its result; none decides anything.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::c_ulong;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What the timer of a guest is known by in the epoll set, beside its networks' handles.
pub(crate) const TIMER: u64 = 0xFFFF_FFFE;

/// An error number of the operating system, shown as its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// That of the call that just failed.
    pub(crate) fn last() -> Errno {
        Errno::from(std::io::Error::last_os_error())
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not by way of the standard library, which would allocate: this is also said by a tender that is confined.
        let mut text = [0u8; 128];
        // SAFETY: the C library writes a string of at most this length.
        let result = unsafe { libc::strerror_r(self.0, text.as_mut_ptr().cast(), text.len()) };
        let text = text.split(|byte| *byte == 0).next().and_then(|text| std::str::from_utf8(text).ok());
        match text.filter(|_| result == 0) {
            Some(text) => f.write_str(text),
            None => write!(f, "error {}", self.0),
        }
    }
}

/// What a program's start has to see to: descriptors 0, 1 and 2 are open, lest a disk become the console, and writing to a
/// console that is gone is an error and not a death.
pub(crate) fn prepare_process() {
    for fd in 0..=2 {
        // SAFETY: it only asks about a number.
        let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        // SAFETY: the path is a string that ends with NUL. The lowest free number is this one.
        if !is_open && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != fd {
            exit_now(1);
        }
    }
    // SAFETY: to ignore a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// The number in `@NN`, if that is what this is.
pub(crate) fn fd_number(text: &[u8]) -> Option<RawFd> {
    let digits = std::str::from_utf8(text.strip_prefix(b"@")?).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Takes over a descriptor that whoever started us has opened for us.
pub(crate) fn take_fd(number: RawFd) -> Result<OwnedFd, Errno> {
    // 0, 1 and 2 are the console's and the reports'.
    if number <= 2 {
        return Err(Errno(libc::EBADF));
    }
    // SAFETY: it only asks about a number.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(Errno::last());
    }
    // SAFETY: it is open, it was handed to us by number, and each such number is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes reads and writes return at once.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(Errno::last());
    }
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Writes once. A short write is no error.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads `bytes`.
    check_size(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

/// Reads once.
pub(crate) fn read(fd: RawFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `bytes.len()` bytes into `bytes`.
    check_size(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) })
}

/// Writes once at an offset.
pub(crate) fn pwrite(fd: RawFd, bytes: &[u8], offset: i64) -> Result<usize, Errno> {
    // SAFETY: the kernel reads `bytes`.
    check_size(unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset) })
}

/// Reads once at an offset.
pub(crate) fn pread(fd: RawFd, bytes: &mut [u8], offset: i64) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `bytes.len()` bytes into `bytes`.
    check_size(unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), bytes.len(), offset) })
}

/// An `ioctl` whose argument is a number, or nothing.
pub(crate) fn ioctl(fd: RawFd, request: c_ulong, argument: c_ulong) -> Result<i32, Errno> {
    // SAFETY: callers use it only with requests that take a number.
    check(unsafe { libc::ioctl(fd, request as _, argument) })
}

/// An `ioctl` whose argument is a structure.
///
/// # Safety
/// `T` must be the structure that the request reads and writes, and whatever addresses stand in it must be as the request
/// wants them.
pub(crate) unsafe fn ioctl_with<T>(fd: RawFd, request: c_ulong, argument: &mut T) -> Result<i32, Errno> {
    // SAFETY: as the caller promises.
    check(unsafe { libc::ioctl(fd, request as _, &raw mut *argument) })
}

/// A socket that serves to ask about network interfaces.
pub(crate) fn control_socket() -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    own(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
}

/// Whether this is a socket that keeps what was sent at once together.
pub(crate) fn keeps_datagrams(fd: BorrowedFd<'_>) -> bool {
    let (mut kind, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_TYPE);
    // SAFETY: the kernel writes at most `len` bytes to `kind`.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut kind).cast(), &raw mut len) };
    result == 0 && (kind == libc::SOCK_DGRAM || kind == libc::SOCK_SEQPACKET)
}

/// A new epoll set.
pub(crate) fn epoll_create() -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    own(unsafe { libc::epoll_create1(0) })
}

/// Adds a descriptor to an epoll set, to be told when it can be read, under this number.
pub(crate) fn epoll_add(set: BorrowedFd<'_>, fd: RawFd, number: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
    // SAFETY: the kernel reads `event`.
    check(unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
}

/// Waits until something in the set can be read.
pub(crate) fn epoll_wait(set: BorrowedFd<'_>, events: &mut [libc::epoll_event]) -> Result<usize, Errno> {
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes at most `room` events into `events`.
    let count = unsafe { libc::epoll_pwait(set.as_raw_fd(), events.as_mut_ptr(), room, -1, std::ptr::null()) };
    check(count).map(|count| count as usize)
}

/// A new timer of the monotonic clock.
pub(crate) fn timer_create() -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) })
}

/// Lets a timer fire once, this many nanoseconds from now.
pub(crate) fn timer_set(timer: BorrowedFd<'_>, ns: u64) -> Result<(), Errno> {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let s = i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX);
    // A value of zero would disarm it; a nanosecond more hurts nobody.
    let value = libc::timespec { tv_sec: s, tv_nsec: (ns % 1_000_000_000) as i64 | 1 };
    let spec = libc::itimerspec { it_interval: zero, it_value: value };
    // SAFETY: the kernel reads `spec`.
    check(unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) }).map(drop)
}

/// Nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes `now`. This clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// Refuses the personality in which all that is readable can be executed.
pub(crate) fn reads_imply_exec() -> bool {
    // SAFETY: this number asks and changes nothing.
    let personality = unsafe { libc::personality(0xffff_ffff) };
    personality & libc::READ_IMPLIES_EXEC != 0
}

/// Gives up for ever the gain of privileges by running programs, which a filter of our own needs.
pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// Puts a filter on all system calls of this process from now on, other threads included.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno(libc::E2BIG))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the kernel copies the program, which lives until then.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    match result {
        0 => Ok(()),
        -1 => Err(Errno::last()),
        // The number of a thread that has a filter which is not an ancestor of ours.
        _ => Err(Errno(libc::EBUSY)),
    }
}

/// Lets SIGINT and SIGTERM call this.
pub(crate) fn on_termination(handler: extern "C" fn(i32)) -> Result<(), Errno> {
    // SAFETY: all zero is a valid `sigaction`: no flags, no mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: the kernel's library writes `sa_mask`.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does only what a handler may: write and end.
        check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

/// Ends the process at once.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: nothing runs after it.
    unsafe { libc::_exit(status) }
}

fn own(fd: RawFd) -> Result<OwnedFd, Errno> {
    let fd = check(fd)?;
    // SAFETY: the kernel just gave it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

fn check_size(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::last())
}
