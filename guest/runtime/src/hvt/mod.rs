//! The hvt tender: a hypercall is a 32-bit `out` of the argument's address to port 0x500 plus its number. Frames go over a
//! ring in shared memory where the tender has one.
#![allow(unsafe_code, reason = "hypercalls and the time stamp counter are instructions, the ring is an address")]

mod ring;
mod trap;

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::device::Entry;
use ring::{BUFFER_BYTES, BUFFERS, Ring, Shared};

pub(crate) const NAME: &str = "hvt";
pub(crate) const ABI_TARGET: u32 = 1;

const WALLTIME: u16 = 1;
const PUTS: u16 = 2;
const POLL: u16 = 3;
const BLOCK_WRITE: u16 = 4;
const BLOCK_READ: u16 = 5;
const NET_WRITE: u16 = 6;
const NET_READ: u16 = 7;
const HALT: u16 = 8;

/// Where the host is woken when the ring has something for it.
const DOORBELL_PORT: u16 = 0x600;
/// The bit of the host's features that offers the ring.
const RING: u32 = 1;

/// Boot information as the tender lays it out. Tenders before Solo5 0.11 have the manifest where this has the features: its
/// version, 1, and then the empty name of its first entry, so that there is no address of a ring.
#[repr(C)]
pub(crate) struct BootInfo {
    pub(crate) memory_bytes: u64,
    _image_end: u64,
    tsc_hz: u64,
    pub(crate) command_line: u64,
    pub(crate) manifest: u64,
    host_features: u32,
    _guest_features: u32,
    ring: u64,
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
struct BlockTransfer {
    handle: u64,
    offset: u64,
    data: u64,
    len: u64,
    result: i32,
}

#[repr(C)]
struct NetTransfer {
    handle: u64,
    data: u64,
    len: u64,
    result: i32,
}

#[repr(C)]
struct Halt {
    cookie: u64,
    status: i32,
}

/// Nanoseconds of one tick of the time stamp counter, times 2^32.
static TICK: AtomicU64 = AtomicU64::new(0);
/// Address of the ring; 0 if there is none.
static RING_ADDRESS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn begin(info: &BootInfo) {
    trap::begin();
    TICK.store((1_000_000_000 << 32) / info.tsc_hz.max(1), Relaxed);
    if info.host_features & RING != 0 {
        RING_ADDRESS.store(info.ring, Relaxed);
    }
}

fn hypercall<T>(number: u16, argument: &mut T) {
    let address = (&raw mut *argument).expose_provenance() as u32;
    // SAFETY: all guest memory is below 4 GiB, and each caller passes the structure of its number.
    unsafe { asm!("out dx, eax", in("dx") 0x500 + number, in("eax") address, options(nostack, preserves_flags)) }
}

pub(crate) fn write(bytes: &[u8]) {
    hypercall(PUTS, &mut Puts { data: bytes.as_ptr().expose_provenance() as u64, len: bytes.len() as u64 });
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

pub(crate) fn net_read(handle: u64, _: &Entry, frame: &mut [u8]) -> Option<usize> {
    let data = frame.as_mut_ptr().expose_provenance() as u64;
    let Some(ring) = ring() else {
        let mut argument = NetTransfer { handle, data, len: frame.len() as u64, result: -1 };
        hypercall(NET_READ, &mut argument);
        return (argument.result == 0).then_some(argument.len as usize);
    };
    await_room(ring);
    ring.read(handle as u32, data, frame.len() as u32, wake);
    loop {
        if let Some(len) = ring.completion() {
            return len.filter(|len| *len <= frame.len());
        }
        core::hint::spin_loop();
    }
}

pub(crate) fn net_write(handle: u64, _: &Entry, frame: &[u8]) -> bool {
    if frame.len() <= BUFFER_BYTES
        && let Some(ring) = ring()
    {
        await_room(ring);
        ring.write(handle as u32, frame, wake);
        return true;
    }
    let data = frame.as_ptr().expose_provenance() as u64;
    let mut argument = NetTransfer { handle, data, len: frame.len() as u64, result: -1 };
    hypercall(NET_WRITE, &mut argument);
    argument.result == 0
}

/// What is used from one place only, and never while it is used already: there is one thread, and no interrupt.
struct Alone<T>(UnsafeCell<T>);

// SAFETY: there is one thread.
unsafe impl<T> Sync for Alone<T> {}

/// The ring, if the tender has one.
fn ring() -> Option<&'static mut Ring> {
    static WAITING: Alone<[[u8; BUFFER_BYTES]; BUFFERS as usize]> =
        Alone(UnsafeCell::new([[0; BUFFER_BYTES]; BUFFERS as usize]));
    static OURS: Alone<Option<Ring>> = Alone(UnsafeCell::new(None));
    let address = RING_ADDRESS.load(Relaxed);
    if address == 0 {
        return None;
    }
    // SAFETY: neither caller holds what it was given when the other one asks.
    let ours = unsafe { &mut *OURS.0.get() };
    Some(ours.get_or_insert_with(|| {
        // SAFETY: the tender says that its ring is there, and it stays as long as we do.
        let shared = unsafe { &*(address as *const Shared) };
        // SAFETY: nobody else names them, and this is done once.
        let buffers = unsafe { &mut *WAITING.0.get() };
        Ring::new(shared, buffers)
    }))
}

/// The host works on the ring in a thread of its own: this is short.
fn await_room(ring: &Ring) {
    while !ring.has_room() {
        core::hint::spin_loop();
    }
}

fn wake() {
    // SAFETY: the tender has tied this port to its thread.
    unsafe { asm!("out dx, eax", in("dx") DOORBELL_PORT, in("eax") 0, options(nomem, nostack, preserves_flags)) }
}

pub(crate) fn block_read(handle: u64, _: &Entry, offset: u64, sector: &mut [u8]) -> bool {
    block(BLOCK_READ, handle, offset, sector.as_mut_ptr().expose_provenance(), sector.len())
}

pub(crate) fn block_write(handle: u64, _: &Entry, offset: u64, sector: &[u8]) -> bool {
    block(BLOCK_WRITE, handle, offset, sector.as_ptr().expose_provenance(), sector.len())
}

fn block(number: u16, handle: u64, offset: u64, data: usize, len: usize) -> bool {
    let mut argument = BlockTransfer { handle, offset, data: data as u64, len: len as u64, result: -1 };
    hypercall(number, &mut argument);
    argument.result == 0
}

pub(crate) fn exit(status: i32) -> ! {
    halt(0, status)
}

/// Ends the unikernel. A cookie that is not 0 is the address of what an exception left, for who looks at our memory.
fn halt(cookie: u64, status: i32) -> ! {
    hypercall(HALT, &mut Halt { cookie, status });
    loop {
        // SAFETY: never reached: the tender does not return from a halt.
        unsafe { asm!("hlt", options(nomem, nostack)) }
    }
}
