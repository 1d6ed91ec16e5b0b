//! `add-policy`: sets what a path and all below it may use.

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, List, Policy, PolicyCommand};

use super::{Context, act};
use crate::arguments::distinct;
use crate::connection::Daemon;
use crate::error::Failure;
use crate::options;

/// Memory of a policy below which nothing useful runs, in MB.
const MEMORY_MIB_MIN: u32 = 17;

/// The command line of `add-policy`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local add-policy shop: 4 --mem 256 --cpu 0 --bridge br0 --block 100")]
pub struct AddPolicy {
    /// The path
    #[arg(value_parser = options::path)]
    path: Name,
    /// How many unikernels may run
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    unikernels: u32,
    /// Memory of all of them together, in MB
    #[arg(long, value_name = "MB", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(i64::from(MEMORY_MIB_MIN)..))]
    mem: u32,
    /// A CPU that may be used; repeat for several
    #[arg(long, value_name = "ID", required = true, value_parser = options::cpu)]
    cpu: Vec<i64>,
    /// A bridge that may be used; repeat for several
    #[arg(long, value_name = "BRIDGE", value_parser = options::bridge)]
    bridge: Vec<String>,
    /// Block storage in MB (default: none)
    #[arg(long, alias = "size", value_name = "MB")]
    block: Option<u32>,
}

impl AddPolicy {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let cpuids = distinct(self.cpu.iter().copied());
        let bridges = distinct(self.bridge.iter().map(String::as_str));
        if bridges.is_empty() {
            context.note("note: this policy allows no network; add --bridge BRIDGE if it should");
        }
        let policy = Policy {
            cpuids: List::Items(&cpuids),
            unikernels: i64::from(self.unikernels),
            memory: i64::from(self.mem),
            block: self.block.map(i64::from),
            bridges: List::Items(&bridges),
        };
        act(context, Daemon::Vmmd, self.path, Command::Policy(PolicyCommand::Add(policy)))
    }
}
