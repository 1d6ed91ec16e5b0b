//! The first instructions, and what the tender wrote for us to find.
#![allow(unsafe_code, reason = "the tender's structures lie at addresses that only the ABI gives")]

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::tender::{self, BootInfo};

unsafe extern "C" {
    /// Defined by the linker script: the end of the image, page aligned.
    static _end: u8;
    /// Defined by [`unikernel!`](crate::unikernel).
    fn fulmar_guest_main(guest: &Guest) -> i32;
}

/// Memory that [`Guest::heap`] leaves to the stack.
const STACK_BYTES: usize = 128 << 10;

/// What the tender told this unikernel.
#[repr(transparent)]
pub struct Guest {
    info: &'static BootInfo,
}

impl Guest {
    /// The command line as it was given: the arguments after the image's name, joined by spaces.
    #[must_use]
    pub fn command_line(&self) -> &'static [u8] {
        // SAFETY: the tender puts a string that ends with NUL at this address, in memory that nobody writes.
        let line = unsafe { CStr::from_ptr(self.info.command_line as *const c_char) };
        line.to_bytes()
    }

    /// Bytes of memory, from address 0.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.info.memory_bytes
    }

    /// Where the tender has put the manifest.
    pub(crate) fn manifest(&self) -> u64 {
        self.info.manifest
    }

    /// Address of the first byte behind the image. From here to the end of memory all is free, the stack at the very end.
    #[must_use]
    pub fn heap_start(&self) -> u64 {
        (&raw const _end).addr() as u64
    }

    /// All memory behind the image but 128 KiB for the stack, once; `None` when it was given away before. It is zero at the
    /// start. Whoever calls this keeps his own variables small: below the stack there is no guard.
    #[must_use]
    pub fn heap(&self) -> Option<&'static mut [u8]> {
        static GIVEN: AtomicBool = AtomicBool::new(false);
        if GIVEN.swap(true, Relaxed) {
            return None;
        }
        let first = &raw const _end;
        let bytes = (self.info.memory_bytes as usize).saturating_sub(first.addr() + STACK_BYTES);
        // SAFETY: the image ends here, the stack is above, and nobody else was given this memory.
        Some(unsafe { core::slice::from_raw_parts_mut(first.cast_mut(), bytes) })
    }
}

/// Where the tender jumps to: the stack pointer stands as after a call, the argument is the address of the boot information.
#[unsafe(no_mangle)]
extern "C" fn _start(info: &'static BootInfo) -> ! {
    tender::begin(info);
    let guest = Guest { info };
    // SAFETY: the macro defines it with this signature, once.
    let status = unsafe { fulmar_guest_main(&guest) };
    crate::exit(status)
}
