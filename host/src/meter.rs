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
    /// Its device of the hypervisor, where that was told; may be empty.
    pub device: &'a str,
}

/// What a system counts of a process that reads and writes storage, by these names among the counters: bytes.
pub const BLOCK_READ: &str = "block_read_bytes";
/// As [`BLOCK_READ`].
pub const BLOCK_WRITTEN: &str = "block_written_bytes";

/// What was measured of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Time and memory.
    pub rusage: Rusage,
    /// Memory, where it can be had.
    pub memory: Option<Memory>,
    /// The interfaces that are still there: the place of each among those that it was opened with, and its counters, without a name.
    pub interfaces: Vec<(usize, Interface<'static>)>,
    /// What the hypervisor counts, where it does, or the system besides.
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

    /// Reads what is counted of all at once, such as interfaces, for the calls of [`Meter::read`] that follow.
    ///
    /// # Errors
    /// The kernel's; then some of that is not counted.
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

/// A process as `vmmd` tells it in the place of the device of a hypervisor: when it started and, where it runs a virtual machine that
/// has a name of its own, that name.
#[must_use]
pub fn device_text(started: u64, machine: Option<&str>) -> heapless::String<72> {
    let mut text = heapless::String::new();
    // It has the room: the words, 16 digits, and the longest of `fulmar_core::halves::MachineName`.
    let _ = write!(text, "{STARTED}{started:016x}");
    if let Some(machine) = machine {
        let _ = write!(text, " {machine}");
    }
    text
}

/// Reads [`device_text`]: when the process started, and its device, which is empty where it has none of its own. Any other text is the
/// device of a process that started at some time.
#[must_use]
pub fn parse_device(text: &str) -> (Option<u64>, &str) {
    let (first, machine) = text.split_once(' ').unwrap_or((text, ""));
    match parse_started(first) {
        Some(started) => (Some(started), machine),
        None => (None, text),
    }
}

fn parse_started(text: &str) -> Option<u64> {
    let digits = text.strip_prefix(STARTED).filter(|digits| digits.len() == 16)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use fulmar_core::halves::{Unit, machine_name};

    use super::*;

    #[test]
    fn a_process_is_read_as_it_was_written() {
        let longest = machine_name(u32::MAX, Unit(u64::MAX));
        for started in [0, 7, u64::MAX] {
            assert_eq!(parse_device(&device_text(started, None)), (Some(started), ""));
            assert_eq!(parse_device(&device_text(started, Some(&longest))), (Some(started), longest.as_str()));
        }
        assert_eq!(device_text(7, Some("fulmar-0000beef-17")), "started-0000000000000007 fulmar-0000beef-17");
        for text in
            ["", "started-", "solo5-4242", "started-7", "started-+00000000000000f", "started-00000000000000070", "a b"]
        {
            assert_eq!(parse_device(text), (None, text));
        }
    }
}
