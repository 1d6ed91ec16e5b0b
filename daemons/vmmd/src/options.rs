//! The command line of `vmmd`. Read by hand: it is a handful of options, and this program is the trusted one.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use fulmar_core::limits::ACCOUNTS_MAX;
use fulmar_host::privilege::{Identity, IdentityError};
use nix::unistd::{Gid, Uid};

/// The run folder where none is given.
const RUN: &str = "/run/albatross";

/// The state folder where none is given.
const STATE: &str = "/var/lib/albatross";

/// The user of the control half where none is given and it exists.
const USER: &str = "fulmar";

/// The first user id for tenders. It and the [`ACCOUNTS_MAX`] - 1 after it end just below the ids that containers get by
/// convention, in a range that distributions leave unused.
const TENDER_UID_BASE: u32 = 0x8_0000 - ACCOUNTS_MAX as u32;

/// The user id of the control half where there is no user [`USER`].
const CONTROL_UID: u32 = TENDER_UID_BASE - 1;

/// The first argument of the control half, which `vmmd` starts itself.
pub(crate) const CONTROL_HALF: &str = "--control-half";

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: vmmd [OPTIONS]

Runs unikernels on this host. It serves on sockets in the run folder and keeps what it was asked for in the state folder.
When vmmd ends, by a signal or otherwise, the unikernels keep running; the next vmmd on the same folders finds them.

  --run DIR              sockets, fifos and records of processes [/run/albatross]
  --state DIR            journal, images and block devices [/var/lib/albatross]
  --tender PATH          the program that runs a unikernel [fulmar-tender beside vmmd]
  --user NAME|UID[:GID]  who decides, without privileges [fulmar if that user exists, else 516095]
  --tender-uid-base N    each unikernel gets a user id of its own from N on [516096]
  --help                 this text
  --version              the version

example: vmmd --run /run/albatross --state /var/lib/albatross
";

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Start both halves.
    Both(Options),
    /// Be the control half.
    Control(Options),
}

/// The options, each with its value or its default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// The tender program, where one is given.
    pub(crate) tender: Option<PathBuf>,
    /// The user of the control half.
    pub(crate) user: Identity,
    /// The first user id for tenders.
    pub(crate) tender_uid_base: u32,
    /// No kernel behind it, and which call is to fail; only where this was built for tests.
    #[cfg(feature = "fake-shim")]
    pub(crate) fake_shim: bool,
}

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OptionsError {
    /// Not an option.
    Unknown(OsString),
    /// An option without its value.
    NoValue(&'static str),
    /// Not a user.
    User(IdentityError),
    /// Not a user id from which there are enough.
    TenderUidBase(OsString),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown option '{}', see --help", argument.display()),
            Self::NoValue(option) => write!(f, "{option} needs a value, see --help"),
            Self::User(error) => write!(f, "--user: {error}"),
            Self::TenderUidBase(value) => write!(
                f,
                "--tender-uid-base: '{}' is not a number from 1 to {}",
                value.display(),
                u32::MAX - u32::from(ACCOUNTS_MAX)
            ),
        }
    }
}

impl std::error::Error for OptionsError {}

impl Command {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut arguments = arguments.into_iter().peekable();
        let control = arguments.next_if(|first| first == CONTROL_HALF).is_some();
        let mut user = None;
        let mut options = Options {
            run: RUN.into(),
            state: STATE.into(),
            tender: None,
            user: Identity::current(),
            tender_uid_base: TENDER_UID_BASE,
            #[cfg(feature = "fake-shim")]
            fake_shim: false,
        };
        while let Some(argument) = arguments.next() {
            // Both `--run DIR` and `--run=DIR`.
            let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
            let option = parts.next().unwrap_or_default();
            let joined = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
            let value = |name| joined.or_else(|| arguments.next()).ok_or(OptionsError::NoValue(name));
            match option {
                b"--help" | b"-h" => return Ok(Self::Help),
                b"--version" | b"-V" => return Ok(Self::Version),
                b"--run" => options.run = value("--run")?.into(),
                b"--state" => options.state = value("--state")?.into(),
                b"--tender" => options.tender = Some(value("--tender")?.into()),
                b"--user" => {
                    let text = value("--user")?;
                    user = Some(Identity::parse(&text.to_string_lossy()).map_err(OptionsError::User)?);
                }
                b"--tender-uid-base" => options.tender_uid_base = parse_base(&value("--tender-uid-base")?)?,
                #[cfg(feature = "fake-shim")]
                b"--fake-shim" => options.fake_shim = true,
                _ => return Err(OptionsError::Unknown(argument)),
            }
        }
        options.user = user.unwrap_or_else(default_user);
        Ok(if control { Self::Control(options) } else { Self::Both(options) })
    }
}

fn parse_base(value: &OsStr) -> Result<u32, OptionsError> {
    let last = u32::MAX - u32::from(ACCOUNTS_MAX);
    let base = value.to_str().and_then(|text| text.parse().ok());
    base.filter(|base| (1..=last).contains(base)).ok_or_else(|| OptionsError::TenderUidBase(value.to_owned()))
}

/// An ordinary user can only be itself.
fn default_user() -> Identity {
    if !Uid::effective().is_root() {
        return Identity::current();
    }
    let unnamed = Identity { uid: Uid::from_raw(CONTROL_UID), gid: Gid::from_raw(CONTROL_UID) };
    Identity::of_user(USER).unwrap_or(unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, OptionsError> {
        Command::parse(arguments.iter().map(OsString::from))
    }

    fn both(arguments: &[&str]) -> Options {
        match parse(arguments) {
            Ok(Command::Both(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_come_joined_or_apart() {
        assert_eq!(both(&["--run", "/a", "--state=/b"]).run, PathBuf::from("/a"));
        assert_eq!(both(&["--run", "/a", "--state=/b=c"]).state, PathBuf::from("/b=c"));
        assert_eq!(both(&["--user", "12:34"]).user.to_string(), "12:34");
        assert_eq!(both(&["--tender-uid-base", "70000"]).tender_uid_base, 70000);
        assert_eq!(both(&[]).run, PathBuf::from(RUN));
    }

    #[test]
    fn the_help_tells_the_defaults() {
        for default in [RUN, STATE, &format!("else {CONTROL_UID}]"), &format!("[{TENDER_UID_BASE}]")] {
            assert!(HELP.contains(default), "{default}");
        }
        assert_eq!(parse(&["--run", "/a", "--help"]), Ok(Command::Help));
        assert_eq!(parse(&["--version"]), Ok(Command::Version));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse(&["--wrong"]).unwrap_err().to_string(), "unknown option '--wrong', see --help");
        assert_eq!(parse(&["here"]).unwrap_err().to_string(), "unknown option 'here', see --help");
        assert_eq!(parse(&["--run"]).unwrap_err().to_string(), "--run needs a value, see --help");
        for base in ["0", "-1", "4294967295", "x"] {
            assert_eq!(parse(&["--tender-uid-base", base]), Err(OptionsError::TenderUidBase(base.into())));
        }
        assert!(parse(&["--user", "no such user"]).unwrap_err().to_string().contains("no such user"));
    }

    #[test]
    fn the_control_half_is_named_first() {
        assert!(matches!(parse(&[CONTROL_HALF, "--run", "/a"]), Ok(Command::Control(_))));
        assert!(parse(&["--run", "/a", CONTROL_HALF]).is_err());
    }
}
