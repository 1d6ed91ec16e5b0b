//! `vmmd_influx`: takes what `vmmd_stats` measures and what `vmmd` knows, and reports it: as line protocol over TCP, to an
//! InfluxDB over HTTP, and to whoever asks for OpenMetrics. It changes nothing, and what it reports to may be away, slow or
//! broken: what does not fit its memory is dropped and counted.
//!
//! | file | what is in it |
//! |---|---|
//! | `options` | the command line |
//! | `config` | the configuration file |
//! | `names` | by what the names in it are looked up |
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
mod names;
mod options;
mod queue;
mod snapshot;
mod survey;
mod tcp;

use fulmar_host::{error, info};
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use fulmar_host::check::Findings;
use fulmar_host::daemon::{self as begin, BeginError};
use fulmar_host::log;
use fulmar_host::renounce;
use fulmar_host::service::{self, Door, Service};
use fulmar_host::settings::USAGE;
use fulmar_host::signals;

use crate::config::{Config, ConfigError, addresses};
use crate::daemon::RETRY;
use crate::endpoint::Endpoint;
use crate::names::Names;
use crate::options::{Command, Options};
use crate::queue::Queue;
use crate::snapshot::Shared;

/// Its user where the system has one of this name.
const USER: &str = "fulmar-influx";

/// The name before each line of the log.
const PROGRAM: &str = "vmmd_influx";

/// How much longer than planned it may take to ask `vmmd` everything: each answer is waited for half a minute.
const SURVEY_MAX: Duration = Duration::from_secs(120);

/// Why nothing is reported.
#[derive(Debug)]
enum StartError {
    /// The configuration file.
    Config(PathBuf, ConfigError),
    /// The endpoint cannot be opened.
    Listen(std::net::SocketAddr, io::Error),
    /// As for every daemon.
    Begin(BeginError),
    /// The program could not be confined.
    #[cfg(target_os = "linux")]
    Confine(fulmar_shim_linux::sandbox::NotConfined),
    /// A file by which names are looked up was replaced.
    Names(&'static Path),
    /// A thread or a signal.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Begin(error) => error.fmt(f),
            #[cfg(target_os = "linux")]
            Self::Confine(error) => error.fmt(f),
            Self::Names(path) => write!(
                f,
                "{} was replaced, and names would be looked up without it: started anew, {PROGRAM} reads it",
                path.display()
            ),
            Self::System(error) => write!(f, "cannot start: {error}"),
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
    renounce::close_inherited();
    log::begin(PROGRAM);
    let done = match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            Ok(())
        }
        Ok(Command::Version) => {
            println!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Ok(Command::Check(options)) => return check(&options),
        Ok(Command::Report(options)) => read(&options).and_then(report),
        Err(error) => {
            error!("{error}");
            return ExitCode::from(USAGE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            if matches!(error, StartError::Config(..)) { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn read(options: &Options) -> Result<Config, StartError> {
    let config = Config::read(&options.config).map_err(|error| StartError::Config(options.config.clone(), error))?;
    Ok(Config { log: options.log(config.log), ..config })
}

/// Says what is wrong with a configuration and with what it names.
fn check(options: &Options) -> ExitCode {
    let mut findings = Findings::default();
    if let Some(config) = findings.expect(read(options)) {
        findings.check_log(config.log);
        let util = config.run.join("util");
        if !util.is_dir() {
            findings.doubt(format_args!(
                "there is no folder {}: nobody can be asked until vmmd has made it",
                util.display()
            ));
        }
        if let Some(tcp) = &config.tcp
            && let Err(error) = addresses(&tcp.address)
        {
            findings.doubt(format_args!("tcp.address: {} is not known now: {error}", tcp.address));
        }
    }
    findings.conclude(PROGRAM)
}

/// Reports until a signal ends it.
fn report(config: Config) -> Result<(), StartError> {
    log::set(config.log);
    let mut service = Service::find().map_err(BeginError::from)?;
    let handed_over = service::handed_over(Door::Inet).map_err(BeginError::from)?;
    // Its port may be one that only root can listen on.
    let endpoint = match (handed_over, config.metrics) {
        (Some(socket), _) => Some(Endpoint::of(socket).map_err(StartError::System)?),
        (None, Some(address)) => Some(Endpoint::open(address).map_err(|error| StartError::Listen(address, error))?),
        (None, None) => None,
    };
    let util = config.run.join("util");
    if util.is_dir() {
        begin::descend(&util, config.user, USER).and_then(begin::Descent::finish)?;
    } else {
        // Whoever owns it, once it is there.
        renounce::limit_to_none().and_then(|()| renounce::renounce()).map_err(BeginError::Renounce)?;
    }
    let names = config.names();
    enclose(&config, &names)?;
    let mut signals = signals::catch(&signals::ENDS).map_err(StartError::System)?;
    signals.set_nonblocking(false).map_err(StartError::System)?;
    let shared = Arc::new(Shared::default());
    shared.lock().note_survey();
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
    if let Some(endpoint) = endpoint {
        let (shared, queues) = (Arc::clone(&shared), queues.clone());
        start(thread("metrics").spawn(move || endpoint.serve(&shared, &queues)))?;
    }
    let (run, interval, told) = (config.run.clone(), config.interval, Arc::clone(&shared));
    start(thread("survey").spawn(move || survey::repeat(&run, interval, &told)))?;
    let seen = Arc::clone(&shared);
    start(thread("measure").spawn(move || measure::receive(&config.run, &shared, &queues)))?;
    confine()?;
    info!("reporting");
    service.ready(format_args!("reporting"));
    // Nothing needs to be put in order: what was not sent is measured again.
    loop {
        let left = service.alarm().map(|at| at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let left = left.into_iter().chain(names.are_used().then_some(RETRY)).min();
        signals.set_read_timeout(left).map_err(StartError::System)?;
        match signals.read(&mut [0; 16]) {
            Ok(_) => break,
            Err(_) if let Some(lost) = names.lost() => return Err(StartError::Names(lost)),
            // Whoever holds what all share for ever, or asks for ever, is a reason to be started anew.
            Err(_) if seen.lock().since_survey() < interval + SURVEY_MAX => service.turn(),
            Err(_) => sleep(Duration::from_secs(1)),
        }
    }
    service.stopping();
    info!("ended by a signal");
    Ok(())
}

/// From here on nothing is reached but by what names are looked up and what is reported to. What is listened on is so now.
#[cfg(target_os = "linux")]
fn enclose(config: &Config, names: &Names) -> Result<(), StartError> {
    use fulmar_shim_linux::sandbox::{Enclosure, enclose};
    enclose(Enclosure::Influx { names: &names.reach(), ports: &config.ports() }).map_err(StartError::Confine)
}

#[cfg(not(target_os = "linux"))]
fn enclose(_config: &Config, _names: &Names) -> Result<(), StartError> {
    Ok(())
}

/// From here on nothing is asked of the kernel but what reporting needs.
#[cfg(target_os = "linux")]
fn confine() -> Result<(), StartError> {
    use fulmar_shim_linux::sandbox::{Program, confine};
    confine(Program::Influx).map_err(StartError::Confine)
}

#[cfg(not(target_os = "linux"))]
fn confine() -> Result<(), StartError> {
    Ok(())
}
