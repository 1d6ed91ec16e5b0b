//! What a unikernel stands on: the start of day, the console, the clocks, waiting, and the end, over either tender.
//! It allocates nothing and formats nothing with `core::fmt`, so that the images stay small and free of SSE.
//!
//! | room | what is in it |
//! |---|---|
//! | [`Guest`] | what the tender told us at the start |
//! | [`say!`] | one line on the console |
//! | [`clock`] | the two clocks, in nanoseconds |
//! | [`Net`], [`Block`] | the devices that the image has declared |
//! | [`wait_until`], [`exit`] | the only call that blocks, and the last one |
#![no_std]

#[cfg(not(any(solo5 = "hvt", solo5 = "spt")))]
compile_error!("a unikernel is built with `--config hvt.toml` or `--config spt.toml` (see guest/README.md)");

pub mod clock;
pub mod console;
mod device;
mod intrinsics;
mod note;
mod start;
mod text;

#[cfg(solo5 = "hvt")]
#[path = "hvt.rs"]
mod tender;
#[cfg(solo5 = "spt")]
#[path = "spt.rs"]
mod tender;

pub use device::{Block, Net};
pub use note::{AbiNote, DeviceEntry, ManifestNote, block, net, reserved};
pub use start::Guest;
pub use text::{Piece, Text};

/// The tender that this unikernel is built for.
pub const TENDER: &str = tender::NAME;

/// Waits until the monotonic clock reaches `deadline_ns` or a network device has a frame, and returns the set of those
/// devices, one bit for each handle: 0 if the time has come.
pub fn wait_until(deadline_ns: u64) -> u64 {
    tender::wait_until(deadline_ns)
}

/// Ends the unikernel. The host sees the low 8 bits of `status`; 255 means that something went wrong.
pub fn exit(status: i32) -> ! {
    tender::exit(status)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => say!("panic at ", place.file(), ":", place.line()),
        None => say!("panic"),
    }
    exit(255)
}
