//! What `vmmd` says: unikernels, how they fare, and what paths use of what they may.

use std::collections::BTreeMap;

use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command, Phase, PolicyCommand, Success, UnikernelCommand};

use crate::commands::full_name;
use crate::connection::{Daemon, Door};
use crate::error::Failure;

/// One unikernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unikernel {
    /// What it does; nothing where the daemon cannot tell.
    pub(crate) phase: Option<Phase>,
    /// When its process started, in milliseconds since 1970.
    pub(crate) started_unix_ms: Option<i64>,
    /// When it is tried again, likewise.
    pub(crate) next_unix_ms: Option<i64>,
    /// How often it was started again.
    pub(crate) restarts: i64,
    /// Memory that it was given, MiB.
    pub(crate) memory_mb: i64,
}

/// What a path uses, and what its policy allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Domain {
    /// Unikernels in it and below.
    pub(crate) unikernels: Share,
    /// Their memory, MiB.
    pub(crate) memory_mb: Share,
    /// Block storage, MiB.
    pub(crate) block_mb: Share,
}

/// A part of what there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Share {
    /// So much is used.
    pub(crate) used: i64,
    /// So much may be.
    pub(crate) allowed: i64,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Survey {
    /// By their names.
    pub(crate) unikernels: BTreeMap<Name, Unikernel>,
    /// Those that have a policy, by their paths.
    pub(crate) domains: BTreeMap<Name, Domain>,
}

/// Asks for all below a path.
///
/// # Errors
/// [`Failure`], as it says.
pub(crate) fn ask(door: &dyn Door, path: Name) -> Result<Survey, Failure> {
    let mut survey = Survey::default();
    let unexpected = || Failure::Unexpected { daemon: Daemon::Vmmd };
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(path, Command::Unikernel(UnikernelCommand::Info))?;
    match or_none(connection.receive(path))? {
        Some(Success::Infos(infos)) => {
            for entry in infos.iter() {
                let unikernel = Unikernel {
                    phase: None,
                    started_unix_ms: entry.info.started,
                    next_unix_ms: None,
                    restarts: 0,
                    memory_mb: entry.info.memory,
                };
                survey.unikernels.insert(full_name(path, entry.name), unikernel);
            }
        }
        None => {}
        Some(_) => return Err(unexpected()),
    }
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(path, Command::Unikernel(UnikernelCommand::Condition))?;
    // Not every daemon of this protocol can tell.
    if let Ok(Success::Conditions(conditions)) = connection.receive(path) {
        for entry in conditions.iter() {
            if let Some(unikernel) = survey.unikernels.get_mut(&full_name(path, entry.name)) {
                unikernel.phase = Some(entry.condition.phase);
                unikernel.next_unix_ms = entry.condition.next_unix_ms;
                unikernel.restarts = entry.condition.restarts;
            }
        }
    }
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(path, Command::Policy(PolicyCommand::Info))?;
    match or_none(connection.receive(path))? {
        Some(Success::Policies(policies)) => {
            for entry in policies.iter() {
                let allowed = |allowed| Share { used: 0, allowed };
                let domain = Domain {
                    unikernels: allowed(entry.policy.unikernels),
                    memory_mb: allowed(entry.policy.memory),
                    block_mb: allowed(entry.policy.block.unwrap_or(0)),
                };
                survey.domains.insert(full_name(path, entry.name), domain);
            }
        }
        None => {}
        Some(_) => return Err(unexpected()),
    }
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(path, Command::Block(BlockCommand::Info))?;
    let blocks: Vec<(Name, i64)> = match or_none(connection.receive(path))? {
        Some(Success::Blocks(blocks)) => blocks.iter().map(|it| (full_name(path, it.name), it.size)).collect(),
        None => Vec::new(),
        Some(_) => return Err(unexpected()),
    };
    survey.count(&blocks);
    Ok(survey)
}

/// Where there is none of what was asked for, that is said as a refusal.
fn or_none(reply: Result<Success<'_>, Failure>) -> Result<Option<Success<'_>>, Failure> {
    match reply {
        Err(Failure::Refused { .. }) => Ok(None),
        reply => reply.map(Some),
    }
}

impl Survey {
    /// Each unikernel and each block device counts at every path above it.
    fn count(&mut self, blocks: &[(Name, i64)]) {
        let Self { unikernels, domains } = self;
        for (name, unikernel) in unikernels {
            for path in name.ancestors() {
                if let Some(domain) = domains.get_mut(&path) {
                    domain.unikernels.used = domain.unikernels.used.saturating_add(1);
                    domain.memory_mb.used = domain.memory_mb.used.saturating_add(unikernel.memory_mb);
                }
            }
        }
        for (name, size_mb) in blocks {
            for path in name.ancestors() {
                if let Some(domain) = domains.get_mut(&path) {
                    domain.block_mb.used = domain.block_mb.used.saturating_add(*size_mb);
                }
            }
        }
    }
}
