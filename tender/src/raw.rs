//! System calls made by the instruction itself, for all that runs beside a guest or within its process: no `errno`, no
//! thread-local storage (an spt guest has put its own in its place), no lock, no allocation.
#![allow(unsafe_code, reason = "system calls are instructions")]

use std::arch::asm;
use std::os::fd::RawFd;

use crate::memory::{Readable, Writable};
use crate::seccomp::{Argument, Row};
use crate::sys::Errno;

/// What `exit_group` is given beside the status, so that a filter knows the tender's own end from a guest's.
pub(crate) const OWN_EXIT: u64 = 0x66_756c_6d61_7221;

/// # Safety
/// The kernel must be allowed whatever these arguments say: addresses among them are of memory that the caller may hand
/// over.
unsafe fn call(number: i64, arguments: [u64; 6]) -> Result<u64, Errno> {
    let [a, b, c, d, e, f] = arguments;
    let mut result = number;
    // SAFETY: as the caller promises; the kernel changes these two registers beside the result.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    match result {
        -4095..=-1 => Err(Errno(result.unsigned_abs() as i32)),
        result => Ok(result.cast_unsigned()),
    }
}

fn fd(fd: RawFd) -> u64 {
    u64::from(fd.cast_unsigned())
}

/// Writes once. A short write is no error.
pub(crate) fn write(to: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    let data = bytes.as_ptr().expose_provenance() as u64;
    // SAFETY: the kernel reads `bytes`.
    unsafe { call(libc::SYS_write, [fd(to), data, bytes.len() as u64, 0, 0, 0]) }.map(|done| done as usize)
}

/// Writes once at an offset.
pub(crate) fn pwrite(to: RawFd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    let data = bytes.as_ptr().expose_provenance() as u64;
    // SAFETY: the kernel reads `bytes`.
    unsafe { call(libc::SYS_pwrite64, [fd(to), data, bytes.len() as u64, offset, 0, 0]) }.map(|done| done as usize)
}

/// Reads once.
pub(crate) fn read(from: RawFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    let data = bytes.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the kernel writes at most `bytes.len()` bytes into `bytes`.
    unsafe { call(libc::SYS_read, [fd(from), data, bytes.len() as u64, 0, 0, 0]) }.map(|done| done as usize)
}

/// Writes memory of the guest once.
pub(crate) fn write_guest(to: RawFd, from: Readable<'_>) -> Result<u64, Errno> {
    // SAFETY: the kernel reads the guest's own bytes.
    unsafe { call(libc::SYS_write, [fd(to), from.address(), from.bytes(), 0, 0, 0]) }
}

/// Reads into memory of the guest once.
pub(crate) fn read_guest(from: RawFd, to: Writable<'_>) -> Result<u64, Errno> {
    // SAFETY: the kernel writes the guest's own bytes, which nobody in the tender has a reference to.
    unsafe { call(libc::SYS_read, [fd(from), to.address(), to.bytes(), 0, 0, 0]) }
}

/// Writes memory of the guest once at an offset.
pub(crate) fn pwrite_guest(to: RawFd, from: Readable<'_>, offset: u64) -> Result<u64, Errno> {
    // SAFETY: the kernel reads the guest's own bytes.
    unsafe { call(libc::SYS_pwrite64, [fd(to), from.address(), from.bytes(), offset, 0, 0]) }
}

/// Reads into memory of the guest once, from an offset.
pub(crate) fn pread_guest(from: RawFd, to: Writable<'_>, offset: u64) -> Result<u64, Errno> {
    // SAFETY: the kernel writes the guest's own bytes, which nobody in the tender has a reference to.
    unsafe { call(libc::SYS_pread64, [fd(from), to.address(), to.bytes(), offset, 0, 0]) }
}

/// Says of each page of this memory, whole pages of it, whether it has ever been touched: the lowest bit of a byte each.
pub(crate) fn resident(of: Readable<'_>, pages: &mut [u8]) -> Result<(), Errno> {
    let vector = pages.as_mut_ptr().expose_provenance() as u64;
    let bytes = of.bytes().min(pages.len() as u64 * 4096);
    // SAFETY: the kernel writes one byte for each page of 4096 bytes, and there are as many.
    unsafe { call(libc::SYS_mincore, [of.address(), bytes, vector, 0, 0, 0]) }.map(drop)
}

/// An `ioctl` whose argument is a number, or nothing.
pub(crate) fn ioctl(on: RawFd, request: u64, argument: u64) -> Result<i32, Errno> {
    // SAFETY: callers use it only with requests that take a number.
    unsafe { call(libc::SYS_ioctl, [fd(on), request, argument, 0, 0, 0]) }.map(|result| result as i32)
}

/// An `ioctl` whose argument is a structure.
///
/// # Safety
/// `T` must be the structure that the request reads and writes, and whatever addresses stand in it must be as the request
/// wants them.
pub(crate) unsafe fn ioctl_with<T>(on: RawFd, request: u64, argument: &mut T) -> Result<i32, Errno> {
    let address = (&raw mut *argument).expose_provenance() as u64;
    // SAFETY: as the caller promises.
    unsafe { call(libc::SYS_ioctl, [fd(on), request, address, 0, 0, 0]) }.map(|result| result as i32)
}

/// Waits until something in an epoll set can be read, or for this many milliseconds, -1 being for ever.
pub(crate) fn epoll_wait(set: RawFd, events: &mut [libc::epoll_event], ms: i32) -> Result<usize, Errno> {
    let (data, room, ms) = (events.as_mut_ptr().expose_provenance() as u64, events.len() as u64, ms as u64);
    // SAFETY: the kernel writes at most `room` events into `events`.
    unsafe { call(libc::SYS_epoll_pwait, [fd(set), data, room, ms, 0, 0]) }.map(|count| count as usize)
}

/// Whether a descriptor takes a line now, without any wait.
pub(crate) fn is_writable(of: RawFd) -> bool {
    let mut question = libc::pollfd { fd: of, events: libc::POLLOUT, revents: 0 };
    let address = (&raw mut question).expose_provenance() as u64;
    // SAFETY: the kernel reads and writes one `pollfd`.
    let ready = unsafe { call(libc::SYS_poll, [address, 1, 0, 0, 0, 0]) };
    ready == Ok(1) && question.revents & libc::POLLOUT != 0
}

/// What a filter must let through for [`is_writable`].
pub(crate) fn is_writable_row() -> Row {
    Row::new(libc::SYS_poll, &[Argument::Is(1, 1), Argument::Is(2, 0)], "saying no line that would have to wait")
}

/// Waits until a descriptor can be read, or a signal comes.
pub(crate) fn wait_readable(of: RawFd) -> Result<(), Errno> {
    wait(of, libc::POLLIN)
}

/// Waits until a descriptor can be written to, or a signal comes.
pub(crate) fn wait_writable(of: RawFd) -> Result<(), Errno> {
    wait(of, libc::POLLOUT)
}

/// By `ppoll`: unlike `poll` it is begun anew by its own number after a process has stood still.
fn wait(of: RawFd, events: i16) -> Result<(), Errno> {
    let mut wait = libc::pollfd { fd: of, events, revents: 0 };
    let address = (&raw mut wait).expose_provenance() as u64;
    // SAFETY: the kernel reads and writes one `pollfd`; there is no time and no mask.
    match unsafe { call(libc::SYS_ppoll, [address, 1, 0, 0, 0, 0]) } {
        Ok(_) | Err(Errno(libc::EINTR)) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Lets a timer fire once, this many nanoseconds from now.
pub(crate) fn timer_set(timer: RawFd, ns: u64) -> Result<(), Errno> {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let s = i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX);
    // A value of zero would disarm it; a nanosecond more hurts nobody.
    let value = libc::timespec { tv_sec: s, tv_nsec: (ns % 1_000_000_000) as i64 | 1 };
    let spec = libc::itimerspec { it_interval: zero, it_value: value };
    let address = (&raw const spec).expose_provenance() as u64;
    // SAFETY: the kernel reads `spec`.
    unsafe { call(libc::SYS_timerfd_settime, [fd(timer), 0, address, 0, 0, 0]) }.map(drop)
}

/// Nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let address = (&raw mut now).expose_provenance() as u64;
    // SAFETY: the kernel writes `now`. This clock always exists.
    let _ = unsafe { call(libc::SYS_clock_gettime, [libc::CLOCK_REALTIME as u64, address, 0, 0, 0, 0]) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// Takes the thread-local storage away from this thread: an spt guest brings its own, and is to know nothing of ours. From
/// here on only this module's calls may be made.
pub(crate) fn forget_thread_storage() {
    const ARCH_SET_FS: u64 = 0x1002;
    // SAFETY: no memory is involved; whoever calls it looks at no thread-local storage any more.
    let _ = unsafe { call(libc::SYS_arch_prctl, [ARCH_SET_FS, 0, 0, 0, 0, 0]) };
}

/// Makes a system call that no filter of ours allows, to die of it as a guest does.
pub(crate) fn trespass() -> ! {
    // SAFETY: no memory is involved.
    let _ = unsafe { call(libc::SYS_getpid, [0; 6]) };
    exit(128 + libc::SIGSYS)
}

/// Ends the process at once, as the tender's own decision.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: nothing runs after it.
        let _ = unsafe { call(libc::SYS_exit_group, [u64::from(status.cast_unsigned()), OWN_EXIT, 0, 0, 0, 0]) };
    }
}
