//! The commands about policies. A policy belongs to a path: the label of a name is not looked at.

use super::arguments::Needs;
use super::bhyve::kind_of;
use super::ledger::{Below, Pending, Usage};
use super::outcome::JournalError;
use super::refusal::Refusal;
use super::refused::PolicyRefused;
use super::{Change, Done, Effect, Machine, Reply, Waiting};
use crate::limits::CHAIN_POLICIES_MAX;
use crate::name::Name;
use crate::policy::{CpuSet, Policy};
use crate::wire::{List, NamedPolicy, PolicyCommand};

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    pub(super) fn policy(&mut self, connection: u16, name: &Name, command: &PolicyCommand<'_>) {
        let path = name.path();
        let begun = match command {
            PolicyCommand::Info => return self.answer(connection, Reply::Policies),
            PolicyCommand::Add(_) | PolicyCommand::Remove if path.is_root() => {
                Err(Refusal::Policy(PolicyRefused::Root))
            }
            PolicyCommand::Add(policy) => match Policy::try_from(policy) {
                Err(fault) => Err(Refusal::Arguments(fault)),
                Ok(policy) if self.has(&path, &policy) => {
                    return self.answer(connection, Reply::Done(Done::PolicyUnchanged));
                }
                Ok(policy) => self.begin_set(&path, policy).map(Change::Policy).map_err(Refusal::Policy),
            },
            PolicyCommand::Chain(policies) => {
                return match self.begin_chain(&path, policies) {
                    Ok(0) => self.answer(connection, Reply::Done(Done::PolicyUnchanged)),
                    Ok(levels) => self.wait(connection, Waiting::Chain(levels)),
                    Err(refusal) => self.refuse(connection, refusal),
                };
            }
            PolicyCommand::Remove => self.ledger.begin_remove(&path).map(Change::PolicyGone).map_err(Refusal::Policy),
        };
        match begun {
            Ok(change) => {
                if let Change::Policy(slot) | Change::PolicyGone(slot) = change {
                    self.wait(connection, Waiting::Policy(slot));
                }
                self.effect(Effect::Append(change));
            }
            Err(refusal) => self.refuse(connection, refusal),
        }
    }

    /// Whether exactly this policy stands there, durably, and none is on its way.
    fn has(&self, path: &Name, policy: &Policy) -> bool {
        let account = self.ledger.account_at(path);
        account.is_some_and(|it| it.policy() == Some(policy) && *it.pending() == Pending::None)
    }

    /// Whether exactly this policy is on its way there.
    fn is_coming(&self, path: &Name, policy: &Policy) -> bool {
        let account = self.ledger.account_at(path);
        account.is_some_and(|it| matches!(it.pending(), Pending::Set(coming) if coming == policy))
    }

    fn begin_set(&mut self, path: &Name, policy: Policy) -> Result<u16, PolicyRefused> {
        let below = self.sum_below(path, &policy);
        self.ledger.check(path, &policy, &below)?;
        self.ledger.begin_set(path, policy, below.used)
    }

    /// Begins to set the policies of a chain: those of `last` and of all paths above it but the root, from the top down. Says at
    /// which depths something changes, a bit each; nothing is changed where one of them may not stand.
    fn begin_chain(&mut self, last: &Name, policies: &List<'_, NamedPolicy<'_>>) -> Result<u16, Refusal> {
        let mut chain = heapless::Vec::<(Name, Policy), CHAIN_POLICIES_MAX>::new();
        for NamedPolicy { name, policy } in *policies {
            let above = chain.last().map_or(Name::ROOT, |(path, _)| *path);
            if !name.is_path() || name.is_root() || name.parent() != Some(above) || !name.contains(last) {
                return Err(Refusal::Chain);
            }
            let policy = Policy::try_from(&policy).map_err(Refusal::Arguments)?;
            chain.push((name, policy)).map_err(|_| Refusal::Chain)?;
        }
        if chain.last().is_none_or(|(path, _)| path != last) {
            return Err(Refusal::Chain);
        }
        self.check_chain(&chain).map_err(Refusal::Policy)?;
        let mut levels = 0;
        for (level, (path, policy)) in (0_u32..).zip(chain) {
            if self.has(&path, &policy) {
                continue;
            }
            levels |= 1_u16.checked_shl(level).unwrap_or(0);
            if self.is_coming(&path, &policy) {
                continue;
            }
            let used = self.sum_below(&path, &policy).used;
            let slot = self.ledger.begin_set(&path, policy, used).map_err(Refusal::Policy)?;
            self.effect(Effect::Append(Change::Policy(slot)));
        }
        Ok(levels)
    }

    /// Whether these policies may stand, each below the one before it, once all of them do.
    fn check_chain(&self, chain: &[(Name, Policy)]) -> Result<(), PolicyRefused> {
        let mut above = None;
        let mut new = 0_usize;
        for (path, policy) in chain {
            let account = self.ledger.account_at(path);
            new = new.saturating_add(usize::from(account.is_none()));
            // Who comes from afar in parallel brings the same policies each time: that waits for the first one.
            let is_changing = account.is_some_and(|account| *account.pending() != Pending::None);
            if is_changing && !self.is_coming(path, policy) {
                return Err(PolicyRefused::Busy);
            }
            match above {
                Some(above) => Policy::contains(above, policy).map_err(PolicyRefused::Above)?,
                None => self.ledger.check_above(path, policy)?,
            }
            above = Some(policy);
            let is_in_chain = |other: &Name| chain.iter().any(|(path, _)| path == other);
            self.ledger.check_below(path, policy, &self.sum_below(path, policy), is_in_chain)?;
        }
        if new > self.ledger.room() { Err(PolicyRefused::Full) } else { Ok(()) }
    }

    /// A policy is durable, or it is not: for who waits for it as a part of a chain.
    fn chain_changed(&mut self, path: &Name, outcome: Result<(), JournalError>) {
        // The level of a path is the number of labels above its last one.
        let level = u32::try_from(path.labels().count()).unwrap_or(u32::MAX).saturating_sub(1);
        let bit = 1_u16.checked_shl(level).unwrap_or(0);
        for index in 0..C {
            let Some(client) = self.connections.get_mut(index) else { continue };
            let Waiting::Chain(levels) = client.waiting else { continue };
            if levels & bit == 0 || !path.contains(&client.name) {
                continue;
            }
            client.waiting = Waiting::Chain(levels & !bit);
            let reply = match outcome {
                Err(error) => Reply::Refused(Refusal::Journal(error)),
                Ok(()) if levels == bit => Reply::Done(Done::AddedPolicy),
                Ok(()) => continue,
            };
            self.answer(u16::try_from(index).unwrap_or(u16::MAX), reply);
        }
    }

    /// What is charged at `path` and below it, whatever policies there are.
    fn sum_below(&self, path: &Name, policy: &Policy) -> Below {
        let mut below = Below { used: Usage::default(), cpus: CpuSet::EMPTY, foreign_bridge: None };
        for slot in self.unikernels.below(path) {
            let Some(unikernel) = self.unikernels.get(*slot).filter(|unikernel| unikernel.charged) else { continue };
            below.used = below.used.plus(unikernel.usage());
            let Some(Ok(needs)) =
                self.arguments(*slot).map(|arguments| Needs::of(kind_of(unikernel.tender), &arguments))
            else {
                continue;
            };
            below.cpus = below.cpus.union(&needs.cpus);
            let foreign = needs.bridges.iter().find(|bridge| !policy.bridges.has(bridge));
            below.foreign_bridge = below.foreign_bridge.or(foreign.copied());
        }
        // Each is charged as long as it has a slot.
        let blocks = self.blocks.below(path).iter().filter_map(|slot| self.blocks.get(*slot));
        below.used.block_mb = blocks.fold(0, |sum, block| block.size_mb.saturating_add(sum));
        below
    }

    /// A change of a policy is durable, or it is not.
    pub(super) fn policy_changed(&mut self, slot: u16, done: Done, outcome: Result<(), JournalError>) {
        let reply = match outcome {
            Ok(()) => Reply::Done(done),
            Err(error) => Reply::Refused(Refusal::Journal(error)),
        };
        let path = self.ledger.account(slot).map(|account| *account.path());
        self.ledger.end(slot, outcome.is_ok());
        self.answer_all(Waiting::Policy(slot), reply);
        if let Some(path) = path {
            self.chain_changed(&path, outcome);
        }
    }
}
