//! Bringing a host to what a manifest wants: read, compare with what is there, check, show, ask, do. Nothing is changed before all
//! that can be known to be wrong has been said, and what is as wanted is left running.
//!
//! | file | what is in it |
//! |---|---|
//! | `section` | tables of TOML, and faults with their lines |
//! | `manifest` | what is wanted |
//! | `order` | who comes before whom |
//! | `settings` | what a unikernel runs with, wanted or there |
//! | `present` | what is there |
//! | `plan` | what has to change |
//! | `check` | what cannot be |
//! | `sources`, `download` | images, from files, this host and elsewhere |
//! | `apply` | carrying the plan out |
//! | `show` | the plan as text and as JSON |

mod apply;
mod check;
mod download;
mod manifest;
mod order;
mod plan;
mod present;
mod section;
mod settings;
pub(crate) mod show;
mod sources;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Read, stdin};
use std::path::Path;

use self::apply::Means;
use self::manifest::Manifest;
use self::plan::Plan;
use self::present::Present;
pub use self::section::Fault;
use self::show::Detail;
use self::sources::Fetched;
use crate::commands::Context;
use crate::error::Failure;
use crate::input;
use crate::output::text::heading;

/// Bytes of the longest manifest that is read: a thousand unikernels with a hundred lines each.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// What to do with a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Show the plan, and do it once somebody has agreed.
    Ask,
    /// Show the plan, and do it.
    Apply,
    /// Show the plan.
    DryRun,
    /// Show what differs, field by field.
    Diff,
}

/// Does it.
///
/// # Errors
/// [`Failure::Manifest`] for all that is wrong with the manifest, [`Failure::Unapplied`] where something would change and does not, and what
/// ended it early.
pub fn run(context: &mut Context<'_>, file: &Path, purpose: Purpose, prune: bool) -> Result<(), Failure> {
    let wrong = |faults| Failure::Manifest { file: file.to_owned(), faults };
    let manifest = Manifest::parse(&read(file)?).map_err(wrong)?;
    if prune && !manifest.path_is_given {
        let text = "--prune destroys what is below the manifest's path: add path = \"PATH:\" to the manifest";
        return Err(Failure::Usage { text: format!("{}: {text}", file.display()) });
    }
    let beside = file.parent().unwrap_or(Path::new(""));
    let digests = sources::digests(&manifest, beside).map_err(wrong)?;
    let door = context.door;
    let present = Present::ask(door)?;
    let plan = plan::make(&manifest, &digests, &present, prune);
    let faults = check::check(&manifest, &present, &plan, &door.root());
    let fetched = Fetched::new()?;
    let images = sources::images(&manifest, beside, &plan, &present, door, &fetched);
    let (images, faults) = match images {
        Ok(images) => (images, faults),
        Err(further) => (Vec::new(), [faults, further].concat()),
    };
    if !faults.is_empty() {
        return Err(wrong(faults));
    }
    let detail = if purpose == Purpose::Diff { Detail::Diff } else { Detail::Plan };
    if !context.json {
        show::plan(context.out, &plan, detail).and_then(|()| context.out.flush()).map_err(Failure::print)?;
    }
    let means = Means { door, manifest: &manifest, images: &images };
    let consent = consent(context, &plan, purpose);
    let (done, result) = match consent {
        Ok(()) => carry_out(context, &plan, &means),
        Err(failure) => (0, Err(failure)),
    };
    if context.json {
        let place = file.display().to_string();
        context.print_json(&show::document(&place, &manifest.path, &plan, done))?;
    }
    result
}

fn read(file: &Path) -> Result<String, Failure> {
    let failure = |error| Failure::Input { file: file.to_owned(), error };
    let mut text = String::new();
    let opened = input::open(file).map_err(failure)?;
    opened.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text).map_err(failure)?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        let text = format!("{}: is larger than {MANIFEST_BYTES_MAX} bytes: split it", file.display());
        return Err(Failure::Usage { text });
    }
    Ok(text)
}

/// Whether the plan is to be carried out.
fn consent(context: &mut Context<'_>, plan: &Plan, purpose: Purpose) -> Result<(), Failure> {
    let changes = plan.changes.len();
    match purpose {
        _ if changes == 0 => Ok(()),
        Purpose::Apply => Ok(()),
        Purpose::DryRun | Purpose::Diff => Err(Failure::Unapplied { changes }),
        Purpose::Ask if !stdin().is_terminal() => {
            let text = "nothing was changed: there is no terminal to ask: add --yes to apply the plan";
            Err(Failure::Usage { text: text.to_owned() })
        }
        Purpose::Ask => {
            let failed = write!(context.notes, "apply {}? [y/N] ", show::counted(changes));
            failed.and_then(|()| context.notes.flush()).map_err(Failure::print)?;
            let mut answer = String::new();
            stdin().read_line(&mut answer).map_err(|error| Failure::Input { file: "standard input".into(), error })?;
            if matches!(answer.trim(), "y" | "yes") { Ok(()) } else { Err(Failure::Unapplied { changes }) }
        }
    }
}

/// Does one change after the other; how many are done, and what ended it.
fn carry_out(context: &mut Context<'_>, plan: &Plan, means: &Means<'_>) -> (usize, Result<(), Failure>) {
    for (done, change) in plan.changes.iter().enumerate() {
        let what = format!("{} {} {}", change.verb(), change.action.kind(), heading(change.name.as_str()));
        if let Err(failure) = means.apply(change) {
            context.note(&format!("{what} failed"));
            for rest in plan.changes.iter().skip(done + 1) {
                context.note(&format!("not tried: {} {} {}", rest.verb(), rest.action.kind(), rest.name));
            }
            let all = plan.changes.len();
            context.note(&format!("{done} of {all} done, which stay: mend the cause and deploy again"));
            return (done, Err(failure));
        }
        if !context.json {
            let written = writeln!(context.out, "{what} done").and_then(|()| context.out.flush());
            if let Err(error) = written {
                return (done + 1, Err(Failure::print(error)));
            }
        }
    }
    (plan.changes.len(), Ok(()))
}
