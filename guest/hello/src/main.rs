//! Greets, says what it was given, and then ticks once a second until it is destroyed.
//!
//! Its arguments: any word is the name that it greets (the last one counts); `--ticks=N` makes it end after N ticks,
//! `--status=N` with this exit status instead of 0; `--name=NAME` is its own name, which `vmmd` gives.
#![no_std]
#![no_main]

use fulmar_guest::{Guest, TENDER, clock, say, sleep_until, unikernel};

unikernel!(main, []);

fn main(guest: &Guest) -> i32 {
    let whom = guest.arguments().filter(|word| !word.starts_with(b"--")).last().unwrap_or(b"World");
    let name = guest.argument("name").unwrap_or(b"a unikernel");
    let ticks = guest.number("ticks");
    let status = guest.number("status").unwrap_or_default();
    say!("Hello, ", whom, "!");
    say!("I am ", name, " under ", TENDER, " with ", guest.memory_bytes() >> 20, " MiB of memory.");
    say!("My arguments: ", guest.command_line());

    let mut deadline_ns = clock::monotonic_ns();
    let mut tick = 0;
    while ticks.is_none_or(|ticks| tick < ticks) {
        tick += 1;
        deadline_ns += clock::SECOND_NS;
        sleep_until(deadline_ns);
        say!("tick ", tick);
    }
    say!("Good-bye.");
    status as i32
}
