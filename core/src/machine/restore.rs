//! Coming back: what the journal says is desired, what of it still runs, and bringing up the rest.

use core::fmt;

use super::arguments::Needs;
use super::bhyve::kind_of;
use super::block::{Block, BlockFile, BlockStage};
use super::ledger::Charge;
use super::outcome::{End, Exit, Trouble};
use super::refusal::Refusal;
use super::table::Named;
use super::unikernel::{Again, Life, Stage, Unikernel};
use super::{Change, Effect, Machine, Now, Reply};
use crate::halves::{Tender, Unit};
use crate::journal::Record;
use crate::limits::{BLOCK_MB_MAX, REST_MS_MAX, REST_MS_MIN, STARTUP_DEFAULT};
use crate::name::Name;
use crate::policy::Policy;
use crate::wire;

/// A record of the journal that does not fit this build: nothing may be dropped silently, so the start ends here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreError {
    /// A name that is none.
    Name,
    /// Arguments or a policy that do not decode, or a block device of no size.
    Content,
    /// A kind of tender that this build does not know.
    Tender(u8),
    /// More than this build has room for.
    Full,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("a record has an invalid name"),
            Self::Content => f.write_str("a record's arguments, policy or size do not decode"),
            Self::Tender(kind) => write!(f, "a record needs tender kind {kind}, which this version does not know"),
            Self::Full => f.write_str("the journal has more records than this version has room for"),
        }
    }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// Takes in one record of the journal, in their order, before anything else.
    ///
    /// # Errors
    /// [`RestoreError`]: the caller must not go on.
    pub fn restore(&mut self, record: &Record<'_>) -> Result<(), RestoreError> {
        let parse = |text: &str| Name::parse(text).map_err(|_| RestoreError::Name);
        match *record {
            Record::Unikernel { name, unit, digest, image_bytes, target, arguments } => {
                let name = parse(name)?;
                self.forget(&name);
                self.restore_unikernel(name, unit, digest, image_bytes, target, arguments)
            }
            Record::UnikernelGone { name } => {
                self.forget(&parse(name)?);
                Ok(())
            }
            Record::Policy { path, policy } => {
                let policy = wire::Policy::decode(policy).map_err(|_| RestoreError::Content)?;
                let policy = Policy::try_from(&policy).map_err(|_| RestoreError::Content)?;
                self.ledger.restore(parse(path)?, policy).map_err(|_| RestoreError::Full)
            }
            Record::PolicyGone { path } => {
                self.ledger.forget(&parse(path)?);
                Ok(())
            }
            Record::Block { name, size_mb } => {
                let name = parse(name)?;
                self.forget_block(&name);
                self.restore_block(name, size_mb)
            }
            Record::BlockGone { name } => {
                self.forget_block(&parse(name)?);
                Ok(())
            }
        }
    }

    fn forget_block(&mut self, name: &Name) {
        if let Some(slot) = self.blocks.find(name) {
            self.blocks.remove(slot);
        }
    }

    /// Whether its file is there, the caller has still to say.
    fn restore_block(&mut self, name: Name, size_mb: u64) -> Result<(), RestoreError> {
        let is_size = i64::try_from(size_mb).is_ok_and(|mb| mb > 0 && mb <= BLOCK_MB_MAX);
        if name.is_path() || !is_size {
            return Err(RestoreError::Content);
        }
        let block = Block { name, stage: BlockStage::Kept, size_mb, ..Block::EMPTY };
        self.blocks.insert(block).map(|_| ()).map_err(|_| RestoreError::Full)
    }

    /// What was found of the file of a restored block device.
    pub(super) fn block_file(&mut self, slot: u16, bytes: Option<u64>) {
        if let Some(block) = self.blocks.get_mut(slot) {
            block.file = match bytes {
                None => BlockFile::Missing,
                Some(bytes) if bytes == block.bytes() => BlockFile::Sound,
                Some(bytes) => BlockFile::Bytes(bytes),
            };
        }
    }

    fn forget(&mut self, name: &Name) {
        if let Some(slot) = self.unikernels.find(name) {
            self.discard(slot);
        }
    }

    fn restore_unikernel(
        &mut self,
        name: Name,
        unit: u64,
        digest: [u8; 32],
        image_bytes: u64,
        target: u8,
        arguments: &[u8],
    ) -> Result<(), RestoreError> {
        let tender = match target {
            1 => Tender::Hvt,
            2 => Tender::Spt,
            3 => Tender::Bhyve,
            other => return Err(RestoreError::Tender(other)),
        };
        let decoded = wire::Arguments::decode(arguments).map_err(|_| RestoreError::Content)?;
        let needs = Needs::of(kind_of(tender), &decoded).map_err(|_| RestoreError::Content)?;
        let span = self.keep_arguments(&decoded).map_err(|_| RestoreError::Full)?;
        self.last_unit = self.last_unit.max(unit);
        let unikernel = Unikernel {
            name,
            stage: Stage::Kept,
            stored: tender != Tender::Bhyve,
            tender,
            unit,
            span,
            digest,
            image_bytes,
            memory_mb: needs.memory_mb,
            networks: needs.networks(),
            startup: decoded.startup.unwrap_or(STARTUP_DEFAULT),
            ..Unikernel::EMPTY
        };
        self.unikernels.insert(unikernel).map(|_| ()).map_err(|_| RestoreError::Full)
    }

    /// A process of a predecessor: kept where a record names it, ended where none does. One that is desired and was told to
    /// end was to be started anew, or to make way for one that was not recorded any more: when it has ended, it runs again.
    pub(super) fn survivor(&mut self, now: Now, unit: Unit, account: u16, started_wall_ms: i64, told: bool) {
        self.last_unit = self.last_unit.max(unit.0);
        let Some(slot) = self.find_unit(unit).map(|(slot, _)| slot) else {
            self.strays.insert(account);
            return self.effect(Effect::Signal { unit, kill: true });
        };
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.life = Life::Alive;
            unikernel.account = account;
            unikernel.started_wall_ms = started_wall_ms;
            unikernel.started_ms = now.ms;
        }
        if told {
            self.await_end(now, slot);
        }
    }

    /// A process of a predecessor has ended before it could be watched again: what follows is what would have followed.
    pub(super) fn ended_unwatched(&mut self, now: Now, unit: Unit, exit: Exit) {
        self.last_unit = self.last_unit.max(unit.0);
        let Some(slot) = self.find_unit(unit).map(|(slot, _)| slot) else { return };
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.trouble = Trouble::Ended(exit);
            unikernel.last_end = End::Exit(exit);
            unikernel.ended_wall_ms = now.wall_ms;
        }
        self.ended(now, slot, exit);
    }

    /// Brings up what is desired and does not run. What runs is charged even where the host has shrunk, and so are block
    /// devices; they are active as long as a unikernel that names them is desired.
    pub(super) fn start(&mut self, now: Now) {
        for slot in 0..u16::try_from(B).unwrap_or(u16::MAX) {
            if let Some((name, size_mb)) = self.block(slot).map(|block| (block.name, block.size_mb)) {
                self.ledger.charge_block(&name, size_mb);
            }
        }
        for slot in 0..u16::try_from(U).unwrap_or(u16::MAX) {
            self.hold_named_blocks(slot);
            let Some(unikernel) = self.unikernel(slot) else { continue };
            if unikernel.life == Life::Alive {
                let (name, usage) = (unikernel.name, unikernel.usage());
                self.ledger.charge(&name, usage);
                self.set_charged(slot);
            }
        }
        // Lower startup first, also where not all find room.
        while let Some(slot) = self.next_to_admit() {
            self.admit_restored(now, slot);
        }
        self.collect = true;
    }

    fn next_to_admit(&self) -> Option<u16> {
        // One that has ended since it was found again rests, or its record is being dropped.
        let waits = |it: &Unikernel| it.stage == Stage::Kept && !it.charged && it.again == Again::Never;
        let waiting = self.unikernels().filter(|(_, it)| waits(it));
        waiting.min_by_key(|(_, unikernel)| unikernel.startup).map(|(slot, _)| slot)
    }

    /// What the host did not allow before it may allow now: a bridge that came up later, above all.
    pub(super) fn retry_refused(&mut self, now: Now) {
        let is_refused =
            |it: &Unikernel| !it.charged && matches!((it.trouble, it.again), (Trouble::Refused(_), Again::Launch(_)));
        for slot in 0..u16::try_from(U).unwrap_or(u16::MAX) {
            if self.unikernel(slot).is_some_and(is_refused) {
                self.set_again(slot, Again::Launch(now.ms));
            }
        }
    }

    pub(super) fn set_rewriting(&mut self, slot: u16, rewriting: bool) {
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.rewriting = rewriting;
        }
    }

    fn set_charged(&mut self, slot: u16) {
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.charged = true;
        }
    }

    /// Charges a desired unikernel and queues it; or it rests, and says why.
    pub(super) fn admit_restored(&mut self, now: Now, slot: u16) {
        let Some(unikernel) = self.unikernel(slot) else { return };
        let (name, memory_mb, usage) = (unikernel.name, unikernel.memory_mb, unikernel.usage());
        if self.unsure {
            // A crash could bring back a policy that does not allow this. Once any record is durable it cannot: write the
            // one that is there already, and look again; not once more while a slow disk still has that to write. One input
            // causes a bounded number of effects.
            if !unikernel.rewriting && self.effects.len() < crate::limits::CONNECTIONS_MAX {
                self.effect(Effect::Append(Change::Unikernel(slot)));
                self.set_rewriting(slot, true);
            }
            return self.set_again(slot, Again::Launch(now.ms.saturating_add(REST_MS_MIN)));
        }
        let kind = kind_of(unikernel.tender);
        let admitted = match self.arguments(slot).map(|arguments| Needs::of(kind, &arguments)) {
            Some(Ok(needs)) => {
                let charge = Charge { memory_mb, cpus: &needs.cpus, bridges: &needs.bridges };
                self.ledger.admit(&name, &charge)
            }
            // It was decoded when it was restored.
            _ => Ok(()),
        };
        match admitted {
            Ok(()) => {
                self.ledger.charge(&name, usage);
                self.set_charged(slot);
                self.set_again(slot, Again::Queued);
            }
            Err(refused) => {
                self.end_restart(slot, Reply::Refused(Refusal::Admission(refused)));
                if let Some(unikernel) = self.unikernels.get_mut(slot) {
                    unikernel.trouble = Trouble::Refused(refused);
                }
                self.set_again(slot, Again::Launch(now.ms.saturating_add(REST_MS_MAX)));
                // One input causes a bounded number of effects; beyond, the resting ones are seen in `info` alone.
                if self.effects.len() < crate::limits::CONNECTIONS_MAX {
                    self.effect(Effect::Rest { slot });
                }
            }
        }
    }
}
