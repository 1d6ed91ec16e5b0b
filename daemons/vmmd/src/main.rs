//! `vmmd` runs the unikernels of a host. This file starts its two halves and does nothing else: one process decides and has
//! no privileges (`decide`), the other acts and reads nothing but the first one's requests ([`fulmar_vmmd::host_half`]).

mod decide;
mod options;
mod start;

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode};

use fulmar_core::limits::{CONTROL_FILES_MAX, HOST_FILES_MAX};
use fulmar_host::channel::Channel;
use fulmar_host::files;
use fulmar_host::log;
use fulmar_host::shim::Shim;
use fulmar_vmmd::host_half::{Ending, HostHalf, Signals, say, serve};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::options::{Command, HELP, Options};
use self::start::StartError;

/// The exit code for a command line that is wrong.
const USAGE: u8 = 124;

fn main() -> ExitCode {
    match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("vmmd {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Both(options)) => run_both(&options).unwrap_or_else(|error| {
            say(format_args!("{error}"));
            ExitCode::FAILURE
        }),
        Ok(Command::Control(options)) => match start::become_control(options) {
            Ok((options, channel)) => decide::run(options, channel),
            Err(error) => {
                log::line("vmmd[control]", format_args!("{error}"));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            log::line("vmmd", format_args!("{error}"));
            ExitCode::from(USAGE)
        }
    }
}

fn run_both(options: &Options) -> Result<ExitCode, StartError> {
    let mut signals = Signals::catch().map_err(StartError::Channel)?;
    let user = start::attainable(options.user);
    if user != options.user {
        say(format_args!("the control half cannot become user {} here and stays {user}", options.user));
    }
    if let Err(errno) = files::raise_limit() {
        say(format_args!("could not raise the limit of open files: {}", errno.desc()));
    }
    if let Some(text) = files::too_few(HOST_FILES_MAX.max(CONTROL_FILES_MAX)) {
        say(format_args!("{text}"));
    }
    start::make_folders(options, user)?;
    let lock = start::lock(&options.run)?;
    let (mine, theirs) = Channel::pair().map_err(StartError::Channel)?;
    #[cfg(feature = "fake-shim")]
    if options.fake_shim {
        let shim = fulmar_host::shim::fake::FakeShim::new().map_err(StartError::Channel)?;
        let control = start::start_control(options, user, theirs, &lock)?;
        return Ok(run_host(shim, mine, options, &mut signals, control));
    }
    #[cfg(target_os = "linux")]
    {
        let shim = open_shim(options)?;
        let control = start::start_control(options, user, theirs, &lock)?;
        Ok(run_host(shim, mine, options, &mut signals, control))
    }
    #[cfg(not(target_os = "linux"))]
    {
        drop((mine, theirs, lock));
        Err(StartError::NoShim)
    }
}

#[cfg(target_os = "linux")]
fn open_shim(options: &Options) -> Result<fulmar_shim_linux::LinuxShim, StartError> {
    let tender = match &options.tender {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(StartError::Shim)?.with_file_name("fulmar-tender"),
    };
    let shim = fulmar_shim_linux::LinuxShim::new(&tender, options.tender_uid_base);
    let shim = shim.map_err(|error| StartError::Shim(error.into()))?;
    Ok(match fulmar_shim_linux::Cgroups::find(&options.run) {
        Ok(cgroups) => shim.with_cgroups(cgroups),
        Err(error) => {
            say(format_args!("tenders get no cgroups: {error}"));
            shim
        }
    })
}

/// Serves the control half until it is gone, and says why.
fn run_host(
    shim: impl Shim,
    channel: Channel,
    options: &Options,
    signals: &mut Signals,
    mut control: Child,
) -> ExitCode {
    let pid = i32::try_from(control.id()).map_or(Pid::this(), Pid::from_raw);
    let served = HostHalf::new(shim, channel, &options.run).and_then(|mut half| {
        serve(&mut half, signals, &mut || {
            // It cannot be gone: it is our child and has not been waited for.
            let _ = kill(pid, Signal::SIGTERM);
        })
    });
    match served {
        Ok(Ending::Asked) => {}
        Ok(Ending::ControlGone) => say(format_args!("the control half is gone: vmmd ends, unikernels keep running")),
        Ok(Ending::Late) => {
            say(format_args!("the control half does not end: it is killed, unikernels keep running"));
            let _ = control.kill();
        }
        Err(ref error) => {
            say(format_args!("{error}: vmmd ends, unikernels keep running"));
            let _ = control.kill();
        }
    }
    let status = control.wait();
    let asked = matches!(served, Ok(Ending::Asked));
    match status {
        Ok(status) if asked && (status.success() || status.signal() == Some(Signal::SIGTERM as i32)) => {
            ExitCode::SUCCESS
        }
        Ok(status) => {
            say(format_args!("the control half ended with {status}"));
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}
