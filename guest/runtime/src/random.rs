//! Chance: enough for what a network stack must not let others guess, not for keys.
#![allow(unsafe_code, reason = "the processor's source of chance is an instruction")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};

/// The bit of CPUID leaf 1, ECX, that says that there is `rdrand`.
const HAS_RDRAND: u32 = 1 << 30;
/// `rdrand` may have nothing to give at first.
const TRIES: u32 = 10;

/// A number that nobody knew before: from the processor's source of chance if it has one, from its time stamp counter at any
/// rate.
#[must_use]
pub fn random() -> u64 {
    // SAFETY: every processor of this ABI has a time stamp counter.
    let mut mixed = unsafe { _rdtsc() };
    if __cpuid(1).ecx & HAS_RDRAND != 0 {
        mixed ^= (0..TRIES).find_map(|_| rdrand()).unwrap_or_default();
    }
    // The finish of splitmix64: every bit in has a part in every bit out.
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn rdrand() -> Option<u64> {
    let (number, given): (u64, u8);
    // SAFETY: the processor has the instruction, as the caller has asked.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) number, out(reg_byte) given, options(nomem, nostack)) };
    (given != 0).then_some(number)
}
