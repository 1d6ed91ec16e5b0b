//! `host`: shows what this machine has, what of it is used, and what bounds unikernels.

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, Success, Use};

use super::Context;
use crate::connection::{Connection, Daemon};
use crate::error::Failure;
use crate::output::json;
use crate::output::table::{Align, Table, write_pairs};
use crate::output::text::{plain, ranges, size};

/// The command line of `host`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local host")]
pub struct Host {}

impl Host {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let mut connection = context.door.open(Daemon::Vmmd)?;
        connection.send(Name::ROOT, Command::Host)?;
        show(context, &mut connection)
    }
}

/// Shows the reply.
pub(crate) fn show(context: &mut Context<'_>, connection: &mut Connection) -> Result<(), Failure> {
    let daemon = connection.daemon();
    let Success::Host(host) = connection.receive(Name::ROOT)? else {
        return Err(Failure::Unexpected { daemon });
    };
    if context.json {
        return context.print_json(&json::host(&host));
    }
    let bridges: Vec<_> = host.bridges.iter().map(|bridge| plain(bridge.as_bytes())).collect();
    let facts: Vec<_> = host.facts.iter().map(|fact| (plain(fact.what.0), plain(fact.how.0))).collect();
    let own = [
        ("vmmd", plain(host.version.0)),
        ("cpus", ranges(host.cpuids.iter())),
        ("bridges", if bridges.is_empty() { "none".to_owned() } else { bridges.join(",") }),
    ];
    let facts = facts.iter().map(|(what, how)| (what.as_str(), how.clone()));
    let pairs: Vec<(&str, String)> = own.into_iter().chain(facts).collect();
    write_pairs(context.out, &pairs).map_err(Failure::print)?;
    writeln!(context.out).map_err(Failure::print)?;
    let mut table = Table::new([("WHAT", Align::Left), ("USED", Align::Right), ("LIMIT", Align::Right)]);
    for entry in host.uses.iter() {
        let Use { what, used, limit } = entry;
        let what = plain(what.0);
        let shown = |number| amount(&what, number);
        table.push([unit_less(&what).replace('-', " "), shown(used), shown(limit)]);
    }
    table.write(context.out).map_err(Failure::print)
}

/// What a use is called without the unit that its numbers are shown in.
fn unit_less(what: &str) -> &str {
    what.strip_suffix("-bytes").or(what.strip_suffix("-mb")).unwrap_or(what)
}

/// A number of these, in a unit for people.
fn amount(what: &str, number: i64) -> String {
    let unsigned = u64::try_from(number).unwrap_or(0);
    if what.ends_with("-bytes") {
        size(unsigned)
    } else if what.ends_with("-mb") {
        size(unsigned.saturating_mul(1 << 20))
    } else {
        number.to_string()
    }
}
