//! `vmmd` dies and comes back; what was acknowledged must still be so.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_core::halves::Unit;
use fulmar_core::journal::Replay;
use fulmar_core::machine::{BlockFile, Exit, Input, Machine, Now, Stage};
use fulmar_core::name::Name;

use super::act::{root_policy, tenders};
use super::clients::Acknowledged;
use super::{Laid, OnDisk, Rest, StoreTask, Violation, World};
use crate::ask::Wish;
use crate::images::IMAGES;
use crate::oracle;

/// How it dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crash {
    /// How many of the appends that wait were being written.
    pub written: u8,
    /// What is left of them.
    pub rest: Rest,
    /// How many tasks of the image store were still carried out.
    pub stored: u8,
    /// How many launches were still carried out.
    pub launched: u8,
    /// Which processes die before the restart: every so many, 1 for all (the host was started again), 0 for none.
    pub dying: u8,
    /// Whether those end only when they have been found again.
    pub late: bool,
    /// How those that end before are known to have ended, if they left word.
    pub word: Option<Exit>,
    /// Milliseconds until it is back.
    pub away_ms: u16,
}

impl Crash {
    /// Nothing that was under way is carried out, and all processes go on.
    pub const PLAIN: Self =
        Self { written: 0, rest: Rest::Lost, stored: 0, launched: 0, dying: 0, late: false, word: None, away_ms: 100 };

    /// Some that stand for all.
    pub fn some() -> impl Iterator<Item = Self> {
        let rests = [Rest::Kept, Rest::Lost, Rest::Cut(200), Rest::Cut(20), Rest::Holed(10), Rest::Holed(130)];
        let all = Self { written: u8::MAX, stored: u8::MAX, launched: u8::MAX, ..Self::PLAIN };
        let kept = rests.into_iter().flat_map(move |rest| {
            [Self { written: 1, rest, ..Self::PLAIN }, Self { rest, ..all }, Self { rest, dying: 2, late: true, ..all }]
        });
        kept.chain([
            Self::PLAIN,
            Self { dying: 1, ..Self::PLAIN },
            Self { dying: 1, word: Some(Exit::Code(1)), ..Self::PLAIN },
            Self { dying: 2, word: Some(Exit::Code(64)), launched: 1, ..Self::PLAIN },
            Self { dying: 2, word: Some(Exit::OutOfMemory), away_ms: 20_000, ..Self::PLAIN },
            Self { launched: 1, away_ms: 20_000, ..Self::PLAIN },
            Self { stored: 1, late: true, dying: 3, ..Self::PLAIN },
            Self { late: true, dying: 1, away_ms: 20_000, ..Self::PLAIN },
        ])
    }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> World<U, P, B, C, A> {
    pub(super) fn crash(&mut self, crash: Crash) -> Result<(), Violation> {
        if self.crash_point.take().is_none() {
            if self.budget.crashes == 0 {
                return Ok(());
            }
            self.budget.crashes -= 1;
        }
        self.mark("crash");
        self.lose(crash)?;
        self.come_back(crash)
    }

    fn lose(&mut self, crash: Crash) -> Result<(), Violation> {
        let records = self.appends.drain(..).map(|append| append.record);
        let in_flight: Vec<Laid> = records.take(usize::from(crash.written)).collect();
        self.journal.crash(&in_flight, crash.rest);
        for task in self.store_tasks.drain(..).take(usize::from(crash.stored)) {
            match task {
                StoreTask::Store { image, .. } if IMAGES[image].facts.is_some() => {
                    self.images.insert(IMAGES[image].digest);
                }
                StoreTask::Store { .. } | StoreTask::Inspect { .. } => {}
                StoreTask::Release(digest) => {
                    self.images.remove(&digest);
                }
                StoreTask::Collect(keep) => self.images.retain(|digest| keep.contains(digest)),
                StoreTask::MakeBlock { name, size_mb, content, .. } => {
                    self.block_files.insert(name, size_mb);
                    self.contents.insert(name, OnDisk::durable(content));
                }
                StoreTask::RemoveBlock { name, .. } => {
                    self.block_files.remove(&name);
                    self.contents.remove(&name);
                }
            }
        }
        self.lose_contents(crash);
        for launch in self.launches.drain(..).take(usize::from(crash.launched)).collect::<Vec<_>>() {
            if !self.is_busy(&launch) {
                self.run_process(launch)?;
            }
        }
        self.ended.clear();
        self.faulted.clear();
        self.append_failed = false;
        let ms = u64::from(crash.away_ms);
        self.now = Now { ms: self.now.ms + ms, wall_ms: self.now.wall_ms + i64::from(crash.away_ms) };
        Ok(())
    }

    fn come_back(&mut self, crash: Crash) -> Result<(), Violation> {
        *self.machine = Machine::new();
        self.journal.open()?;
        let bytes = self.journal.bytes().to_vec();
        let mut replay = Replay::new(&bytes).map_err(|error| error.to_string())?;
        while let Some(entry) = replay.next_entry().map_err(|error| error.to_string())? {
            self.machine.restore(&entry.record).map_err(|error| format!("restore: {error}"))?;
        }
        self.check_what_was_known()?;
        // Nobody waits any more; what was so before is what the journal says.
        self.clients.fill(None);
        self.orphans.clear();
        self.relearn();
        self.find_blocks()?;
        let dying: Vec<u64> = match crash.dying {
            0 => Vec::new(),
            every => self.processes.keys().copied().step_by(usize::from(every)).collect(),
        };
        let told = self.processes.iter().filter(|(_, process)| process.terminated_ms.is_some());
        let told: BTreeSet<u64> = told.map(|(unit, _)| *unit).collect();
        if !crash.late {
            self.processes.retain(|unit, _| !dying.contains(unit));
        }
        let root = root_policy(self.host);
        let host = Input::Host { root: &root, tenders: tenders(self.host) };
        if !crash.late {
            self.handle(host)?;
        }
        for (unit, process) in self.processes.clone() {
            let kept = self.journal.state().unikernels.values().find(|kept| kept.unit == unit);
            // Where the loss of the label was lost, it is not known that the process runs without.
            let named = kept.is_some_and(|kept| oracle::unnamed(&kept.arguments) != kept.arguments);
            if let Some(found) = self.processes.get_mut(&unit) {
                // One that was told to end still is, and has its time for that once more.
                found.terminated_ms = found.terminated_ms.map(|_| self.now.ms);
                (found.killed, found.named) = (false, named);
            }
            let (unit, told) = (Unit(unit), process.terminated_ms.is_some());
            self.handle(Input::Survivor { unit, account: process.account, started_wall_ms: 0, told })?;
        }
        if let Some(exit) = crash.word
            && !crash.late
        {
            // Of those that were told to end nobody asks how they did.
            for unit in dying.iter().copied().filter(|unit| !told.contains(unit)) {
                self.note_end(unit, exit);
                self.handle(Input::Ended { unit: Unit(unit), exit })?;
            }
        }
        if crash.late {
            self.handle(host)?;
            self.now.ms += u64::from(crash.away_ms);
            for unit in dying {
                self.processes.remove(&unit);
                if !told.contains(&unit) {
                    self.note_end(unit, Exit::Unknown);
                }
                self.handle(Input::Exited { unit: Unit(unit), exit: Exit::Unknown })?;
            }
        }
        self.handle(Input::Start)
    }

    /// Notes that a process has ended, and whether it is for good.
    fn note_end(&mut self, unit: u64, exit: Exit) {
        let kept = self.journal.state().unikernels.values().find(|kept| kept.unit == unit);
        let over = kept.is_some_and(|kept| {
            let named = oracle::unnamed(&kept.arguments) != kept.arguments;
            let renamed = named && exit == Exit::Code(64);
            !renamed && !oracle::runs_again_by(&kept.arguments, exit)
        });
        self.ended.insert(unit, (exit, over));
        if over {
            self.known.unit_is_over(unit);
        }
    }

    /// Whoever starts `vmmd` looks at the files of block devices, and removes those that no record names.
    fn find_blocks(&mut self) -> Result<(), Violation> {
        let machine = &self.machine;
        self.block_files.retain(|name, _| machine.find_block(name).is_some());
        self.contents.retain(|name, _| machine.find_block(name).is_some());
        let blocks: Vec<_> = self.machine.blocks().map(|(slot, block)| (slot, *block.name())).collect();
        for (slot, name) in blocks {
            let bytes = self.block_files.get(&name).map(|size_mb| size_mb << 20);
            self.handle(Input::BlockFile { slot, bytes })?;
        }
        match self.machine.blocks().find(|(_, block)| block.file() != BlockFile::Sound) {
            Some((_, block)) => Err(format!("block device {} is {:?} after the crash", block.name(), block.file())),
            None => Ok(()),
        }
    }

    /// What clients were told must be so; what was under way may be either way.
    fn check_what_was_known(&self) -> Result<(), Violation> {
        let state = self.journal.state();
        let same = |one: &[u8], other: &[u8]| oracle::unnamed(one) == oracle::unnamed(other);
        for (name, known) in &self.known.unikernels {
            let kept = state.unikernels.get(name);
            let asked = known.over
                || self.known.unsure.contains(name)
                || self.is_asked(name, |question| question.ask.wish == Wish::Destroy);
            let replaced = self.known.unsure.contains(name)
                || self.is_asked(name, |it| matches!(it.ask.wish, Wish::ForceCreate(_) | Wish::RestartWith(_)));
            match kept {
                None if asked => {}
                None => return Err(format!("{name} was acknowledged and is gone after the crash")),
                Some(kept)
                    if !replaced && (kept.digest != known.digest || !same(&kept.arguments, &known.arguments)) =>
                {
                    return Err(format!("{name} is another one after the crash"));
                }
                Some(_) => {}
            }
        }
        for name in state.unikernels.keys().filter(|name| !self.known.unikernels.contains_key(*name)) {
            let asked = self.is_asked(name, |it| matches!(it.ask.wish, Wish::Create(_) | Wish::ForceCreate(_)));
            if !asked && !self.known.unsure.contains(name) {
                return Err(format!("{name} is back after the crash, and nobody asked for it"));
            }
        }
        self.check_known_policies()?;
        self.check_known_blocks()?;
        let restored: BTreeSet<Name> = self.machine.unikernels().map(|(_, unikernel)| *unikernel.name()).collect();
        let kept: BTreeSet<Name> = state.unikernels.keys().copied().collect();
        if restored != kept || self.machine.unikernels().any(|(_, unikernel)| unikernel.stage() != Stage::Kept) {
            return Err(format!("{restored:?} were restored of {kept:?}"));
        }
        Ok(())
    }

    fn check_known_policies(&self) -> Result<(), Violation> {
        let state = self.journal.state();
        let paths: BTreeSet<&Name> = state.policies.keys().chain(self.known.policies.keys()).collect();
        for path in paths {
            let (kept, known) = (state.policies.get(path), self.known.policies.get(path));
            let waiting = self.clients.iter().flatten().chain(&self.orphans);
            let asked =
                waiting.filter(|question| question.ask.name.path() == *path).any(|question| match question.ask.wish {
                    Wish::PolicyAdd(spec) => kept.is_some_and(|kept| oracle::policy_of(kept) == spec.policy().ok()),
                    Wish::PolicyRemove => kept.is_none(),
                    _ => false,
                });
            if kept != known && !asked && !self.known.unsure.contains(path) {
                return Err(format!("the policy of {path} is another one after the crash"));
            }
            let stands = self.machine.ledger().account_at(path).and_then(|account| account.policy().cloned());
            if stands != kept.and_then(|kept| oracle::policy_of(kept)) {
                return Err(format!("the policy of {path} was not restored"));
            }
        }
        Ok(())
    }

    fn check_known_blocks(&self) -> Result<(), Violation> {
        let state = self.journal.state();
        let names: BTreeSet<&Name> = state.blocks.keys().chain(self.known.blocks.keys()).collect();
        for name in names {
            let (kept, known) = (state.blocks.get(name), self.known.blocks.get(name));
            let asked = self.is_asked(name, |question| match question.ask.wish {
                Wish::BlockAdd(size) | Wish::BlockOldAdd(size, _) => {
                    kept.is_some_and(|kept| i64::try_from(*kept) == Ok(size))
                }
                Wish::BlockRemove => kept.is_none(),
                _ => false,
            });
            if kept != known && !asked && !self.known.unsure.contains(name) {
                return Err(format!("block device {name} is {kept:?} MB after the crash, it was {known:?}"));
            }
        }
        self.machine.blocks().try_for_each(|(_, block)| self.check_content(block.name()))?;
        let restored = self.machine.blocks().map(|(_, block)| (*block.name(), block.size_mb()));
        let restored: BTreeMap<Name, u64> = restored.collect();
        if restored == state.blocks { Ok(()) } else { Err(format!("{restored:?} were restored of {:?}", state.blocks)) }
    }

    /// What the journal says is what clients will find.
    fn relearn(&mut self) {
        let state = self.journal.state();
        let unikernels = state.unikernels.iter().map(|(name, kept)| {
            let (digest, arguments, unit) = (kept.digest, kept.arguments.clone(), kept.unit);
            (*name, Acknowledged { digest, arguments, unit, over: false })
        });
        self.known.unikernels = unikernels.collect();
        self.known.policies = state.policies.clone();
        self.known.blocks = state.blocks.clone();
        let contents = self.contents.iter().filter(|(name, _)| state.blocks.contains_key(*name));
        self.known.contents = contents.map(|(name, on_disk)| (*name, [on_disk.now].into())).collect();
        self.known.unsure.clear();
    }
}
