//! The half of `vmmd` that decides.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use fulmar_core::halves::{Answer, Request};
use fulmar_core::limits::CHANNEL_BYTES_MAX;
use fulmar_host::channel::{Channel, ReceivedFds};
use fulmar_host::log::line;

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

/// Runs until asked to end (success), or until the host half is gone (failure).
pub(crate) fn run(options: ControlOptions, channel: Channel) -> ExitCode {
    let mut buffer = vec![0; CHANNEL_BYTES_MAX];
    if let Ok(packet) = Request::Survey.encode(&mut buffer) {
        let _ = channel.send(packet, &[]);
    }
    while let Ok(Some(packet)) = channel.receive(&mut buffer, &mut ReceivedFds::default()) {
        if let Ok(answer) = Answer::decode(packet) {
            line("vmmd[control]", format_args!("{answer:?}"));
        }
    }
    line("vmmd[control]", format_args!("{} {}", options.run.display(), options.state.display()));
    drop((options.lock, channel));
    ExitCode::FAILURE
}
