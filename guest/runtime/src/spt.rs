//! The spt tender: nine system calls of Linux are open to us, with the arguments that are used here.
#![allow(unsafe_code, reason = "system calls are instructions")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::device::Entry;

pub(crate) const NAME: &str = "spt";
pub(crate) const ABI_TARGET: u32 = 2;

const READ: u64 = 0;
const WRITE: u64 = 1;
const PREAD: u64 = 17;
const PWRITE: u64 = 18;
const CLOCK_GETTIME: u64 = 228;
const EXIT_GROUP: u64 = 231;
const EPOLL_PWAIT: u64 = 281;
const TIMERFD_SETTIME: u64 = 286;

const REALTIME: u64 = 0;
const MONOTONIC: u64 = 1;
const ABSOLUTE: u64 = 1;
const EINTR: i64 = -4;
/// What the tender's timer is known by in its epoll set.
const TIMER: u64 = 0xFFFF_FFFE;
/// Events taken at once, at most: each network device and the timer.
const EVENTS_MAX: usize = 64;

/// Boot information as the tender lays it out.
#[repr(C)]
pub(crate) struct BootInfo {
    pub(crate) memory_bytes: u64,
    _image_end: u64,
    pub(crate) command_line: u64,
    pub(crate) manifest: u64,
    epoll_fd: u32,
    timer_fd: u32,
}

#[repr(C)]
struct TimeSpec {
    s: u64,
    ns: u64,
}

#[repr(C)]
struct TimerSpec {
    interval: TimeSpec,
    value: TimeSpec,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Event {
    events: u32,
    data: u64,
}

static EPOLL_FD: AtomicU64 = AtomicU64::new(0);
static TIMER_FD: AtomicU64 = AtomicU64::new(0);

pub(crate) fn begin(info: &BootInfo) {
    EPOLL_FD.store(info.epoll_fd.into(), Relaxed);
    TIMER_FD.store(info.timer_fd.into(), Relaxed);
}

/// # Safety
/// The arguments must be such that the kernel writes only to memory that the caller gave it.
unsafe fn call(number: u64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    let mut result = number as i64;
    // SAFETY: as the caller promises.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

pub(crate) fn write(bytes: &[u8]) {
    // SAFETY: the kernel reads `bytes`.
    unsafe { call(WRITE, [1, bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64, 0, 0, 0]) };
}

fn clock(id: u64) -> u64 {
    let mut now = TimeSpec { s: 0, ns: 0 };
    // SAFETY: the kernel writes `now`.
    unsafe { call(CLOCK_GETTIME, [id, (&raw mut now).expose_provenance() as u64, 0, 0, 0, 0]) };
    now.s * 1_000_000_000 + now.ns
}

pub(crate) fn monotonic_ns() -> u64 {
    clock(MONOTONIC)
}

pub(crate) fn wall_ns() -> u64 {
    clock(REALTIME)
}

pub(crate) fn wait_until(deadline_ns: u64) -> u64 {
    // A value of zero would disarm the timer.
    let value = TimeSpec { s: deadline_ns / 1_000_000_000, ns: (deadline_ns % 1_000_000_000) | 1 };
    let timer = TimerSpec { interval: TimeSpec { s: 0, ns: 0 }, value };
    let address = (&raw const timer).expose_provenance() as u64;
    // SAFETY: the kernel reads `timer`.
    unsafe { call(TIMERFD_SETTIME, [TIMER_FD.load(Relaxed), ABSOLUTE, address, 0, 0, 0]) };
    let mut events = [const { Event { events: 0, data: 0 } }; EVENTS_MAX];
    let count = loop {
        let address = events.as_mut_ptr().expose_provenance() as u64;
        let forever = -1i64 as u64;
        // SAFETY: the kernel writes at most as many events as there is room for.
        let count = unsafe { call(EPOLL_PWAIT, [EPOLL_FD.load(Relaxed), address, EVENTS_MAX as u64, forever, 0, 0]) };
        if count != EINTR {
            break usize::try_from(count).unwrap_or(0);
        }
    };
    let ready = events.iter().take(count).map(|event| event.data).filter(|data| *data != TIMER);
    ready.fold(0, |set, handle| set | 1 << (handle & 63))
}

pub(crate) fn net_read(_: u64, entry: &Entry, frame: &mut [u8]) -> Option<usize> {
    let data = frame.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the kernel writes at most the frame's length to it.
    let len = unsafe { call(READ, [entry.fd as u64, data, frame.len() as u64, 0, 0, 0]) };
    usize::try_from(len).ok().filter(|len| *len > 0)
}

pub(crate) fn net_write(_: u64, entry: &Entry, frame: &[u8]) -> bool {
    let data = frame.as_ptr().expose_provenance() as u64;
    // SAFETY: the kernel reads the frame.
    let len = unsafe { call(WRITE, [entry.fd as u64, data, frame.len() as u64, 0, 0, 0]) };
    len == frame.len() as i64
}

pub(crate) fn block_read(_: u64, entry: &Entry, offset: u64, sector: &mut [u8]) -> bool {
    let data = sector.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the kernel writes at most the sector's length to it.
    let len = unsafe { call(PREAD, [entry.fd as u64, data, sector.len() as u64, offset, 0, 0]) };
    len == sector.len() as i64
}

pub(crate) fn block_write(_: u64, entry: &Entry, offset: u64, sector: &[u8]) -> bool {
    let data = sector.as_ptr().expose_provenance() as u64;
    // SAFETY: the kernel reads the sector.
    let len = unsafe { call(PWRITE, [entry.fd as u64, data, sector.len() as u64, offset, 0, 0]) };
    len == sector.len() as i64
}

pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: nothing of ours is touched.
    unsafe { call(EXIT_GROUP, [status as u32 as u64, 0, 0, 0, 0, 0]) };
    loop {
        core::hint::spin_loop();
    }
}
