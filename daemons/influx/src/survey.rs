//! What `vmmd` says of unikernels, policies and the host, asked again and again; and whether the daemons are there.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use fulmar_core::name::Name;
use fulmar_core::wire::{Command, List, NamedPolicy, Phase, PolicyCommand, Success, UnikernelCommand};
use fulmar_host::{info, warning};

use crate::daemon::{Conversation, DaemonError};
use crate::snapshot::{Allowed, Domain, Shared, Survey, Unikernel, Use};

/// The daemons and their sockets below the run folder.
const DAEMONS: [(&str, &str); 4] = [
    ("vmmd", "util/vmmd.sock"),
    ("vmmd_console", "util/console.sock"),
    ("vmmd_stats", "util/stat.sock"),
    ("vmmd_log", "util/log.sock"),
];

/// Asks for ever.
pub(crate) fn repeat(run: &Path, interval: Duration, shared: &Shared) {
    let mut said = String::new();
    loop {
        let daemons = DAEMONS.map(|(daemon, socket)| (daemon, UnixStream::connect(run.join(socket)).is_ok()));
        let text = match survey(run) {
            Ok(survey) => {
                let mut snapshot = shared.lock();
                // What does not run any more is not measured any more.
                let runs = |name: &Name| survey.unikernels.get(name).is_some_and(|it| it.is_running);
                snapshot.measured.retain(|name, _| runs(name));
                snapshot.survey = Survey { daemons, ..survey };
                String::new()
            }
            Err(error) => {
                let mut snapshot = shared.lock();
                snapshot.survey = Survey { daemons, ..Survey::default() };
                format!("vmmd ({}): {error}", run.join(DAEMONS[0].1).display())
            }
        };
        shared.lock().note_survey();
        if text != said {
            match text.as_str() {
                "" => info!("vmmd is here"),
                text => warning!("{text}"),
            }
            said = text;
        }
        sleep(interval);
    }
}

fn survey(run: &Path) -> Result<Survey, DaemonError> {
    let socket = run.join(DAEMONS[0].1);
    let ask = |command| Conversation::begin(&socket, command);
    let mut survey = Survey::default();
    match ask(Command::Host)?.reply()? {
        Success::Host(host) => {
            survey.version = String::from_utf8_lossy(host.version.0).into_owned();
            let uses = host.uses.iter().map(|it| Use {
                what: String::from_utf8_lossy(it.what.0).into_owned(),
                used: count(it.used),
                limit: count(it.limit),
            });
            survey.uses = uses.collect();
        }
        _ => return Err(DaemonError::Unexpected),
    }
    match or_none(ask(Command::Unikernel(UnikernelCommand::Info))?.reply())? {
        Some(Success::Infos(infos)) => {
            for entry in infos.iter() {
                let blocks = entry.info.block_devices.iter().map(|block| count(block.size)).sum();
                let memory_mb = count(entry.info.memory);
                survey.unikernels.insert(entry.name, Unikernel { memory_mb, block_mb: blocks, ..Unikernel::default() });
            }
        }
        None => {}
        Some(_) => return Err(DaemonError::Unexpected),
    }
    match or_none(ask(Command::Unikernel(UnikernelCommand::Condition))?.reply())? {
        Some(Success::Conditions(conditions)) => {
            for entry in conditions.iter() {
                // One that came between the two questions is there the next time.
                let Some(unikernel) = survey.unikernels.get_mut(&entry.name) else { continue };
                unikernel.is_running = matches!(entry.condition.phase, Phase::Running | Phase::Stopping);
                unikernel.restarts = count(entry.condition.restarts);
                unikernel.last = entry.condition.last.map(|last| last.end);
            }
        }
        None => {}
        Some(_) => return Err(DaemonError::Unexpected),
    }
    let blocks: Vec<(Name, u64)> = match or_none(ask(Command::Block(fulmar_core::wire::BlockCommand::Info))?.reply())? {
        Some(Success::Blocks(blocks)) => blocks.iter().map(|block| (block.name, count(block.size))).collect(),
        None => Vec::new(),
        Some(_) => return Err(DaemonError::Unexpected),
    };
    match or_none(ask(Command::Policy(PolicyCommand::Info))?.reply())? {
        Some(Success::Policies(policies)) => survey.domains = domains(&survey.unikernels, &blocks, policies),
        None => {}
        Some(_) => return Err(DaemonError::Unexpected),
    }
    Ok(survey)
}

/// Where there is none of what was asked for, that is said as a refusal.
fn or_none(reply: Result<Success<'_>, DaemonError>) -> Result<Option<Success<'_>>, DaemonError> {
    match reply {
        Err(DaemonError::Refused(_)) => Ok(None),
        reply => reply.map(Some),
    }
}

/// Each unikernel and each block device counts at every path above it that has a policy.
fn domains(
    unikernels: &BTreeMap<Name, Unikernel>,
    blocks: &[(Name, u64)],
    policies: List<'_, NamedPolicy<'_>>,
) -> BTreeMap<Name, Domain> {
    let mut domains: BTreeMap<Name, Domain> = BTreeMap::new();
    for entry in policies.iter() {
        let allowed = Allowed {
            unikernels: count(entry.policy.unikernels),
            memory_mb: count(entry.policy.memory),
            block_mb: entry.policy.block.map_or(0, count),
            cpus: entry.policy.cpuids.iter().count() as u64,
        };
        domains.insert(entry.name, Domain { allowed, ..Domain::default() });
    }
    for (name, unikernel) in unikernels {
        for path in name.ancestors() {
            if let Some(domain) = domains.get_mut(&path) {
                domain.unikernels += 1;
                domain.memory_mb += unikernel.memory_mb;
            }
        }
    }
    for (name, size_mb) in blocks {
        for path in name.ancestors() {
            if let Some(domain) = domains.get_mut(&path) {
                domain.block_mb += size_mb;
            }
        }
    }
    domains
}

/// Nothing is counted below zero.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
