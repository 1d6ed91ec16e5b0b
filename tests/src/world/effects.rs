//! Taking in what the machine wants done.

use fulmar_core::halves::TAP_FD_FIRST;
use fulmar_core::machine::{Change, Effect, Life, POLICY_BYTES_MAX, PlanBuffers, Stage};
use fulmar_core::wire::FailBehaviour;

use super::{Append, Laid, Launch, StoreTask, Violation, World};
use crate::images::IMAGES;
use crate::oracle;

/// More effects than any input may cause.
const EFFECTS_MAX: usize = 400;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> World<U, P, B, C, A> {
    pub(super) fn drain(&mut self) -> Result<(), Violation> {
        for _ in 0..EFFECTS_MAX {
            let Some(effect) = self.machine.next_effect() else { return Ok(()) };
            self.take(effect).map_err(|why| format!("{effect:?}: {why}"))?;
        }
        Err("the effects of one input do not end".into())
    }

    fn take(&mut self, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Reply { connection } => self.answered(connection)?,
            Effect::Store { slot } => {
                let Some(unikernel) = self.machine.unikernel(slot) else { return Err("an empty slot".into()) };
                let image = usize::try_from(unikernel.spool()).unwrap_or(usize::MAX);
                self.store_tasks.push_back(StoreTask::Store { slot, image });
            }
            Effect::Inspect { slot } => {
                let Some(digest) = self.machine.unikernel(slot).and_then(|unikernel| unikernel.digest().copied())
                else {
                    return Err("no image".into());
                };
                if !self.images.contains(&digest) {
                    return Err("its image is not in the store".into());
                }
                self.store_tasks.push_back(StoreTask::Inspect { slot, digest });
            }
            Effect::Release { digest } => {
                let may_be = self.journal.state_if_unknown_is_kept()?;
                let named = may_be.iter().flat_map(|state| state.unikernels.values());
                if named.into_iter().any(|kept| kept.digest == digest) || self.machine.uses(&digest) {
                    return Err("the image is still named".into());
                }
                self.store_tasks.push_back(StoreTask::Release(digest));
            }
            Effect::Collect => {
                let used = IMAGES.iter().map(|image| image.digest).filter(|digest| self.machine.uses(digest));
                self.store_tasks.push_back(StoreTask::Collect(used.collect()));
            }
            Effect::SetContent { slot, source } => self.take_setting(slot, source)?,
            Effect::MakeBlock { slot, content } => {
                let Some(block) = self.machine.block(slot) else { return Err("an empty slot".into()) };
                let (name, size_mb) = (*block.name(), block.size_mb());
                if self.journal.state_if_unknown_is_kept()?.iter().any(|state| state.blocks.contains_key(&name)) {
                    return Err("a record may name it already".into());
                }
                let content = content.map_or(0, |content| u64::from(content.spool));
                self.store_tasks.push_back(StoreTask::MakeBlock { slot, name, size_mb, content });
            }
            Effect::RemoveBlock { slot } => {
                let Some(block) = self.machine.block(slot) else { return Err("an empty slot".into()) };
                let name = *block.name();
                if self.journal.state_if_unknown_is_kept()?.iter().any(|state| state.blocks.contains_key(&name)) {
                    return Err("a record still names it".into());
                }
                if self.processes.values().any(|process| !process.killed && process.blocks.contains(&name)) {
                    return Err("a process has it".into());
                }
                if self.dumps.iter().any(|dump| dump.name == name) {
                    return Err("a client reads it".into());
                }
                self.store_tasks.push_back(StoreTask::RemoveBlock { slot, name });
            }
            Effect::Launch { slot } => self.take_launch(slot)?,
            Effect::Append(change) => self.take_append(change)?,
            Effect::Signal { unit, kill } => {
                let now_ms = self.now.ms;
                let Some(process) = self.processes.get_mut(&unit.0) else { return Err("no such process".into()) };
                if kill {
                    process.killed = true;
                } else {
                    process.terminated_ms = Some(now_ms);
                }
                self.mark(if kill { "SIGKILL" } else { "SIGTERM" });
            }
            Effect::Rest { slot } => {
                if self.machine.unikernel(slot).is_none() {
                    return Err("an empty slot".into());
                }
                self.mark("rest");
            }
        }
        Ok(())
    }

    fn take_append(&mut self, change: Change) -> Result<(), Violation> {
        let mut buffer = [0; POLICY_BYTES_MAX];
        let Some(record) = self.machine.record(change, &mut buffer) else { return Err("no record".into()) };
        self.appends.push_back(Append { change, record: Laid::new(&record)? });
        Ok(())
    }

    fn take_launch(&mut self, slot: u16) -> Result<(), Violation> {
        let mut buffers = Box::<PlanBuffers>::default();
        let Some(plan) = self.machine.launch_plan(slot, &mut buffers) else { return Err("no plan".into()) };
        plan.check().map_err(|error| error.to_string())?;
        let (unit, account) = (plan.unit.0, plan.account);
        if self.processes.contains_key(&unit) || self.launches.iter().any(|launch| launch.unit == unit) {
            return Err(format!("unit {unit} runs already"));
        }
        let taken = self.processes.values().map(|process| process.account);
        if taken.chain(self.launches.iter().map(|launch| launch.account)).any(|taken| taken == account) {
            return Err(format!("account {account} is in use"));
        }
        let (Some(unikernel), Some(arguments)) = (self.machine.unikernel(slot), self.machine.arguments(slot)) else {
            return Err("no arguments".into());
        };
        if !matches!(unikernel.stage(), Stage::Creating | Stage::Kept) {
            return Err(format!("it is not wanted: {:?}", unikernel.stage()));
        }
        let beside = self.machine.find(unikernel.name()).filter(|_| unikernel.is_successor());
        if beside.is_some_and(|(_, old)| old.life() != Life::None) {
            return Err("the one whose place it takes still runs".into());
        }
        if self.ended.get(&unit).is_some_and(|(_, over)| *over) {
            return Err("it has ended for good".into());
        }
        if !unikernel.is_charged() {
            return Err("it is not charged".into());
        }
        if unikernel.digest().is_none_or(|digest| !self.images.contains(digest)) {
            return Err("its image is not in the store".into());
        }
        let fail = match arguments.fail_behaviour {
            FailBehaviour::Quit => None,
            FailBehaviour::Restart(codes) => Some(codes.iter().collect()),
        };
        let named = arguments.add_name;
        let (_, label) = unikernel.name().as_str().rsplit_once(':').unwrap_or_default();
        if plan.argv.iter().any(|argument| argument == format!("--name={label}").as_bytes()) != named {
            return Err("its label is not where it should be".into());
        }
        let named_blocks = oracle::block_names(unikernel.name(), &arguments);
        let fds = TAP_FD_FIRST + u16::try_from(plan.networks.iter().count()).unwrap_or(0);
        for (fd, device) in (fds..).zip(arguments.block_devices.iter()) {
            let wanted = format!("--block:{}=@{fd}", device.name);
            if !plan.argv.iter().any(|argument| argument == wanted.as_bytes()) {
                return Err(format!("{wanted} is not among its arguments"));
            }
        }
        if usize::from(plan.blocks) != named_blocks.len() {
            return Err("the plan has other block devices".into());
        }
        for name in &named_blocks {
            let old = if unikernel.is_successor() { self.machine.find(unikernel.name()) } else { None };
            let old = old.map(|(old, _)| old);
            let held = self.machine.find_block(name).and_then(|(_, block)| block.holder());
            let held = held.is_some_and(|holder| holder == slot || Some(holder) == old);
            if !held || !self.block_files.contains_key(name) {
                return Err(format!("block device {name} is not its own, or has no file"));
            }
        }
        self.launches.push(Launch { unit, account, fail, named, blocks: named_blocks });
        Ok(())
    }
}
