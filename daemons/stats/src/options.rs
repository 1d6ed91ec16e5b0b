//! The settings of `vmmd_stats`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use fulmar_host::privilege::Identity;
use fulmar_host::settings::{Program, Setting, user};

/// What is known of it before it starts.
pub(crate) const PROGRAM: Program<Options> = Program {
    name: "vmmd_stats",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
    file: Some("/etc/fulmar/stats.toml"),
    settings: &[
        Setting::path("run", |options| &mut options.run),
        Setting::text("user", |options, value| {
            options.user = user(value)?;
            Ok(())
        }),
        Setting::number("interval", |options, value| {
            options.interval = seconds(value)?;
            Ok(())
        }),
    ],
};

/// The run folder where none is given.
const RUN: &str = "/run/albatross";

/// Time between two measurements where none is given, as the peer has it.
const INTERVAL: Duration = Duration::from_secs(10);

/// The shortest and the longest time between two measurements, seconds.
const SECONDS_MIN: f64 = 0.1;
const SECONDS_MAX: f64 = 86_400.0;

const HELP: &str = "\
usage: vmmd_stats [OPTIONS]

Measures the CPU time, memory and network traffic of each unikernel, and sends what it has measured to who subscribed. It serves
on DIR/util/stat.sock and learns from DIR/util/vmmd.sock what runs. Nothing is measured while nobody is subscribed.
Started by root, it becomes another user.

  --run DIR           sockets [/run/albatross]
  --user USER         who to become [fulmar-stats if that user exists, else the owner of DIR/util]
  --interval SECONDS  time between two measurements, from 0.1 to 86400 [10]
  --log TARGET        stderr or syslog [stderr]
  --log-level LEVEL   error, warning, info or debug [info]
  --config FILE       what the options above say, as in: interval = 5 [/etc/fulmar/stats.toml, if it is there]
  --check             say what is wrong with all this, and end
  --help              this text
  --version           the version

example: vmmd_stats --run /run/albatross --interval 5
";

/// What is served, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// Who it becomes when root starts it, where that is said.
    pub(crate) user: Option<Identity>,
    /// Time between two measurements.
    pub(crate) interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { run: RUN.into(), user: None, interval: INTERVAL }
    }
}

fn seconds(value: &OsStr) -> Result<Duration, String> {
    let seconds = value.to_str().and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| (SECONDS_MIN..=SECONDS_MAX).contains(seconds));
    let interval = seconds.map(Duration::from_secs_f64);
    interval.ok_or_else(|| format!("'{}' is no number of seconds from {SECONDS_MIN} to {SECONDS_MAX}", value.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_said_and_what_not() {
        assert_eq!(seconds(OsStr::new("0.5")), Ok(Duration::from_millis(500)));
        assert_eq!(seconds(OsStr::new("86400")), Ok(Duration::from_secs(86_400)));
        for wrong in ["0", "-1", "nan", "inf", "86401", "soon", "", "1e9"] {
            let said = format!("'{wrong}' is no number of seconds from 0.1 to 86400");
            assert_eq!(seconds(OsStr::new(wrong)), Err(said));
        }
    }

    #[test]
    fn the_help_tells_the_settings_and_their_defaults() {
        for setting in PROGRAM.settings {
            assert!(HELP.contains(&format!("  --{} ", setting.name)), "{}", setting.name);
        }
        assert!(
            HELP.contains(&format!("[{RUN}]")) && HELP.contains(&format!("[{}, if", PROGRAM.file.unwrap_or_default()))
        );
        assert!(HELP.contains(&format!("[{}]", INTERVAL.as_secs())));
    }
}
