//! Writes to every page of its memory and finds again what it has written: all of it, or `--mib=N` MiB. Then it ends with 0, or
//! holds the memory for `--hold=SECONDS` before it does.
#![no_std]
#![no_main]

use fulmar_guest::{Guest, clock, say, sleep_until, unikernel};

const PAGE_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;
const MIB: usize = 1 << 20;

unikernel!(main, []);

fn main(guest: &Guest) -> i32 {
    let Some(heap) = guest.heap() else { return 1 };
    let bytes = guest.number("mib").map_or(heap.len(), |mib| (mib as usize).saturating_mul(MIB));
    let free = heap.len();
    let Some(memory) = heap.get_mut(..bytes) else {
        say!("mem: FAILED: of ", guest.memory_bytes() >> 20, " MiB only ", free / MIB, " MiB are free");
        return 1;
    };
    for (number, page) in (1u64..).zip(memory.chunks_exact_mut(PAGE_BYTES)) {
        if let (Some(first), Some(last)) = ends(page) {
            *first = number.to_le_bytes();
            *last = (!number).to_le_bytes();
        }
    }
    for (number, page) in (1u64..).zip(memory.chunks_exact_mut(PAGE_BYTES)) {
        let (first, last) = ends(page);
        let held = first.is_some_and(|first| u64::from_le_bytes(*first) == number)
            && last.is_some_and(|last| u64::from_le_bytes(*last) == !number);
        if !held {
            say!("mem: FAILED: page ", number, " is not what was written");
            return 1;
        }
    }
    say!("mem: ", bytes / MIB, " MiB written and found again, ", bytes / PAGE_BYTES, " pages");
    sleep_until(clock::in_seconds(guest.number("hold").unwrap_or_default()));
    0
}

type Word = [u8; WORD_BYTES];

/// The first and the last word of a page.
fn ends(page: &mut [u8]) -> (Option<&mut Word>, Option<&mut Word>) {
    let (first, rest) = page.split_at_mut(PAGE_BYTES / 2);
    (first.first_chunk_mut(), rest.last_chunk_mut())
}
