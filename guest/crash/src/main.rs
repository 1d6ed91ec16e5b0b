//! Dies in the way that `--how=` names, after `--after=SECONDS`, to prove that its end is what it should be and harms nobody
//! else. Without a way it says which there are and exits with 2; where nobody minded what it did, with 3.
//!
//! `exit` (with `--status=N`), `abort` and `panic` are a unikernel's own ends. `null` reads address 0, `text` writes its own
//! code, `data` runs its data (which hvt does not mind), `undefined` and `divide` are faults of an instruction, `stack` never
//! returns. Under hvt `port` and `hypercall` ask for what nobody offers, `reach` gives the tender an address beyond memory,
//! `triple` faults where nobody catches it, `halt` stops the processor. Under spt `call` is a system call that is not ours,
//! `align` a fault of a processor that minds every access which is not aligned.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "what is forbidden is an instruction or an address")]

#[cfg(solo5 = "hvt")]
mod hvt;
#[cfg(solo5 = "spt")]
mod spt;

use core::arch::asm;
use core::hint::black_box;

#[cfg(solo5 = "hvt")]
use hvt::WAYS;
#[cfg(solo5 = "spt")]
use spt::WAYS;

use fulmar_guest::{Guest, abort, clock, exit, say, sleep_until, unikernel};

unikernel!(main, []);

/// A way to die, and its name.
type Way = (&'static str, fn(&Guest));

/// The ways under either tender.
const COMMON: [Way; 9] = [
    ("exit", |guest| exit(guest.number("status").unwrap_or_default() as i32)),
    ("abort", |_| abort()),
    ("panic", |_| panic!()),
    ("null", |_| read_null()),
    ("text", |_| write_text()),
    ("data", |_| run_data()),
    ("undefined", |_| undefined()),
    ("divide", |_| divide()),
    ("stack", |_| {
        black_box(overflow(0));
    }),
];

fn main(guest: &Guest) -> i32 {
    let how = guest.argument("how").unwrap_or_default();
    let Some((name, die)) = COMMON.iter().chain(&WAYS).find(|(name, _)| name.as_bytes() == how) else {
        say!("crash: --how= must be one of these:");
        for (name, _) in COMMON.iter().chain(&WAYS) {
            say!("  ", *name);
        }
        return 2;
    };
    sleep_until(clock::in_seconds(guest.number("after").unwrap_or_default()));
    say!("crash: now ", *name);
    die(guest);
    say!("crash: nobody minded");
    3
}

fn read_null() {
    // SAFETY: none: there is nothing at this address, and this is the end.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) 0u64 => _, options(nostack, readonly)) }
}

fn write_text() {
    let text = main as fn(&Guest) -> i32 as usize;
    // SAFETY: none: this memory is read-only, and this is the end.
    unsafe { asm!("mov [{0}], {1:e}", in(reg) text, in(reg) 0u32, options(nostack)) }
}

/// The data is an instruction that returns: where it may be run nothing else happens.
fn run_data() {
    static mut DATA: [u8; 16] = [0xc3; 16];
    let data = &raw mut DATA;
    // SAFETY: none: this memory is not to be run, and where it is it returns.
    unsafe { asm!("call {0}", in(reg) data, clobber_abi("C")) }
}

fn undefined() {
    // SAFETY: none: this is the end.
    unsafe { asm!("ud2", options(nomem, nostack)) }
}

fn divide() {
    // SAFETY: none: this is the end.
    unsafe { asm!("div {0:e}", in(reg) 0u32, inout("eax") 1u32 => _, inout("edx") 0u32 => _, options(nomem, nostack)) }
}

/// Calls itself for ever, each time with more on the stack, until that has met what may not be written.
fn overflow(depth: u64) -> u64 {
    let room = black_box([depth; 32]);
    if black_box(depth) == u64::MAX {
        return depth;
    }
    overflow(depth + 1) + room.iter().sum::<u64>()
}
