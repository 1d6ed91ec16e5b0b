//! The loop of the host half: it sleeps until there is a request, an exit or a signal.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use fulmar_core::limits::{CHANNEL_BYTES_MAX, END_MS_MAX};
use fulmar_host::shim::Shim;
use fulmar_host::signals;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{HostError, HostHalf};

/// Why the loop ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The control half closed the channel though nobody asked it to.
    ControlGone,
    /// The same, after it was asked.
    Asked,
    /// It was asked and did not.
    Late,
}

/// The signals that ask `vmmd` to end, as a fd that becomes readable.
#[derive(Debug)]
pub struct Signals(UnixStream);

impl Signals {
    /// Catches SIGTERM, SIGINT and SIGHUP from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn catch() -> io::Result<Self> {
        let [terminate, interrupt] = signals::ENDS;
        signals::catch(&[terminate, interrupt, signals::RELOAD]).map(Self)
    }

    /// Catches nothing; the signal comes from the other end.
    #[cfg(test)]
    pub(super) fn pretended() -> (Self, UnixStream) {
        let (readable, writable) = UnixStream::pair().unwrap();
        readable.set_nonblocking(true).unwrap();
        (Self(readable), writable)
    }

    fn drain(&mut self) {
        while matches!(self.0.read(&mut [0; 16]), Ok(1..)) {}
    }
}

impl From<Signals> for UnixStream {
    fn from(signals: Signals) -> Self {
        signals.0
    }
}

/// Serves until the control half is gone. `ask_control_to_end` is called for the first signal.
///
/// # Errors
/// [`HostError`]; unikernels keep running.
pub fn serve<S: Shim>(
    half: &mut HostHalf<S>,
    signals: &mut Signals,
    ask_control_to_end: &mut dyn FnMut(),
) -> Result<Ending, HostError> {
    // By when the control half must have ended.
    let mut end_by = None;
    match serve_until_gone(half, signals, ask_control_to_end, &mut end_by) {
        // It has ended over what it had asked for, or had not yet read.
        Err(HostError::Channel(error))
            if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
        {
            Ok(if end_by.is_some() { Ending::Asked } else { Ending::ControlGone })
        }
        ended => ended,
    }
}

fn serve_until_gone<S: Shim>(
    half: &mut HostHalf<S>,
    signals: &mut Signals,
    ask_control_to_end: &mut dyn FnMut(),
    end_by: &mut Option<Instant>,
) -> Result<Ending, HostError> {
    let mut buffer = vec![0; CHANNEL_BYTES_MAX].into_boxed_slice();
    loop {
        let left = end_by.map(|end_by| end_by.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Ending::Late);
        }
        // A millisecond more, so that it has passed for certain.
        let timeout = left
            .map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX));
        // Nobody hears of exits before having heard what runs, and nobody is told more who does not listen.
        let waits = !half.outbox.is_empty();
        let exits = if half.inherited.is_none() && !waits { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(half.channel.as_fd(), if waits { PollFlags::POLLOUT } else { PollFlags::POLLIN }),
            PollFd::new(half.shim.exit_fd(), exits),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(HostError::Wait(error.into())),
        }
        let [channel, exit, signal] = fds.map(|fd| fd.any().unwrap_or(true));
        if signal {
            signals.drain();
            if end_by.is_none() {
                *end_by = Some(Instant::now() + Duration::from_millis(END_MS_MAX));
                half.service.stopping();
                ask_control_to_end();
            }
        }
        if channel && waits {
            half.outbox.flush(&half.channel).map_err(HostError::Channel)?;
            // To be read from in the next round, also when it is gone.
            continue;
        }
        if exit && half.inherited.is_none() {
            half.tell_exits()?;
        }
        if channel {
            match half.serve_request(&mut buffer) {
                Ok(true) => {}
                Ok(false) if end_by.is_some() => return Ok(Ending::Asked),
                Ok(false) => return Ok(Ending::ControlGone),
                Err(HostError::Channel(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
