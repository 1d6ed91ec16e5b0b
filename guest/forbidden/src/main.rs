//! Does what a unikernel may not, to prove that the tender ends it: a system call under spt, a port of nobody under hvt.
//! It must never get as far as its last line.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "what is forbidden is an instruction")]

use core::arch::asm;

use fulmar_guest::{Guest, say, unikernel};

unikernel!(main, []);

fn main(_guest: &Guest) -> i32 {
    say!("trying what is forbidden");
    trespass();
    say!("FAILED: nobody minded");
    0
}

/// `getpid`: harmless, and not one of ours.
#[cfg(solo5 = "spt")]
fn trespass() {
    // SAFETY: it touches no memory; the kernel ends us.
    unsafe { asm!("syscall", inout("rax") 39u64 => _, lateout("rcx") _, lateout("r11") _, options(nostack)) }
}

#[cfg(solo5 = "hvt")]
fn trespass() {
    // SAFETY: it touches no memory; the tender ends us.
    unsafe { asm!("out dx, eax", in("dx") 0x80u16, in("eax") 0u32, options(nomem, nostack)) }
}
