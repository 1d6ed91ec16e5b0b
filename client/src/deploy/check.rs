//! What the daemon would refuse, said before anything changes and with the line of the manifest that asks for it.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_core::name::Name;

use super::manifest::{Manifest, UnikernelWish};
use super::plan::{Action, Plan};
use super::present::Present;
use super::section::Fault;
use super::settings::{Policy, Settings};
use crate::output::text::{megabytes, ranges};

/// All that cannot be, by what is there when the plan has been carried out. Nothing beyond `reach` can be seen or changed.
pub(super) fn check(manifest: &Manifest, present: &Present, plan: &Plan, reach: &Name) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |line, text: String| faults.push(Fault { line, text });
    let policies = manifest.policies.iter().map(|it| ("policy", it.path, it.line));
    let blocks = manifest.blocks.iter().map(|it| ("block", it.name, it.line));
    let unikernels = manifest.unikernels.iter().map(|it| ("unikernel", it.name, it.line));
    for (kind, name, line) in policies.chain(blocks).chain(unikernels).filter(|(_, name, _)| !reach.contains(name)) {
        fault(line, format!("{kind} {name}: it is not below {reach}, and you may change nothing else"));
    }
    for wish in &manifest.blocks {
        if let Some(there) = present.blocks.get(&wish.name).filter(|there| **there != wish.size_mb) {
            let (there, wanted) = (megabytes(*there), megabytes(wish.size_mb));
            let text = format!("it is there with {there} and keeps that size: write that, not {wanted}, or remove it");
            fault(wish.line, format!("block {}: {text}", wish.name));
        }
    }
    let after = After::new(manifest, present, plan);
    for (line, text) in manifest.unikernels.iter().flat_map(|wish| after.faults_of(wish, present)) {
        fault(line, text);
    }
    for (path, policy) in &after.policies {
        for (line, text) in after.excess(path, policy, manifest) {
            fault(line, text);
        }
    }
    faults.sort();
    faults
}

/// What is there when all has been done.
struct After<'a> {
    policies: BTreeMap<Name, &'a Policy>,
    blocks: BTreeMap<Name, i64>,
    unikernels: BTreeMap<Name, &'a Settings>,
}

impl<'a> After<'a> {
    fn new(manifest: &'a Manifest, present: &'a Present, plan: &Plan) -> Self {
        let destroyed: BTreeSet<Name> =
            plan.changes.iter().filter(|it| it.action == Action::Destroy).map(|it| it.name).collect();
        let there = present.policies.iter().map(|(path, policy)| (*path, policy));
        let policies = there.chain(manifest.policies.iter().map(|it| (it.path, &it.policy))).collect();
        let there = present.blocks.iter().map(|(name, mb)| (*name, *mb));
        let blocks = there.chain(manifest.blocks.iter().map(|it| (it.name, it.size_mb))).collect();
        let there = present.unikernels.iter().filter(|(name, _)| !destroyed.contains(*name));
        let there = there.map(|(name, it)| (*name, &it.settings));
        let unikernels = there.chain(manifest.unikernels.iter().map(|it| (it.name, &it.settings))).collect();
        Self { policies, blocks, unikernels }
    }

    /// What is wrong with one unikernel.
    fn faults_of(&self, wish: &UnikernelWish, present: &Present) -> Vec<(usize, String)> {
        let mut faults = Vec::new();
        let mut fault = |text: String| faults.push((wish.line, format!("unikernel {}: {text}", wish.name)));
        for disk in wish.disks() {
            if !self.blocks.contains_key(&disk) {
                let there = self.blocks.keys().filter(|name| name.path() == wish.name.path());
                let there: Vec<&str> = there.filter_map(Name::label).collect();
                fault(format!("there is no block device {disk}: add it to the manifest, or take {}", any(&there)));
            }
            let holds = |(name, it): (&Name, &&Settings)| {
                *name != wish.name && it.blocks.values().any(|block| name.path().join(&block.host).ok() == Some(disk))
            };
            if let Some((other, _)) = self.unikernels.iter().find(|entry| holds(*entry)) {
                fault(format!("{other} has block device {disk}: destroy it, or give another one"));
            }
        }
        for bridge in wish.settings.bridges() {
            match &present.bridges {
                Some(bridges) if !bridges.contains(bridge) => {
                    let there = any(&bridges.iter().map(String::as_str).collect::<Vec<_>>());
                    fault(format!("the host has no bridge {bridge}, but {there}"));
                }
                _ => {}
            }
        }
        for (path, policy) in self.policies.iter().filter(|(path, _)| path.contains(&wish.name) && !path.is_root()) {
            for bridge in wish.settings.bridges().filter(|bridge| !policy.bridges.contains(*bridge)) {
                let allowed = any(&policy.bridges.iter().map(String::as_str).collect::<Vec<_>>());
                fault(format!("the policy of {path} does not allow bridge {bridge}, but {allowed}"));
            }
        }
        for (path, policy) in self.policies.iter().filter(|(path, _)| path.contains(&wish.name)) {
            if let Some(cpu) = wish.settings.cpus.difference(&policy.cpus).next() {
                let allowed = ranges(policy.cpus.iter().copied());
                fault(format!("the policy of {path} does not allow CPU {cpu}, but {allowed}"));
            }
        }
        faults
    }

    /// What would be used beyond this policy, where the manifest has a part in it.
    fn excess(&self, path: &Name, policy: &Policy, manifest: &Manifest) -> Vec<(usize, String)> {
        let own = manifest.policies.iter().find(|it| it.path == *path).map(|it| it.line);
        let unikernels = || self.unikernels.iter().filter(|(name, _)| path.contains(name));
        let last = manifest.unikernels.iter().filter(|it| path.contains(&it.name)).map(|it| it.line).max();
        let mut faults = Vec::new();
        let count = i64::try_from(unikernels().count()).unwrap_or(i64::MAX);
        let memory_mb = unikernels().map(|(_, it)| it.memory_mb).fold(0, i64::saturating_add);
        if let Some(line) = own.or(last) {
            if count > policy.unikernels {
                faults.push((line, format!("the policy of {path} allows {} unikernels of {count}", policy.unikernels)));
            }
            if memory_mb > policy.memory_mb {
                let (used, allowed) = (megabytes(memory_mb), megabytes(policy.memory_mb));
                faults.push((line, format!("the policy of {path} allows {allowed} of memory of {used}")));
            }
        }
        let blocks = self.blocks.iter().filter(|(name, _)| path.contains(name));
        let block_mb = blocks.map(|(_, mb)| *mb).fold(0, i64::saturating_add);
        let last = manifest.blocks.iter().filter(|it| path.contains(&it.name)).map(|it| it.line).max();
        let allowed = policy.block_mb.unwrap_or(0);
        if let Some(line) = own.or(last).filter(|_| block_mb > allowed) {
            let (used, allowed) = (megabytes(block_mb), megabytes(allowed));
            faults.push((line, format!("the policy of {path} allows {allowed} of block storage of {used}")));
        }
        let above = self.policies.iter().filter(|(other, _)| other.contains(path) && *other != path);
        for (other, above) in above {
            // Bridges of the host can be more than a policy lists.
            let bridges = if other.is_root() { BTreeSet::new() } else { policy.bridges.clone() };
            let policy = Policy { bridges, ..policy.clone() };
            if let Some(line) = own.filter(|_| !above.contains(&policy)) {
                faults.push((line, format!("the policy of {path} allows more than the one of {other} above it")));
            }
        }
        faults
    }
}

/// What can be had instead.
fn any(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
