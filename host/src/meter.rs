//! What the statistics daemon needs of its operating system: what a process has used, and what went through its interfaces.
//!
//! A number is of the process that was meant or there is none: a process is opened once and stays known, so that a later one
//! of the same id, or a later interface of the same name, is never taken for it. `fulmar-shim-linux` has the one for Linux.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::{fmt, io};

use fulmar_core::wire::{Interface, Memory, Rusage};

/// A unikernel's process, as `vmmd` knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// Its process id.
    pub pid: u32,
    /// When it started, where that was told, in the form of [`crate::shim::Process`].
    pub started: Option<u64>,
    /// Its device of the hypervisor, where the operating system has one; may be empty.
    pub device: &'a str,
}

/// What was measured of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Time and memory.
    pub rusage: Rusage,
    /// Memory, where it can be had.
    pub memory: Option<Memory>,
    /// The interfaces that are still there: the place of each among those that it was opened with, and its counters, without a name.
    pub interfaces: Vec<(usize, Interface<'static>)>,
    /// What the hypervisor counts, where it does.
    pub counters: Option<Vec<(String, i64)>>,
}

/// Why nothing can be measured.
#[derive(Debug)]
pub enum MeterError {
    /// The process that was meant is not there, or not any more.
    Gone,
    /// The kernel's.
    Os(io::Error),
}

impl fmt::Display for MeterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("its process has ended"),
            Self::Os(error) => write!(f, "it cannot be measured: {error}"),
        }
    }
}

impl std::error::Error for MeterError {}

/// The statistics daemon's door to its operating system.
pub trait Meter {
    /// A process that is known from now on.
    type Target;

    /// Gets to know a process and its interfaces on the host. An interface that is not there is never counted.
    ///
    /// # Errors
    /// [`MeterError::Gone`], and the kernel's.
    fn open(&mut self, subject: Subject<'_>, taps: &[&str]) -> Result<Self::Target, MeterError>;

    /// Reads the counters of all interfaces, for the calls of [`Meter::read`] that follow.
    ///
    /// # Errors
    /// The kernel's; then no interface is counted.
    fn begin(&mut self) -> io::Result<()>;

    /// Measures a process. What is returned was measured while it lived.
    ///
    /// # Errors
    /// [`MeterError::Gone`], and the kernel's.
    fn read(&mut self, target: &Self::Target) -> Result<Sample, MeterError>;
}

/// The meter of a system that has none.
impl Meter for Infallible {
    type Target = Self;

    fn open(&mut self, _: Subject<'_>, _: &[&str]) -> Result<Self, MeterError> {
        match *self {}
    }

    fn begin(&mut self) -> io::Result<()> {
        match *self {}
    }

    fn read(&mut self, _: &Self) -> Result<Sample, MeterError> {
        match *self {}
    }
}

/// What a text begins with that tells when a process started.
const STARTED: &str = "started-";

/// The start of a process as `vmmd` tells it, in the place of the device of a hypervisor that has none.
#[must_use]
pub fn started_text(started: u64) -> heapless::String<24> {
    let mut text = heapless::String::new();
    // It has the room: the words, and 16 digits.
    let _ = write!(text, "{STARTED}{started:016x}");
    text
}

/// Reads [`started_text`]; nothing where the text is another.
#[must_use]
pub fn parse_started(text: &str) -> Option<u64> {
    let digits = text.strip_prefix(STARTED).filter(|digits| digits.len() == 16)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_read_as_it_was_written() {
        for started in [0, 7, u64::MAX] {
            assert_eq!(parse_started(&started_text(started)), Some(started));
        }
        for text in ["", "started-", "solo5-4242", "started-7", "started-+00000000000000f", "started-00000000000000070"]
        {
            assert_eq!(parse_started(text), None, "{text}");
        }
    }
}
