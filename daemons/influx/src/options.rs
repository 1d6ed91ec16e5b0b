//! The command line of `vmmd_influx`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use fulmar_host::log;
use fulmar_host::settings::{set_log_level, set_log_target};

/// The configuration file where none is given.
const CONFIG: &str = "/etc/fulmar/influx.toml";

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: vmmd_influx [OPTIONS]

Reports what vmmd_stats measures and what vmmd knows of its unikernels: to InfluxDB, as line protocol over TCP, and as
OpenMetrics. What it reports, and what its configuration file may say: docs/metrics.md.

  --config FILE      the configuration [/etc/fulmar/influx.toml]
  --log TARGET       stderr or syslog [what the file says, or stderr]
  --log-level LEVEL  error, warning, info or debug [what the file says, or info]
  --check            say what is wrong with all this, and end
  --help             this text
  --version          the version

example: vmmd_influx --config influx.toml --check
";

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Say what is wrong with this configuration, and no more.
    Check(Options),
    /// Report as this configuration says.
    Report(Options),
}

/// What is said on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// What is to be believed instead of the file.
    log: Vec<(LogOption, OsString)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LogOption {
    Target,
    Level,
}

impl Options {
    /// The settings of the log, where the file says these.
    pub(crate) fn log(&self, mut settings: log::Settings) -> log::Settings {
        for (option, value) in &self.log {
            // They were tried when they were read.
            let _ = option.set(&mut settings, value);
        }
        settings
    }
}

impl LogOption {
    fn set(self, settings: &mut log::Settings, value: &OsStr) -> Result<(), String> {
        match self {
            Self::Target => set_log_target(settings, value),
            Self::Level => set_log_level(settings, value),
        }
    }
}

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OptionsError {
    /// Not an option.
    Unknown(OsString),
    /// An option without its value.
    NoValue(&'static str),
    /// A value that an option cannot have, and why.
    Value(&'static str, String),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown option '{}', see --help", argument.display()),
            Self::NoValue(option) => write!(f, "{option} needs a value, see --help"),
            Self::Value(option, why) => write!(f, "{option}: {why}"),
        }
    }
}

impl std::error::Error for OptionsError {}

impl Command {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut arguments = arguments.into_iter();
        let (mut options, mut check) = (Options { config: CONFIG.into(), log: Vec::new() }, false);
        while let Some(argument) = arguments.next() {
            // Both `--config FILE` and `--config=FILE`.
            let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
            let option = parts.next().unwrap_or_default();
            let joined = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
            let mut value = |option| joined.clone().or_else(|| arguments.next()).ok_or(OptionsError::NoValue(option));
            let (name, of_log) = match option {
                b"--help" | b"-h" => return Ok(Self::Help),
                b"--version" | b"-V" => return Ok(Self::Version),
                b"--check" if joined.is_none() => {
                    check = true;
                    continue;
                }
                b"--config" => {
                    options.config = value("--config")?.into();
                    continue;
                }
                b"--log" => ("--log", LogOption::Target),
                b"--log-level" => ("--log-level", LogOption::Level),
                _ => return Err(OptionsError::Unknown(argument)),
            };
            let value = value(name)?;
            let tried = of_log.set(&mut log::Settings::default(), &value);
            tried.map_err(|why| OptionsError::Value(name, why))?;
            options.log.push((of_log, value));
        }
        Ok(if check { Self::Check(options) } else { Self::Report(options) })
    }
}

#[cfg(test)]
mod tests {
    use fulmar_host::log::{Level, Settings, Target};

    use super::*;

    #[test]
    fn options() {
        let parse = |arguments: &[&str]| Command::parse(arguments.iter().map(OsString::from));
        let of = |config: &str| Options { config: config.into(), log: Vec::new() };
        assert_eq!(parse(&[]), Ok(Command::Report(of(CONFIG))));
        assert_eq!(parse(&["--config", "/a", "--check"]), Ok(Command::Check(of("/a"))));
        assert_eq!(parse(&["--config=/a=b"]), Ok(Command::Report(of("/a=b"))));
        assert_eq!(parse(&["--check", "-h"]), Ok(Command::Help));
        for (arguments, said) in [
            (&["--config"][..], "--config needs a value, see --help"),
            (&["--check=no"], "unknown option '--check=no', see --help"),
            (&["--log", "here"], "--log: 'here' is neither stderr nor syslog"),
            (&["--log-level=loud"], "--log-level: 'loud' is none of error, warning, info, debug"),
        ] {
            assert_eq!(parse(arguments).unwrap_err().to_string(), said);
        }
        let Ok(Command::Report(options)) = parse(&["--log-level", "debug"]) else { panic!() };
        let file = Settings { target: Target::Syslog, level: Level::Error };
        assert_eq!(options.log(file), Settings { target: Target::Syslog, level: Level::Debug });
        assert!(HELP.contains(CONFIG));
    }
}
