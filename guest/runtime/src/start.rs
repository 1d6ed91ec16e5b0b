//! The first instructions, and what the tender wrote for us to find.
#![allow(unsafe_code, reason = "the tender's structures lie at addresses that only the ABI gives")]

use core::ffi::{CStr, c_char};

use crate::tender::{self, BootInfo};

unsafe extern "C" {
    /// Defined by the linker script: the end of the image, page aligned.
    static _end: u8;
    /// Defined by [`unikernel!`](crate::unikernel).
    fn fulmar_guest_main(guest: &Guest) -> i32;
}

/// What the tender told this unikernel.
#[repr(transparent)]
pub struct Guest {
    info: &'static BootInfo,
}

impl Guest {
    /// The command line: the arguments after the image's name, joined by spaces.
    #[must_use]
    pub fn command_line(&self) -> &'static [u8] {
        // SAFETY: the tender puts a string that ends with NUL at this address, in memory that nobody writes.
        let line = unsafe { CStr::from_ptr(self.info.command_line as *const c_char) };
        line.to_bytes()
    }

    /// The words of the command line.
    pub fn arguments(&self) -> impl Iterator<Item = &'static [u8]> + use<> {
        self.command_line().split(|byte| *byte == b' ').filter(|word| !word.is_empty())
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
