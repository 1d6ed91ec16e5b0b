//! Signals as something to be read: an event loop waits for them as for everything else, and nothing happens within a handler.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Those that ask a program to end.
pub const ENDS: [i32; 2] = [SIGTERM, SIGINT];

/// The one that asks a daemon to read its files again.
pub const RELOAD: i32 = SIGHUP;

/// Catches these from now on: a byte can be read for each, without waiting, several of a kind perhaps as one.
///
/// # Errors
/// The system's.
pub fn catch(signals: &[i32]) -> io::Result<UnixStream> {
    let (readable, writable) = UnixStream::pair()?;
    readable.set_nonblocking(true)?;
    for signal in signals {
        pipe::register(*signal, writable.try_clone()?)?;
    }
    Ok(readable)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[test]
    fn one_that_is_caught_can_be_read() {
        let mut caught = catch(&[Signal::SIGUSR1 as i32]).unwrap();
        assert_eq!(caught.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        raise(Signal::SIGUSR1).unwrap();
        assert_eq!(caught.read(&mut [0; 8]).unwrap(), 1);
    }
}
