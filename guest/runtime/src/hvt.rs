//! The hvt tender: a hypercall is a 32-bit `out` of the argument's address to port 0x500 plus its number.
#![allow(unsafe_code, reason = "hypercalls and the time stamp counter are instructions")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) const NAME: &str = "hvt";
pub(crate) const ABI_TARGET: u32 = 1;

const WALLTIME: u16 = 1;
const PUTS: u16 = 2;
const POLL: u16 = 3;
const HALT: u16 = 8;

/// Boot information as the tender lays it out; what we do not read is left off its end.
#[repr(C)]
pub(crate) struct BootInfo {
    pub(crate) memory_bytes: u64,
    _image_end: u64,
    tsc_hz: u64,
    pub(crate) command_line: u64,
    _manifest: u64,
}

#[repr(C)]
struct Walltime {
    ns: u64,
}

#[repr(C)]
struct Puts {
    data: u64,
    len: u64,
}

#[repr(C)]
struct Poll {
    timeout_ns: u64,
    ready: u64,
    count: i32,
}

#[repr(C)]
struct Halt {
    cookie: u64,
    status: i32,
}

/// Nanoseconds of one tick of the time stamp counter, times 2^32.
static TICK: AtomicU64 = AtomicU64::new(0);

pub(crate) fn begin(info: &BootInfo) {
    TICK.store((1_000_000_000 << 32) / info.tsc_hz.max(1), Relaxed);
}

fn hypercall<T>(number: u16, argument: &mut T) {
    let address = (&raw mut *argument).addr() as u32;
    // SAFETY: all guest memory is below 4 GiB, and each caller passes the structure of its number.
    unsafe { asm!("out dx, eax", in("dx") 0x500 + number, in("eax") address, options(nostack, preserves_flags)) }
}

pub(crate) fn write(bytes: &[u8]) {
    hypercall(PUTS, &mut Puts { data: bytes.as_ptr().addr() as u64, len: bytes.len() as u64 });
}

pub(crate) fn monotonic_ns() -> u64 {
    // SAFETY: the ABI promises a time stamp counter that the guest may read.
    let ticks = unsafe { core::arch::x86_64::_rdtsc() };
    ((u128::from(ticks) * u128::from(TICK.load(Relaxed))) >> 32) as u64
}

pub(crate) fn wall_ns() -> u64 {
    let mut argument = Walltime { ns: 0 };
    hypercall(WALLTIME, &mut argument);
    argument.ns
}

pub(crate) fn wait_until(deadline_ns: u64) -> u64 {
    let timeout_ns = deadline_ns.saturating_sub(monotonic_ns());
    let mut argument = Poll { timeout_ns, ready: 0, count: 0 };
    hypercall(POLL, &mut argument);
    if argument.count > 0 { argument.ready } else { 0 }
}

pub(crate) fn exit(status: i32) -> ! {
    hypercall(HALT, &mut Halt { cookie: 0, status });
    loop {
        // SAFETY: never reached: the tender does not return from a halt.
        unsafe { asm!("hlt", options(nomem, nostack)) }
    }
}
