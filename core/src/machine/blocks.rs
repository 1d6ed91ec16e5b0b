//! Block devices come and go, and unikernels take hold of them.
//!
//! One that a unikernel names is its own from the admission of the create until the unikernel is gone for good, also while
//! it rests. So no two ever have the same, and none is removed under a unikernel that is to run again.

use super::arguments::DeviceName;
use super::block::{Block, BlockFile, BlockRefused, BlockStage, Transfer};
use super::outcome::{BlockFileError, JournalError};
use super::refusal::Refusal;
use super::table::Named;
use super::{Change, DUE_MAX, Done, Effect, Machine, Now, Reply, Source, Spooled, Waiting};
use crate::halves::is_zvol;
use crate::limits::{BLOCK_MB_MAX, DEVICES_MAX, REST_MS_MAX, REST_MS_MIN};
use crate::name::Name;
use crate::wire::{Arguments, BlockCommand, BlockDevice, Kind};

/// Slots of the block devices of one unikernel.
pub(super) type BlockSlots = heapless::Vec<u16, DEVICES_MAX>;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    pub(super) fn block_command(
        &mut self,
        connection: u16,
        name: &Name,
        command: &BlockCommand<'_>,
        content: Option<Spooled>,
    ) {
        let begun = match command {
            BlockCommand::Info => {
                let known = name.is_path() || self.find_block(name).is_some_and(|(_, block)| block.is_listed());
                let not_found = Reply::Refused(Refusal::Block(BlockRefused::InfoNotFound));
                return self.answer(connection, if known { Reply::Blocks } else { not_found });
            }
            BlockCommand::Add { size } => {
                self.begin_add(name, *size).map(|slot| (slot, Some(Effect::MakeBlock { slot, content: None })))
            }
            BlockCommand::OldAdd { size, compressed, data } => {
                self.begin_old_add(name, *size, *compressed, data.as_ref(), content)
            }
            BlockCommand::Remove => self.begin_remove(name),
            BlockCommand::Set { .. } => self.begin_set_content(name, Source::Chunks { connection }),
            BlockCommand::OldSet { compressed, data } => self.begin_old_set(name, *compressed, data, content),
            BlockCommand::Dump { level } => return self.dump(connection, name, *level, false),
            BlockCommand::OldDump { level } => return self.dump(connection, name, *level, true),
        };
        match begun {
            Ok((slot, effect)) => {
                self.wait(connection, Waiting::Block(slot));
                if let Some(effect) = effect {
                    self.effect(effect);
                }
            }
            Err(refusal) => self.refuse(connection, refusal),
        }
    }

    /// The first rung: all checks, the charge.
    pub(super) fn begin_add(&mut self, name: &Name, size: i64) -> Result<u16, Refusal> {
        let refused = |refused| Err(Refusal::Block(refused));
        if name.is_path() {
            return refused(BlockRefused::Path);
        }
        let size_mb = match u64::try_from(size) {
            Ok(size_mb) if size > 0 && size <= BLOCK_MB_MAX => size_mb,
            Ok(_) if size > 0 => return refused(BlockRefused::Overflow),
            _ => return refused(BlockRefused::Size(size)),
        };
        if let Some((_, block)) = self.find_block(name) {
            let there = block.stage == BlockStage::Kept;
            return refused(if there { BlockRefused::Exists } else { BlockRefused::Busy });
        }
        self.ledger.admit_block(name, size_mb).map_err(Refusal::Admission)?;
        let block = Block { name: *name, stage: BlockStage::Making, size_mb, ..Block::EMPTY };
        let slot = self.blocks.insert(block).map_err(|_| Refusal::Block(BlockRefused::Full))?;
        self.ledger.charge_block(name, size_mb);
        Ok(slot)
    }

    fn begin_remove(&mut self, name: &Name) -> Result<(u16, Option<Effect>), Refusal> {
        let Some(slot) = self.blocks.find(name) else { return Err(Refusal::Block(BlockRefused::RemoveNotFound)) };
        let block = self.blocks.get_mut(slot).ok_or(Refusal::Block(BlockRefused::RemoveNotFound))?;
        match block.stage {
            BlockStage::Kept if block.held => Err(Refusal::Block(BlockRefused::RemoveInUse)),
            BlockStage::Kept if block.transfer != Transfer::None => Err(Refusal::Block(BlockRefused::Transfer)),
            BlockStage::Kept => {
                block.stage = BlockStage::Dropping;
                Ok((slot, Some(Effect::Append(Change::BlockGone(slot)))))
            }
            BlockStage::Dropping => Ok((slot, None)),
            BlockStage::Free
            | BlockStage::Making
            | BlockStage::Recording
            | BlockStage::Undoing(_)
            | BlockStage::Removing => Err(Refusal::Block(BlockRefused::Busy)),
        }
    }

    /// The file is there, durably and of its size; or nothing is.
    pub(super) fn block_made(&mut self, slot: u16, outcome: Result<(), BlockFileError>) {
        let Some(block) = self.blocks.get_mut(slot).filter(|it| it.stage == BlockStage::Making) else { return };
        match outcome {
            Ok(()) => {
                block.stage = BlockStage::Recording;
                block.file = BlockFile::Sound;
                self.effect(Effect::Append(Change::Block(slot)));
            }
            Err(error) => self.free_block(slot, Reply::Refused(Refusal::Block(BlockRefused::File(error)))),
        }
    }

    /// The record is durable: the block device is acknowledged. Or it is not, and is undone.
    pub(super) fn block_recorded(&mut self, now: Now, slot: u16, outcome: Result<(), JournalError>) {
        let Some(block) = self.blocks.get_mut(slot).filter(|it| it.stage == BlockStage::Recording) else { return };
        let reply = match outcome {
            Ok(()) => {
                block.stage = BlockStage::Kept;
                Reply::Done(Done::AddedBlock)
            }
            Err(error) => {
                let at = now.ms.saturating_add(REST_MS_MIN);
                block.stage = BlockStage::Undoing(at);
                self.undoing = self.undoing.saturating_add(1);
                self.set_alarm(at);
                Reply::Refused(Refusal::Journal(error))
            }
        };
        self.answer_all(Waiting::Block(slot), reply);
    }

    /// The removal of the record is durable, or it is not.
    pub(super) fn block_dropped(&mut self, slot: u16, outcome: Result<(), JournalError>) {
        // One that is being undone goes when the journal is sure, whatever made it so.
        let Some(block) = self.blocks.get_mut(slot).filter(|it| it.stage == BlockStage::Dropping) else { return };
        match outcome {
            Ok(()) => {
                block.stage = BlockStage::Removing;
                self.effect(Effect::RemoveBlock { slot });
            }
            Err(error) => {
                block.stage = BlockStage::Kept;
                self.answer_all(Waiting::Block(slot), Reply::Refused(Refusal::Journal(error)));
            }
        }
    }

    /// The file is gone, or will be at the next start.
    pub(super) fn block_removed(&mut self, slot: u16) {
        if self.blocks.get(slot).is_some_and(|block| block.stage == BlockStage::Removing) {
            self.free_block(slot, Reply::Done(Done::RemovedBlock));
        }
    }

    fn free_block(&mut self, slot: u16, reply: Reply) {
        let Some((name, size_mb)) = self.blocks.get(slot).map(|block| (block.name, block.size_mb)) else { return };
        self.answer_all(Waiting::Block(slot), reply);
        self.blocks.remove(slot);
        self.ledger.release_block(&name, size_mb);
    }

    /// Removes the files of creations that failed in the journal, as soon as no crash can bring their records back.
    pub(super) fn undo_blocks(&mut self, now: Now) {
        if self.unsure || self.undoing == 0 {
            return;
        }
        for index in 0..self.blocks.len() {
            let Some(slot) = self.blocks.all().get(index).copied() else { continue };
            let Some(block) = self.blocks.get_mut(slot) else { continue };
            if !matches!(block.stage, BlockStage::Undoing(_)) {
                continue;
            }
            // One input causes a bounded number of effects: the rest is due at once.
            if self.effects.len() >= DUE_MAX {
                return self.set_alarm(now.ms);
            }
            block.stage = BlockStage::Removing;
            self.undoing = self.undoing.saturating_sub(1);
            self.effect(Effect::RemoveBlock { slot });
        }
    }

    /// Writes the journal where nobody else does, so that what has failed in it comes to its end.
    pub(super) fn tick_blocks(&mut self, now: Now) {
        if self.undoing == 0 {
            return;
        }
        for index in 0..self.blocks.len() {
            let Some(slot) = self.blocks.all().get(index).copied() else { continue };
            let Some(block) = self.blocks.get_mut(slot) else { continue };
            let BlockStage::Undoing(at) = block.stage else { continue };
            if at > now.ms {
                self.set_alarm(at);
                continue;
            }
            let at = now.ms.saturating_add(REST_MS_MAX);
            block.stage = BlockStage::Undoing(at);
            self.set_alarm(at);
            // Any record makes the journal sure for all, also one that a slow disk still has to write.
            if self.unsure && self.appending == 0 && self.effects.is_empty() {
                self.effect(Effect::Append(Change::BlockGone(slot)));
            }
        }
    }

    /// The block device of this name.
    #[must_use]
    pub fn find_block(&self, name: &Name) -> Option<(u16, &Block)> {
        let slot = self.blocks.find(name)?;
        Some((slot, self.blocks.get(slot)?))
    }

    /// The block device in a slot.
    #[must_use]
    pub fn block(&self, slot: u16) -> Option<&Block> {
        self.blocks.get(slot).filter(|block| block.stage != BlockStage::Free)
    }

    /// All block devices, in the order of listings.
    pub fn blocks(&self) -> impl Iterator<Item = (u16, &Block)> {
        self.blocks.iter()
    }

    /// What a device of the unikernel of this name is on the host: it lies in the unikernel's own path.
    #[must_use]
    pub fn block_of(&self, name: &Name, device: &BlockDevice<'_>) -> Option<(u16, &Block)> {
        self.find_block(&name.path().join(device.host()).ok()?)
    }

    /// The block devices that a create names, if it may have them all; those that `old` has, whose place it takes, are
    /// its own when that is gone.
    pub(super) fn blocks_to_hold(
        &self,
        kind: Kind,
        name: &Name,
        arguments: &Arguments<'_>,
        old: Option<u16>,
    ) -> Result<BlockSlots, Refusal> {
        let mut slots = BlockSlots::new();
        for device in arguments.block_devices {
            let label = DeviceName::cut(device.host().as_bytes());
            if kind == Kind::Bhyve && is_zvol(device.host()) {
                self.check_zvol(name, &device, old)?;
                continue;
            }
            let found = self.block_of(name, &device).filter(|(_, block)| block.stage == BlockStage::Kept);
            let refused = match found {
                None => BlockRefused::Missing(label),
                Some((slot, block)) if slots.contains(&slot) || (block.held && Some(block.holder) != old) => {
                    BlockRefused::InUse(label)
                }
                Some((_, block)) if block.transfer != Transfer::None => BlockRefused::InTransfer(label),
                Some((slot, block)) if block.file == BlockFile::Sound => {
                    // As many as devices, which were counted.
                    let _ = slots.push(slot);
                    continue;
                }
                Some((_, block)) => BlockRefused::Damaged(label, block.file),
            };
            return Err(Refusal::Block(refused));
        }
        Ok(slots)
    }

    /// Gives free block devices to a unikernel.
    pub(super) fn hold_blocks(&mut self, holder: u16, slots: &[u16]) {
        for slot in slots {
            if let Some(block) = self.blocks.get_mut(*slot).filter(|block| !block.held) {
                (block.held, block.holder) = (true, holder);
            }
        }
    }

    /// Gives a unikernel what it names: one that is restored, or one that has taken its place.
    pub(super) fn hold_named_blocks(&mut self, holder: u16) {
        let slots = self.named_blocks(holder);
        self.hold_blocks(holder, &slots);
    }

    /// Takes away all that a unikernel holds: it is gone for good.
    pub(super) fn let_go_of_blocks(&mut self, holder: u16) {
        for slot in self.named_blocks(holder) {
            if let Some(block) = self.blocks.get_mut(slot).filter(|block| block.held && block.holder == holder) {
                (block.held, block.holder) = (false, 0);
            }
        }
    }

    fn named_blocks(&self, slot: u16) -> BlockSlots {
        let mut slots = BlockSlots::new();
        let (Some(unikernel), Some(arguments)) = (self.unikernels.get(slot), self.arguments(slot)) else {
            return slots;
        };
        for device in arguments.block_devices {
            if let Some((slot, _)) = self.block_of(&unikernel.name, &device) {
                // As many as devices, which were counted.
                let _ = slots.push(slot);
            }
        }
        slots
    }
}
