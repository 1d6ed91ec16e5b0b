//! A plan for people and for programs.

use std::io::{self, Write};

use fulmar_core::name::Name;
use serde_json::{Value, json};

use super::plan::{Change, Field, Plan};

/// How much is shown of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detail {
    /// What of it differs from what is there, where there is something.
    Plan,
    /// Every field, what is there and what is wanted.
    Diff,
}

/// Writes the plan.
///
/// # Errors
/// What `out` says.
pub(super) fn plan(out: &mut dyn Write, plan: &Plan, detail: Detail) -> io::Result<()> {
    for change in &plan.changes {
        writeln!(out, "{} {} {}", change.verb(), change.action.kind(), change.name)?;
        let is_new = change.fields.iter().all(|field| field.there.is_none());
        for field in change.fields.iter().filter(|_| detail == Detail::Diff || !is_new) {
            write_field(out, field, detail)?;
        }
    }
    for (kind, name) in &plan.others {
        writeln!(out, "leave {kind} {name}: it is not in the manifest")?;
    }
    writeln!(out, "{}", summary(plan))
}

fn write_field(out: &mut dyn Write, Field { name, there, wanted }: &Field, detail: Detail) -> io::Result<()> {
    if detail == Detail::Diff {
        let line = |sign, value: &Option<String>| value.as_ref().map(|value| format!("  {sign} {name}: {value}"));
        return line('-', there).into_iter().chain(line('+', wanted)).try_for_each(|line| writeln!(out, "{line}"));
    }
    let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    writeln!(out, "  {name}: {} -> {}", said(there), said(wanted))
}

fn summary(plan: &Plan) -> String {
    match plan.changes.len() {
        0 => format!("nothing to do: {} as wanted", plan.unchanged),
        changes => format!("{}, {} as wanted already", counted(changes), plan.unchanged),
    }
}

/// How many changes.
pub(crate) fn counted(changes: usize) -> String {
    if changes == 1 { "1 change".to_owned() } else { format!("{changes} changes") }
}

/// The plan as a document; of its changes, so many are done.
pub(super) fn document(manifest: &str, path: &Name, plan: &Plan, done: usize) -> Value {
    let change = |(index, change): (usize, &Change)| {
        json!({
            "action": change.verb(), "kind": change.action.kind(), "name": change.name.as_str(), "done": index < done,
            "fields": change.fields.iter().map(|field| json!({
                "field": field.name, "there": field.there, "wanted": field.wanted,
            })).collect::<Vec<_>>(),
        })
    };
    json!({
        "manifest": manifest,
        "path": path.as_str(),
        "changes": plan.changes.iter().enumerate().map(change).collect::<Vec<_>>(),
        "unchanged": plan.unchanged,
        "others": plan.others.iter().map(|(kind, name)| json!({ "kind": kind, "name": name.as_str() })).collect::<Vec<_>>(),
    })
}
