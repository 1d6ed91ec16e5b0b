//! The last lines of one console, in a chain of blocks. In the chain a line is its bytes, a `\n`, and eight bytes of time:
//! so a line can be written before its length and its time are known.

use super::blocks::{BlockId, Blocks, Full, PAYLOAD_BYTES};
use super::splitter::TRUNCATED;
use crate::limits::{CONSOLE_BYTES_MAX, CONSOLE_LINE_BYTES_MAX, CONSOLE_LINES_MAX};

/// Bytes of the longest line with its mark.
pub const LINE_BYTES_STORED_MAX: usize = CONSOLE_LINE_BYTES_MAX + TRUNCATED.len();

/// Bytes after a line: `\n` and the time.
const TAIL_BYTES: usize = 1 + 8;

const BLOCK: u64 = PAYLOAD_BYTES as u64;

/// At most [`CONSOLE_LINES_MAX`] complete lines and [`CONSOLE_BYTES_MAX`] bytes; the oldest go first.
#[derive(Debug, Default)]
pub struct Ring {
    /// Position of the oldest byte, counted from the first ever written. Blocks begin at multiples of their payload.
    start: u64,
    /// Position after the last byte of the last complete line.
    complete: u64,
    /// Position after the last byte; from `complete` to here is the line that is being written.
    end: u64,
    /// The block with the position `start`, if any block is held.
    head: BlockId,
    /// The block with the position before `end`.
    tail: BlockId,
    blocks: u16,
    lines: u16,
}

/// A place in a ring from which its lines are read. It belongs to one ring and stays valid while that changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    at: u64,
    /// The block in which the byte before `at` was; not looked at while `at` is the start of the ring.
    block: BlockId,
}

/// What a cursor finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next<'b> {
    /// A line.
    Line {
        /// When it was completed, in milliseconds since 1970.
        unix_ms: i64,
        /// Its bytes, without `\n`.
        text: &'b [u8],
    },
    /// The cursor has read all there is.
    End,
    /// The ring has dropped lines that the cursor had not read.
    Lost,
}

impl Ring {
    /// Complete lines held.
    #[must_use]
    pub fn lines(&self) -> usize {
        usize::from(self.lines)
    }

    /// Blocks held.
    #[must_use]
    pub fn blocks(&self) -> usize {
        usize::from(self.blocks)
    }

    /// Appends to the line that is being written: bytes without `\n`, together at most [`LINE_BYTES_STORED_MAX`] a line.
    ///
    /// # Errors
    /// [`Full`]: a part of `bytes` is not kept.
    pub fn extend(&mut self, blocks: &mut Blocks<'_>, bytes: &[u8]) -> Result<(), Full> {
        while self.held().saturating_add(bytes.len()).saturating_add(TAIL_BYTES) > CONSOLE_BYTES_MAX {
            if !self.drop_oldest(blocks) {
                break;
            }
        }
        self.append(blocks, bytes)
    }

    /// Completes the line that is being written.
    ///
    /// # Errors
    /// [`Full`]: the line goes on.
    pub fn complete(&mut self, blocks: &mut Blocks<'_>, unix_ms: i64) -> Result<(), Full> {
        while self.lines() >= CONSOLE_LINES_MAX || self.held().saturating_add(TAIL_BYTES) > CONSOLE_BYTES_MAX {
            if !self.drop_oldest(blocks) {
                break;
            }
        }
        let mut tail = [b'\n'; TAIL_BYTES];
        if let Some(time) = tail.last_chunk_mut() {
            *time = unix_ms.to_le_bytes();
        }
        if blocks.free_count() == 0 && self.room() < TAIL_BYTES {
            return Err(Full);
        }
        self.append(blocks, &tail)?;
        self.complete = self.end;
        self.lines = self.lines.saturating_add(1);
        Ok(())
    }

    /// Drops the oldest line; false when there is no complete one.
    pub fn drop_oldest(&mut self, blocks: &mut Blocks<'_>) -> bool {
        let mut cursor = self.oldest();
        if self.step(blocks, &mut cursor, |_| {}).is_none() {
            return false;
        }
        self.release(blocks, cursor.at);
        self.lines = self.lines.saturating_sub(1);
        true
    }

    /// Gives all blocks back. The ring is then as new: cursors into it are void.
    pub fn clear(&mut self, blocks: &mut Blocks<'_>) {
        self.release(blocks, self.end.next_multiple_of(BLOCK));
        *self = Self::default();
    }

    /// Before the oldest line.
    #[must_use]
    pub fn oldest(&self) -> Cursor {
        Cursor { at: self.start, block: self.head }
    }

    /// Before the last `count` lines, or before the oldest.
    #[must_use]
    pub fn last(&self, blocks: &Blocks<'_>, count: usize) -> Cursor {
        let mut cursor = self.oldest();
        for _ in count..self.lines() {
            self.step(blocks, &mut cursor, |_| {});
        }
        cursor
    }

    /// Before the first line that is not earlier than this time, or after the last line.
    #[must_use]
    pub fn since(&self, blocks: &Blocks<'_>, unix_ms: i64) -> Cursor {
        let mut cursor = self.oldest();
        let mut next = cursor;
        while self.step(blocks, &mut next, |_| {}).is_some_and(|line_ms| line_ms < unix_ms) {
            cursor = next;
        }
        cursor
    }

    /// Whether nothing that the cursor has not read was dropped.
    #[must_use]
    pub fn holds(&self, cursor: &Cursor) -> bool {
        cursor.at >= self.start
    }

    /// Reads the next line into `buffer` and moves the cursor behind it.
    pub fn next_line<'b>(
        &self,
        blocks: &Blocks<'_>,
        cursor: &mut Cursor,
        buffer: &'b mut [u8; LINE_BYTES_STORED_MAX],
    ) -> Next<'b> {
        if !self.holds(cursor) {
            return Next::Lost;
        }
        let mut len = 0_usize;
        let unix_ms = self.step(blocks, cursor, |bytes| {
            for (place, byte) in buffer.iter_mut().skip(len).zip(bytes) {
                *place = *byte;
            }
            len = len.saturating_add(bytes.len());
        });
        match unix_ms {
            Some(unix_ms) => Next::Line { unix_ms, text: buffer.get(..len).unwrap_or_default() },
            None => Next::End,
        }
    }

    /// Bytes held.
    fn held(&self) -> usize {
        usize::try_from(self.end.saturating_sub(self.start)).unwrap_or(usize::MAX)
    }

    /// Bytes free in the last block.
    fn room(&self) -> usize {
        usize::try_from(self.end.next_multiple_of(BLOCK).saturating_sub(self.end)).unwrap_or(0)
    }

    fn append(&mut self, blocks: &mut Blocks<'_>, mut bytes: &[u8]) -> Result<(), Full> {
        while !bytes.is_empty() {
            if self.room() == 0 {
                let next = blocks.take()?;
                if self.blocks == 0 {
                    self.head = next;
                } else {
                    blocks.set_link(self.tail, next);
                }
                self.tail = next;
                self.blocks = self.blocks.saturating_add(1);
            }
            let payload = blocks.payload_mut(self.tail).get_mut(offset(self.end)..).unwrap_or_default();
            let (here, rest) = bytes.split_at_checked(payload.len()).unwrap_or((bytes, &[]));
            for (place, byte) in payload.iter_mut().zip(here) {
                *place = *byte;
            }
            self.end = self.end.saturating_add(here.len() as u64);
            bytes = rest;
        }
        Ok(())
    }

    /// Moves the start forward and gives back the blocks before it.
    fn release(&mut self, blocks: &mut Blocks<'_>, start: u64) {
        let passed = (start / BLOCK).saturating_sub(self.start / BLOCK);
        for _ in 0..passed {
            let Some(left) = self.blocks.checked_sub(1) else { break };
            let next = blocks.link(self.head);
            blocks.give_back(self.head);
            self.head = next;
            self.blocks = left;
        }
        self.start = start;
    }

    /// Moves over one complete line, whose bytes go to `take` in order; its time, or nothing where there is none.
    fn step(&self, blocks: &Blocks<'_>, cursor: &mut Cursor, mut take: impl FnMut(&[u8])) -> Option<i64> {
        loop {
            let run = self.run(blocks, cursor)?;
            let mut parts = run.splitn(2, |byte| *byte == b'\n');
            let text = parts.next().unwrap_or_default();
            take(text);
            let ended = parts.next().is_some();
            cursor.at = cursor.at.saturating_add(text.len() as u64).saturating_add(u64::from(ended));
            if ended {
                break;
            }
        }
        let mut time = [0_u8; 8];
        let mut rest = &mut time[..];
        while !rest.is_empty() {
            let run = self.run(blocks, cursor)?;
            let count = run.len().min(rest.len());
            let (here, after) = core::mem::take(&mut rest).split_at_mut_checked(count)?;
            here.copy_from_slice(run.get(..count)?);
            cursor.at = cursor.at.saturating_add(count as u64);
            rest = after;
        }
        Some(i64::from_le_bytes(time))
    }

    /// The bytes from the cursor to the end of its block or of the complete lines; nothing at that end. The caller must
    /// move over at least one of them before it asks again.
    fn run<'s>(&self, blocks: &'s Blocks<'_>, cursor: &mut Cursor) -> Option<&'s [u8]> {
        let left = self.complete.checked_sub(cursor.at).filter(|left| *left > 0)?;
        if cursor.at == self.start {
            cursor.block = self.head;
        } else if offset(cursor.at) == 0 {
            cursor.block = blocks.link(cursor.block);
        }
        let run = blocks.payload(cursor.block).get(offset(cursor.at)..)?;
        let count = usize::try_from(left).map_or(run.len(), |left| left.min(run.len()));
        run.get(..count).filter(|run| !run.is_empty())
    }
}

/// Where in its block a position is.
fn offset(position: u64) -> usize {
    usize::try_from(position % BLOCK).unwrap_or(0)
}
