//! What the programs of this package have in common: from arguments to an exit code.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{CommandFactory, FromArgMatches};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::connection::TIME_OUT;
use crate::error::Failure;

/// The exit code for a command line that cannot be understood.
const USAGE: u8 = 124;

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

impl Surroundings<'_> {
    /// From here on the process ends when nobody reads its standard output any more.
    pub(crate) fn expect_reader(&self) {
        if self.end_with_reader {
            thread::spawn(wait_for_reader_to_go);
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

/// A program: its command line, and what that has it do.
pub trait Program: CommandFactory + FromArgMatches {
    /// Examples of subcommands that several programs have are those of `vmmc_local`: here they become those of this one.
    #[must_use]
    fn examples(text: &str) -> String {
        text.to_owned()
    }

    /// Does what the command line says.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    fn run(&self, surroundings: &mut Surroundings<'_>) -> Result<(), Failure>;
}

/// Does what the process was called for.
#[must_use]
pub fn main<P: Program>() -> ExitCode {
    let (mut out, mut errors) = (io::stdout().lock(), io::stderr());
    let surroundings = Surroundings {
        time_out: TIME_OUT,
        now_unix_ms: now_unix_ms(),
        end_with_reader: true,
        out: &mut out,
        errors: &mut errors,
    };
    run::<P>(std::env::args_os(), surroundings).into()
}

/// A command line with its help.
#[must_use]
pub fn command<P: Program>() -> clap::Command {
    P::command().mut_subcommands(|subcommand| match subcommand.get_after_help().map(ToString::to_string) {
        Some(text) => subcommand.after_help(P::examples(&text)),
        None => subcommand,
    })
}

/// Does what these arguments say, the first being the program's name; the exit code.
#[must_use]
pub fn run<P: Program>(arguments: impl IntoIterator<Item = OsString>, mut surroundings: Surroundings<'_>) -> u8 {
    let command = command::<P>();
    let name = command.get_name().to_owned();
    let line = command.try_get_matches_from(arguments).and_then(|matches| P::from_arg_matches(&matches));
    let result = match &line {
        Ok(line) => line.run(&mut surroundings),
        Err(error) => return explain(error, surroundings),
    };
    let Surroundings { out, errors, .. } = surroundings;
    let Err(failure) = result.and_then(|()| out.flush().map_err(Failure::print)) else { return 0 };
    let code = failure.exit_code();
    if code != 0 {
        // Nobody listens: the code has to do.
        let _ = writeln!(errors, "{name}: {failure}");
    }
    code
}

/// Says what is wrong with a command line, or the help that it asks for; the exit code.
fn explain(error: &clap::Error, surroundings: Surroundings<'_>) -> u8 {
    let Surroundings { out, errors, .. } = surroundings;
    let (code, place) = if error.use_stderr() { (USAGE, errors) } else { (0, out) };
    // Who cannot read help has closed the pipe.
    let _ = write!(place, "{}", error.render()).and_then(|()| place.flush());
    code
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
