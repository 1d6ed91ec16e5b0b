//! The functions that the compiler calls by itself, as string instructions: an interpreting KVM does eight bytes of those in
//! the time of one instruction.
#![allow(unsafe_code, reason = "the compiler's own contract with these functions is raw memory")]

use core::arch::asm;

/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller gives two ranges of `len` bytes.
    unsafe {
        asm!("rep movsq", "mov rcx, {rest}", "rep movsb", rest = in(reg) len & 7, inout("rcx") len >> 3 => _,
            inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: copying upwards never overwrites what is still to be read.
        return unsafe { memcpy(to, from, len) };
    }
    let (last_to, last_from) = (to.wrapping_add(len).wrapping_sub(1), from.wrapping_add(len).wrapping_sub(1));
    // SAFETY: the caller gives two ranges of `len` bytes; downwards, because the target lies above.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len => _, inout("rdi") last_to => _, inout("rsi") last_from => _,
            options(nostack));
    }
    to
}

/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    let eight = u64::from(byte as u8) * 0x0101_0101_0101_0101;
    // SAFETY: the caller gives a range of `len` bytes.
    unsafe {
        asm!("rep stosq", "mov rcx, {rest}", "rep stosb", rest = in(reg) len & 7, inout("rcx") len >> 3 => _,
            inout("rdi") to => _, in("rax") eight, options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    let mut index = 0;
    while index < len {
        // SAFETY: the caller gives two ranges of `len` bytes. Volatile, or this loop would become a call of itself.
        let a = unsafe { left.wrapping_add(index).read_volatile() };
        // SAFETY: as above.
        let b = unsafe { right.wrapping_add(index).read_volatile() };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        index += 1;
    }
    0
}

/// # Safety
/// As C's `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, len) }
}

/// # Safety
/// As C's `strlen`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the caller gives a string that ends with NUL.
    while unsafe { text.wrapping_add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}

/// Named by the compiler's tables for unwinding, which never happens: a panic ends the unikernel.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
