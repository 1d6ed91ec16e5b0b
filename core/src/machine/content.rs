//! The content of block devices is set and dumped.
//!
//! A content is set wholly or not at all, and only while nobody else has to do with the block device: no unikernel holds it,
//! no other client sets or reads it. Several may read it at once. The machine never sees a byte of it.

use super::arguments::DeviceName;
use super::block::{BlockFile, BlockRefused, BlockStage, Transfer};
use super::outcome::BlockFileError;
use super::refusal::Refusal;
use super::{Done, Effect, Machine, Reply, Source, Spooled, Waiting};
use crate::limits::{IMAGE_BYTES_MAX, TRANSFERS_MAX};
use crate::name::Name;
use crate::wire::Image;

/// The slot that a client waits for, and what is to be done.
type Begun = Result<(u16, Option<Effect>), Refusal>;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// As an add, with a content: both are there at once, or nothing is.
    pub(super) fn begin_old_add(
        &mut self,
        name: &Name,
        size: i64,
        compressed: bool,
        data: Option<&Image<'_>>,
        content: Option<Spooled>,
    ) -> Begun {
        let bytes = u64::try_from(size).unwrap_or(0).saturating_mul(1 << 20);
        if size > 0 {
            data.map_or(Ok(()), |data| check_whole(compressed, data, bytes))?;
        }
        let slot = self.begin_add(name, size)?;
        Ok((slot, Some(Effect::MakeBlock { slot, content })))
    }

    /// A content that came with the command.
    pub(super) fn begin_old_set(
        &mut self,
        name: &Name,
        compressed: bool,
        data: &Image<'_>,
        content: Option<Spooled>,
    ) -> Begun {
        if let Some((_, block)) = self.find_block(name) {
            check_whole(compressed, data, block.bytes())?;
        }
        self.begin_set_content(name, Source::Message(content))
    }

    /// From now on the block device is its client's alone.
    pub(super) fn begin_set_content(&mut self, name: &Name, source: Source) -> Begun {
        let (slot, transfer) = self.check_transfer(name, BlockRefused::SetNotFound, BlockRefused::SetInUse)?;
        if transfer != Transfer::None {
            return Err(Refusal::Block(BlockRefused::Transfer));
        }
        self.begin_transfer(slot, Transfer::Set)?;
        Ok((slot, Some(Effect::SetContent { slot, source })))
    }

    /// The new content is there, durably; or the old one still is.
    pub(super) fn content_set(&mut self, slot: u16, outcome: Result<(), BlockFileError>) {
        let Some(block) = self.blocks.get_mut(slot).filter(|it| it.transfer == Transfer::Set) else { return };
        block.transfer = Transfer::None;
        self.transfers = self.transfers.saturating_sub(1);
        let reply = match outcome {
            Ok(()) => {
                // What was wrong with its file before is not any more.
                block.file = BlockFile::Sound;
                Reply::Done(Done::SetBlock)
            }
            Err(error) => Reply::Refused(Refusal::Block(BlockRefused::File(error))),
        };
        self.answer_all(Waiting::Block(slot), reply);
    }

    /// Hands out the content, in chunks or in one reply.
    pub(super) fn dump(&mut self, connection: u16, name: &Name, level: i64, whole: bool) {
        let reply = match self.begin_dump(name, whole) {
            Ok(slot) => {
                let level = u8::try_from(level.clamp(0, 9)).unwrap_or(0);
                Reply::Dump { slot, level, whole }
            }
            Err(refusal) => Reply::Refused(refusal),
        };
        self.answer(connection, reply);
    }

    fn begin_dump(&mut self, name: &Name, whole: bool) -> Result<u16, Refusal> {
        let (slot, transfer) = self.check_transfer(name, BlockRefused::DumpNotFound, BlockRefused::DumpInUse)?;
        let dumps = match transfer {
            Transfer::None => 0,
            Transfer::Dumps(dumps) => dumps,
            Transfer::Set => return Err(Refusal::Block(BlockRefused::Transfer)),
        };
        if let Some(block) = self.block(slot) {
            if block.file != BlockFile::Sound {
                let label = DeviceName::cut(name.label().unwrap_or_default().as_bytes());
                return Err(Refusal::Block(BlockRefused::Damaged(label, block.file)));
            }
            if whole && block.bytes() > IMAGE_BYTES_MAX {
                return Err(Refusal::Block(BlockRefused::DumpTooLarge));
            }
        }
        self.begin_transfer(slot, Transfer::Dumps(dumps.saturating_add(1)))?;
        Ok(slot)
    }

    /// One client reads it no more.
    pub(super) fn dumped(&mut self, slot: u16) {
        let Some(block) = self.blocks.get_mut(slot) else { return };
        let Transfer::Dumps(dumps) = block.transfer else { return };
        block.transfer = if dumps > 1 { Transfer::Dumps(dumps.saturating_sub(1)) } else { Transfer::None };
        self.transfers = self.transfers.saturating_sub(1);
    }

    /// The block device of this name, if there is one that no unikernel holds.
    fn check_transfer(
        &self,
        name: &Name,
        not_found: BlockRefused,
        in_use: BlockRefused,
    ) -> Result<(u16, Transfer), Refusal> {
        let refused = match self.find_block(name) {
            None => not_found,
            Some((_, block)) if block.stage != BlockStage::Kept => BlockRefused::Busy,
            Some((_, block)) if block.held => in_use,
            Some((slot, block)) => return Ok((slot, block.transfer)),
        };
        Err(Refusal::Block(refused))
    }

    fn begin_transfer(&mut self, slot: u16, transfer: Transfer) -> Result<(), Refusal> {
        if self.transfers >= TRANSFERS_MAX {
            return Err(Refusal::Block(BlockRefused::TransfersFull));
        }
        if let Some(block) = self.blocks.get_mut(slot) {
            block.transfer = transfer;
            self.transfers = self.transfers.saturating_add(1);
        }
        Ok(())
    }
}

/// What can be said of a content in a message before anybody has looked at it.
fn check_whole(compressed: bool, data: &Image<'_>, bytes: u64) -> Result<(), Refusal> {
    let refused = |error| Err(Refusal::Block(BlockRefused::File(error)));
    match data.len() {
        0 if compressed => refused(BlockFileError::Compression),
        len if !compressed && len > bytes => refused(BlockFileError::TooLarge),
        _ => Ok(()),
    }
}
