//! What a unikernel stands on: the start of day, the console, the clocks, waiting, and the end, over either tender.
//! It allocates nothing and formats nothing with `core::fmt`, so that the images stay small and free of SSE.
//!
//! | room | what is in it |
//! |---|---|
//! | [`unikernel!`] | makes an image of a function, and declares its devices |
//! | [`Guest`] | what the tender told us at the start: the arguments, the memory |
//! | [`say!`] | one line on the console, of any [`Piece`]s |
//! | [`clock`], [`random`] | the two clocks, in nanoseconds; a number that nobody knew before |
//! | [`Net`], [`Block`] | the devices that the image has declared |
//! | [`wait_until`], [`sleep_until`] | the only calls that block |
//! | [`exit`], [`abort`] | the last call |
//!
//! There is one thread and no interrupt. A panic says its place and ends with 255; so does an exception of the processor
//! under hvt (under spt the kernel ends the process by a signal).
#![no_std]

#[cfg(not(any(solo5 = "hvt", solo5 = "spt")))]
compile_error!("a unikernel is built with `--config hvt.toml` or `--config spt.toml` (see guest/README.md)");

mod argument;
pub mod clock;
pub mod console;
mod device;
mod intrinsics;
mod note;
mod random;
mod start;
mod text;

#[cfg(solo5 = "hvt")]
#[path = "hvt/mod.rs"]
mod tender;
#[cfg(solo5 = "spt")]
#[path = "spt.rs"]
mod tender;

pub use argument::decimal;
pub use device::{Block, Net};
pub use note::{AbiNote, DeviceEntry, ManifestNote, block, net, reserved};
pub use random::random;
pub use start::Guest;
pub use text::{Hex, Ipv4, Mac, Piece, Text};

/// The tender that this unikernel is built for.
pub const TENDER: &str = tender::NAME;

/// Waits until the monotonic clock reaches `deadline_ns` or a network device has a frame, and returns the set of those
/// devices, one bit for each handle: 0 if the time has come.
pub fn wait_until(deadline_ns: u64) -> u64 {
    tender::wait_until(deadline_ns)
}

/// Waits until the monotonic clock reaches `deadline_ns`, whatever the networks have.
pub fn sleep_until(deadline_ns: u64) {
    while clock::monotonic_ns() < deadline_ns {
        wait_until(deadline_ns);
    }
}

/// Ends the unikernel. The host sees the low 8 bits of `status`; 255 means that something went wrong.
pub fn exit(status: i32) -> ! {
    tender::exit(status)
}

/// Ends the unikernel because something went wrong that it cannot say more about.
pub fn abort() -> ! {
    exit(255)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => say!("panic at ", place.file(), ":", place.line()),
        None => say!("panic"),
    }
    abort()
}
