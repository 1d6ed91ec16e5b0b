//! Descriptors that whoever started us has opened for us. All of them are taken before we open anything ourselves: a number
//! that was not open must not come to mean a file of ours.

use std::os::fd::{OwnedFd, RawFd};

use crate::sys::{self, Errno};

/// The descriptors that the command line speaks of.
pub(crate) struct Inherited {
    fds: Vec<(RawFd, Result<OwnedFd, Errno>)>,
}

impl Inherited {
    /// Takes every one of them.
    pub(crate) fn take_all(numbers: impl Iterator<Item = RawFd>) -> Inherited {
        let mut fds: Vec<(RawFd, Result<OwnedFd, Errno>)> = Vec::new();
        for number in numbers {
            if !fds.iter().any(|(taken, _)| *taken == number) {
                fds.push((number, sys::take_fd(number)));
            }
        }
        Inherited { fds }
    }

    /// Hands one out, once: [`libc::EBUSY`] to whoever comes second.
    pub(crate) fn take(&mut self, number: RawFd) -> Result<OwnedFd, Errno> {
        match self.fds.iter().position(|(taken, _)| *taken == number) {
            Some(index) => self.fds.swap_remove(index).1,
            None => Err(Errno(libc::EBUSY)),
        }
    }
}
