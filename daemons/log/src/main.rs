//! `vmmd_log`: the event log. It keeps what `vmmd` tells it in segments on the disk and sends it to who asks: from a time, from a
//! number, as it comes. It must never make `vmmd` wait, never lose an event without saying so, and never grow beyond its bound.
//!
//! | file | what is in it |
//! |---|---|
//! | `options` | the command line |
//! | `server` | the event loop: who is ready, who is late |
//! | `commands` | what clients ask for, and what is told |
//! | `subscription` | what one reader has got and what it is still to get |
//! | `store` | the segments: writing, rotation, reading |
//! | `found` | the segments that are there at the start |
//! | `syncer` | the thread that waits for the disk |

mod commands;
mod found;
mod options;
mod server;
mod store;
mod subscription;
mod syncer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use fulmar_core::limits::LOG_FILES_MAX;
use fulmar_core::wire::Event;
use fulmar_host::check::Findings;
use fulmar_host::clients::Serve as _;
use fulmar_host::daemon::{self, BeginError, Start};
use fulmar_host::info;

use crate::options::{Options, PROGRAM};
use crate::server::Server;
use crate::store::{Bounds, Store};

/// What its socket is called.
const SOCKET: &str = "log.sock";

/// Its user where the system has one of this name.
const USER: &str = "fulmar-log";

/// Why nothing is served.
#[derive(Debug)]
enum StartError {
    /// As for every daemon.
    Begin(BeginError),
    /// The folder of the log cannot be used.
    Store(PathBuf, io::Error),
    /// The program could not be confined.
    #[cfg(target_os = "linux")]
    Confine(fulmar_shim_linux::sandbox::NotConfined),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
            Self::Store(path, error) => write!(f, "cannot keep the log in {}: {error}", path.display()),
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
    let there = findings.expect(daemon::expect_folder(&options.state, "--state")).is_some();
    if daemon::check(&options.run, SOCKET, (options.user, USER), LOG_FILES_MAX, findings) && there {
        let folder = options.state.join("log");
        findings.check_writable(if folder.exists() { &folder } else { &options.state });
    }
}

/// Serves until a signal ends it.
fn serve(options: &Options) -> Result<(), StartError> {
    let Start { signals, service, mut handed_over } = Start::take()?;
    let util = options.run.join("util");
    for (folder, option) in [(&util, "--run"), (&options.state, "--state")] {
        daemon::expect_folder(folder, option)?;
    }
    let descent = daemon::descend(&util, options.user, USER)?;
    let folder = options.state.join("log");
    let broken = |error| StartError::Store(folder.clone(), error);
    descent.make_own(&folder).map_err(broken)?;
    let path = util.join(SOCKET);
    let _lock = descent.lock(PROGRAM.name, &folder.join("lock"), "--state", None)?;
    daemon::raise_files(LOG_FILES_MAX);
    // Before there is something to serve only where it could not be made afterwards.
    let early = descent.is_last_chance().then(|| daemon::listen(&path, handed_over.take())).transpose()?;
    descent.finish()?;
    #[cfg(target_os = "linux")]
    {
        use fulmar_shim_linux::sandbox::{Enclosure, enclose};
        enclose(Enclosure::Log { run: &options.run, events: &folder }).map_err(StartError::Confine)?;
    }
    let mut store = Store::open(&folder, Bounds::new(options.size_mb, options.days)).map_err(broken)?;
    let (listener, made) = early.map_or_else(|| daemon::listen(&path, handed_over), Ok)?;
    store.keep_own(&daemon_event(true));
    let mut server = Server::new(signals, listener, store, service).map_err(BeginError::Loop)?;
    confine()?;
    daemon::confine()?;
    server.serve(&path, made)?;
    server.finish(&daemon_event(false));
    info!("ended by a signal");
    Ok(())
}

/// From here on nothing is asked of the kernel but what serving needs.
#[cfg(target_os = "linux")]
fn confine() -> Result<(), StartError> {
    use fulmar_shim_linux::sandbox::{Program, confine};
    confine(Program::Log).map_err(StartError::Confine)
}

#[cfg(not(target_os = "linux"))]
fn confine() -> Result<(), StartError> {
    Ok(())
}

/// That this daemon has come up, or ends.
fn daemon_event(up: bool) -> Event<'static> {
    Event::Daemon { program: PROGRAM.name, version: PROGRAM.version, up }
}
