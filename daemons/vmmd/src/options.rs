//! The settings of `vmmd`, and those that its deciding half is started with.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use fulmar_core::limits::ACCOUNTS_MAX;
use fulmar_core::name::Name;
use fulmar_host::privilege::Identity;
use fulmar_host::settings::{Program, Setting, number};
use nix::unistd::{Gid, Uid};

/// What is known of `vmmd` before it starts.
pub(crate) const PROGRAM: Program<Options> = Program {
    name: "vmmd",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
    file: Some("/etc/fulmar/vmmd.toml"),
    settings: &[
        Setting::path("run", |options| &mut options.run),
        Setting::path("state", |options| &mut options.state),
        Setting::text("tender", |options, value| {
            options.tender = Some(value.into());
            Ok(())
        }),
        Setting::text("user", |options, value| {
            options.user = Some(user_of(value)?);
            Ok(())
        }),
        Setting::number("tender-uid-base", |options, value| {
            let base = number(value, 1, u64::from(u32::MAX - u32::from(ACCOUNTS_MAX)))?;
            options.tender_uid_base = u32::try_from(base).unwrap_or(TENDER_UID_BASE);
            Ok(())
        }),
        Setting::text("allow-zvol-for", |options, value| {
            options.zvols = Some(path_of_zvols(value)?);
            Ok(())
        }),
    ],
};

/// What the control half is started with; it reads no file.
pub(crate) const CONTROL: Program<ControlOptions> = Program {
    name: "vmmd",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
    file: None,
    settings: &[
        Setting::path("run", |options| &mut options.run),
        Setting::path("state", |options| &mut options.state),
        Setting::text("user", |options, value| {
            options.user = user_of(value)?;
            Ok(())
        }),
        Setting::number("socket", |options, value| {
            options.socket = RawFd::try_from(number(value, 3, i32::MAX as u64)?).ok();
            Ok(())
        }),
        Setting::text("allow-zvol-for", |options, value| {
            options.zvols = Some(path_of_zvols(value)?);
            Ok(())
        }),
    ],
};

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

const HELP: &str = "\
usage: vmmd [OPTIONS]

Runs unikernels on this host. It serves on sockets in the run folder and keeps what it was asked for in the state folder.
When vmmd ends, by a signal or otherwise, the unikernels keep running; the next vmmd on the same folders finds them.

  --run DIR              sockets, fifos and records of processes [/run/albatross]
  --state DIR            journal, images and block devices [/var/lib/albatross]
  --tender PATH          the program that runs a unikernel [fulmar-tender beside vmmd]
  --user NAME|UID[:GID]  who decides, without privileges [fulmar if that user exists, else 516095]
  --tender-uid-base N    each unikernel gets a user id of its own from N on [516096]
  --allow-zvol-for PATH  bhyve virtual machines of this path may have zvols as disks (FreeBSD) [nobody's]
  --log TARGET           stderr or syslog [stderr]
  --log-level LEVEL      error, warning, info or debug [info]
  --config FILE          what the options above say, as in: user = \"fulmar\" [/etc/fulmar/vmmd.toml, if it is there]
  --check                say what is wrong with all this, and end
  --help                 this text
  --version              the version

example: vmmd --run /run/albatross --state /var/lib/albatross
";

/// The options, each with its value or its default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// The tender program, where one is given.
    pub(crate) tender: Option<PathBuf>,
    /// The user of the control half, where one is given.
    pub(crate) user: Option<Identity>,
    /// The first user id for tenders.
    pub(crate) tender_uid_base: u32,
    /// The path whose virtual machines may have zvols, where there is one.
    pub(crate) zvols: Option<Name>,
    /// No kernel behind it; only where this was built for tests.
    #[cfg(feature = "fake-shim")]
    pub(crate) fake_shim: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            run: RUN.into(),
            state: STATE.into(),
            tender: None,
            user: None,
            tender_uid_base: TENDER_UID_BASE,
            zvols: None,
            #[cfg(feature = "fake-shim")]
            fake_shim: false,
        }
    }
}

impl Options {
    /// Who the control half is to be. An ordinary user can only be itself.
    pub(crate) fn user(&self) -> Identity {
        let unnamed = Identity { uid: Uid::from_raw(CONTROL_UID), gid: Gid::from_raw(CONTROL_UID) };
        match self.user {
            Some(user) => user,
            None if Uid::effective().is_root() => Identity::of_user(USER).unwrap_or(unnamed),
            None => Identity::current(),
        }
    }

    /// Whether there is no kernel behind it, and no tender.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_fake(&self) -> bool {
        #[cfg(feature = "fake-shim")]
        return self.fake_shim;
        #[cfg(not(feature = "fake-shim"))]
        false
    }

    /// The program that runs a unikernel.
    #[cfg(target_os = "linux")]
    pub(crate) fn tender(&self) -> std::io::Result<PathBuf> {
        match &self.tender {
            Some(path) => Ok(path.clone()),
            None => Ok(std::env::current_exe()?.with_file_name("fulmar-tender")),
        }
    }
}

/// What the control half is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ControlOptions {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// Who it is to be.
    pub(crate) user: Identity,
    /// The listening socket that was left open for it, where one was handed over.
    pub(crate) socket: Option<RawFd>,
    /// As in [`Options`].
    pub(crate) zvols: Option<Name>,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self { run: RUN.into(), state: STATE.into(), user: Identity::current(), socket: None, zvols: None }
    }
}

fn path_of_zvols(value: &OsStr) -> Result<Name, String> {
    let text = value.to_string_lossy();
    let path = Name::parse(&text).map_err(|error| format!("'{text}': {error}"))?;
    if path.is_path() { Ok(path) } else { Err(format!("'{text}' is no path: it ends with ':'")) }
}

fn user_of(value: &OsStr) -> Result<Identity, String> {
    Identity::parse(&value.to_string_lossy()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use fulmar_host::settings::{Command, Given};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        match PROGRAM.read(arguments.iter().map(Into::into).collect()) {
            Ok(Command::Run(Given { own, .. })) => Ok(own),
            Ok(other) => Err(format!("{other:?}")),
            Err(wrong) => Err(wrong.error.to_string()),
        }
    }

    #[test]
    fn what_can_be_said_and_what_not() {
        assert_eq!(parse(&["--user", "12:34"]).unwrap().user().to_string(), "12:34");
        assert_eq!(parse(&["--tender-uid-base", "70000"]).unwrap().tender_uid_base, 70000);
        assert_eq!(parse(&["--tender=/a"]).unwrap().tender, Some(PathBuf::from("/a")));
        assert_eq!(parse(&["--allow-zvol-for", "vm:"]).unwrap().zvols, Name::parse("vm:").ok());
        assert_eq!(
            parse(&["--allow-zvol-for", "vm"]),
            Err("--allow-zvol-for: 'vm' is no path: it ends with ':'".into())
        );
        for base in ["0", "-1", "4294967295", "x"] {
            let said = format!("--tender-uid-base: '{base}' is no number from 1 to 4294959103");
            assert_eq!(parse(&["--tender-uid-base", base]), Err(said));
        }
        assert!(parse(&["--user", "no such user"]).unwrap_err().contains("no such user"));
        // What only the control half is told.
        assert_eq!(parse(&["--socket", "3"]), Err("unknown option '--socket', see --help".into()));
        assert!(parse(&["--run", "/a", CONTROL_HALF]).is_err());
    }

    #[test]
    fn the_help_tells_the_settings_and_their_defaults() {
        for setting in PROGRAM.settings {
            assert!(HELP.contains(&format!("  --{} ", setting.name)), "{}", setting.name);
        }
        for default in [RUN, STATE, &format!("else {CONTROL_UID}]"), &format!("[{TENDER_UID_BASE}]")] {
            assert!(HELP.contains(default), "{default}");
        }
        assert!(HELP.contains(&format!("[{}, if", PROGRAM.file.unwrap_or_default())));
    }
}
