//! `vmmd_console`: reads what unikernels write to their consoles, keeps the last lines of each, and streams them to who
//! subscribed. It must never stall a unikernel, whatever its clients do, and never grow beyond what `limits` says.
//!
//! | file | what is in it |
//! |---|---|
//! | `options` | the command line |
//! | `server` | the event loop: who is ready, who is late |
//! | `commands` | what clients ask for |
//! | `stream` | lines: from fifos into rings, from rings to subscribers |
//! | `consoles` | the table of consoles |
//! | `connection` | one client |
//! | `fifo` | what a unikernel writes to |

mod commands;
mod connection;
mod consoles;
mod fifo;
mod options;
mod server;
mod stream;

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use fulmar_core::limits::{CONSOLE_FILES_MAX, CONSOLES_BYTES_MAX};
use fulmar_host::daemon::{self, BeginError};
use fulmar_host::log;

use crate::options::Command;
use crate::server::Server;

/// The name before each line of the log.
pub(crate) const PROGRAM: &str = "vmmd_console";

/// Why nothing is served.
#[derive(Debug)]
enum StartError {
    /// As for every daemon.
    Begin(BeginError),
    /// The event loop cannot be set up or has failed.
    Loop(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
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
        Ok(Command::Serve(run)) => {
            if let Err(error) = serve(&run) {
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
fn serve(run: &Path) -> Result<(), StartError> {
    let (util, fifos) = (run.join("util"), run.join("fifo"));
    for folder in [&util, &fifos] {
        daemon::expect_folder(folder, "--run")?;
    }
    daemon::step_down(&util)?;
    let _lock = daemon::lock(PROGRAM, &util.join("console.lock"), "--run")?;
    daemon::raise_files(PROGRAM, CONSOLE_FILES_MAX);
    let path = util.join("console.sock");
    let listener = daemon::listen(&path)?;
    // The system gives zeroed memory away only where it is touched: this costs what the lines in it need.
    let mut memory = vec![0; CONSOLES_BYTES_MAX];
    let mut server = Server::new(listener, fifos, &mut memory).map_err(StartError::Loop)?;
    log::line(PROGRAM, format_args!("serving on {}", path.display()));
    let ended = server.run();
    // Whoever held the lock made the socket, so it is ours; one that cannot be removed is replaced at the next start.
    let _ = std::fs::remove_file(&path);
    ended.map_err(StartError::Loop)?;
    log::line(PROGRAM, format_args!("ended by a signal"));
    Ok(())
}
