//! `vmmc_local`: from its arguments to its exit code.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::commands::{Context, Subcommands};
use crate::connection::{LocalDoor, TIME_OUT};
use crate::error::Failure;

/// The folder of the daemons' sockets where none is given.
#[cfg(not(target_os = "freebsd"))]
const RUN: &str = "/run/albatross";
/// The folder of the daemons' sockets where none is given.
#[cfg(target_os = "freebsd")]
const RUN: &str = "/var/run/albatross";

/// The exit code for a command line that cannot be understood.
const USAGE: u8 = 124;

/// The exit codes, for people.
const EXIT_CODES: &str = "Exit codes:
  0    done
  117  the daemon refused it; its reason is on standard error
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

/// Does what the process was called for.
#[must_use]
pub fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version are no errors; who cannot read them has closed the pipe.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    if matches!(line.subcommand, Subcommands::Console(_)) {
        thread::spawn(end_with_reader);
    }
    let door = LocalDoor::new(&line.run, TIME_OUT);
    let (mut out, mut notes) = (io::stdout().lock(), io::stderr());
    let mut context =
        Context { door: &door, json: line.json, now_unix_ms: now_unix_ms(), out: &mut out, notes: &mut notes };
    match line.subcommand.run(&mut context).and_then(|()| out.flush().map_err(Failure::print)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.exit_code();
            if code != 0 {
                let _ = writeln!(notes, "vmmc_local: {failure}");
            }
            code.into()
        }
    }
}

/// A console can be silent for days: whoever follows it through a pipe must be able to end it by closing the pipe.
fn end_with_reader() {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    if poll(&mut fds, PollTimeout::NONE).is_ok() {
        std::process::exit(0);
    }
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
