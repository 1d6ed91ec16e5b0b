//! The two clocks.

use crate::tender;

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
