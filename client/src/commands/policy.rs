//! `policy`: shows the policies of a path and of all below it.

use clap::Args;
use fulmar_core::limits::WIRE_INT_MAX;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, NamedPolicy, PolicyCommand, Success};
use serde_json::{Value, json};

use super::{Context, PathArgument, full_name};
use crate::connection::{Connection, Daemon};
use crate::error::Failure;
use crate::output::json;
use crate::output::table::{Align, Table};
use crate::output::text::{megabytes, plain, ranges};

/// The command line of `policy`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local policy shop:")]
pub struct Policy {
    #[command(flatten)]
    path: PathArgument,
}

impl Policy {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let path = self.path.or_root(context);
        let mut connection = context.door.open(Daemon::Vmmd)?;
        connection.send(path, Command::Policy(PolicyCommand::Info))?;
        show(context, &mut connection, path)
    }
}

/// Shows the reply.
pub(crate) fn show(context: &mut Context<'_>, connection: &mut Connection, path: Name) -> Result<(), Failure> {
    let daemon = connection.daemon();
    let Success::Policies(policies) = connection.receive(path)? else {
        return Err(Failure::Unexpected { daemon });
    };
    let policies = policies.iter().map(|entry| NamedPolicy { name: full_name(path, entry.name), ..entry });
    if context.json {
        let list: Vec<Value> = policies.map(|entry| json::policy(&entry.name, &entry.policy)).collect();
        return context.print_json(&json!({ "policies": list }));
    }
    let mut table = Table::new([
        ("PATH", Align::Left),
        ("UNIKERNELS", Align::Right),
        ("MEMORY", Align::Right),
        ("CPUS", Align::Left),
        ("BLOCK", Align::Right),
        ("BRIDGES", Align::Left),
    ]);
    for NamedPolicy { name, policy } in policies {
        let unlimited = policy.unikernels >= WIRE_INT_MAX;
        table.push([
            name.to_string(),
            if unlimited { "unlimited".to_owned() } else { policy.unikernels.to_string() },
            megabytes(policy.memory),
            ranges(policy.cpuids.iter()),
            policy.block.map(megabytes).unwrap_or_default(),
            policy.bridges.iter().map(|bridge| plain(bridge.as_bytes())).collect::<Vec<_>>().join(","),
        ]);
    }
    if table.is_empty() {
        context.note(&format!("no policy at {path} or below"));
        return Ok(());
    }
    table.write(context.out).map_err(Failure::print)
}
