//! What the machine must answer about policies, worked out the slow way: all that runs below one is counted again.

use fulmar_core::machine::{Done, PolicyRefused, Refusal, Reply};
use fulmar_core::name::Name;
use fulmar_core::policy::Policy;
use fulmar_core::wire::{List, NamedPolicy};

use super::{Verdict, absolute, count, is_changing, policy_of};
use crate::ask::{PolicySpec, Wish};
use crate::world::{Question, Violation, World};

/// What the machine must say to the wish for this policy.
pub(super) fn judge_add<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    path: &Name,
    spec: &PolicySpec,
) -> Verdict {
    let refused = |refused| Verdict::Exactly(Reply::Refused(Refusal::Policy(refused)));
    if path.is_root() {
        return refused(PolicyRefused::Root);
    }
    let ledger = world.machine.ledger();
    let policy = match spec.policy() {
        Ok(policy) => policy,
        Err(fault) => return Verdict::Exactly(Reply::Refused(Refusal::Arguments(fault))),
    };
    let account = ledger.account_at(path);
    if account.is_some_and(|account| account.policy() == Some(&policy) && !is_changing(account)) {
        return Verdict::Exactly(Reply::Done(Done::PolicyUnchanged));
    }
    for above in path.ancestors().skip(1).filter_map(|above| ledger.account_at(&above)) {
        for above in above.in_force() {
            if let Err(exceeds) = above.contains(&policy) {
                return refused(PolicyRefused::Above(exceeds));
            }
        }
    }
    let below = ledger.slots().map(|(_, below)| below).filter(|below| below.path() != path);
    let mut below = below.filter(|below| path.contains(below.path()));
    if below.any(|below| below.in_force().any(|below| policy.contains(below).is_err())) {
        return Verdict::PolicyBelow;
    }
    let counted = count(world, path);
    if counted.used.unikernels > policy.unikernels {
        let (running, allowed) = (counted.used.unikernels, policy.unikernels);
        return refused(PolicyRefused::RunningUnikernels { running, allowed });
    }
    if counted.used.memory_mb > policy.memory_mb {
        let (used_mb, allowed_mb) = (counted.used.memory_mb, policy.memory_mb);
        return refused(PolicyRefused::RunningMemory { used_mb, allowed_mb });
    }
    if let Some(cpu) = counted.cpus.iter().find(|cpu| !policy.cpus.iter().any(|allowed| allowed == *cpu)) {
        return refused(PolicyRefused::RunningCpu(cpu));
    }
    // With two bridges at most one can be foreign and the other not, or both; then it is the one met first.
    let mut foreign = counted.bridges.iter().filter(|bridge| !policy.bridges.as_slice().contains(bridge));
    if let Some(bridge) = foreign.next() {
        return match foreign.next() {
            None => refused(PolicyRefused::RunningBridge(*bridge)),
            Some(_) => Verdict::PolicyRunningBridge,
        };
    }
    if counted.used.block_mb > policy.block_mb.unwrap_or(0) {
        let (used_mb, allowed_mb) = (counted.used.block_mb, policy.block_mb);
        return refused(PolicyRefused::RunningBlocks { used_mb, allowed_mb });
    }
    match account {
        None if ledger.slots().count() == P => refused(PolicyRefused::Full),
        Some(account) if is_changing(account) => refused(PolicyRefused::Busy),
        _ => Verdict::Later(Done::AddedPolicy),
    }
}

/// Whether the list of policies is the one that clients must see.
///
/// # Errors
/// What is missing, wrong or too much.
pub fn check_policies<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    question: &Question,
    list: List<'_, NamedPolicy<'_>>,
) -> Result<(), Violation> {
    let asked = question.ask.name.path();
    let named = list.iter().map(|entry| Some((absolute(&asked, &entry.name)?, Policy::try_from(&entry.policy).ok()?)));
    let listed: Vec<_> = named.collect::<Option<_>>().ok_or("a name or policy that is none")?;
    if !listed.is_sorted_by(|(one, _), (other, _)| one < other) {
        return Err("the list is not in order".into());
    }
    let changing = |path: &Name| {
        let change = |question: &Question| {
            question.ask.name.path() == *path && matches!(question.ask.wish, Wish::PolicyAdd(_) | Wish::PolicyRemove)
        };
        world.clients.iter().flatten().chain(&world.orphans).any(change)
    };
    for (path, known) in world.known.policies.iter().filter(|(path, _)| asked.contains(path)) {
        let found = listed.iter().find(|(listed, _)| listed == path).map(|(_, policy)| policy);
        if !changing(path) && found != policy_of(known).as_ref() {
            return Err(format!("the policy of {path} is listed as {found:?}"));
        }
    }
    let unknown = |path: &Name| !path.is_root() && !world.known.policies.contains_key(path) && !changing(path);
    match listed.iter().find(|(path, _)| unknown(path)) {
        Some((path, _)) => Err(format!("a policy of {path} is listed, and nobody has it")),
        None => Ok(()),
    }
}
