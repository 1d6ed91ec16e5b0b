//! The FreeBSD shim: taps, bridges, processes, and what they use. It does what it is told and decides nothing.
//!
//! | room | what is in it |
//! |---|---|
//! | `abi` | what is agreed with the kernel: numbers, and where a value stands in a structure |
//! | `bhyve` | virtual machines of bhyve: what loads them, what runs them |
//! | `kernel` | the conversations with the kernel, as traits |
//! | `process` | which process is which |
//! | `shim` | the `Shim` itself |
//! | `spawn` | one fork, a list of steps, one exec |
//! | `sys` | the conversations with FreeBSD, and all that is unsafe |
//! | `tap` | network interfaces, which go when nobody holds them |
//! | `tender` | where `solo5-hvt` is |
//! | `usage` | what a process has used, what went through its taps |
//! | `vmm` | virtual machines: those that are left over, and what they count |
//! | `watch` | processes and their ends |
//!
//! All but `sys` is compiled for tests everywhere, over a kernel that answers as FreeBSD's manual says.
#![cfg_attr(
    not(target_os = "freebsd"),
    allow(dead_code, reason = "elsewhere the layout check and the tests are all that use it")
)]

mod abi;
mod bhyve;
#[cfg(test)]
mod fake;
mod kernel;
mod process;
mod shim;
mod spawn;
#[cfg(target_os = "freebsd")]
mod sys;
mod tap;
mod tender;
mod usage;
mod vmm;
mod watch;

use fulmar_core::halves::{Attempt, OsError};
use nix::errno::Errno;

pub use self::abi::layout_check;
pub use self::shim::ShimError;

/// This host, with the tender program that `chosen` names or that is found in the state folder or in `PATH`.
///
/// # Errors
/// [`ShimError`], as it says.
#[cfg(target_os = "freebsd")]
pub fn shim(
    chosen: Option<&std::path::Path>,
    state: &std::path::Path,
) -> Result<impl fulmar_host::shim::Shim + std::fmt::Debug, ShimError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Two of them never have one state folder.
    let tag = tag_of(state.as_os_str().as_encoded_bytes());
    shim::HostShim::new(sys::FreeBsd::new()?, tender::find(chosen, state, &path).as_deref(), tag)
}

/// Tells a host half from others, by its state folder. It may never change: the names of what runs are made with it (FNV-1a).
#[cfg(any(target_os = "freebsd", test))]
fn tag_of(state: &[u8]) -> u32 {
    state.iter().fold(0x811c_9dc5, |tag, byte| (tag ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
#[test]
fn a_tag_stays_what_it_is() {
    assert_eq!((tag_of(b""), tag_of(b"a"), tag_of(b"/var/db/albatross")), (0x811c_9dc5, 0xe40c_292c, 0x7ab4_6df0));
}

/// What measures processes on this host.
///
/// # Errors
/// The kernel's.
#[cfg(target_os = "freebsd")]
pub fn meter() -> Result<impl fulmar_host::meter::Meter, Errno> {
    usage::HostMeter::new(sys::FreeBsd::new()?)
}

/// The error of an attempt that failed.
fn failed(attempt: Attempt) -> impl Fn(Errno) -> OsError {
    move |errno| OsError { attempt, errno: errno as i32 }
}
