//! The content of block devices: each is a number, that of the request that brought it, and 0 where nobody has. A crash may bring the one
//! before back while the last one is not known to be durable.

use std::collections::BTreeSet;

use fulmar_core::limits::TRANSFERS_MAX;
use fulmar_core::machine::{BlockFileError, BlockStage, Input, Source, Transfer};
use fulmar_core::name::Name;

use super::{Crash, Violation, World};
use crate::ask::Wish;

/// What is on a block device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OnDisk {
    /// What who reads it finds.
    pub now: u64,
    /// What may be there after a crash instead.
    pub before: u64,
}

impl OnDisk {
    /// This, durably.
    #[must_use]
    pub fn durable(now: u64) -> Self {
        Self { now, before: now }
    }
}

/// A set that was given out.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Which slot asked.
    pub slot: u16,
    /// Its name.
    pub name: Name,
    /// What is to be on it.
    pub content: u64,
}

/// A client that reads a block device.
#[derive(Clone, Debug)]
pub struct Dump {
    /// The slot of the block device.
    pub slot: u16,
    /// Its name.
    pub name: Name,
}

/// How a set ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetFate {
    /// The new content is there, durably.
    Done,
    /// The old one is: it was too much, damaged, cut off, or the disk is full.
    Refused,
    /// The new one is there, and may go with a crash.
    Unsettled,
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> World<U, P, B, C, A> {
    /// The machine wants another content.
    pub(super) fn take_setting(&mut self, slot: u16, source: Source) -> Result<(), Violation> {
        let Some(block) = self.machine.block(slot) else { return Err("an empty slot".into()) };
        let name = *block.name();
        if self.settings.iter().any(|setting| setting.name == name) || self.dumps.iter().any(|dump| dump.name == name) {
            return Err("somebody has to do with its content".into());
        }
        if self.processes.values().any(|process| !process.killed && process.blocks.contains(&name)) {
            return Err("a process has it".into());
        }
        let content = match source {
            Source::Chunks { connection } => {
                let client = self.clients.get(usize::from(connection)).and_then(Option::as_ref);
                client.ok_or("chunks of nobody")?.sequence
            }
            Source::Message(content) => content.map_or(0, |content| u64::from(content.spool)),
        };
        self.settings.push(Setting { slot, name, content });
        Ok(())
    }

    /// A client is handed out the content of this slot.
    pub(super) fn take_dump(&mut self, slot: u16) -> Result<(), Violation> {
        let Some(block) = self.machine.block(slot) else { return Err("an empty slot".into()) };
        let name = *block.name();
        if self.settings.iter().any(|setting| setting.name == name) {
            return Err("it is being set".into());
        }
        self.dumps.push(Dump { slot, name });
        Ok(())
    }

    pub(super) fn end_setting(&mut self, index: usize, fate: SetFate) -> Result<(), Violation> {
        if index >= self.settings.len() || (fate == SetFate::Unsettled && !self.spend_fault()) {
            return Ok(());
        }
        if self.crashes_before() {
            return self.crash(Crash::PLAIN);
        }
        let Setting { slot, name, content } = self.settings.remove(index);
        let on_disk = self.contents.entry(name).or_default();
        let outcome = match fate {
            SetFate::Done => {
                *on_disk = OnDisk::durable(content);
                Ok(())
            }
            SetFate::Refused => Err(BlockFileError::Cut),
            SetFate::Unsettled => {
                *on_disk = OnDisk { now: content, before: on_disk.now };
                Err(BlockFileError::Unsettled(5))
            }
        };
        self.mark(match fate {
            SetFate::Done => "content set",
            SetFate::Refused => "content refused",
            SetFate::Unsettled => "content unsettled",
        });
        if self.crashes_after() {
            // What it was to be is still asked for: nobody was told.
            return self.crash(Crash::PLAIN);
        }
        self.handle(Input::ContentSet { slot, outcome })
    }

    pub(super) fn end_dump(&mut self, index: usize) -> Result<(), Violation> {
        if index >= self.dumps.len() {
            return Ok(());
        }
        let Dump { slot, .. } = self.dumps.remove(index);
        self.mark("dumped");
        self.handle(Input::Dumped { slot })
    }

    /// What of the contents is left after a crash.
    pub(super) fn lose_contents(&mut self, crash: Crash) {
        for setting in self.settings.drain(..).take(usize::from(crash.stored)) {
            self.contents.insert(setting.name, OnDisk::durable(setting.content));
        }
        self.dumps.clear();
        for on_disk in self.contents.values_mut() {
            *on_disk = OnDisk::durable(if crash.written > 0 { on_disk.now } else { on_disk.before });
        }
    }

    /// What is on this block device is what clients know, or what one is asking for.
    ///
    /// # Errors
    /// What is there instead.
    pub(crate) fn check_content(&self, name: &Name) -> Result<(), Violation> {
        let (Some(known), Some(on_disk)) = (self.known.contents.get(name), self.contents.get(name)) else {
            return Ok(());
        };
        let waiting = self.clients.iter().flatten().chain(&self.orphans).filter(|question| question.ask.name == *name);
        let asked: BTreeSet<u64> = waiting
            .filter(|question| matches!(question.ask.wish, Wish::BlockSet | Wish::BlockOldSet(_)))
            .map(|question| question.content())
            .collect();
        let allowed = |content: u64| known.contains(&content) || asked.contains(&content);
        if allowed(on_disk.now) && allowed(on_disk.before) {
            return Ok(());
        }
        Err(format!("block device {name} holds {on_disk:?}, clients know {known:?} and ask for {asked:?}"))
    }
}

/// Who has to do with contents, and what the machine knows of it, are the same.
///
/// # Errors
/// What is not.
pub(crate) fn check<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    if world.settings.len() + world.dumps.len() > usize::from(TRANSFERS_MAX) {
        return Err("more block devices are set and dumped than may be".into());
    }
    for (slot, block) in world.machine.blocks() {
        let sets = world.settings.iter().filter(|setting| setting.slot == slot).count();
        let dumps = world.dumps.iter().filter(|dump| dump.slot == slot).count();
        let expected = match (sets, dumps) {
            (0, 0) => Transfer::None,
            (1, 0) => Transfer::Set,
            (0, dumps) => Transfer::Dumps(u16::try_from(dumps).unwrap_or(u16::MAX)),
            _ => return Err(format!("block device {} is set {sets} times and dumped {dumps} times", block.name())),
        };
        if block.transfer() != expected {
            return Err(format!("block device {} is in {:?}, not {expected:?}", block.name(), block.transfer()));
        }
        if expected != Transfer::None && (block.holder().is_some() || block.stage() != BlockStage::Kept) {
            return Err(format!("block device {} is in {expected:?} and somebody else's", block.name()));
        }
        let names = |process: &super::Process| !process.killed && process.blocks.contains(block.name());
        if expected != Transfer::None && world.processes.values().any(names) {
            return Err(format!("block device {} is in {expected:?} and a process has it", block.name()));
        }
        world.check_content(block.name())?;
    }
    Ok(())
}
