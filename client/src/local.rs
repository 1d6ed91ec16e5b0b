//! `vmmc_local`: from its arguments to its exit code.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::{Parser, Subcommand};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::commands::{Context, Single, deploy, import_albatross, inspect, remove_policy, top};
use crate::connection::LocalDoor;
use crate::error::Failure;
use crate::program::{self, Surroundings};

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
struct CommandLine {
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

/// Does what the process was called for.
#[must_use]
pub fn main() -> ExitCode {
    program::main(run)
}

/// Its command line, for who writes its page.
#[must_use]
pub fn command() -> clap::Command {
    program::command::<CommandLine>(str::to_owned)
}

/// Does what these arguments say, the first being the program's name; the exit code.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>, surroundings: Surroundings<'_>) -> u8 {
    let Surroundings { time_out, now_unix_ms, end_with_reader, out, errors } = surroundings;
    let line: CommandLine = match program::parse(arguments, out, errors, str::to_owned) {
        Ok(line) => line,
        Err(code) => return code,
    };
    if end_with_reader && matches!(&line.subcommand, Subcommands::Single(single) if single.follows()) {
        thread::spawn(wait_for_reader_to_go);
    }
    let door = LocalDoor::new(&line.run, time_out);
    let mut context = Context { door: &door, json: line.json, now_unix_ms, out: &mut *out, notes: &mut *errors };
    let result = match &line.subcommand {
        Subcommands::Single(command) => command.run(&mut context),
        Subcommands::Top(command) => command.run(&mut context),
        Subcommands::Deploy(command) => command.run(&mut context),
        Subcommands::RemovePolicy(command) => command.run(&mut context),
        Subcommands::ImportAlbatross(command) => command.run(&mut context),
        Subcommands::Inspect(command) => command.run(&mut context),
    };
    let result = result.and_then(|()| out.flush().map_err(Failure::print));
    program::end("vmmc_local", result, errors)
}

/// A console can be silent for days: whoever follows it through a pipe must be able to end it by closing the pipe.
pub(crate) fn wait_for_reader_to_go() {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    if poll(&mut fds, PollTimeout::NONE).is_ok() {
        std::process::exit(0);
    }
}
