//! One console: its stream goes through a splitter into its ring. And who gives way when the store that all share is full.

use super::blocks::{BLOCK_BYTES, Blocks, Full, PAYLOAD_BYTES};
use super::ring::{LINE_BYTES_STORED_MAX, Ring};
use super::splitter::{Piece, Splitter, TRUNCATED};
use crate::limits::{CONSOLE_PUSH_BYTES_MAX, CONSOLES_BYTES_MAX, CONSOLES_MAX};

/// Blocks that one [`History::push`] may take: each byte may be a line of its own with `\n` and time; one line is marked.
pub const PUSH_BLOCKS_MAX: usize = (CONSOLE_PUSH_BYTES_MAX * 9 + TRUNCATED.len() + 9).div_ceil(PAYLOAD_BYTES) + 1;

// In a full store the largest console holds at least the average: enough for one push besides the line that is being
// written, which cannot be dropped.
const _: () = assert!(
    CONSOLES_BYTES_MAX / BLOCK_BYTES / CONSOLES_MAX > PUSH_BLOCKS_MAX + LINE_BYTES_STORED_MAX.div_ceil(PAYLOAD_BYTES)
);

/// What a console has written, line by line.
#[derive(Debug)]
pub struct History {
    splitter: Splitter,
    ring: Ring,
}

impl Default for History {
    fn default() -> Self {
        Self { splitter: Splitter::NEW, ring: Ring::default() }
    }
}

impl History {
    /// The lines.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// More bytes, read at this time; at most [`CONSOLE_PUSH_BYTES_MAX`]. Call [`make_room`] before.
    ///
    /// # Errors
    /// [`Full`]: some of the bytes are not kept.
    pub fn push(&mut self, blocks: &mut Blocks<'_>, mut bytes: &[u8], unix_ms: i64) -> Result<(), Full> {
        let mut outcome = Ok(());
        while let Some(piece) = self.splitter.next_piece(&mut bytes) {
            let kept = match piece {
                Piece::Bytes(bytes) => self.ring.extend(blocks, bytes),
                Piece::End => self.ring.complete(blocks, unix_ms),
            };
            outcome = outcome.and(kept);
        }
        outcome
    }

    /// The stream has ended: what was written last is a line, with or without its `\n`. Call [`make_room`] before.
    ///
    /// # Errors
    /// [`Full`]: that line is not kept.
    pub fn finish(&mut self, blocks: &mut Blocks<'_>, unix_ms: i64) -> Result<(), Full> {
        if self.splitter.finish() { self.ring.complete(blocks, unix_ms) } else { Ok(()) }
    }

    /// Forgets everything and gives all blocks back.
    pub fn clear(&mut self, blocks: &mut Blocks<'_>) {
        self.splitter = Splitter::NEW;
        self.ring.clear(blocks);
    }
}

/// The domain whose consoles hold most together, of consoles each with its domain (the first label of its path, nothing for the
/// root path), those of a domain next to each other but for those of the root path.
pub fn fullest_domain<'n, 'h>(consoles: impl Iterator<Item = (Option<&'n str>, &'h History)>) -> Option<&'n str> {
    let (mut at_root, mut run, mut fullest) = (0_usize, (0_usize, None), (0_usize, None));
    for (domain, history) in consoles {
        let blocks = history.ring.blocks();
        if domain.is_none() {
            at_root = at_root.saturating_add(blocks);
            continue;
        }
        let before = if run.1 == domain { run.0 } else { 0 };
        run = (before.saturating_add(blocks), domain);
        fullest = if run.0 > fullest.0 { run } else { fullest };
    }
    if at_root > fullest.0 { None } else { fullest.1 }
}

/// Sees to it that one push finds its blocks. Where they are short, the console that holds most of these loses its oldest lines:
/// so nobody loses anything to one who writes more than others do.
///
/// Looks at each of them where blocks are short, and makes more room than is needed so that this is seldom.
pub fn make_room<'h>(blocks: &mut Blocks<'_>, consoles: impl Iterator<Item = &'h mut History>) {
    if !is_short(blocks) {
        return;
    }
    if let Some(largest) = consoles.max_by_key(|console| console.ring.blocks()) {
        while blocks.free_count() < 2 * PUSH_BLOCKS_MAX && largest.ring.drop_oldest(blocks) {}
    }
}

/// Whether one push might not find its blocks.
#[must_use]
pub fn is_short(blocks: &Blocks<'_>) -> bool {
    blocks.free_count() < PUSH_BLOCKS_MAX
}
