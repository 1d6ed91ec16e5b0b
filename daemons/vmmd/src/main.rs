//! `vmmd` runs the unikernels of a host. This file starts its two halves and does nothing else: one process decides and has
//! no privileges (`decide`), the other acts and reads nothing but the first one's requests ([`fulmar_vmmd::host_half`]).

mod check;
mod decide;
mod options;
mod requirements;
mod start;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fulmar_core::limits::{CONTROL_FILES_MAX, END_MS_MAX, HOST_FILES_MAX};
use fulmar_host::channel::Channel;
use fulmar_host::files;
use fulmar_host::log;
use fulmar_host::renounce::{self, KEPT, KEPT_AT_START};
use fulmar_host::service::{self, Door, Service};
use fulmar_host::settings::Given;
use fulmar_host::shim::Shim;
use fulmar_host::{error, warning};
use fulmar_vmmd::host_half::{Ending, HostHalf, Signals, serve};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::options::{CONTROL, CONTROL_HALF, Options, PROGRAM};
use self::start::StartError;

fn main() -> ExitCode {
    log::begin("vmmd");
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == CONTROL_HALF) {
        return run_control(arguments.split_off(1));
    }
    renounce::close_inherited();
    #[cfg(feature = "fake-shim")]
    let fake_shim = arguments.iter().position(|it| it == "--fake-shim").map(|at| arguments.remove(at)).is_some();
    match PROGRAM.begin(arguments, check::check) {
        #[cfg(feature = "fake-shim")]
        Ok(Given { own, log }) => run_both(&Options { fake_shim, ..own }, log),
        #[cfg(not(feature = "fake-shim"))]
        Ok(Given { own, log }) => run_both(&own, log),
        Err(code) => code,
    }
}

/// The process of the half that decides.
fn run_control(arguments: Vec<OsString>) -> ExitCode {
    let given = match CONTROL.begin(arguments, |_, _| {}) {
        Ok(given) => given,
        Err(code) => return code,
    };
    log::set(given.log);
    match start::become_control(given.own) {
        Ok((options, channel)) => decide::run(options, channel),
        Err(error) => {
            error!("control half: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The process of the half that acts, which starts the other.
fn run_both(options: &Options, log: log::Settings) -> ExitCode {
    log::begin("vmmd[host]");
    log::set(log);
    start_both(options, log).unwrap_or_else(|error| {
        error!("{error}");
        ExitCode::FAILURE
    })
}

fn start_both(options: &Options, log: log::Settings) -> Result<ExitCode, StartError> {
    let service = Service::find()?;
    let socket = service::handed_over(Door::Unix)?;
    renounce::clear_environment();
    renounce::limit_capabilities(&[&KEPT, &KEPT_AT_START]).map_err(StartError::Renounce)?;
    let mut signals = Signals::catch().map_err(StartError::Channel)?;
    let wanted = options.user();
    let user = start::attainable(wanted);
    if user != wanted {
        warning!("the control half cannot become user {wanted} here and stays {user}");
    }
    if let Err(errno) = files::raise_limit() {
        warning!("could not raise the limit of open files: {}", errno.desc());
    }
    if let Some(text) = files::too_few(HOST_FILES_MAX.max(CONTROL_FILES_MAX)) {
        warning!("{text}");
    }
    start::require(options, user)?;
    start::make_folders(options, user)?;
    let lock = start::lock(&options.run)?;
    let (mine, theirs) = Channel::pair().map_err(StartError::Channel)?;
    let start = || {
        let started = start::start_control(options, log, user, theirs, &lock, socket.as_ref());
        // From here on it is the other half's.
        drop(socket);
        renounce::limit_capabilities(&[&KEPT]).map_err(StartError::Renounce)?;
        started
    };
    #[cfg(feature = "fake-shim")]
    if options.fake_shim {
        let shim = fulmar_host::shim::fake::FakeShim::new().map_err(StartError::Channel)?;
        let control = start()?;
        return Ok(run_host(shim, mine, options, service, &mut signals, control));
    }
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    {
        let shim = open_shim(options)?;
        let control = start()?;
        Ok(run_host(shim, mine, options, service, &mut signals, control))
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    {
        drop((mine, start, service));
        Err(StartError::NoShim)
    }
}

#[cfg(target_os = "freebsd")]
fn open_shim(options: &Options) -> Result<impl Shim, StartError> {
    let shim = fulmar_shim_freebsd::shim(options.tender.as_deref(), &options.state);
    shim.map_err(|error| StartError::Shim(std::io::Error::other(error)))
}

#[cfg(target_os = "linux")]
fn open_shim(options: &Options) -> Result<fulmar_shim_linux::LinuxShim, StartError> {
    let tender = options.tender().map_err(StartError::Shim)?;
    let shim = fulmar_shim_linux::LinuxShim::new(&tender, options.tender_uid_base, &options.state);
    let shim = shim.map_err(|error| StartError::Shim(error.into()))?;
    Ok(match fulmar_shim_linux::Cgroups::find(&options.run) {
        Ok(cgroups) => shim.with_cgroups(cgroups),
        Err(error) => {
            warning!("tenders get no cgroups: {error}");
            shim
        }
    })
}

/// Its end of the channel closed, the control half has as long to end as where it is asked. It may be one that was taken over, and stays.
fn end_in_time(control: &mut Child) {
    let end_by = Instant::now() + Duration::from_millis(END_MS_MAX);
    while matches!(control.try_wait(), Ok(None)) {
        if Instant::now() > end_by {
            error!("the control half does not end: it is killed, unikernels keep running");
            let _ = control.kill();
            return;
        }
        sleep(Duration::from_millis(1));
    }
}

/// Serves the control half until it is gone, and says why.
fn run_host(
    shim: impl Shim,
    channel: Channel,
    options: &Options,
    service: Service,
    signals: &mut Signals,
    mut control: Child,
) -> ExitCode {
    let pid = i32::try_from(control.id()).map_or(Pid::this(), Pid::from_raw);
    let mut has_served = false;
    let served = HostHalf::new(shim, channel, &options.run).and_then(|half| {
        let mut half = half.with_service(service).with_zvols(options.zvols.is_some());
        let served = serve(&mut half, signals, &mut || {
            // It cannot be gone: it is our child and has not been waited for.
            let _ = kill(pid, Signal::SIGTERM);
        });
        has_served = half.has_served();
        served
    });
    let is_killed = match served {
        Ok(Ending::Asked) => false,
        // It has said itself why it does not start, unless it died: then that is said below.
        Ok(Ending::ControlGone) if !has_served => false,
        Ok(Ending::ControlGone) => {
            error!("the control half is gone: vmmd ends, unikernels keep running");
            false
        }
        Ok(Ending::Late) => {
            error!("the control half does not end: it is killed, unikernels keep running");
            true
        }
        Err(ref error) => {
            error!("{error}: vmmd ends, unikernels keep running");
            true
        }
    };
    if is_killed {
        let _ = control.kill();
    }
    end_in_time(&mut control);
    let status = control.wait();
    let asked = matches!(served, Ok(Ending::Asked));
    match status {
        Ok(status) if asked && (status.success() || status.signal() == Some(Signal::SIGTERM as i32)) => {
            ExitCode::SUCCESS
        }
        Ok(status) => {
            if !is_killed && (has_served || status.code() != Some(1)) {
                error!("the control half ended with {status}");
            }
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}
