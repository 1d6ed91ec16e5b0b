//! The commands about policies. A policy belongs to a path: the label of a name is not looked at.

use super::arguments::Needs;
use super::ledger::{Below, Pending, Usage};
use super::outcome::JournalError;
use super::refusal::Refusal;
use super::refused::PolicyRefused;
use super::{Change, Done, Effect, Machine, Reply, Waiting};
use crate::name::Name;
use crate::policy::{CpuSet, Policy};
use crate::wire::PolicyCommand;

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

    fn begin_set(&mut self, path: &Name, policy: Policy) -> Result<u16, PolicyRefused> {
        let below = self.sum_below(path, &policy);
        self.ledger.check(path, &policy, &below)?;
        self.ledger.begin_set(path, policy, below.used)
    }

    /// What is charged at `path` and below it, whatever policies there are.
    fn sum_below(&self, path: &Name, policy: &Policy) -> Below {
        let mut below = Below { used: Usage::default(), cpus: CpuSet::EMPTY, foreign_bridge: None };
        for slot in self.unikernels.below(path) {
            let Some(unikernel) = self.unikernels.get(*slot).filter(|unikernel| unikernel.charged) else { continue };
            below.used = below.used.plus(unikernel.usage());
            let Some(Ok(needs)) = self.arguments(*slot).map(|arguments| Needs::of(&arguments)) else { continue };
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
        self.ledger.end(slot, outcome.is_ok());
        self.answer_all(Waiting::Policy(slot), reply);
    }
}
