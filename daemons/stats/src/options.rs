//! The command line of `vmmd_stats`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// The run folder where none is given.
const RUN: &str = "/run/albatross";

/// Time between two measurements where none is given, as the peer has it.
const INTERVAL: Duration = Duration::from_secs(10);

/// The shortest and the longest time between two measurements, seconds.
const SECONDS_MIN: f64 = 0.1;
const SECONDS_MAX: f64 = 86_400.0;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: vmmd_stats [OPTIONS]

Measures the CPU time, memory and network traffic of each unikernel, and sends what it has measured to who subscribed. It serves
on DIR/util/stat.sock and learns from DIR/util/vmmd.sock what runs. Nothing is measured while nobody is subscribed.
Started by root, it becomes the user who owns DIR/util.

  --run DIR           sockets [/run/albatross]
  --interval SECONDS  time between two measurements, from 0.1 to 86400 [10]
  --help              this text
  --version           the version

example: vmmd_stats --run /run/albatross --interval 5
";

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Serve.
    Serve {
        /// In this run folder.
        run: PathBuf,
        /// With so much time between two measurements.
        interval: Duration,
    },
}

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OptionsError {
    /// Not an option.
    Unknown(OsString),
    /// An option without its value.
    NoValue(&'static str),
    /// Not a time between two measurements.
    Interval(OsString),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown option '{}', see --help", argument.display()),
            Self::NoValue(option) => write!(f, "{option} needs a value, see --help"),
            Self::Interval(value) => write!(
                f,
                "--interval {}: write a number of seconds from {SECONDS_MIN} to {SECONDS_MAX}",
                value.display()
            ),
        }
    }
}

impl std::error::Error for OptionsError {}

impl Command {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut arguments = arguments.into_iter();
        let (mut run, mut interval) = (PathBuf::from(RUN), INTERVAL);
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
                b"--interval" => interval = seconds(value("--interval")?)?,
                _ => return Err(OptionsError::Unknown(argument)),
            }
        }
        Ok(Self::Serve { run, interval })
    }
}

fn seconds(text: OsString) -> Result<Duration, OptionsError> {
    let number = text.to_str().and_then(|text| text.parse::<f64>().ok());
    match number.filter(|number| (SECONDS_MIN..=SECONDS_MAX).contains(number)) {
        Some(number) => Ok(Duration::from_secs_f64(number)),
        None => Err(OptionsError::Interval(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |arguments: &[&str]| Command::parse(arguments.iter().map(OsString::from));
        let serve = |run: &str, seconds| Command::Serve { run: run.into(), interval: Duration::from_secs_f64(seconds) };
        assert_eq!(parse(&[]), Ok(serve(RUN, 10.0)));
        assert_eq!(parse(&["--run", "/a", "--interval=0.5"]), Ok(serve("/a", 0.5)));
        assert_eq!(parse(&["--run=/a=b", "--interval", "86400"]), Ok(serve("/a=b", 86_400.0)));
        assert_eq!(parse(&["--run", "/a", "--help"]), Ok(Command::Help));
        assert_eq!(parse(&["-V"]), Ok(Command::Version));
        assert_eq!(parse(&["--run"]).unwrap_err().to_string(), "--run needs a value, see --help");
        assert_eq!(parse(&["--rum", "/a"]).unwrap_err().to_string(), "unknown option '--rum', see --help");
        for wrong in ["0", "-1", "0.09", "86401", "", "ten", "NaN", "inf", "4611686018427387904"] {
            let error = parse(&["--interval", wrong]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--interval {wrong}: write a number")), "{error}");
        }
        assert!(HELP.contains(RUN));
    }
}
