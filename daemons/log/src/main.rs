//! `vmmd_log`: the event log. It keeps what `vmmd` tells it in segments on the disk and sends it to who asks: from a time, from a
//! number, as it comes. It must never make `vmmd` wait, never lose an event without saying so, and never grow beyond its bound.
//!
//! | file | what is in it |
//! |---|---|
//! | `options` | the command line |
//! | `server` | the event loop: who is ready, who is late |
//! | `commands` | what clients ask for, and what is told |
//! | `connection` | one client |
//! | `subscription` | what one reader has got and what it is still to get |
//! | `store` | the segments: writing, rotation, reading |
//! | `found` | the segments that are there at the start |
//! | `syncer` | the thread that waits for the disk |

mod commands;
mod connection;
mod found;
mod options;
mod server;
mod store;
mod subscription;
mod syncer;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fulmar_core::limits::LOG_FILES_MAX;
use fulmar_core::wire::Event;
use fulmar_host::privilege::{self, Identity};
use fulmar_host::{files, log, socket};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use crate::options::{Command, Options};
use crate::server::Server;
use crate::store::Store;

/// The name before each line of the log.
pub(crate) const PROGRAM: &str = "vmmd_log";

/// Mode of the socket: its user and its group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Why nothing is served.
#[derive(Debug)]
enum StartError {
    /// A folder that must be there is not; the option that names it.
    NoFolder(PathBuf, &'static str),
    /// The folder of the log cannot be used.
    Store(PathBuf, io::Error),
    /// Root's privileges cannot be given up.
    Privilege(Identity, Errno),
    /// The lock file cannot be used.
    Lock(PathBuf, io::Error),
    /// Another one serves this folder.
    Running(PathBuf),
    /// The socket cannot be made.
    Listen(PathBuf, io::Error),
    /// The event loop cannot be set up or has failed.
    Loop(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolder(path, option) => {
                write!(f, "there is no folder {}: make it, or choose another {option}", path.display())
            }
            Self::Store(path, error) => write!(f, "cannot keep the log in {}: {error}", path.display()),
            Self::Privilege(user, error) => write!(f, "cannot become {user}, who owns the folder util: {error}"),
            Self::Lock(path, error) => write!(f, "cannot lock {}: {error}", path.display()),
            Self::Running(path) => write!(
                f,
                "another vmmd_log serves this folder (it holds {}): stop it first, or choose another --state",
                path.display()
            ),
            Self::Listen(path, error) => write!(f, "cannot listen on {}: {error}", path.display()),
            Self::Loop(error) => write!(f, "the event loop failed: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The exit code for a command line that is wrong, as of all programs here.
const USAGE: u8 = 124;

fn main() -> ExitCode {
    match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print!("{}", options::HELP),
        Ok(Command::Version) => println!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")),
        Ok(Command::Serve(options)) => {
            if let Err(error) = serve(&options) {
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
fn serve(options: &Options) -> Result<(), StartError> {
    let util = options.run.join("util");
    for (folder, option) in [(&util, "--run"), (&options.state, "--state")] {
        if !folder.is_dir() {
            return Err(StartError::NoFolder(folder.clone(), option));
        }
    }
    step_down(&util)?;
    let folder = options.state.join("log");
    let broken = |error| StartError::Store(folder.clone(), error);
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(broken(error)),
        _ => {}
    }
    let _lock = lock(&folder.join("lock"))?;
    // Where this fails, connections are refused when the usual limit is reached.
    let _ = files::raise_limit();
    if let Some(text) = files::too_few(LOG_FILES_MAX) {
        log::line(PROGRAM, format_args!("{text}"));
    }
    let mut store = Store::open(&folder, options.bounds).map_err(broken)?;
    let path = util.join("log.sock");
    let listener = socket::listen(&path, SOCKET_MODE).map_err(|error| StartError::Listen(path.clone(), error))?;
    store.keep_own(&daemon_event(true));
    let mut server = Server::new(listener, store).map_err(StartError::Loop)?;
    log::line(PROGRAM, format_args!("serving on {}", path.display()));
    let ended = server.run();
    // Whoever held the lock made the socket, so it is ours; one that cannot be removed is replaced at the next start.
    let _ = std::fs::remove_file(&path);
    ended.map_err(StartError::Loop)?;
    server.finish(&daemon_event(false));
    log::line(PROGRAM, format_args!("ended by a signal"));
    Ok(())
}

/// That this daemon has come up, or ends.
fn daemon_event(up: bool) -> Event<'static> {
    Event::Daemon { program: PROGRAM, version: env!("CARGO_PKG_VERSION"), up }
}

/// Root becomes the user that the folder of the sockets belongs to, which is the one of the deciding half of `vmmd`: a socket
/// of root's could not be reached by that half, and the state folder is that user's.
fn step_down(util: &Path) -> Result<(), StartError> {
    let Ok(found) = util.metadata() else { return Err(StartError::NoFolder(util.to_owned(), "--run")) };
    let owner = Identity { uid: Uid::from_raw(found.uid()), gid: Gid::from_raw(found.gid()) };
    if owner.uid.is_root() || !privilege::can_become(found.uid(), found.gid(), 1) {
        return Ok(());
    }
    owner.assume().map_err(|error| StartError::Privilege(owner, error))
}

/// Held as long as the file is open. The file stays: removing it would let two programs lock two files of one name.
fn lock(path: &Path) -> Result<File, StartError> {
    let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = opened.map_err(|error| StartError::Lock(path.to_owned(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Running(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(StartError::Lock(path.to_owned(), error)),
    }
}
