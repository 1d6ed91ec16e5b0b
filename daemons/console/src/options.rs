//! The settings of `vmmd_console`.

use std::path::PathBuf;

use fulmar_host::privilege::Identity;
use fulmar_host::settings::{Program, Setting, user};

/// What is known of it before it starts.
pub(crate) const PROGRAM: Program<Options> = Program {
    name: "vmmd_console",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
    file: Some("/etc/fulmar/console.toml"),
    settings: &[
        Setting::path("run", |options| &mut options.run),
        Setting::text("user", |options, value| {
            options.user = user(value)?;
            Ok(())
        }),
    ],
};

/// The run folder where none is given.
const RUN: &str = "/run/albatross";

const HELP: &str = "\
usage: vmmd_console [OPTIONS]

Keeps the last lines that each unikernel wrote to its console, and sends them to who asks. It serves on DIR/util/console.sock
and reads the fifos in DIR/fifo. Unikernels do not notice when it ends; what they write until it is back waits in
their fifos as far as there is room.
Started by root, it becomes another user.

  --run DIR          sockets and fifos [/run/albatross]
  --user USER        who to become [fulmar-console if that user exists, else the owner of DIR/util]
  --log TARGET       stderr or syslog [stderr]
  --log-level LEVEL  error, warning, info or debug [info]
  --config FILE      what the options above say, as in: run = \"/run/albatross\" [/etc/fulmar/console.toml, if it is there]
  --check            say what is wrong with all this, and end
  --help             this text
  --version          the version

example: vmmd_console --run /run/albatross
";

/// What is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// Who it becomes when root starts it, where that is said.
    pub(crate) user: Option<Identity>,
}

impl Default for Options {
    fn default() -> Self {
        Self { run: RUN.into(), user: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_tells_the_settings_and_their_defaults() {
        for setting in PROGRAM.settings {
            assert!(HELP.contains(&format!("  --{} ", setting.name)), "{}", setting.name);
        }
        assert!(
            HELP.contains(&format!("[{RUN}]")) && HELP.contains(&format!("[{}, if", PROGRAM.file.unwrap_or_default()))
        );
    }
}
