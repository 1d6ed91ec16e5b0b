//! Greets, says what it was given, and then ticks once a second until it is destroyed.
//!
//! Its arguments: any word is the name that it greets (the last one counts); `--ticks=N` makes it end after N ticks,
//! `--status=N` with this exit status instead of 0; `--name=NAME` is its own name, which `vmmd` gives.
#![no_std]
#![no_main]

use fulmar_guest::{Guest, TENDER, clock, say, unikernel, wait_until};

const SECOND_NS: u64 = 1_000_000_000;

unikernel!(main, []);

fn main(guest: &Guest) -> i32 {
    let mut whom: &[u8] = b"World";
    let mut name: &[u8] = b"a unikernel";
    let (mut ticks, mut status) = (None, 0);
    for word in guest.arguments() {
        if let Some(digits) = word.strip_prefix(b"--ticks=") {
            ticks = Some(number(digits));
        } else if let Some(digits) = word.strip_prefix(b"--status=") {
            status = number(digits);
        } else if let Some(own) = word.strip_prefix(b"--name=") {
            name = own;
        } else {
            whom = word;
        }
    }
    say!("Hello, ", whom, "!");
    say!("I am ", name, " under ", TENDER, " with ", guest.memory_bytes() >> 20, " MiB of memory.");
    say!("My arguments: ", guest.command_line());

    let mut deadline_ns = clock::monotonic_ns();
    let mut tick = 0;
    while ticks.is_none_or(|ticks| tick < ticks) {
        tick += 1;
        deadline_ns += SECOND_NS;
        while clock::monotonic_ns() < deadline_ns {
            wait_until(deadline_ns);
        }
        say!("tick ", tick);
    }
    say!("Good-bye.");
    status as i32
}

/// The number that these digits say; other bytes are passed over.
fn number(digits: &[u8]) -> u64 {
    digits
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}
