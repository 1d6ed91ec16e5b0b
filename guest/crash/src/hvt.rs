//! Ways to die under hvt alone.
#![allow(unsafe_code, reason = "what is forbidden is an instruction or an address")]

use core::arch::asm;

use fulmar_guest::{Guest, console};

/// The ways.
pub(crate) const WAYS: [crate::Way; 5] = [
    ("port", |_| out(0x80)),
    ("hypercall", |_| out(0x500)),
    ("reach", reach),
    ("triple", |_| triple()),
    ("halt", |_| halt()),
];

/// Nobody is behind port 0x80, and no hypercall has the number 0.
fn out(port: u16) {
    // SAFETY: it touches no memory; the tender ends us.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") 0u32, options(nomem, nostack)) }
}

/// The last byte is the first one that is not ours.
fn reach(guest: &Guest) {
    let start = guest.memory_bytes() - 8;
    // SAFETY: none: the slice ends outside of memory, and whoever looks at it is to refuse.
    console::write(unsafe { core::slice::from_raw_parts(start as *const u8, 9) });
}

/// A fault that finds no handler, nor a handler for that.
fn triple() {
    let nothing = [0u8; 10];
    // SAFETY: none: this is the end.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &nothing, options(nostack)) }
}

/// No interrupt comes that could wake us.
fn halt() {
    // SAFETY: it touches no memory; the tender ends us.
    unsafe { asm!("hlt", options(nomem, nostack)) }
}
