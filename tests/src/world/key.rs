//! What of a world decides what can happen next. Two worlds of the same key differ in numbers that only ever grow (the time, units,
//! sequence numbers), in the order of the slots, in which of two clients is which, and in what is only shown to people.
//!
//! Whoever goes through all worlds goes on from one of each key. That this loses nothing is not proved but tried:
//! `verification/src/audit.rs`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use fulmar_core::machine::Change;

use super::journal::Laid;
use super::{Question, StoreTask, World};

/// Numbers, each replaced by how many smaller ones there are.
struct Ranks(Vec<u64>);

impl Ranks {
    fn new(mut numbers: Vec<u64>) -> Self {
        // 0 stands for none.
        numbers.push(0);
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers)
    }

    fn of(&self, number: u64) -> usize {
        self.0.binary_search(&number).map_or(usize::MAX, |rank| rank)
    }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> World<U, P, B, C, A> {
    /// The key. What may still go wrong is not in it: [`World::budget`].
    #[must_use]
    pub fn key(&self) -> u64 {
        let (units, contents) = (self.units(), self.content_numbers());
        let mut state = DefaultHasher::new();
        let hash = &mut state;
        self.machine.hash_canonical(self.now.ms, |unit| units.of(unit), hash);
        self.hash_disk(&units, &contents, hash);
        self.hash_under_way(&units, &contents, hash);
        // Clients are alike: which of them asks for what does not matter.
        let waits = |(index, question): (usize, &Option<Question>)| {
            let mut client = DefaultHasher::new();
            if let Some(question) = question {
                hash_question(question, &units, &contents, &mut client);
            }
            self.machine.canonical_wait(u16::try_from(index).unwrap_or(u16::MAX)).hash(&mut client);
            client.finish()
        };
        let mut clients: Vec<u64> = self.clients.iter().enumerate().map(waits).collect();
        clients.sort_unstable();
        clients.hash(hash);
        self.orphans.iter().for_each(|question| hash_question(question, &units, &contents, hash));
        for (name, known) in &self.known.unikernels {
            (name, known.digest, &known.arguments, units.of(known.unit), known.over).hash(hash);
        }
        (&self.known.policies, &self.known.blocks, &self.known.unsure).hash(hash);
        for (name, may_be) in &self.known.contents {
            (name, may_be.iter().map(|content| contents.of(*content)).collect::<Vec<_>>()).hash(hash);
        }
        (self.append_failed, self.host, self.shrunk).hash(hash);
        state.finish()
    }

    fn hash_disk(&self, units: &Ranks, contents: &Ranks, hash: &mut DefaultHasher) {
        let state = self.journal.state();
        for (name, kept) in &state.unikernels {
            (name, units.of(kept.unit), kept.digest, kept.image_bytes, kept.target, &kept.arguments).hash(hash);
        }
        (&state.policies, &state.blocks, self.journal.unknown().is_some()).hash(hash);
        for laid in self.journal.unknown().unwrap_or_default() {
            (units.of(laid.unit()), laid.unnumbered()).hash(hash);
        }
        (&self.images, &self.block_files).hash(hash);
        for (name, on_disk) in &self.contents {
            (name, contents.of(on_disk.now), contents.of(on_disk.before)).hash(hash);
        }
    }

    fn hash_under_way(&self, units: &Ranks, contents: &Ranks, hash: &mut DefaultHasher) {
        let machine = &self.machine;
        for task in &self.store_tasks {
            match task {
                StoreTask::Store { slot, image } => (1, machine.place_of_unikernel(*slot), image).hash(hash),
                StoreTask::Inspect { slot, digest } => (2, machine.place_of_unikernel(*slot), digest).hash(hash),
                StoreTask::Release(digest) => (3, digest).hash(hash),
                StoreTask::Collect(keep) => (4, keep).hash(hash),
                StoreTask::MakeBlock { slot, name, size_mb, content } => {
                    (5, machine.place_of_block(*slot), name, size_mb, contents.of(*content)).hash(hash);
                }
                StoreTask::RemoveBlock { slot, name } => (6, machine.place_of_block(*slot), name).hash(hash),
            }
        }
        for append in &self.appends {
            match append.change {
                Change::Unikernel(slot) => (1, machine.place_of_unikernel(slot)),
                Change::UnikernelGone(slot) => (2, machine.place_of_unikernel(slot)),
                Change::Policy(slot) => (3, machine.place_of_policy(slot)),
                Change::PolicyGone(slot) => (4, machine.place_of_policy(slot)),
                Change::Block(slot) => (5, machine.place_of_block(slot)),
                Change::BlockGone(slot) => (6, machine.place_of_block(slot)),
            }
            .hash(hash);
            (units.of(append.record.unit()), append.record.unnumbered()).hash(hash);
        }
        for setting in &self.settings {
            (machine.place_of_block(setting.slot), setting.name, contents.of(setting.content)).hash(hash);
        }
        self.dumps.iter().for_each(|dump| (machine.place_of_block(dump.slot), dump.name).hash(hash));
        for it in &self.launches {
            (units.of(it.unit), it.account, &it.fail, it.named, &it.blocks).hash(hash);
        }
        for (unit, it) in &self.processes {
            let told = it.terminated_ms.map(|at| if it.killed { 0 } else { at.wrapping_sub(self.now.ms) });
            (units.of(*unit), it.account, &it.fail, it.named, &it.blocks, told, it.killed).hash(hash);
        }
        for (unit, ended) in &self.ended {
            (units.of(*unit), ended).hash(hash);
        }
        let lengths = [self.store_tasks.len(), self.appends.len(), self.launches.len(), self.processes.len()];
        (lengths, self.settings.len(), self.dumps.len(), self.ended.len()).hash(hash);
        // Of a unit that nobody has any more nothing is asked.
        let here = |unit: &&u64| self.machine.unikernels().any(|(_, it)| it.unit() == **unit);
        let faulted: Vec<usize> = self.faulted.iter().filter(here).map(|unit| units.of(*unit)).collect();
        faulted.hash(hash);
    }

    fn units(&self) -> Ranks {
        let machine = self.machine.unikernels().map(|(_, unikernel)| unikernel.unit());
        let launches = self.launches.iter().map(|launch| launch.unit);
        let known = self.known.unikernels.values().map(|known| known.unit);
        let kept = self.journal.state().unikernels.values().map(|kept| kept.unit);
        let laid = self.journal.unknown().unwrap_or_default().iter().map(Laid::unit);
        let appends = self.appends.iter().map(|append| append.record.unit());
        let asked = self.clients.iter().flatten().chain(&self.orphans).map(|question| question.unit);
        let others = self.processes.keys().chain(self.ended.keys()).copied();
        Ranks::new(
            machine
                .chain(launches)
                .chain(known)
                .chain(kept)
                .chain(laid)
                .chain(appends)
                .chain(asked)
                .chain(others)
                .collect(),
        )
    }

    fn content_numbers(&self) -> Ranks {
        let disk = self.contents.values().flat_map(|on_disk| [on_disk.now, on_disk.before]);
        let known = self.known.contents.values().flatten().copied();
        let settings = self.settings.iter().map(|setting| setting.content);
        let tasks = self.store_tasks.iter().map(|task| match task {
            StoreTask::MakeBlock { content, .. } => *content,
            _ => 0,
        });
        let asked = self.clients.iter().flatten().chain(&self.orphans).map(Question::content);
        Ranks::new(disk.chain(known).chain(settings).chain(tasks).chain(asked).collect())
    }
}

fn hash_question(question: &Question, units: &Ranks, contents: &Ranks, hash: &mut DefaultHasher) {
    (question.ask, &question.verdict, units.of(question.unit), contents.of(question.content())).hash(hash);
}
