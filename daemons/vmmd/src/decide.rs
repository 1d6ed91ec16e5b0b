//! The process of the half that decides: [`fulmar_vmmd::control`] and nothing around it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use fulmar_core::machine::Product;
use fulmar_host::channel::Channel;
use fulmar_host::log::line;
use fulmar_vmmd::control::{Control, Settings};

/// What the control half is given.
#[derive(Debug)]
pub(crate) struct ControlOptions {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// Holds the run folder for this `vmmd`; to be kept open until the end.
    pub(crate) lock: OwnedFd,
}

/// All that is known of unikernels and policies. Here it costs memory only where it is used.
static MACHINE: Mutex<Product> = Mutex::new(Product::new());

/// Runs until a signal ends it, or until the host half is gone (failure).
pub(crate) fn run(options: ControlOptions, channel: Channel) -> ExitCode {
    // Started through a link of another name, it would be called after that.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_name(c"vmmd");
    let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let ControlOptions { run, state, lock } = options;
    let ended = match Control::start(&Settings::new(run, state), channel, &mut machine) {
        Ok(mut control) => control.run(),
        Err(error) => {
            line("vmmd", format_args!("{error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = ended {
        line("vmmd", format_args!("the event loop has failed: {error}"));
    }
    drop(lock);
    ExitCode::FAILURE
}
