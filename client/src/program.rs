//! What the programs of this package have in common: what a run depends on, from arguments to an exit code.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{CommandFactory, FromArgMatches};

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

/// Does what the process was called for.
#[must_use]
pub fn main(run: impl FnOnce(Vec<OsString>, Surroundings<'_>) -> u8) -> ExitCode {
    let (mut out, mut errors) = (io::stdout().lock(), io::stderr());
    let surroundings = Surroundings {
        time_out: TIME_OUT,
        now_unix_ms: now_unix_ms(),
        end_with_reader: true,
        out: &mut out,
        errors: &mut errors,
    };
    run(std::env::args_os().collect(), surroundings).into()
}

/// Reads a command line. Where it cannot be understood, or asks for help, the text for that is written and the exit code returned.
pub(crate) fn parse<L: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    errors: &mut dyn Write,
    examples: fn(&str) -> String,
) -> Result<L, u8> {
    let line = command::<L>(examples).try_get_matches_from(arguments).and_then(|matches| L::from_arg_matches(&matches));
    line.map_err(|error| {
        let text = error.render();
        let (code, place): (u8, &mut dyn Write) = if error.use_stderr() { (USAGE, errors) } else { (0, out) };
        // Who cannot read help has closed the pipe.
        let _ = write!(place, "{text}").and_then(|()| place.flush());
        code
    })
}

/// A command line with its help. Examples of subcommands that several programs have are those of `vmmc_local`: here they become those
/// of the program that is asked.
pub(crate) fn command<L: CommandFactory>(examples: fn(&str) -> String) -> clap::Command {
    L::command().mut_subcommands(|subcommand| match subcommand.get_after_help().map(ToString::to_string) {
        Some(text) => subcommand.after_help(examples(&text)),
        None => subcommand,
    })
}

/// Ends a run: says what failed; the exit code.
pub(crate) fn end(program: &str, result: Result<(), Failure>, errors: &mut dyn Write) -> u8 {
    let Err(failure) = result else { return 0 };
    let code = failure.exit_code();
    if code != 0 {
        // Nobody listens: the code has to do.
        let _ = writeln!(errors, "{program}: {failure}");
    }
    code
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
