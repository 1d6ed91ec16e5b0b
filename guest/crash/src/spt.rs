//! Ways to die under spt alone.
#![allow(unsafe_code, reason = "what is forbidden is an instruction")]

use core::arch::asm;

/// The ways.
pub(crate) const WAYS: [crate::Way; 2] = [("call", |_| call()), ("align", |_| align())];

/// Asks for faults on accesses that are not aligned, and then dies of something else: whoever reports that is not to die of
/// the first.
fn align() {
    // SAFETY: none: this is the end.
    unsafe { asm!("pushfq", "or dword ptr [rsp], 0x40000", "popfq", "ud2") }
}

/// `getpid`: harmless, and not one of ours.
fn call() {
    // SAFETY: it touches no memory; the kernel ends us.
    unsafe { asm!("syscall", inout("rax") 39u64 => _, lateout("rcx") _, lateout("r11") _, options(nostack)) }
}
