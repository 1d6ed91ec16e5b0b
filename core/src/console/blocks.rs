//! The store that all rings share: blocks of one size in memory that is handed in. What was never used is never touched,
//! so memory that the system gives out zeroed and lazily stays free of charge until lines come.

use core::fmt;

/// Bytes of a block, the link to the next one included. Small, because each console wastes half a block at either end.
pub const BLOCK_BYTES: usize = 512;

const LINK_BYTES: usize = 4;

/// Bytes of lines that a block holds.
pub(super) const PAYLOAD_BYTES: usize = BLOCK_BYTES - LINK_BYTES;

/// No block is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store of console lines is full")
    }
}

impl core::error::Error for Full {}

/// Which block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct BlockId(u32);

/// Blocks, free and taken.
#[derive(Debug)]
pub struct Blocks<'a> {
    blocks: &'a mut [[u8; BLOCK_BYTES]],
    /// Blocks from this one on were never taken.
    untouched: u32,
    /// Those that were given back, linked. The last one given is the first taken: its memory is already in use.
    free: BlockId,
    free_count: u32,
}

impl<'a> Blocks<'a> {
    /// A store in `memory`, whose content does not matter; what is left over at its end is not used.
    #[must_use]
    pub fn new(memory: &'a mut [u8]) -> Self {
        let (blocks, _) = memory.as_chunks_mut();
        Self { blocks, untouched: 0, free: BlockId::default(), free_count: 0 }
    }

    /// How many blocks can still be taken.
    #[must_use]
    pub fn free_count(&self) -> usize {
        let untouched = self.blocks.len().saturating_sub(usize::try_from(self.untouched).unwrap_or(usize::MAX));
        untouched.saturating_add(usize::try_from(self.free_count).unwrap_or(usize::MAX))
    }

    pub(super) fn take(&mut self) -> Result<BlockId, Full> {
        if let Some(rest) = self.free_count.checked_sub(1) {
            let taken = self.free;
            self.free = self.link(taken);
            self.free_count = rest;
            return Ok(taken);
        }
        if self.free_count() == 0 {
            return Err(Full);
        }
        let taken = BlockId(self.untouched);
        self.untouched = self.untouched.checked_add(1).ok_or(Full)?;
        Ok(taken)
    }

    pub(super) fn give_back(&mut self, block: BlockId) {
        self.set_link(block, self.free);
        self.free = block;
        self.free_count = self.free_count.saturating_add(1);
    }

    fn block(&self, block: BlockId) -> Option<&[u8; BLOCK_BYTES]> {
        self.blocks.get(usize::try_from(block.0).ok()?)
    }

    fn block_mut(&mut self, block: BlockId) -> Option<&mut [u8; BLOCK_BYTES]> {
        self.blocks.get_mut(usize::try_from(block.0).ok()?)
    }

    pub(super) fn link(&self, block: BlockId) -> BlockId {
        let link = self.block(block).and_then(|bytes| bytes.last_chunk()).copied().unwrap_or_default();
        BlockId(u32::from_le_bytes(link))
    }

    pub(super) fn set_link(&mut self, block: BlockId, next: BlockId) {
        if let Some(link) = self.block_mut(block).and_then(|bytes| bytes.last_chunk_mut()) {
            *link = next.0.to_le_bytes();
        }
    }

    /// What a block holds.
    pub(super) fn payload(&self, block: BlockId) -> &[u8] {
        self.block(block).and_then(|bytes| bytes.first_chunk::<PAYLOAD_BYTES>()).map_or(&[], |payload| payload)
    }

    pub(super) fn payload_mut(&mut self, block: BlockId) -> &mut [u8] {
        match self.block_mut(block).and_then(|bytes| bytes.first_chunk_mut::<PAYLOAD_BYTES>()) {
            Some(payload) => payload,
            None => &mut [],
        }
    }
}
