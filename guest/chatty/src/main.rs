//! Floods its console: lines of `--bytes=N` bytes (64, their end included), `--lines=N` of them or without end, as fast as it
//! can, or with a pause of `--pause-us=N` microseconds after each. Each begins with its number, so that a reader sees which are lost.
#![no_std]
#![no_main]

use fulmar_guest::{Guest, Piece, Text, clock, console, sleep_until, unikernel};

const BYTES: u64 = 64;
const BYTES_MAX: u64 = 8192;

unikernel!(main, []);

fn main(guest: &Guest) -> i32 {
    let lines = guest.number("lines");
    let bytes = guest.number("bytes").unwrap_or(BYTES).clamp(1, BYTES_MAX);
    let pause_ns = guest.number("pause-us").map(|us| us.saturating_mul(1000));
    let mut room = [b'.'; BYTES_MAX as usize];
    let Some(line) = room.get_mut(..bytes as usize) else { return 1 };
    if let Some(last) = line.last_mut() {
        *last = b'\n';
    }
    let mut number = 0;
    while lines.is_none_or(|lines| number < lines) {
        number += 1;
        let mut head = Text::new();
        "chatty: line ".add_to(&mut head);
        number.add_to(&mut head);
        " ".add_to(&mut head);
        let room = line.len() - 1;
        for (place, byte) in line.iter_mut().take(room).zip(head.bytes()) {
            *place = *byte;
        }
        console::write(line);
        if let Some(pause_ns) = pause_ns {
            sleep_until(clock::monotonic_ns().saturating_add(pause_ns));
        }
    }
    0
}
