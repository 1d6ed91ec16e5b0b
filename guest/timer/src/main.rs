//! Proves the clocks and the waiting: exits with 0 if all held, else says what did not and exits with 1.
#![no_std]
#![no_main]

use fulmar_guest::{Guest, clock, say, unikernel, wait_until};

const MS_NS: u64 = 1_000_000;
/// 2020-01-01: no host of ours has a clock before that.
const WALL_NS_MIN: u64 = 1_577_836_800_000 * MS_NS;
const WAITS: u64 = 3;
const WAIT_NS: u64 = 100 * MS_NS;

unikernel!(main, []);

fn main(_guest: &Guest) -> i32 {
    let held = wall_clock() & deadline_in_the_past() & waits();
    say!(if held { "timer: all held" } else { "timer: FAILED" });
    i32::from(!held)
}

fn wall_clock() -> bool {
    let (first, second) = (clock::wall_ns(), clock::wall_ns());
    say!("wall clock ", first / (1_000 * MS_NS), " s");
    first >= WALL_NS_MIN && second >= WALL_NS_MIN
}

/// Returns at once, with no device ready.
fn deadline_in_the_past() -> bool {
    wait_until(0) == 0 && wait_until(clock::monotonic_ns()) == 0
}

/// Each wait lasts at least as long as it was asked to, and the clock does not go back.
fn waits() -> bool {
    let mut held = true;
    for _ in 0..WAITS {
        let before = clock::monotonic_ns();
        let ready = wait_until(before + WAIT_NS);
        let after = clock::monotonic_ns();
        let waited_ns = after.saturating_sub(before);
        say!("asked for ", WAIT_NS / MS_NS, " ms, waited ", waited_ns / MS_NS, " ms");
        // A tender may count in another clock's ticks: a millisecond early is no fault.
        held &= ready == 0 && after >= before && waited_ns + MS_NS >= WAIT_NS;
    }
    held
}
