//! The two clocks.

use crate::tender;

/// Nanoseconds of a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds since some moment; never goes back.
#[must_use]
pub fn monotonic_ns() -> u64 {
    tender::monotonic_ns()
}

/// Nanoseconds since the beginning of 1970, UTC. The host may set it.
#[must_use]
pub fn wall_ns() -> u64 {
    tender::wall_ns()
}

/// The moment of the monotonic clock when so many seconds from now have passed.
#[must_use]
pub fn in_seconds(seconds: u64) -> u64 {
    monotonic_ns().saturating_add(seconds.saturating_mul(SECOND_NS))
}
