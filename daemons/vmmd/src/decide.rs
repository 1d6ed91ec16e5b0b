//! The process of the half that decides: [`fulmar_vmmd::control`] and nothing around it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use fulmar_core::machine::Product;
use fulmar_core::name::Name;
use fulmar_host::channel::Channel;
#[cfg(not(target_os = "linux"))]
use fulmar_host::daemon;
use fulmar_host::error;
use fulmar_vmmd::control::{Control, Ended, Settings};
use fulmar_vmmd::host_half::Signals;

/// Where the control half works, and what it was handed.
#[derive(Debug)]
pub(crate) struct ControlPlace {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// The path whose virtual machines may have zvols.
    pub(crate) zvols: Option<Name>,
    /// Holds the run folder for this `vmmd`; to be kept open until the end.
    pub(crate) lock: OwnedFd,
    /// Where clients connect, if that is not to be made.
    pub(crate) socket: Option<OwnedFd>,
}

/// All that is known of unikernels and policies. Here it costs memory only where it is used.
static MACHINE: Mutex<Product> = Mutex::new(Product::new());

/// Runs until a signal ends it, or until the host half is gone (failure).
pub(crate) fn run(place: ControlPlace, channel: Channel) -> ExitCode {
    // Started through a link of another name, it would be called after that.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_name(c"vmmd");
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => {
            error!("signals cannot be caught: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let ControlPlace { run, state, zvols, lock, socket } = place;
    let settings = Settings { handed_over: socket.map(Arc::new), zvols, ..Settings::new(run, state) };
    let ended = match Control::start(&settings, channel, &mut machine) {
        Ok(mut control) => {
            // All is open that will ever be: folders, the journal, the way to the host half.
            if let Err(error) = confine() {
                error!("{error}");
                return ExitCode::FAILURE;
            }
            control.heed(signals.into()).and_then(|()| control.run())
        }
        Err(error) => {
            error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match ended {
        Ok(Ended::Asked) => ExitCode::SUCCESS,
        Ok(Ended::HostGone) => ExitCode::FAILURE,
        Err(error) => {
            error!("the event loop has failed: {error}");
            ExitCode::FAILURE
        }
    };
    drop(lock);
    code
}

/// From here on nothing is asked of the kernel but what deciding needs.
#[cfg(target_os = "linux")]
fn confine() -> Result<(), fulmar_shim_linux::sandbox::NotConfined> {
    use fulmar_shim_linux::sandbox::{Program, confine};
    confine(Program::Control)
}

#[cfg(not(target_os = "linux"))]
fn confine() -> Result<(), daemon::BeginError> {
    daemon::confine()
}
