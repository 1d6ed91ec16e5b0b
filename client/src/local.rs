//! `vmmc_local`: from its arguments to its exit code.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{Context, Single, deploy, import_albatross, inspect, remove_policy, top};
use crate::connection::LocalDoor;
use crate::error::Failure;
use crate::program::{Program, Surroundings};

/// The folder of the daemons' sockets where none is given.
#[cfg(not(target_os = "freebsd"))]
pub(crate) const RUN: &str = "/run/albatross";
/// The folder of the daemons' sockets where none is given.
#[cfg(target_os = "freebsd")]
pub(crate) const RUN: &str = "/var/run/albatross";

/// The exit codes, for people.
const EXIT_CODES: &str = "Exit codes:
  0    done
  1    of a deployment: something would change, and nothing was changed
  117  the daemon refused it; its reason is on standard error. Of an import: not all came over
  121  the connection broke, or the reply was none
  122  no connection to the daemon
  124  the command line or the image is wrong; nothing was sent
  125  a result could not be written

Example:
  vmmc_local create hello hello.hvt
  vmmc_local console hello
  vmmc_local info";

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "vmmc_local", version, about = "Control the unikernels of this machine", after_help = EXIT_CODES)]
pub struct CommandLine {
    /// The folder of the daemons' sockets
    #[arg(long, global = true, display_order = 100, alias = "tmpdir", env = "FULMAR_RUN", value_name = "DIR", default_value = RUN)]
    run: PathBuf,
    /// Print JSON instead of text
    #[arg(long, global = true, display_order = 101)]
    json: bool,
    #[command(subcommand)]
    subcommand: Subcommands,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
enum Subcommands {
    #[command(flatten)]
    Single(Single),
    /// Show everything at once, and go on
    Top(top::Top),
    /// Bring this machine to what a manifest wants
    Deploy(deploy::Deploy),
    /// Remove the policy of a path
    RemovePolicy(remove_policy::RemovePolicy),
    /// Bring a host of albatross over: its policies, block devices and unikernels
    ImportAlbatross(import_albatross::ImportAlbatross),
    /// Show what an image says about itself; needs no daemon
    Inspect(inspect::Inspect),
}

impl Program for CommandLine {
    fn run(&self, surroundings: &mut Surroundings<'_>) -> Result<(), Failure> {
        if matches!(&self.subcommand, Subcommands::Single(single) if single.follows()) {
            surroundings.expect_reader();
        }
        let Surroundings { time_out, now_unix_ms, out, errors, .. } = surroundings;
        let door = LocalDoor::new(&self.run, *time_out);
        let context =
            &mut Context { door: &door, json: self.json, now_unix_ms: *now_unix_ms, out: *out, notes: *errors };
        match &self.subcommand {
            Subcommands::Single(command) => command.run(context),
            Subcommands::Top(command) => command.run(context),
            Subcommands::Deploy(command) => command.run(context),
            Subcommands::RemovePolicy(command) => command.run(context),
            Subcommands::ImportAlbatross(command) => command.run(context),
            Subcommands::Inspect(command) => command.run(context),
        }
    }
}
