//! How a guest fares, for whoever started the tender and may not be there when it ends: one record of text at the start and
//! one at the end, into a file (`--exit-status-file`, the last record alone) or a stream (`--status-fd`, each of them).
//!
//! A record has [`RECORD_BYTES`] bytes, always: the filter of an spt guest, in whose process the last record is written, lets
//! through just that. So a guest can lie about its end, which is its own anyway, and cannot fill a disk: a file holds one record,
//! and a stream is a pipe or a socket.

use std::fmt::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

pub(crate) use fulmar_core::limits::STATUS_RECORD_BYTES as RECORD_BYTES;

use crate::raw;
use crate::report::Line;
use crate::seccomp::{Argument, Row};

/// The status of a guest that gave up.
pub(crate) const ABORTED: i32 = 255;

static SINKS: OnceLock<Sinks> = OnceLock::new();

/// Where records go.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    pub(crate) file: Option<OwnedFd>,
    pub(crate) stream: Option<OwnedFd>,
}

/// How a guest fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// It begins, in this view of the host.
    Running { network_is_empty: bool, root_is_empty: bool },
    /// It ended by itself.
    Exited { status: i32 },
    /// Its processor met a fault, which is this signal (spt).
    Faulted { signal: i32, rip: u64 },
    /// The tender was told to end it.
    Terminated { signal: i32 },
    /// The tender could not run it, or not on.
    Failed,
}

/// Sets where records go, once.
pub(crate) fn set_sinks(sinks: Sinks) {
    SINKS.get_or_init(|| sinks);
}

/// The descriptor of the file, and that of the stream.
pub(crate) fn fds() -> (Option<RawFd>, Option<RawFd>) {
    SINKS.get().map_or((None, None), |sinks| {
        (sinks.file.as_ref().map(AsRawFd::as_raw_fd), sinks.stream.as_ref().map(AsRawFd::as_raw_fd))
    })
}

/// The rows that the record of an end needs.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    let (file, stream) = fds();
    let record = Argument::Is(2, RECORD_BYTES as u64);
    let file = file.map(|file| {
        let arguments = [Argument::Is(0, file as u64), record, Argument::Is(3, 0)];
        Row::new(libc::SYS_pwrite64, &arguments, "recording the end in a file")
    });
    let stream = stream.map(|stream| {
        Row::new(libc::SYS_write, &[Argument::Is(0, stream as u64), record], "recording the end in a stream")
    });
    file.into_iter().chain(stream)
}

/// Writes a record wherever one is wanted.
pub(crate) fn record(record: Record) {
    let mut line = Line::<RECORD_BYTES>::new();
    // A record is shorter than its room: the longest is that of a fault.
    let _ = write!(line, "{record}");
    let bytes = line.padded();
    let (file, stream) = fds();
    if let Some(file) = file {
        // Whoever reads it sees that it is incomplete; there is nobody else to tell.
        let _ = raw::pwrite(file, &bytes, 0);
    }
    // A guest may have filled it, and is not to stop us from ending it.
    if let Some(stream) = stream.filter(|stream| raw::is_writable(*stream)) {
        // A reader that is gone does not matter to the guest.
        let _ = raw::write(stream, &bytes);
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |is: bool, yes: &'static str| if is { yes } else { "host" };
        match *self {
            Record::Running { network_is_empty, root_is_empty } => {
                write!(f, "running network={} root={}", word(network_is_empty, "none"), word(root_is_empty, "empty"))
            }
            // As the host sees it.
            Record::Exited { status } => write!(f, "exited {}", status & 0xff),
            Record::Faulted { signal, rip } => write!(f, "faulted signal={signal} rip={rip:#x}"),
            Record::Terminated { signal } => write!(f, "terminated signal={signal}"),
            Record::Failed => f.write_str("failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Every record fits, and is read as it was meant.
    use fulmar_core::halves::{Status, StatusRecord};

    use super::*;

    #[test]
    fn what_reads_records_reads_ours() {
        for (record, wanted) in [
            (Record::Running { network_is_empty: true, root_is_empty: false }, None),
            (Record::Exited { status: 300 }, Some(Status::Code(44))),
            (Record::Faulted { signal: 11, rip: u64::MAX }, Some(Status::Signal(11))),
            (Record::Terminated { signal: 15 }, None),
            (Record::Failed, Some(Status::Code(1))),
        ] {
            let mut line = Line::<RECORD_BYTES>::new();
            write!(line, "{record}").unwrap();
            assert_eq!(StatusRecord::new(&line.padded()).end(), wanted);
        }
        let mut line = Line::<RECORD_BYTES>::new();
        write!(line, "{}", Record::Terminated { signal: 15 }).unwrap();
        assert_eq!(StatusRecord::new(&line.padded()).complete(Status::Code(1)), Status::Signal(15));
    }

    #[test]
    fn records_fit_and_say_what_happened() {
        for (record, wanted) in [
            (Record::Running { network_is_empty: true, root_is_empty: true }, "running network=none root=empty"),
            (Record::Running { network_is_empty: false, root_is_empty: false }, "running network=host root=host"),
            (Record::Exited { status: 300 }, "exited 44"),
            (Record::Exited { status: -1 }, "exited 255"),
            (Record::Faulted { signal: 11, rip: u64::MAX }, "faulted signal=11 rip=0xffffffffffffffff"),
            (Record::Terminated { signal: 15 }, "terminated signal=15"),
            (Record::Failed, "failed"),
        ] {
            assert_eq!(record.to_string(), wanted);
            assert!(wanted.len() < RECORD_BYTES);
        }
    }
}
