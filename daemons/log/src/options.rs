//! The command line of `vmmd_log`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use fulmar_core::limits::{LOG_DAYS_DEFAULT, LOG_MB_DEFAULT, LOG_MB_MAX};

use crate::store::Bounds;

/// The folders where none is given.
const RUN: &str = "/run/albatross";
const STATE: &str = "/var/lib/albatross";

/// Days that can be said: a hundred years.
const DAYS_MAX: u64 = 36_500;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: vmmd_log [OPTIONS]

Keeps the events that vmmd tells it in files in STATE/log, and sends them to who asks. It serves on DIR/util/log.sock.
When the files together reach their bound, the oldest goes. Nothing waits for this program: while it is not there, vmmd
keeps some thousands of events for it.
Started by root, it becomes the user who owns DIR/util.

  --run DIR      sockets [/run/albatross]
  --state STATE  the log's folder is in here [/var/lib/albatross]
  --size MIB     what all files together may have [64]
  --days N       how long events are kept at most [365]
  --help         this text
  --version      the version

example: vmmd_log --run /run/albatross --size 256
";

/// What is served, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// How much is kept.
    pub(crate) bounds: Bounds,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Serve.
    Serve(Options),
}

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OptionsError {
    /// Not an option.
    Unknown(OsString),
    /// An option without its value.
    NoValue(&'static str),
    /// A value that is no number, or one out of bounds; the largest.
    Number(&'static str, OsString, u64),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown option '{}', see --help", argument.display()),
            Self::NoValue(option) => write!(f, "{option} needs a value, see --help"),
            Self::Number(option, value, most) => {
                write!(f, "{option} '{}' is no number from 1 to {most}", value.display())
            }
        }
    }
}

impl std::error::Error for OptionsError {}

impl Command {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut arguments = arguments.into_iter();
        let (mut run, mut state) = (PathBuf::from(RUN), PathBuf::from(STATE));
        let (mut size_mb, mut days) = (LOG_MB_DEFAULT, LOG_DAYS_DEFAULT);
        while let Some(argument) = arguments.next() {
            // Both `--run DIR` and `--run=DIR`.
            let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
            let option = parts.next().unwrap_or_default();
            let joined = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
            let mut value = |option| joined.clone().or_else(|| arguments.next()).ok_or(OptionsError::NoValue(option));
            match option {
                b"--help" | b"-h" => return Ok(Self::Help),
                b"--version" | b"-V" => return Ok(Self::Version),
                b"--run" => run = value("--run")?.into(),
                b"--state" => state = value("--state")?.into(),
                b"--size" => size_mb = number("--size", value("--size")?, LOG_MB_MAX)?,
                b"--days" => days = number("--days", value("--days")?, DAYS_MAX)?,
                _ => return Err(OptionsError::Unknown(argument)),
            }
        }
        Ok(Self::Serve(Options { run, state, bounds: Bounds::new(size_mb, days) }))
    }
}

fn number(option: &'static str, text: OsString, most: u64) -> Result<u64, OptionsError> {
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| (1..=most).contains(number));
    number.ok_or(OptionsError::Number(option, text, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |arguments: &[&str]| Command::parse(arguments.iter().map(OsString::from));
        let serve = |run: &str, state: &str, size_mb, days| {
            Ok(Command::Serve(Options { run: run.into(), state: state.into(), bounds: Bounds::new(size_mb, days) }))
        };
        assert_eq!(parse(&[]), serve(RUN, STATE, 64, 365));
        assert_eq!(parse(&["--run", "/a", "--state=/b=c"]), serve("/a", "/b=c", 64, 365));
        assert_eq!(parse(&["--size", "1", "--days=7"]), serve(RUN, STATE, 1, 7));
        assert_eq!(parse(&["--run", "/a", "--help"]), Ok(Command::Help));
        assert_eq!(parse(&["-V"]), Ok(Command::Version));
        for (arguments, text) in [
            (&["--run"][..], "--run needs a value, see --help"),
            (&["--rum", "/a"], "unknown option '--rum', see --help"),
            (&["--size", "0"], "--size '0' is no number from 1 to 1024"),
            (&["--size", "9999999"], "--size '9999999' is no number from 1 to 1024"),
            (&["--days", "-1"], "--days '-1' is no number from 1 to 36500"),
            (&["--days", "week"], "--days 'week' is no number from 1 to 36500"),
        ] {
            assert_eq!(parse(arguments).unwrap_err().to_string(), text);
        }
        assert!(HELP.contains(RUN) && HELP.contains(STATE));
        assert!(HELP.contains(&format!("[{LOG_MB_DEFAULT}]")) && HELP.contains(&format!("[{LOG_DAYS_DEFAULT}]")));
    }
}
