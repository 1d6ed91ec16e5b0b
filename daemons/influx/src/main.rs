//! `vmmd_influx`: takes what `vmmd_stats` measures and what `vmmd` knows, and reports it: as line protocol over TCP, to an
//! InfluxDB over HTTP, and to whoever asks for OpenMetrics. It changes nothing, and what it reports to may be away, slow or
//! broken: what does not fit its memory is dropped and counted.
//!
//! | file | what is in it |
//! |---|---|
//! | `options` | the command line |
//! | `config` | the configuration file |
//! | `daemon` | a conversation with one of the daemons |
//! | `measure` | measurements as they come from `vmmd_stats` |
//! | `survey` | what `vmmd` says of unikernels, policies and the host |
//! | `snapshot` | what is known now, for all to read |
//! | `line` | line protocol |
//! | `queue` | lines that wait to be sent, bounded |
//! | `tcp`, `http` | sending them |
//! | `metrics` | the same as OpenMetrics |
//! | `endpoint` | who asks for these |

mod config;
mod daemon;
mod endpoint;
mod http;
mod line;
mod measure;
mod metrics;
mod options;
mod queue;
mod snapshot;
mod survey;
mod tcp;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::Builder;

use fulmar_host::log;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, ConfigError};
use crate::endpoint::Endpoint;
use crate::options::Command;
use crate::queue::Queue;
use crate::snapshot::Shared;

/// The name before each line of the log.
const PROGRAM: &str = "vmmd_influx";

/// The exit code for a command line or a configuration that is wrong, as of all programs here.
const USAGE: u8 = 124;

/// Why nothing is reported.
#[derive(Debug)]
enum StartError {
    /// The configuration file.
    Config(PathBuf, ConfigError),
    /// The endpoint cannot be opened.
    Listen(std::net::SocketAddr, io::Error),
    /// A thread or a signal.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

fn main() -> ExitCode {
    let done = match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            Ok(())
        }
        Ok(Command::Version) => {
            println!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Ok(Command::Check(path)) => read(&path).map(|_| println!("{}: it is well", path.display())),
        Ok(Command::Report(path)) => read(&path).and_then(report),
        Err(error) => {
            log::line(PROGRAM, format_args!("{error}"));
            return ExitCode::from(USAGE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::line(PROGRAM, format_args!("{error}"));
            if matches!(error, StartError::Config(..)) { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn read(path: &std::path::Path) -> Result<Config, StartError> {
    Config::read(path).map_err(|error| StartError::Config(path.to_owned(), error))
}

/// Reports until a signal ends it.
fn report(config: Config) -> Result<(), StartError> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(StartError::System)?;
    let shared = Arc::new(Shared::default());
    let thread = |name: &str| Builder::new().name(name.to_owned());
    let start = |spawned: io::Result<_>| spawned.map(drop).map_err(StartError::System);
    let mut queues = Vec::new();
    if let Some(tcp) = config.tcp {
        let queue = Arc::new(Queue::new("tcp", tcp.form));
        queues.push(Arc::clone(&queue));
        start(thread("tcp").spawn(move || tcp::send(&tcp.address, &queue)))?;
    }
    if let Some(http) = config.http {
        let queue = Arc::new(Queue::new("http", http.form));
        queues.push(Arc::clone(&queue));
        start(thread("http").spawn(move || http::send(&http, &queue)))?;
    }
    if let Some(address) = config.metrics {
        let endpoint = Endpoint::open(address).map_err(|error| StartError::Listen(address, error))?;
        let (shared, queues) = (Arc::clone(&shared), queues.clone());
        start(thread("metrics").spawn(move || endpoint.serve(&shared, &queues)))?;
    }
    let (run, interval, told) = (config.run.clone(), config.interval, Arc::clone(&shared));
    start(thread("survey").spawn(move || survey::repeat(&run, interval, &told)))?;
    start(thread("measure").spawn(move || measure::receive(&config.run, &shared, &queues)))?;
    log::line(PROGRAM, format_args!("reporting"));
    // Nothing needs to be put in order: what was not sent is measured again.
    let _ = signals.forever().next();
    log::line(PROGRAM, format_args!("ended by a signal"));
    Ok(())
}
