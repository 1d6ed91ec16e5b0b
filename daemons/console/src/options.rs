//! The command line of `vmmd_console`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The run folder where none is given.
const RUN: &str = "/run/albatross";

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: vmmd_console [OPTIONS]

Keeps the last lines that each unikernel wrote to its console, and sends them to who asks. It serves on DIR/util/console.sock
and reads the fifos in DIR/fifo. Unikernels do not notice when it ends; what they write until it is back waits in
their fifos as far as there is room.
Started by root, it becomes the user who owns DIR/util.

  --run DIR   sockets and fifos [/run/albatross]
  --help      this text
  --version   the version

example: vmmd_console --run /run/albatross
";

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Serve in this run folder.
    Serve(PathBuf),
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
        let mut run = PathBuf::from(RUN);
        while let Some(argument) = arguments.next() {
            // Both `--run DIR` and `--run=DIR`.
            let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
            let option = parts.next().unwrap_or_default();
            let joined = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
            match option {
                b"--help" | b"-h" => return Ok(Self::Help),
                b"--version" | b"-V" => return Ok(Self::Version),
                b"--run" => run = joined.or_else(|| arguments.next()).ok_or(OptionsError::NoValue("--run"))?.into(),
                _ => return Err(OptionsError::Unknown(argument)),
            }
        }
        Ok(Self::Serve(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |arguments: &[&str]| Command::parse(arguments.iter().map(OsString::from));
        assert_eq!(parse(&[]), Ok(Command::Serve(RUN.into())));
        assert_eq!(parse(&["--run", "/a"]), Ok(Command::Serve("/a".into())));
        assert_eq!(parse(&["--run=/a=b"]), Ok(Command::Serve("/a=b".into())));
        assert_eq!(parse(&["--run", "/a", "--help"]), Ok(Command::Help));
        assert_eq!(parse(&["-V"]), Ok(Command::Version));
        assert_eq!(parse(&["--run"]).unwrap_err().to_string(), "--run needs a value, see --help");
        assert_eq!(parse(&["--rum", "/a"]).unwrap_err().to_string(), "unknown option '--rum', see --help");
        assert!(HELP.contains(RUN));
    }
}
