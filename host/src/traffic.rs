//! What unikernels have read from storage and written to it, where the system tells that only to who may do more than the statistics
//! daemon may. The host half of `vmmd` writes it into a file of the run folder, again and again, and the statistics daemon reads it there.
//!
//! A line a process: its id, its start, bytes read, bytes written. A later process of the same id has another start.

use std::fmt;

use fulmar_core::limits::UNITS_MAX;

use crate::shim::Process;

/// The file's name in the run folder.
pub const TRAFFIC_FILE: &str = "block-traffic";

/// The longest line: an id of 10 digits, three numbers of 20, what is between them and behind.
const LINE_BYTES_MAX: usize = 10 + 3 * 20 + 4;

/// The longest file: a line for each unikernel.
pub const TRAFFIC_BYTES_MAX: usize = UNITS_MAX * LINE_BYTES_MAX;

/// What a process has read from and written to storage since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockTraffic {
    /// Bytes read: what the system had in memory already is not counted.
    pub read_bytes: u64,
    /// Bytes written, be they on the disk yet or not.
    pub written_bytes: u64,
}

/// A line of the file, without its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrafficLine(pub Process, pub BlockTraffic);

impl fmt::Display for TrafficLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Process { pid, started }, BlockTraffic { read_bytes, written_bytes }) = self;
        write!(f, "{pid} {started} {read_bytes} {written_bytes}")
    }
}

impl TrafficLine {
    /// Reads one; nothing where it is none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split(' ');
        let process = Process { pid: numbers.next()?.parse().ok()?, started: numbers.next()?.parse().ok()? };
        let mut bytes = || numbers.next()?.parse().ok();
        let traffic = BlockTraffic { read_bytes: bytes()?, written_bytes: bytes()? };
        numbers.next().is_none().then_some(Self(process, traffic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written_and_nothing_else_is_a_line() {
        let longest = TrafficLine(
            Process { pid: u32::MAX, started: u64::MAX },
            BlockTraffic { read_bytes: u64::MAX, written_bytes: u64::MAX },
        );
        let line = longest.to_string();
        assert_eq!((TrafficLine::parse(&line), line.len() + 1), (Some(longest), LINE_BYTES_MAX));
        let other = TrafficLine(Process { pid: 1, started: 2 }, BlockTraffic { read_bytes: 3, written_bytes: 4 });
        assert_eq!((other.to_string(), TrafficLine::parse("1 2 3 4")), ("1 2 3 4".to_owned(), Some(other)));
        for nonsense in ["", "1 2 3", "1 2 3 4 5", "1 2 3 4 ", "1  3 4", "-1 2 3 4", "4294967296 2 3 4", "1 2 3 x"] {
            assert_eq!(TrafficLine::parse(nonsense), None, "{nonsense}");
        }
    }
}
