//! The command line of `vmmd_influx`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The configuration file where none is given.
const CONFIG: &str = "/etc/fulmar/influx.toml";

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: vmmd_influx [OPTIONS]

Reports what vmmd_stats measures and what vmmd knows of its unikernels: to InfluxDB, as line protocol over TCP, and as
OpenMetrics. What it reports, and what its configuration file may say: docs/metrics.md.

  --config FILE   the configuration [/etc/fulmar/influx.toml]
  --check         say what is wrong with it, and end
  --help          this text
  --version       the version

example: vmmd_influx --config influx.toml --check
";

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Read this configuration, and no more.
    Check(PathBuf),
    /// Report as this configuration says.
    Report(PathBuf),
}

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OptionsError {
    /// Not an option.
    Unknown(OsString),
    /// An option without its value.
    NoValue(&'static str),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown option '{}', see --help", argument.display()),
            Self::NoValue(option) => write!(f, "{option} needs a value, see --help"),
        }
    }
}

impl std::error::Error for OptionsError {}

impl Command {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut arguments = arguments.into_iter();
        let (mut config, mut check) = (PathBuf::from(CONFIG), false);
        while let Some(argument) = arguments.next() {
            // Both `--config FILE` and `--config=FILE`.
            let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
            let option = parts.next().unwrap_or_default();
            let joined = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
            match option {
                b"--help" | b"-h" => return Ok(Self::Help),
                b"--version" | b"-V" => return Ok(Self::Version),
                b"--check" if joined.is_none() => check = true,
                b"--config" => {
                    config = joined.or_else(|| arguments.next()).ok_or(OptionsError::NoValue("--config"))?.into();
                }
                _ => return Err(OptionsError::Unknown(argument)),
            }
        }
        Ok(if check { Self::Check(config) } else { Self::Report(config) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |arguments: &[&str]| Command::parse(arguments.iter().map(OsString::from));
        assert_eq!(parse(&[]), Ok(Command::Report(CONFIG.into())));
        assert_eq!(parse(&["--config", "/a", "--check"]), Ok(Command::Check("/a".into())));
        assert_eq!(parse(&["--config=/a=b"]), Ok(Command::Report("/a=b".into())));
        assert_eq!(parse(&["--check", "-h"]), Ok(Command::Help));
        assert_eq!(parse(&["--config"]).unwrap_err().to_string(), "--config needs a value, see --help");
        assert_eq!(parse(&["--check=no"]).unwrap_err().to_string(), "unknown option '--check=no', see --help");
        assert!(HELP.contains(CONFIG));
    }
}
