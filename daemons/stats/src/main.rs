//! `vmmd_stats`: measures what each unikernel uses, at each interval, and sends it to who subscribed. What it sends belongs to the
//! unikernel whose name it has, or is not sent; and whatever its clients do, it never makes `vmmd` wait.
//!
//! | file | what is in it |
//! |---|---|
//! | `options` | the command line |
//! | `server` | the event loop: who is ready, who is late, when it is time to measure |
//! | `commands` | what clients ask for |
//! | `link` | `vmmd`, which tells what runs |
//! | `targets` | what is watched, and what was last measured |
//! | `connection` | one client |

mod commands;
mod connection;
mod link;
mod options;
mod server;
mod targets;

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fulmar_core::limits::STATS_FILES_MAX;
use fulmar_host::daemon::{self, BeginError};
use fulmar_host::log;

use crate::options::Command;
use crate::server::Server;

/// The name before each line of the log.
pub(crate) const PROGRAM: &str = "vmmd_stats";

/// Why nothing is served.
#[derive(Debug)]
enum StartError {
    /// As for every daemon.
    Begin(BeginError),
    /// The operating system does not tell.
    Meter(io::Error),
    /// There is no meter for this operating system.
    #[cfg(not(target_os = "linux"))]
    NoMeter,
    /// The event loop cannot be set up or has failed.
    Loop(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
            Self::Meter(error) => write!(f, "the system cannot be asked what processes use: {error}"),
            #[cfg(not(target_os = "linux"))]
            Self::NoMeter => f.write_str("unikernels cannot be measured on this operating system yet: use Linux"),
            Self::Loop(error) => write!(f, "the event loop failed: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BeginError> for StartError {
    fn from(error: BeginError) -> Self {
        Self::Begin(error)
    }
}

/// The exit code for a command line that is wrong, as of all programs here.
const USAGE: u8 = 124;

fn main() -> ExitCode {
    match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print!("{}", options::HELP),
        Ok(Command::Version) => println!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")),
        Ok(Command::Serve { run, interval }) => {
            if let Err(error) = serve(&run, interval) {
                log::line(PROGRAM, format_args!("{error}"));
                return ExitCode::FAILURE;
            }
        }
        Err(error) => {
            log::line(PROGRAM, format_args!("{error}"));
            return ExitCode::from(USAGE);
        }
    }
    ExitCode::SUCCESS
}

/// Serves until a signal ends it.
fn serve(run: &Path, interval: Duration) -> Result<(), StartError> {
    let util = run.join("util");
    daemon::expect_folder(&util, "--run")?;
    daemon::step_down(&util)?;
    let _lock = daemon::lock(PROGRAM, &util.join("stat.lock"), "--run")?;
    daemon::raise_files(PROGRAM, STATS_FILES_MAX);
    let meter = meter()?;
    let path = util.join("stat.sock");
    let listener = daemon::listen(&path)?;
    let mut server = Server::new(listener, util.join("vmmd.sock"), meter, interval).map_err(StartError::Loop)?;
    log::line(PROGRAM, format_args!("serving on {}", path.display()));
    let ended = server.run();
    // Whoever held the lock made the socket, so it is ours; one that cannot be removed is replaced at the next start.
    let _ = std::fs::remove_file(&path);
    ended.map_err(StartError::Loop)?;
    log::line(PROGRAM, format_args!("ended by a signal"));
    Ok(())
}

#[cfg(target_os = "linux")]
fn meter() -> Result<fulmar_shim_linux::LinuxMeter, StartError> {
    fulmar_shim_linux::LinuxMeter::new().map_err(|error| StartError::Meter(error.into()))
}

#[cfg(not(target_os = "linux"))]
fn meter() -> Result<std::convert::Infallible, StartError> {
    Err(StartError::NoMeter)
}
