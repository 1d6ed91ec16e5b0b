//! `info`: shows the unikernels that run, as a table, or one of them in full.

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, Command, Condition, FailBehaviour, InfoBlock, InfoBridge, Kind, LastRun, NamedCondition, NamedInfo, Phase,
    Success, UnikernelCommand,
};
use serde_json::{Value, json};

use super::{Context, full_name};
use crate::connection::{Connection, Daemon};
use crate::error::Failure;
use crate::options;
use crate::output::json;
use crate::output::table::{Align, Table, write_pairs};
use crate::output::text::{ago, ahead, hex, mac, megabytes, plain, ranges, shell_word, timestamp};

/// Hexadecimal digits of a digest that tell images apart in a table.
const DIGEST_DIGITS: usize = 12;

/// The command line of `info`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local info
  vmmc_local info shop:
  vmmc_local info shop:web --json")]
pub struct Info {
    /// A unikernel, or a path (with ':' at its end) for all in it and below; all where it is missing
    #[arg(value_name = "NAME|PATH:", value_parser = options::name)]
    place: Option<Name>,
    /// The same, as an option
    #[arg(short, long = "name", value_name = "NAME|PATH:", value_parser = options::name, conflicts_with = "place")]
    name: Option<Name>,
}

impl Info {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let asked = self.place.or(self.name).unwrap_or(context.door.root());
        let mut connection = context.door.open(Daemon::Vmmd)?;
        connection.send(asked, Command::Unikernel(UnikernelCommand::Info))?;
        show(context, &mut connection, asked)
    }
}

/// Shows the reply, and how those that are listed fare where that can be asked.
pub(crate) fn show(context: &mut Context<'_>, connection: &mut Connection, asked: Name) -> Result<(), Failure> {
    let daemon = connection.daemon();
    let Success::Infos(infos) = connection.receive(asked)? else {
        return Err(Failure::Unexpected { daemon });
    };
    let mut infos = infos.iter().map(|entry| NamedInfo { name: full_name(asked, entry.name), ..entry });
    // Not every daemon of this protocol can tell.
    let mut other = context.door.open(Daemon::Vmmd).ok();
    let conditions = other.as_mut().map(|connection| conditions(connection, asked)).unwrap_or_default();
    let condition = |name: &Name| conditions.iter().find(|entry| entry.name == *name).map(|entry| entry.condition);
    if context.json {
        let one = |entry: NamedInfo<'_>| json::unikernel(&entry.name, &entry.info, condition(&entry.name).as_ref());
        let list: Vec<Value> = infos.map(one).collect();
        return context.print_json(&json!({ "unikernels": list }));
    }
    if !asked.is_path() {
        return infos.try_for_each(|entry| write_one(context, &entry, condition(&entry.name).as_ref()));
    }
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("RUNS", Align::Right),
        ("MEMORY", Align::Right),
        ("CPUS", Align::Left),
        ("RESTART", Align::Left),
        ("NETWORK", Align::Left),
        ("BLOCK", Align::Left),
        ("IMAGE", Align::Left),
    ]);
    for NamedInfo { name, info } in infos {
        table.push([
            name.to_string(),
            state(&info, condition(&name).as_ref(), context.now_unix_ms),
            condition(&name).map(|it| it.restarts.saturating_add(1).to_string()).unwrap_or_default(),
            megabytes(info.memory),
            ranges(info.cpuids.iter()),
            restart(&info.fail_behaviour),
            join(info.bridges.iter().map(|net| mapping(net.device.0, net.host.0))),
            join(info.block_devices.iter().map(|block| mapping(block.device.0, block.host.0))),
            hex(info.digest).chars().take(DIGEST_DIGITS).collect(),
        ]);
    }
    if table.is_empty() {
        context.note(&format!("no unikernel at {asked} or below"));
        return Ok(());
    }
    table.write(context.out).map_err(Failure::print)
}

/// How the unikernels that were asked about fare, by their full names; nothing where the daemon does not know the question.
fn conditions(connection: &mut Connection, asked: Name) -> Vec<NamedCondition<'_>> {
    if connection.send(asked, Command::Unikernel(UnikernelCommand::Condition)).is_err() {
        return Vec::new();
    }
    match connection.receive(asked) {
        Ok(Success::Conditions(list)) => {
            list.iter().map(|entry| NamedCondition { name: full_name(asked, entry.name), ..entry }).collect()
        }
        _ => Vec::new(),
    }
}

/// Since when it runs, or what it does instead.
fn state(info: &wire::Info<'_>, condition: Option<&Condition<'_>>, now_unix_ms: i64) -> String {
    let up = info.started.map(|started| format!("up {}", ago(started, now_unix_ms)));
    match condition {
        Some(Condition { phase: Phase::Running, .. }) | None => up.unwrap_or_default(),
        Some(Condition { phase: Phase::Resting, next_unix_ms: Some(next), .. }) => {
            format!("resting, next try in {}", ahead(*next, now_unix_ms))
        }
        Some(condition) => condition.phase.as_str().to_owned(),
    }
}

/// What there is to say about how it fares, for people.
fn fares(condition: &Condition<'_>, now_unix_ms: i64) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("state", condition.phase.as_str().to_owned())];
    if let Some(next) = condition.next_unix_ms {
        pairs.push(("next try", format!("{} (in {})", timestamp(next), ahead(next, now_unix_ms))));
    }
    if let Some(reason) = condition.reason {
        pairs.push(("why", plain(reason.0)));
    }
    pairs.push(("restarts", condition.restarts.to_string()));
    if condition.failures > 0 {
        pairs.push(("short runs", format!("{} in a row", condition.failures)));
    }
    if let Some(LastRun { ended_unix_ms, end }) = condition.last {
        let ago = ago(ended_unix_ms, now_unix_ms);
        pairs.push(("last run", format!("{end}, {} ({ago} ago)", timestamp(ended_unix_ms))));
    }
    pairs
}

fn write_one(
    context: &mut Context<'_>,
    entry: &NamedInfo<'_>,
    condition: Option<&Condition<'_>>,
) -> Result<(), Failure> {
    let info: &wire::Info<'_> = &entry.info;
    let started = |started| format!("{} ({} ago)", timestamp(started), ago(started, context.now_unix_ms));
    let arguments =
        info.argv.map(|argv| argv.iter().map(|argument| shell_word(&plain(argument.0))).collect::<Vec<_>>());
    let mut pairs = vec![
        ("name", entry.name.to_string()),
        ("started", info.started.map(started).unwrap_or_default()),
        ("memory", megabytes(info.memory)),
        ("CPUs", ranges(info.cpuids.iter())),
        ("restart", restart(&info.fail_behaviour)),
        ("startup", info.startup.map_or_else(|| "50 (default)".to_owned(), |place| place.to_string())),
    ];
    pairs.splice(2..2, condition.map(|it| fares(it, context.now_unix_ms)).unwrap_or_default());
    pairs.extend(info.bridges.iter().map(|net| ("network", network(&net))));
    pairs.extend(info.block_devices.iter().map(|block| ("block", block_device(&block))));
    pairs.push(("arguments", arguments.unwrap_or_default().join(" ")));
    if info.kind == Kind::Bhyve {
        pairs.push(("virtual CPUs", info.numcpus.to_string()));
        pairs.push(("Linux on", info.linux_boot.map(|partition| plain(partition.0)).unwrap_or_default()));
    }
    match info.kind {
        Kind::Solo5 => pairs.push(("image", hex(info.digest))),
        Kind::Bhyve => pairs.push(("machine", plain(info.digest))),
    }
    write_pairs(context.out, &pairs).and_then(|()| context.out.flush()).map_err(Failure::print)
}

fn restart(behaviour: &FailBehaviour<'_>) -> String {
    match behaviour {
        FailBehaviour::Quit => "no".to_owned(),
        FailBehaviour::Restart(codes) if codes.is_empty() => "on failure".to_owned(),
        FailBehaviour::Restart(codes) => format!("on {}", ranges(codes.iter())),
    }
}

fn network(net: &InfoBridge<'_>) -> String {
    format!("{} on bridge {}, MAC {}", plain(net.device.0), plain(net.host.0), mac(&net.mac))
}

fn block_device(block: &InfoBlock<'_>) -> String {
    let (device, host) = (plain(block.device.0), plain(block.host.0));
    format!("{device} is {host}, {}, sectors of {} bytes", megabytes(block.size), block.sector_size)
}

fn mapping(device: &[u8], host: &[u8]) -> String {
    if device == host { plain(device) } else { format!("{}:{}", plain(device), plain(host)) }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}
