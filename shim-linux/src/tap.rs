//! Taps: `vmmtap0`, `vmmtap1` and so on, each the lowest free number. They are not persistent: when the last holder of
//! the fd ends, however it ends, the interface is gone.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use fulmar_core::halves::{Attempt, OsError};
use fulmar_host::shim::Tap;
use nix::errno::Errno;
use nix::libc;

use crate::netlink::Netlink;
use crate::{failed, sys};

/// What every tap's name begins with, as the peer's do: tools and firewalls match it.
const PREFIX: &str = "vmmtap";

/// Makes a tap and puts it, up, into a bridge.
pub(crate) fn create(netlink: &mut Netlink, bridge: &[u8]) -> Result<Tap, OsError> {
    let bridge = netlink.bridge(bridge).map_err(|errno| match errno {
        Errno::ENODEV | Errno::EINVAL | Errno::ERANGE => failed(Attempt::FindBridge)(Errno::ENODEV),
        errno => failed(Attempt::ListBridges)(errno),
    })?;
    let tap = open().map_err(failed(Attempt::CreateTap))?;
    netlink.attach(tap.name.as_bytes(), bridge).map_err(failed(Attempt::AttachTap))?;
    Ok(tap)
}

/// Whether taps can be made here: one is, and vanishes again.
pub(crate) fn is_possible() -> bool {
    open().is_ok()
}

/// Removes persistent taps of our names that nobody holds. How many.
pub(crate) fn sweep(netlink: &mut Netlink) -> Result<u32, OsError> {
    let mut names = Vec::new();
    let mut collect = |name: &[u8]| names.extend(String::from_utf8(name.to_vec()).ok().filter(|name| is_ours(name)));
    netlink.links_of("tun", &mut collect).map_err(failed(Attempt::ListTaps))?;
    let mut count = 0;
    for name in names {
        let taken = open_tun().and_then(|tun| {
            sys::attach_tap(tun.as_fd(), &name)?;
            sys::keep_tap(tun.as_fd(), false)
        });
        match taken {
            Ok(()) => count += 1,
            // Somebody holds it, or it is a tun and not a tap.
            Err(Errno::EBUSY | Errno::EINVAL) => {}
            Err(errno) => return Err(failed(Attempt::RemoveTap)(errno)),
        }
    }
    Ok(count)
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn open() -> Result<Tap, Errno> {
    let tun = open_tun()?;
    // The kernel picks the number, so that two who ask at once get two taps.
    let name = sys::attach_tap(tun.as_fd(), &format!("{PREFIX}%d"))?;
    Ok(Tap { name, fd: OwnedFd::from(tun) })
}

/// Nonblocking, as a tender needs it.
fn open_tun() -> Result<File, Errno> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    opened.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

#[cfg(test)]
mod tests;
