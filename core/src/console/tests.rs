//! Rings against the obvious model, and what happens when the store is full.

#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::limits::{CONSOLE_BYTES_MAX, CONSOLE_LINES_MAX, CONSOLE_PUSH_BYTES_MAX};

/// Every line from the cursor on.
fn read(ring: &Ring, blocks: &Blocks<'_>, cursor: &mut Cursor) -> Option<Vec<(i64, Vec<u8>)>> {
    let mut lines = Vec::new();
    let mut buffer = [0; LINE_BYTES_STORED_MAX];
    loop {
        match ring.next_line(blocks, cursor, &mut buffer) {
            Next::Line { unix_ms, text } => lines.push((unix_ms, text.to_vec())),
            Next::End => return Some(lines),
            Next::Lost => return None,
        }
    }
}

fn push(history: &mut History, blocks: &mut Blocks<'_>, bytes: &[u8], unix_ms: i64) {
    for chunk in bytes.chunks(CONSOLE_PUSH_BYTES_MAX) {
        history.push(blocks, chunk, unix_ms).unwrap();
    }
}

/// Lines keep their order, and from the first that is late enough on all are told.
#[test]
fn the_clock_is_set_back() {
    let mut memory = vec![0; 4 * BLOCK_BYTES];
    let mut blocks = Blocks::new(&mut memory);
    let mut history = History::default();
    for (unix_ms, line) in [(5000, "a\n"), (1000, "b\n"), (2000, "c\n")] {
        push(&mut history, &mut blocks, line.as_bytes(), unix_ms);
    }
    let all: Vec<(i64, Vec<u8>)> =
        [(5000, "a"), (1000, "b"), (2000, "c")].map(|(unix_ms, line)| (unix_ms, line.into())).into();
    let ring = history.ring();
    for (unix_ms, expected) in [(0, &all[..]), (1500, &all[..]), (5000, &all[..]), (5001, &[])] {
        assert_eq!(read(ring, &blocks, &mut ring.since(&blocks, unix_ms)).as_deref(), Some(expected), "{unix_ms}");
    }
}

#[test]
fn windows() {
    let mut memory = vec![0; 4 * BLOCK_BYTES];
    let mut blocks = Blocks::new(&mut memory);
    let mut history = History::default();
    let ring = history.ring();
    assert_eq!(read(ring, &blocks, &mut ring.oldest()), Some(vec![]));
    assert_eq!(read(ring, &blocks, &mut Cursor::default()), Some(vec![]));
    for (line, unix_ms) in [("a\n", 10), ("\n", 10), ("c\nd\n", 20), ("e", 30)] {
        push(&mut history, &mut blocks, line.as_bytes(), unix_ms);
    }
    let all: Vec<(i64, Vec<u8>)> =
        [(10, "a"), (10, ""), (20, "c"), (20, "d")].map(|(unix_ms, line)| (unix_ms, line.into())).into();
    let ring = history.ring();
    for (cursor, expected) in [
        (ring.oldest(), &all[..]),
        (ring.last(&blocks, 0), &[]),
        (ring.last(&blocks, 1), &all[3..]),
        (ring.last(&blocks, 4), &all[..]),
        (ring.last(&blocks, usize::MAX), &all[..]),
        (ring.since(&blocks, i64::MIN), &all[..]),
        (ring.since(&blocks, 11), &all[2..]),
        (ring.since(&blocks, 20), &all[2..]),
        (ring.since(&blocks, 21), &[]),
    ] {
        assert_eq!(read(ring, &blocks, &mut cursor.clone()).as_deref(), Some(expected));
    }
    let mut tip = ring.last(&blocks, 0);
    history.finish(&mut blocks, 40).unwrap();
    history.finish(&mut blocks, 50).unwrap();
    assert_eq!(read(history.ring(), &blocks, &mut tip), Some(vec![(40, b"e".to_vec())]));
}

#[test]
fn a_quiet_console_holds_nothing() {
    let mut memory = vec![0; 3 * BLOCK_BYTES + 7];
    let mut blocks = Blocks::new(&mut memory);
    let mut history = History::default();
    assert_eq!((history.ring().blocks(), blocks.free_count()), (0, 3));
    push(&mut history, &mut blocks, b"x\n", 1);
    assert_eq!((history.ring().blocks(), blocks.free_count()), (1, 2));
    history.clear(&mut blocks);
    assert_eq!((history.ring().blocks(), blocks.free_count()), (0, 3));
}

#[test]
fn a_ring_is_bounded_in_lines_and_in_bytes() {
    let mut memory = vec![0; 2 * CONSOLE_BYTES_MAX];
    let mut blocks = Blocks::new(&mut memory);
    let total = blocks.free_count();
    let mut history = History::default();
    let mut early = history.ring().oldest();
    for round in 0..3000 {
        push(&mut history, &mut blocks, b"\n", round);
    }
    assert_eq!(history.ring().lines(), CONSOLE_LINES_MAX);
    assert_eq!(read(history.ring(), &blocks, &mut early), None);
    assert_eq!(read(history.ring(), &blocks, &mut history.ring().oldest()).unwrap()[0].0, 3000 - 1024);
    push(&mut history, &mut blocks, &[b'x'; 1023].repeat(1000), 3000);
    push(&mut history, &mut blocks, &[&[b'y'; 1023][..], b"\n"].concat().repeat(1000), 3001);
    let lines = read(history.ring(), &blocks, &mut history.ring().oldest()).unwrap();
    assert!(lines.iter().all(|(unix_ms, line)| *unix_ms == 3001 && line.len() == 1023));
    assert_eq!(lines.len(), CONSOLE_BYTES_MAX / (1023 + 9));
    assert!(history.ring().blocks() <= CONSOLE_BYTES_MAX / (BLOCK_BYTES - 4) + 2);
    history.clear(&mut blocks);
    assert_eq!(blocks.free_count(), total);
}

#[test]
fn the_one_that_holds_most_makes_room() {
    let mut memory = vec![0; (3 * PUSH_BLOCKS_MAX) * BLOCK_BYTES];
    let mut blocks = Blocks::new(&mut memory);
    let mut consoles = [History::default(), History::default()];
    push(&mut consoles[0], &mut blocks, b"one line that must stay\n", 1);
    for round in 0..200 {
        make_room(&mut blocks, consoles.iter_mut());
        consoles[1].push(&mut blocks, &[b'\n'; CONSOLE_PUSH_BYTES_MAX], round).unwrap();
        make_room(&mut blocks, consoles.iter_mut());
        consoles[1].push(&mut blocks, b"an open line, a long one.", round).unwrap();
    }
    assert_eq!(consoles[0].ring().lines(), 1);
    assert!(consoles[1].ring().lines() > 0);
}

#[test]
fn the_domain_that_holds_most_is_found() {
    let mut memory = vec![0; 64 * BLOCK_BYTES];
    let mut blocks = Blocks::new(&mut memory);
    let mut holding = |count| {
        let mut history = History::default();
        let line = [&[b'x'; BLOCK_BYTES - 4 - 9][..], b"\n"].concat();
        push(&mut history, &mut blocks, &line.repeat(count), 1);
        assert_eq!(history.ring().blocks(), count);
        history
    };
    let held: Vec<History> = [2, 3, 4, 1, 2].into_iter().map(&mut holding).collect();
    let fullest = |domains: [Option<&'static str>; 5]| fullest_domain(domains.into_iter().zip(&held));
    // One that holds most of all, and two that hold more together.
    assert_eq!(fullest([Some("a"), Some("a"), Some("b"), Some("c"), Some("d")]), Some("a"));
    assert_eq!(fullest([Some("a"), Some("b"), Some("c"), Some("d"), Some("e")]), Some("c"));
    // Those of the root path lie between the others.
    assert_eq!(fullest([None, Some("a"), Some("b"), Some("b"), None]), Some("b"));
    assert_eq!(fullest([None, Some("a"), None, Some("b"), Some("b")]), None);
    assert_eq!(fullest_domain(core::iter::empty()), None);
}

#[test]
fn a_full_store_is_an_error_and_no_more() {
    let mut memory = vec![0; 2 * BLOCK_BYTES];
    let mut blocks = Blocks::new(&mut memory);
    let mut history = History::default();
    assert_eq!(history.push(&mut blocks, &[b'x'; 512], 1), Ok(()));
    assert_eq!(history.push(&mut blocks, &[b'x'; 512], 1), Err(Full));
    assert_eq!(history.push(&mut blocks, b"\n", 1), Err(Full));
    make_room(&mut blocks, core::iter::once(&mut history));
    history.clear(&mut blocks);
    assert_eq!(blocks.free_count(), 2);
    assert_eq!(history.push(&mut blocks, b"x\n", 1), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Several consoles share a store; each cursor sees each line once and in order, or learns that it lost some.
    #[test]
    fn rings_are_queues(
        steps in proptest::collection::vec((0_usize..3, 0_usize..600, any::<bool>(), 0_u8..8), 1..300)
    ) {
        let mut memory = vec![0; 600 * BLOCK_BYTES];
        let mut blocks = Blocks::new(&mut memory);
        let total = blocks.free_count();
        let mut rings = [Ring::default(), Ring::default(), Ring::default()];
        let mut models: [VecDeque<(i64, Vec<u8>)>; 3] = Default::default();
        let mut open: [Vec<u8>; 3] = Default::default();
        let mut cursors = [Cursor::default(); 3];
        let mut seen = [0_usize; 3];
        let mut dropped = [0_usize; 3];
        for (time, (which, length, ends, action)) in steps.into_iter().enumerate() {
            let (ring, model, line) = (&mut rings[which], &mut models[which], &mut open[which]);
            let unix_ms = i64::try_from(time).unwrap();
            let length = length.min(CONSOLE_LINE_BYTES_MAX_LEFT - line.len());
            let bytes = vec![b'a' + u8::try_from(time % 26).unwrap(); length];
            ring.extend(&mut blocks, &bytes).unwrap();
            line.extend(bytes);
            if ends {
                ring.complete(&mut blocks, unix_ms).unwrap();
                model.push_back((unix_ms, core::mem::take(line)));
            }
            if action == 0 && ring.drop_oldest(&mut blocks) {
                model.pop_front();
                dropped[which] += 1;
            }
            while model.len() > ring.lines() {
                model.pop_front();
                dropped[which] += 1;
            }
            let cursor = &mut cursors[which];
            if action > 5 {
                match read(ring, &blocks, cursor) {
                    Some(lines) => {
                        prop_assert!(seen[which] >= dropped[which]);
                        prop_assert!(lines.iter().eq(model.iter().skip(seen[which] - dropped[which])));
                    }
                    None => {
                        prop_assert!(seen[which] < dropped[which]);
                        *cursor = ring.last(&blocks, 0);
                    }
                }
                seen[which] = dropped[which] + model.len();
            }
            let all = read(ring, &blocks, &mut ring.oldest()).unwrap();
            prop_assert!(all.iter().eq(model.iter()));
            let held: usize = model.iter().map(|(_, line)| line.len() + 9).sum::<usize>() + line.len();
            prop_assert!(held <= CONSOLE_BYTES_MAX && ring.blocks() <= held.div_ceil(BLOCK_BYTES - 4) + 1);
        }
        prop_assert_eq!(total - blocks.free_count(), rings.iter().map(Ring::blocks).sum::<usize>());
        for mut ring in rings {
            ring.clear(&mut blocks);
        }
        prop_assert_eq!(blocks.free_count(), total);
    }
}

/// A line under test stays below the bound, which is the splitter's to keep.
const CONSOLE_LINE_BYTES_MAX_LEFT: usize = crate::limits::CONSOLE_LINE_BYTES_MAX;
