//! Consoles: streams in pieces, rings that share a store, and readers of different speeds, beside lists that keep everything.

use fulmar_core::console::{
    BLOCK_BYTES, Blocks, Cursor, History, LINE_BYTES_STORED_MAX, Next, PUSH_BLOCKS_MAX, Ring, TRUNCATED, make_room,
};
use fulmar_core::limits::{CONSOLE_BYTES_MAX, CONSOLE_LINE_BYTES_MAX, CONSOLE_LINES_MAX, CONSOLE_PUSH_BYTES_MAX};

use crate::choose::{Bytes, Choose};

const CONSOLES: usize = 3;

/// Room for each console's push besides the line that is being written, as the product's store has.
const STORE_BLOCKS: usize = CONSOLES * (PUSH_BLOCKS_MAX + LINE_BYTES_STORED_MAX.div_ceil(BLOCK_BYTES - 4) + 1);

/// Steps of a run.
const STEPS_MAX: usize = 200;

/// After so many steps everything is read: each time would be slow.
const STEPS_TO_READ: usize = 32;

/// A line and when it was complete.
type Line = (i64, Vec<u8>);

/// One console, and what it must say.
#[derive(Default)]
struct Console {
    history: History,
    /// Every line that was ever complete.
    lines: Vec<Line>,
    /// What there is of the next one.
    open: Vec<u8>,
    /// Whether the rest of a line is left out.
    dropping: bool,
    reader: Cursor,
    /// How many lines the reader has seen or lost.
    seen: usize,
}

/// A script of writing, ending, forgetting and reading.
///
/// # Panics
/// When a console does not say what was written to it.
pub fn console(script: &[u8]) {
    let mut choices = Bytes::new(script);
    let choices: &mut dyn Choose = &mut choices;
    let mut memory = vec![0xa5; STORE_BLOCKS * BLOCK_BYTES];
    let mut blocks = Blocks::new(&mut memory);
    let mut consoles: [Console; CONSOLES] = Default::default();
    for step in 0..STEPS_MAX {
        if choices.is_exhausted() {
            break;
        }
        let unix_ms = i64::try_from(step).unwrap_or(0) / 2;
        let which = choices.index(CONSOLES);
        let kind = choices.below(16);
        if kind < 12 {
            make_room(&mut blocks, consoles.iter_mut().map(|console| &mut console.history));
        }
        let console = &mut consoles[which];
        match kind {
            0..10 => console.write(&mut blocks, choices, unix_ms),
            10 | 11 => console.finish(&mut blocks, unix_ms),
            12 => console.clear(&mut blocks),
            13 => assert_eq!(console.history.ring().holds(&console.reader), console.seen >= console.dropped()),
            _ => console.read(&blocks),
        }
        let held: usize = consoles.iter().map(|console| console.history.ring().blocks()).sum();
        assert_eq!(held + blocks.free_count(), STORE_BLOCKS);
        consoles[which].check_bounds();
        if step % STEPS_TO_READ == STEPS_TO_READ - 1 {
            consoles[which].check(&blocks, choices);
        }
    }
    for console in &mut consoles {
        console.check(&blocks, choices);
        console.history.clear(&mut blocks);
    }
    assert_eq!(blocks.free_count(), STORE_BLOCKS);
}

impl Console {
    fn write(&mut self, blocks: &mut Blocks<'_>, choices: &mut dyn Choose, unix_ms: i64) {
        let len = choices.index(CONSOLE_PUSH_BYTES_MAX + 1);
        let (byte, ends) = (u8::try_from(choices.below(256)).unwrap_or(0), choices.pick(&[0, 1, 2, 100]));
        let ends = |index: usize| ends > 0 && index % ends == ends - 1;
        let bytes: Vec<u8> = (0..len).map(|index| if ends(index) { b'\n' } else { byte }).collect();
        assert_eq!(self.history.push(blocks, &bytes, unix_ms), Ok(()), "room was made");
        for byte in bytes {
            match byte {
                b'\n' if self.dropping => self.dropping = false,
                _ if self.dropping => {}
                b'\n' => self.complete(unix_ms),
                byte if self.open.len() < CONSOLE_LINE_BYTES_MAX => self.open.push(byte),
                _ => {
                    self.open.extend_from_slice(TRUNCATED);
                    self.complete(unix_ms);
                    self.dropping = true;
                }
            }
        }
    }

    fn complete(&mut self, unix_ms: i64) {
        self.lines.push((unix_ms, std::mem::take(&mut self.open)));
    }

    fn finish(&mut self, blocks: &mut Blocks<'_>, unix_ms: i64) {
        assert_eq!(self.history.finish(blocks, unix_ms), Ok(()), "room was made");
        if !self.open.is_empty() {
            self.complete(unix_ms);
        }
        self.dropping = false;
    }

    fn clear(&mut self, blocks: &mut Blocks<'_>) {
        self.history.clear(blocks);
        *self = Self { history: std::mem::take(&mut self.history), ..Self::default() };
    }

    fn dropped(&self) -> usize {
        self.lines.len() - self.history.ring().lines()
    }

    /// The reader sees each line once and in order, or learns that it has lost some.
    fn read(&mut self, blocks: &Blocks<'_>) {
        match all(self.history.ring(), blocks, &mut self.reader) {
            Some(lines) => {
                assert!(self.seen >= self.dropped());
                assert_eq!(lines, self.lines[self.seen..]);
            }
            None => {
                assert!(self.seen < self.dropped());
                self.reader = self.history.ring().last(blocks, 0);
            }
        }
        self.seen = self.lines.len();
    }

    /// The ring is within its bounds.
    fn check_bounds(&self) {
        let ring = self.history.ring();
        assert!(ring.lines() <= CONSOLE_LINES_MAX && ring.lines() <= self.lines.len());
        let expected = &self.lines[self.dropped()..];
        let held = expected.iter().map(|(_, line)| line.len() + 9).sum::<usize>() + self.open.len();
        assert!(held <= CONSOLE_BYTES_MAX && ring.blocks() <= held.div_ceil(BLOCK_BYTES - 4) + 1);
    }

    /// It has the last lines, whichever way they are asked for.
    fn check(&self, blocks: &Blocks<'_>, choices: &mut dyn Choose) {
        let (ring, expected) = (self.history.ring(), &self.lines[self.dropped()..]);
        let read = |mut cursor| all(ring, blocks, &mut cursor);
        assert_eq!(read(ring.oldest()).as_deref(), Some(expected));
        let count = choices.index(20);
        let last = &expected[expected.len().saturating_sub(count)..];
        assert_eq!(read(ring.last(blocks, count)).as_deref(), Some(last));
        let since = i64::from(choices.below(STEPS_MAX as u32 / 2));
        let first = expected.iter().position(|(unix_ms, _)| *unix_ms >= since).unwrap_or(expected.len());
        assert_eq!(read(ring.since(blocks, since)).as_deref(), Some(&expected[first..]));
    }
}

/// Every line from the cursor on; nothing where some are lost.
fn all(ring: &Ring, blocks: &Blocks<'_>, cursor: &mut Cursor) -> Option<Vec<Line>> {
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
