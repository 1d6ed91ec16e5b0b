//! What a process was started with and does not need: open files, the environment, capabilities. There is no way back here. (Linux only:
//! on FreeBSD rc(8) leaves nothing open, and capability mode does the rest.)

use std::fmt;
use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::service::FIRST_FD;
use crate::sys;

/// A capability of Linux that the half of `vmmd` that acts needs, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Its number.
    pub number: u32,
    /// What capabilities(7) calls it.
    pub name: &'static str,
    /// Why the host half cannot do without it.
    pub why: &'static str,
}

/// What the half of `vmmd` that acts keeps for as long as it runs.
pub const KEPT: [Capability; 5] = [
    Capability { number: 5, name: "CAP_KILL", why: "ends tenders, which run under other users" },
    Capability { number: 6, name: "CAP_SETGID", why: "gives each tender a group of its own" },
    Capability { number: 7, name: "CAP_SETUID", why: "gives each tender a user of its own" },
    Capability {
        number: 12,
        name: "CAP_NET_ADMIN",
        why: "makes taps and puts them into bridges; is told what tenders read and write",
    },
    Capability { number: 21, name: "CAP_SYS_ADMIN", why: "starts tenders in an empty network" },
];

/// What it needs beside these until the other half has been started.
pub const KEPT_AT_START: [Capability; 3] = [
    Capability { number: 0, name: "CAP_CHOWN", why: "gives the control half its folders" },
    Capability {
        number: 1,
        name: "CAP_DAC_OVERRIDE",
        why: "finds folders and the tender where root has no permission",
    },
    Capability { number: 8, name: "CAP_SETPCAP", why: "takes capabilities away for good, from the control half too" },
];

/// Capabilities as the kernel numbers them: one bit each.
fn bits<'a>(kept: impl IntoIterator<Item = &'a Capability>) -> u64 {
    kept.into_iter().fold(0, |bits, it| bits | 1 << it.number)
}

/// Something could not be given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotRenounced(&'static str, Errno);

impl fmt::Display for NotRenounced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not give up {}: {}", self.0, self.1.desc())
    }
}

impl std::error::Error for NotRenounced {}

/// What the first instructions of a daemon do: close whatever was left open for it but the standard descriptors and what a service
/// manager hands over. Nothing may be open yet.
pub fn close_inherited() {
    let own = std::process::id().to_string();
    let is_for_us = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == own);
    let count = std::env::var("LISTEN_FDS").ok().filter(|_| is_for_us).and_then(|count| count.parse().ok());
    let first: RawFd = count.filter(|count: &RawFd| *count >= 0).unwrap_or(0).saturating_add(FIRST_FD);
    sys::close_from(first);
}

/// Of capabilities, only these can be had from now on, also by executing a program. Where this process may not see to that, it can
/// have none anyway once it has renounced them.
///
/// # Errors
/// [`NotRenounced`].
pub fn limit_capabilities(kept: &[&[Capability]]) -> Result<(), NotRenounced> {
    let kept = bits(kept.iter().copied().flatten());
    sys::limit_bounding(kept).map_err(|errno| NotRenounced("capabilities that programs could bring", errno))?;
    sys::limit_capabilities(kept).map_err(|errno| NotRenounced("capabilities", errno))
}

/// Before a daemon becomes another user: afterwards it could not see to it any more that no program brings a capability back.
///
/// # Errors
/// [`NotRenounced`].
pub fn limit_to_none() -> Result<(), NotRenounced> {
    sys::limit_bounding(0).map_err(|errno| NotRenounced("capabilities that programs could bring", errno))
}

/// Gives up every privilege but those of the user that this process is, and the environment; nobody of the same user may look into it.
/// Called while there is one thread.
///
/// # Errors
/// [`NotRenounced`].
pub fn renounce() -> Result<(), NotRenounced> {
    sys::limit_capabilities(0).map_err(|errno| NotRenounced("capabilities", errno))?;
    crate::privilege::forbid_new_privileges().map_err(|errno| NotRenounced("new privileges", errno))?;
    hide().map_err(|errno| NotRenounced("being looked into", errno))?;
    sys::clear_environment();
    Ok(())
}

/// Nobody of the same user may look into this process, and no core is dumped of it.
fn hide() -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// Gives up the environment. Called while there is one thread.
pub fn clear_environment() {
    sys::clear_environment();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_has_a_reason_and_stands_once() {
        let mut numbers: Vec<_> = KEPT.iter().chain(&KEPT_AT_START).map(|it| it.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), KEPT.len() + KEPT_AT_START.len());
        assert!(KEPT.iter().chain(&KEPT_AT_START).all(|it| it.name.starts_with("CAP_") && it.why.len() > 5));
        assert_eq!(bits(&KEPT), 0x20_10e0);
    }
}
