//! The plan: what has to change so that what is there is what is wanted, in order. Pure.
//!
//! What is destroyed goes first and makes room; then policies that allow more, block devices, unikernels in their order; policies that
//! allow less come last, when what is there fits them.

use fulmar_core::machine::Digest;
use fulmar_core::name::Name;

use super::manifest::Manifest;
use super::present::Present;
use super::settings::{Policy, Said};
use crate::output::text::{hex, megabytes};

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    /// How many things are there as they are wanted.
    pub(super) unchanged: usize,
    /// What is there below the manifest's path, stays, and is not in the manifest.
    pub(super) others: Vec<(&'static str, Name)>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change {
    pub(super) name: Name,
    pub(super) action: Action,
    pub(super) fields: Vec<Field>,
}

/// What is done; numbers are places in the manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    SetPolicy(usize),
    AddBlock(usize),
    Create(usize),
    Replace(usize),
    Destroy,
}

/// What becomes of one thing that is said of something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) there: Option<String>,
    pub(super) wanted: Option<String>,
}

impl Action {
    /// What it is done to.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::SetPolicy(_) => "policy",
            Self::AddBlock(_) => "block",
            Self::Create(_) | Self::Replace(_) | Self::Destroy => "unikernel",
        }
    }
}

impl Change {
    /// What is done, in one word.
    pub(super) fn verb(&self) -> &'static str {
        match self.action {
            Action::SetPolicy(_) if self.fields.iter().any(|field| field.there.is_some()) => "change",
            Action::SetPolicy(_) => "set",
            Action::AddBlock(_) => "add",
            Action::Create(_) => "create",
            Action::Replace(_) => "replace",
            Action::Destroy => "destroy",
        }
    }
}

/// Makes it. Digests are those of the manifest's unikernels, in their order.
pub(super) fn make(manifest: &Manifest, digests: &[Digest], present: &Present, prune: bool) -> Plan {
    let mut plan = Plan { changes: Vec::new(), unchanged: 0, others: Vec::new() };
    let below = |name: &Name| manifest.path.contains(name);
    for name in present.unikernels.keys().filter(|name| below(name)) {
        if manifest.unikernels.iter().any(|it| it.name == *name) {
            continue;
        }
        if prune {
            plan.changes.push(Change { name: *name, action: Action::Destroy, fields: Vec::new() });
        } else {
            plan.others.push(("unikernel", *name));
        }
    }
    let blocks = present.blocks.keys().filter(|name| below(name));
    let others = blocks.filter(|name| !manifest.blocks.iter().any(|it| it.name == **name));
    plan.others.extend(others.map(|name| ("block", *name)));
    let mut last = Vec::new();
    for (index, wish) in manifest.policies.iter().enumerate() {
        let there = present.policies.get(&wish.path);
        if there == Some(&wish.policy) {
            plan.unchanged += 1;
            continue;
        }
        let fields = compare(&there.map(Policy::said).unwrap_or_default(), wish.policy.said());
        let change = Change { name: wish.path, action: Action::SetPolicy(index), fields };
        if there.is_none_or(|there| wish.policy.contains(there)) {
            plan.changes.push(change);
        } else {
            // Children before parents: a child must fit.
            last.insert(0, change);
        }
    }
    for (index, wish) in manifest.blocks.iter().enumerate() {
        // What has another size is a fault, found when what is wanted is checked.
        if present.blocks.contains_key(&wish.name) {
            plan.unchanged += 1;
            continue;
        }
        let fields = compare(&[], vec![("size".to_owned(), megabytes(wish.size_mb))]);
        plan.changes.push(Change { name: wish.name, action: Action::AddBlock(index), fields });
    }
    for (index, (wish, digest)) in manifest.unikernels.iter().zip(digests).enumerate() {
        let there = present.unikernels.get(&wish.name);
        if there.is_some_and(|there| there.digest == Some(*digest) && there.settings == wish.settings) {
            plan.unchanged += 1;
            continue;
        }
        let said = |digest: Option<&Digest>, said: Vec<Said>| {
            let image = digest.map_or_else(|| "not for Solo5".to_owned(), |digest| hex(digest));
            std::iter::once(("image".to_owned(), image)).chain(said).collect::<Vec<_>>()
        };
        let before = there.map(|there| said(there.digest.as_ref(), there.settings.said())).unwrap_or_default();
        let fields = compare(&before, said(Some(digest), wish.settings.said()));
        let action = if there.is_some() { Action::Replace(index) } else { Action::Create(index) };
        plan.changes.push(Change { name: wish.name, action, fields });
    }
    plan.changes.extend(last);
    plan
}

/// What differs.
fn compare(there: &[Said], wanted: Vec<Said>) -> Vec<Field> {
    let find = |list: &[Said], name: &str| list.iter().find(|said| said.0 == name).map(|said| said.1.clone());
    let gone = there.iter().filter(|said| find(&wanted, &said.0).is_none());
    let gone = gone.map(|said| Field { name: said.0.clone(), there: Some(said.1.clone()), wanted: None });
    let gone: Vec<Field> = gone.collect();
    let field = |(name, wanted): Said| Field { there: find(there, &name), name, wanted: Some(wanted) };
    let fields = wanted.into_iter().map(field);
    fields.filter(|field| field.there != field.wanted).chain(gone).collect()
}
