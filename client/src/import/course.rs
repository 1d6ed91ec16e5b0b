//! The order of an import, policies from the top down, then block devices, then unikernels in their order of start, and what
//! becomes of each: decided from what the daemon has and what the host says. Only a daemon that is gone ends it early.

use std::collections::BTreeSet;
use std::fmt;

use fulmar_core::limits::STARTUP_DEFAULT;
use fulmar_core::name::Name;
use fulmar_core::policy;
use fulmar_core::state_import::{Entry, State};
use fulmar_core::wire::{self, Config, Malformed, Policy};

use super::content::{self, Content};
use super::host::Host;
use super::image;
use super::present::{Present, canonical};
use super::report::{Fate, Kind, Outcome, Report};
use super::state::{BlockFile, Found, What};
use crate::connection::Door;
use crate::error::Failure;
use crate::output::text::{megabytes, shell_word};

/// Characters of the column of names: a longer one pushes the rest of its line aside.
const NAME_WIDTH_MAX: usize = 40;

/// All that is to come over, in order.
pub(super) struct Course<'a> {
    policies: Vec<Entry<'a, Policy<'a>>>,
    blocks: &'a [Found],
    unikernels: Vec<Entry<'a, Config<'a>>>,
}

impl fmt::Display for Course<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = self.blocks.iter().filter(|found| !matches!(found.what, What::Foreign(_))).count();
        let (policies, unikernels) = (self.policies.len(), self.unikernels.len());
        write!(f, "policies: {policies}, block devices: {blocks}, unikernels: {unikernels}")
    }
}

impl<'a> Course<'a> {
    pub(super) fn new(state: &State<'a>, blocks: &'a [Found]) -> Self {
        let mut policies: Vec<_> = state.policies().collect();
        policies.sort_by_key(|entry| entry.content.map_or(usize::MAX, |(path, _)| path.labels().count()));
        let mut unikernels: Vec<_> = state.unikernels().collect();
        let startup = |config: Config<'_>| config.arguments.startup.unwrap_or(STARTUP_DEFAULT);
        unikernels.sort_by_key(|entry| entry.content.map_or(i64::MAX, |(_, config)| startup(config)));
        Self { policies, blocks, unikernels }
    }

    /// Characters of the longest name, as far as a column is made for it.
    pub(super) fn name_width(&self) -> usize {
        let policies = self.policies.iter().map(|entry| shown(entry).chars().count());
        let unikernels = self.unikernels.iter().map(|entry| shown(entry).chars().count());
        let blocks = self.blocks.iter().map(|found| found.text.chars().count());
        policies.chain(unikernels).chain(blocks).max().unwrap_or(0).min(NAME_WIDTH_MAX)
    }

    /// Goes it.
    ///
    /// # Errors
    /// What ended it early.
    pub(super) fn run(
        &self,
        door: &dyn Door,
        present: &Present,
        host: &mut dyn Host,
        report: &mut Report<'_, '_>,
    ) -> Result<(), Failure> {
        for entry in &self.policies {
            let outcome = bring_policy(entry, present, host);
            settle(report, Kind::Policy, &shown(entry), outcome)?;
        }
        let mut lost = BTreeSet::new();
        for found in self.blocks {
            let outcome = bring_block(found, door, present, host);
            if outcome.as_ref().is_ok_and(|outcome| outcome.fate.is_loss()) {
                lost.extend(Name::parse(&found.text));
            }
            settle(report, Kind::Block, &found.text, outcome)?;
        }
        for entry in &self.unikernels {
            let outcome = self.bring_unikernel(entry, &lost, present, host);
            settle(report, Kind::Unikernel, &shown(entry), outcome)?;
        }
        Ok(())
    }

    fn bring_unikernel(
        &self,
        entry: &Entry<'_, Config<'_>>,
        lost: &BTreeSet<Name>,
        present: &Present,
        host: &mut dyn Host,
    ) -> Result<Outcome, Failure> {
        let (name, config) = match entry.content {
            Ok(content) => content,
            Err(error) => return Ok(unreadable(error).mended_by("create it by hand (vmmc_local create)")),
        };
        let seen = image::look(&config);
        if let Some(there) = present.unikernels.get(&name) {
            let has_same_image = match (config.kind, there.digest) {
                (wire::Kind::Bhyve, digest) => digest.is_none(),
                (wire::Kind::Solo5, digest) => digest.is_some() && seen.as_ref().ok().map(|seen| seen.digest) == digest,
            };
            let other = if !has_same_image {
                "one with another image is there"
            } else if canonical(&name, &config.arguments).as_ref() != Some(&there.arguments) {
                "one with other arguments is there"
            } else {
                return Ok(Outcome::plain(Fate::There));
            };
            let remedy = format!("to have albatross's: vmmc_local destroy {name}, then import again");
            return Ok(Outcome::because(Fate::Conflict, other).mended_by(remedy));
        }
        let disks: Vec<Name> =
            config.arguments.block_devices.iter().filter_map(|it| name.path().join(it.host()).ok()).collect();
        if let Some(disk) = disks.iter().find(|disk| lost.contains(*disk)) {
            return Ok(Outcome::because(Fate::Refused, format!("its block device {disk} did not come over")));
        }
        let Some(reason) = refusal(host.create(name, &config, &seen))? else {
            return Ok(Outcome::plain(Fate::Imported));
        };
        let outcome = Outcome::because(Fate::Refused, reason);
        let brought = |disk: &Name| self.blocks.iter().any(|found| Name::parse(&found.text) == Ok(*disk));
        Ok(match disks.iter().find(|disk| !present.blocks.contains_key(*disk) && !brought(disk)) {
            Some(disk) => outcome.mended_by(format!("make it (vmmc_local add-block {disk} MB), then import again")),
            None => outcome,
        })
    }
}

/// Says what became of an item, or that it was the last one that was tried.
fn settle(
    report: &mut Report<'_, '_>,
    kind: Kind,
    name: &str,
    outcome: Result<Outcome, Failure>,
) -> Result<(), Failure> {
    match outcome {
        Ok(outcome) => report.item(kind, name, &outcome),
        Err(failure) => {
            report.stopped_at(kind, name);
            Err(failure)
        }
    }
}

/// The name of an entry, as well as it can be told.
fn shown<T>(entry: &Entry<'_, T>) -> String {
    match &entry.content {
        Ok((name, _)) => name.to_string(),
        Err(_) => String::from_utf8_lossy(entry.text).into_owned(),
    }
}

fn unreadable(error: Malformed) -> Outcome {
    Outcome::because(Fate::Refused, format!("its entry cannot be taken over ({})", error.reason))
}

/// Why one item was refused, where it was; an error where no further one needs to be tried.
fn refusal(result: Result<(), Failure>) -> Result<Option<String>, Failure> {
    match result {
        Ok(()) => Ok(None),
        Err(Failure::Refused { text, .. }) => Ok(Some(text)),
        Err(failure @ (Failure::TooLarge | Failure::Input { .. })) => Ok(Some(failure.to_string())),
        Err(failure) => Err(failure),
    }
}

fn bring_policy(entry: &Entry<'_, Policy<'_>>, present: &Present, host: &mut dyn Host) -> Result<Outcome, Failure> {
    let (path, policy) = match entry.content {
        Ok(content) => content,
        Err(error) => return Ok(unreadable(error).mended_by("set one by hand (vmmc_local add-policy)")),
    };
    if !path.is_path() {
        return Ok(Outcome::because(Fate::Refused, "its name is that of a unikernel: a policy belongs to a path"));
    }
    if path.is_root() {
        return Ok(Outcome::because(Fate::LeftOut, "the root policy is what this host has"));
    }
    if let Some(there) = present.policies.get(&path) {
        if policy::Policy::try_from(&policy).as_ref() == Ok(&there.policy) {
            return Ok(Outcome::plain(Fate::There));
        }
        let outcome = Outcome::because(Fate::Conflict, "another one is there");
        return Ok(outcome.mended_by(format!("to have albatross's: {}", by_hand(&path, &policy))));
    }
    Ok(match refusal(host.set_policy(path, &policy))? {
        None => Outcome::plain(Fate::Imported),
        Some(reason) => Outcome::because(Fate::Refused, reason)
            .mended_by(format!("change the one above and import again, or set what fits: {}", by_hand(&path, &policy))),
    })
}

/// The command that sets a policy.
fn by_hand(path: &Name, policy: &Policy<'_>) -> String {
    let mut text = format!("vmmc_local add-policy {path} {} --mem {}", policy.unikernels, policy.memory);
    for cpu in policy.cpuids {
        text.push_str(&format!(" --cpu {cpu}"));
    }
    if let Some(block) = policy.block {
        text.push_str(&format!(" --block {block}"));
    }
    for bridge in policy.bridges {
        text.push_str(&format!(" --bridge {}", shell_word(bridge)));
    }
    text
}

fn bring_block(found: &Found, door: &dyn Door, present: &Present, host: &mut dyn Host) -> Result<Outcome, Failure> {
    let file = match &found.what {
        What::Block(file) => file,
        What::Foreign(reason) => return Ok(Outcome::because(Fate::LeftOut, *reason)),
        What::Unusable(reason, remedy) => {
            return Ok(Outcome::because(Fate::Refused, reason.as_str()).mended_by(remedy.as_str()));
        }
    };
    if let Some(there) = present.blocks.get(&file.name) {
        let other = if there.size_mb != file.size_mb {
            format!("one of {} is there, this one has {}", megabytes(there.size_mb), megabytes(file.size_mb))
        } else if there.active {
            return Ok(Outcome::because(Fate::There, "a unikernel uses it, so the content was not compared"));
        } else {
            match content::compare(door, file) {
                Ok(Content::Same) => return Ok(Outcome::plain(Fate::There)),
                Ok(Content::Zeros) => return fill(file, host),
                Ok(Content::Different) => "one with other content is there".to_owned(),
                Err(failure) => {
                    let reason = refusal(Err(failure))?.unwrap_or_default();
                    let reason = format!("one is there and cannot be compared ({reason})");
                    return Ok(Outcome::because(Fate::Refused, reason));
                }
            }
        };
        let remedy = format!("to have albatross's: vmmc_local remove-block {}, then import again", file.name);
        return Ok(Outcome::because(Fate::Conflict, other).mended_by(remedy));
    }
    if let Some(reason) = refusal(host.add_block(file.name, file.size_mb))? {
        let remedy = "allow it in the policies above (vmmc_local add-policy), then import again";
        return Ok(Outcome::because(Fate::Refused, reason).mended_by(remedy));
    }
    let outcome = fill(file, host)?;
    if outcome.fate.is_loss() {
        // It was made for this content alone.
        host.remove_block(file.name)?;
    }
    Ok(outcome)
}

fn fill(file: &BlockFile, host: &mut dyn Host) -> Result<Outcome, Failure> {
    Ok(match refusal(host.fill_block(file))? {
        None => Outcome::plain(Fate::Imported),
        Some(reason) => Outcome::because(Fate::Refused, reason),
    })
}
