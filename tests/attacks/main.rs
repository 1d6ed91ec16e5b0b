//! Attacks of tenants and strangers on a host that serves them by TLS. Each test first shows that the same thing without the trick
//! works; then the trick is refused for the right reason, memory stays bounded, and others are served.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod chains;
mod floods;
mod handshakes;
mod names;
mod policies;
mod shares;
