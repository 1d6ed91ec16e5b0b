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
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fulmar_core::limits::STATS_FILES_MAX;
use fulmar_host::privilege::{self, Identity};
use fulmar_host::{files, log, socket};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use crate::options::Command;
use crate::server::Server;

/// The name before each line of the log.
pub(crate) const PROGRAM: &str = "vmmd_stats";

/// Mode of the socket: its user and its group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Why nothing is served.
#[derive(Debug)]
enum StartError {
    /// A folder that must be there is not.
    NoFolder(PathBuf),
    /// Root's privileges cannot be given up.
    Privilege(Identity, Errno),
    /// The lock file cannot be used.
    Lock(PathBuf, io::Error),
    /// Another one serves this folder.
    Running(PathBuf),
    /// The socket cannot be made.
    Listen(PathBuf, io::Error),
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
            Self::NoFolder(path) => {
                write!(f, "there is no folder {}: make it, or choose another --run", path.display())
            }
            Self::Privilege(user, error) => write!(f, "cannot become {user}, who owns the folder util: {error}"),
            Self::Lock(path, error) => write!(f, "cannot lock {}: {error}", path.display()),
            Self::Running(path) => write!(
                f,
                "another vmmd_stats serves this folder (it holds {}): stop it first, or choose another --run",
                path.display()
            ),
            Self::Listen(path, error) => write!(f, "cannot listen on {}: {error}", path.display()),
            Self::Meter(error) => write!(f, "the system cannot be asked what processes use: {error}"),
            #[cfg(not(target_os = "linux"))]
            Self::NoMeter => f.write_str("unikernels cannot be measured on this operating system yet: use Linux"),
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
    if !util.is_dir() {
        return Err(StartError::NoFolder(util));
    }
    step_down(&util)?;
    let _lock = lock(&util.join("stat.lock"))?;
    // Where this fails, unikernels are not watched when the usual limit is reached.
    let _ = files::raise_limit();
    if let Some(text) = files::too_few(STATS_FILES_MAX) {
        log::line(PROGRAM, format_args!("{text}"));
    }
    let meter = meter()?;
    let path = util.join("stat.sock");
    let listener = socket::listen(&path, SOCKET_MODE).map_err(|error| StartError::Listen(path.clone(), error))?;
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

/// Root becomes the user that the folder of the sockets belongs to, which is the one of the deciding half of `vmmd`: what
/// clients say is not for root to handle, and what processes use anybody may see.
fn step_down(util: &Path) -> Result<(), StartError> {
    let Ok(found) = util.metadata() else { return Err(StartError::NoFolder(util.to_owned())) };
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
