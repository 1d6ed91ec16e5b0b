//! Uses its processor and nothing else, for `--seconds=N` or until it is destroyed, and says how many rounds that were.
#![no_std]
#![no_main]

use core::hint::black_box;

use fulmar_guest::{Guest, clock, say, unikernel};

/// Steps between two looks at the clock, which are calls to the host under spt.
const ROUND_STEPS: u32 = 1000;

unikernel!(main, []);

fn main(guest: &Guest) -> i32 {
    let seconds = guest.number("seconds");
    match seconds {
        Some(seconds) => say!("spin: for ", seconds, " s"),
        None => say!("spin: without end"),
    }
    let begun_ns = clock::monotonic_ns();
    let (mut rounds, mut state) = (0u64, 1u64);
    let end_ns = seconds.map_or(u64::MAX, clock::in_seconds);
    while clock::monotonic_ns() < end_ns {
        for _ in 0..ROUND_STEPS {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state = black_box(state);
        }
        rounds += 1;
    }
    say!("spin: ", rounds, " rounds in ", (clock::monotonic_ns() - begun_ns) / clock::SECOND_NS, " s");
    0
}
