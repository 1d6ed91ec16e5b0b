//! `vmmc_local`: from its arguments to its exit code.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::commands::{Context, Subcommands};
use crate::connection::{LocalDoor, TIME_OUT};
use crate::error::Failure;

/// The folder of the daemons' sockets where none is given.
#[cfg(not(target_os = "freebsd"))]
pub(crate) const RUN: &str = "/run/albatross";
/// The folder of the daemons' sockets where none is given.
#[cfg(target_os = "freebsd")]
pub(crate) const RUN: &str = "/var/run/albatross";

/// The exit code for a command line that cannot be understood.
const USAGE: u8 = 124;

/// The exit codes, for people.
const EXIT_CODES: &str = "Exit codes:
  0    done
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

/// What a run depends on besides its arguments.
pub struct Surroundings<'a> {
    /// How long a daemon may be silent.
    pub time_out: Duration,
    /// The present, in milliseconds since 1970.
    pub now_unix_ms: i64,
    /// Whether following a console ends the process when nobody reads its standard output any more.
    pub end_with_reader: bool,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub errors: &'a mut dyn Write,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("time_out", &self.time_out).finish_non_exhaustive()
    }
}

/// Does what the process was called for.
#[must_use]
pub fn main() -> ExitCode {
    let (mut out, mut errors) = (io::stdout().lock(), io::stderr());
    let surroundings = Surroundings {
        time_out: TIME_OUT,
        now_unix_ms: now_unix_ms(),
        end_with_reader: true,
        out: &mut out,
        errors: &mut errors,
    };
    run(std::env::args_os(), surroundings).into()
}

/// Does what these arguments say, the first being the program's name; the exit code.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>, surroundings: Surroundings<'_>) -> u8 {
    let Surroundings { time_out, now_unix_ms, end_with_reader, out, errors } = surroundings;
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            let text = error.render();
            let (code, place): (u8, &mut dyn Write) = if error.use_stderr() { (USAGE, errors) } else { (0, out) };
            // Who cannot read help has closed the pipe.
            let _ = write!(place, "{text}").and_then(|()| place.flush());
            return code;
        }
    };
    if end_with_reader && matches!(line.subcommand, Subcommands::Console(_) | Subcommands::Stats(_)) {
        thread::spawn(wait_for_reader_to_go);
    }
    let door = LocalDoor::new(&line.run, time_out);
    let mut context = Context { door: &door, json: line.json, now_unix_ms, out: &mut *out, notes: &mut *errors };
    match line.subcommand.run(&mut context).and_then(|()| out.flush().map_err(Failure::print)) {
        Ok(()) => 0,
        Err(failure) => {
            let code = failure.exit_code();
            if code != 0 {
                // Nobody listens: the code has to do.
                let _ = writeln!(errors, "vmmc_local: {failure}");
            }
            code
        }
    }
}

/// A console can be silent for days: whoever follows it through a pipe must be able to end it by closing the pipe.
fn wait_for_reader_to_go() {
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
