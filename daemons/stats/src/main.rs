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
//! | `subscription` | one subscriber |

mod commands;
mod link;
mod options;
mod server;
mod subscription;
mod targets;

use std::fmt;
use std::io;
use std::process::ExitCode;

use fulmar_core::limits::STATS_FILES_MAX;
use fulmar_host::check::Findings;
use fulmar_host::clients::Serve as _;
use fulmar_host::daemon::{self, BeginError, Start};
use fulmar_host::info;
use fulmar_host::socket::STATS_USER;

use crate::options::{Options, PROGRAM};
use crate::server::Server;

/// What its socket is called.
const SOCKET: &str = "stat.sock";

/// Why nothing is served.
#[derive(Debug)]
enum StartError {
    /// As for every daemon.
    Begin(BeginError),
    /// The operating system does not tell.
    Meter(io::Error),
    /// There is no meter for this operating system.
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    NoMeter,
    /// The program could not be confined.
    #[cfg(target_os = "linux")]
    Confine(fulmar_shim_linux::sandbox::NotConfined),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
            Self::Meter(error) => write!(f, "the system cannot be asked what processes use: {error}"),
            #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
            Self::NoMeter => {
                f.write_str("unikernels cannot be measured on this operating system yet: use Linux or FreeBSD")
            }
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
    daemon::check(&options.run, SOCKET, (options.user, STATS_USER), STATS_FILES_MAX, findings);
    findings.expect(meter(options));
}

/// Serves until a signal ends it.
fn serve(options: &Options) -> Result<(), StartError> {
    let Start { signals, service, handed_over } = Start::take()?;
    let util = options.run.join("util");
    daemon::expect_folder(&util, "--run")?;
    let descent = daemon::descend(&util, options.user, STATS_USER)?;
    let _lock = descent.lock(PROGRAM.name, &util.join("stat.lock"), "--run", handed_over.as_ref())?;
    daemon::raise_files(STATS_FILES_MAX);
    let path = util.join(SOCKET);
    let (listener, made) = daemon::listen(&path, handed_over)?;
    descent.finish()?;
    #[cfg(target_os = "linux")]
    {
        use fulmar_shim_linux::sandbox::{Enclosure, enclose};
        enclose(Enclosure::Stats { run: &options.run }).map_err(StartError::Confine)?;
    }
    let meter = meter(options)?;
    let mut server = Server::new(signals, listener, util.join("vmmd.sock"), meter, options.interval, service)
        .map_err(BeginError::Loop)?;
    confine()?;
    server.serve(&path, made)?;
    info!("ended by a signal");
    Ok(())
}

/// From here on nothing is asked of the kernel but what serving needs.
#[cfg(target_os = "linux")]
fn confine() -> Result<(), StartError> {
    use fulmar_shim_linux::sandbox::{Program, confine};
    confine(Program::Stats).map_err(StartError::Confine)
}

#[cfg(not(target_os = "linux"))]
fn confine() -> Result<(), StartError> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn meter(options: &Options) -> Result<fulmar_shim_linux::LinuxMeter, StartError> {
    fulmar_shim_linux::LinuxMeter::new(&options.run).map_err(|error| StartError::Meter(error.into()))
}

#[cfg(target_os = "freebsd")]
fn meter(_: &Options) -> Result<impl fulmar_host::meter::Meter, StartError> {
    fulmar_shim_freebsd::meter().map_err(|error| StartError::Meter(error.into()))
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn meter(_: &Options) -> Result<std::convert::Infallible, StartError> {
    Err(StartError::NoMeter)
}
