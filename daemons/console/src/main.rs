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
//! | `subscription` | one subscriber |
//! | `fifo` | what a unikernel writes to |

mod commands;
mod consoles;
mod fifo;
mod options;
mod server;
mod stream;
mod subscription;

use std::fmt;
use std::process::ExitCode;

use fulmar_core::limits::{CONSOLE_FILES_MAX, CONSOLES_BYTES_MAX};
use fulmar_host::check::Findings;
use fulmar_host::clients::Serve as _;
use fulmar_host::daemon::{self, BeginError, Start};
use fulmar_host::folder::Folder;
use fulmar_host::info;

use crate::options::{Options, PROGRAM};
use crate::server::Server;

/// What its socket is called.
const SOCKET: &str = "console.sock";

/// Its user where the system has one of this name.
const USER: &str = "fulmar-console";

/// Why nothing is served.
#[derive(Debug)]
enum StartError {
    /// As for every daemon.
    Begin(BeginError),
    /// The program could not be confined.
    #[cfg(target_os = "linux")]
    Confine(fulmar_shim_linux::sandbox::NotConfined),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
            #[cfg(target_os = "linux")]
            Self::Confine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BeginError> for StartError {
    fn from(error: BeginError) -> Self {
        Self::Begin(error)
    }
}

fn main() -> ExitCode {
    PROGRAM.main(check, serve)
}

/// What a start needs.
fn check(options: &Options, findings: &mut Findings) {
    let fifos = options.run.join("fifo");
    findings.expect(daemon::expect_folder(&fifos, "--run"));
    daemon::check(&options.run, SOCKET, (options.user, USER), CONSOLE_FILES_MAX, findings);
}

/// Serves until a signal ends it.
fn serve(options: &Options) -> Result<(), StartError> {
    let Start { signals, service, handed_over } = Start::take()?;
    let (util, fifos) = (options.run.join("util"), options.run.join("fifo"));
    for folder in [&util, &fifos] {
        daemon::expect_folder(folder, "--run")?;
    }
    let descent = daemon::descend(&util, options.user, USER)?;
    let _lock = descent.lock(PROGRAM.name, &util.join("console.lock"), "--run", handed_over.as_ref())?;
    daemon::raise_files(CONSOLE_FILES_MAX);
    let path = util.join(SOCKET);
    let (listener, made) = daemon::listen(&path, handed_over)?;
    descent.finish()?;
    #[cfg(target_os = "linux")]
    {
        use fulmar_shim_linux::sandbox::{Enclosure, enclose};
        enclose(Enclosure::Console { run: &options.run }).map_err(StartError::Confine)?;
    }
    // The system gives zeroed memory away only where it is touched: this costs what the lines in it need.
    let mut memory = vec![0; CONSOLES_BYTES_MAX];
    let fifos = Folder::open(&fifos).map_err(BeginError::Loop)?;
    let mut server = Server::new(signals, listener, fifos, &mut memory, service).map_err(BeginError::Loop)?;
    confine()?;
    daemon::confine()?;
    server.serve(&path, made)?;
    info!("ended by a signal");
    Ok(())
}

/// From here on nothing is asked of the kernel but what serving needs.
#[cfg(target_os = "linux")]
fn confine() -> Result<(), StartError> {
    use fulmar_shim_linux::sandbox::{Program, confine};
    confine(Program::Console).map_err(StartError::Confine)
}

#[cfg(not(target_os = "linux"))]
fn confine() -> Result<(), StartError> {
    Ok(())
}
