//! Does what a unikernel may not, to prove that it ends of it: a system call under spt, a port of nobody under hvt;
//! with `--null` it reads address 0, with `--text` it writes its own code, with `--reach` it gives the tender an address that is
//! not its own (hvt alone). It must never get as far as its last line.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "what is forbidden is an instruction or an address")]

use core::arch::asm;

use fulmar_guest::{Guest, console, say, unikernel};

unikernel!(main, []);

fn main(guest: &Guest) -> i32 {
    say!("trying what is forbidden");
    match guest.arguments().next() {
        Some(b"--null") => read_null(),
        Some(b"--text") => write_text(),
        Some(b"--reach") => reach(guest),
        _ => trespass(),
    }
    say!("FAILED: nobody minded");
    0
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

/// The last byte is the first one that is not ours.
fn reach(guest: &Guest) {
    let start = guest.memory_bytes() - 8;
    // SAFETY: none: the slice ends outside of memory, and whoever looks at it is to refuse.
    console::write(unsafe { core::slice::from_raw_parts(start as *const u8, 9) });
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
