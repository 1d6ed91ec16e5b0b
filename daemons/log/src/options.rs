//! The settings of `vmmd_log`.

use std::path::PathBuf;

use fulmar_core::limits::{LOG_DAYS_DEFAULT, LOG_MB_DEFAULT, LOG_MB_MAX};
use fulmar_host::privilege::Identity;
use fulmar_host::settings::{Program, Setting, number, user};

/// What is known of it before it starts.
pub(crate) const PROGRAM: Program<Options> = Program {
    name: "vmmd_log",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
    file: Some("/etc/fulmar/log.toml"),
    settings: &[
        Setting::path("run", |options| &mut options.run),
        Setting::text("user", |options, value| {
            options.user = user(value)?;
            Ok(())
        }),
        Setting::path("state", |options| &mut options.state),
        Setting::number("size", |options, value| {
            options.size_mb = number(value, 1, LOG_MB_MAX)?;
            Ok(())
        }),
        Setting::number("days", |options, value| {
            options.days = number(value, 1, DAYS_MAX)?;
            Ok(())
        }),
    ],
};

/// The folders where none is given.
const RUN: &str = "/run/albatross";
const STATE: &str = "/var/lib/albatross";

/// Days that can be said: a hundred years.
const DAYS_MAX: u64 = 36_500;

const HELP: &str = "\
usage: vmmd_log [OPTIONS]

Keeps the events that vmmd tells it in files in STATE/log, and sends them to who asks. It serves on DIR/util/log.sock.
When the files together reach their bound, the oldest goes. Nothing waits for this program: while it is not there, vmmd
keeps some thousands of events for it.
Started by root, it becomes another user.

  --run DIR          sockets [/run/albatross]
  --user USER        who to become [fulmar-log if that user exists, else the owner of DIR/util]
  --state STATE      the log's folder is in here [/var/lib/albatross]
  --size MIB         what all files together may have [64]
  --days N           how long events are kept at most [365]
  --log TARGET       its own lines go to stderr or syslog [stderr]
  --log-level LEVEL  error, warning, info or debug [info]
  --config FILE      what the options above say, as in: size = 64 [/etc/fulmar/log.toml, if it is there]
  --check            say what is wrong with all this, and end
  --help             this text
  --version          the version

example: vmmd_log --run /run/albatross --size 256
";

/// What is served, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// Who it becomes when root starts it, where that is said.
    pub(crate) user: Option<Identity>,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// How much is kept, MiB.
    pub(crate) size_mb: u64,
    /// How long.
    pub(crate) days: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { run: RUN.into(), user: None, state: STATE.into(), size_mb: LOG_MB_DEFAULT, days: LOG_DAYS_DEFAULT }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn what_can_be_said_and_what_not() {
        let set = |name: &str, value: &str| {
            let mut options = Options::default();
            let setting = PROGRAM.settings.iter().find(|it| it.name == name);
            setting.map_or(Err("unknown".to_owned()), |it| it.set(&mut options, OsStr::new(value))).map(|()| options)
        };
        assert_eq!(set("days", "7"), Ok(Options { days: 7, ..Options::default() }));
        assert_eq!(set("size", "1024"), Ok(Options { size_mb: 1024, ..Options::default() }));
        for (name, value) in [("size", "0"), ("size", "9999999"), ("days", "-1"), ("days", "week"), ("days", "36501")] {
            assert!(set(name, value).unwrap_err().starts_with(&format!("'{value}' is no number from 1 to ")), "{name}");
        }
    }

    #[test]
    fn the_help_tells_the_settings_and_their_defaults() {
        for setting in PROGRAM.settings {
            assert!(HELP.contains(&format!("  --{} ", setting.name)), "{}", setting.name);
        }
        assert!(
            HELP.contains(RUN)
                && HELP.contains(STATE)
                && HELP.contains(&format!("[{}, if", PROGRAM.file.unwrap_or_default()))
        );
        assert!(HELP.contains(&format!("[{LOG_MB_DEFAULT}]")) && HELP.contains(&format!("[{LOG_DAYS_DEFAULT}]")));
    }
}
