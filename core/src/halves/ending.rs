//! How a unit ended: what the kernel says of it, and what its tender has recorded. The kernel tells only a parent, and an
//! adopted tender has none that listens; then the record is all there is.
//!
//! An spt guest shares the process that writes the record, so its bytes are a tenant's: the host half hands them on as they
//! are, and they are read here, in the half without privileges. They say nothing about anybody but that guest.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::STATUS_RECORD_BYTES;

/// How a unit ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Status {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// It was launched by a predecessor, and only a parent is told.
    Unknown,
    /// The kernel killed it: it had used up its memory.
    OutOfMemory,
}

/// What a tender has recorded of how its guest fares (`docs/tender.md`), whatever that may be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatusRecord<'a>(#[serde(borrow)] &'a [u8]);

impl<'a> StatusRecord<'a> {
    /// Takes what stands in the file.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What the host half writes there when the kernel has killed the tender for want of memory, and knows it only now.
    pub const OUT_OF_MEMORY: StatusRecord<'static> =
        StatusRecord(b"out-of-memory                                                  \n");

    /// What stands in the file.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// How the guest ended by its own doing; nothing where the record does not say so. One that was ended from outside is none
    /// of these: a host that is shut down does that to all of them, and none of them is done.
    #[must_use]
    pub fn end(&self) -> Option<Status> {
        let (word, rest) = self.words()?;
        match word {
            "exited" => Some(Status::Code(rest.parse().ok()?)),
            "faulted" => Some(Status::Signal(signal(rest)?)),
            "failed" if rest.is_empty() => Some(Status::Code(1)),
            "out-of-memory" if rest.is_empty() => Some(Status::OutOfMemory),
            _ => None,
        }
    }

    /// How the unit ended, given what the kernel says. That is believed, with one exception: an hvt tender that is told to end
    /// by a signal does so with code 1, which otherwise means that the guest can never run.
    #[must_use]
    pub fn complete(&self, status: Status) -> Status {
        let terminated = || match self.words()? {
            ("terminated", rest) => Some(Status::Signal(signal(rest)?)),
            _ => None,
        };
        match status {
            Status::Unknown => self.end().or_else(terminated).unwrap_or(status),
            Status::Code(1) => terminated().unwrap_or(status),
            Status::Code(_) | Status::Signal(_) | Status::OutOfMemory => status,
        }
    }

    /// The first word of a whole record, and what follows it.
    fn words(&self) -> Option<(&'a str, &'a str)> {
        let text = self.0.strip_suffix(b"\n").filter(|_| self.0.len() == STATUS_RECORD_BYTES)?;
        let text = core::str::from_utf8(text).ok()?.trim_end_matches(' ');
        Some(text.split_once(' ').unwrap_or((text, "")))
    }
}

/// The number of `signal=N`, whatever follows.
fn signal(text: &str) -> Option<u8> {
    text.split(' ').next()?.strip_prefix("signal=")?.parse().ok()
}

impl fmt::Debug for StatusRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.trim_ascii_end().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;
    use std::string::String;

    use proptest::prelude::*;

    use super::*;

    fn record(text: &str) -> String {
        format!("{text:63}\n")
    }

    #[test]
    fn a_record_says_how_a_guest_ended_by_itself() {
        for (text, wanted) in [
            ("exited 0", Some(Status::Code(0))),
            ("exited 255", Some(Status::Code(255))),
            ("faulted signal=11 rip=0x1001db", Some(Status::Signal(11))),
            ("failed", Some(Status::Code(1))),
            ("running network=none root=empty", None),
            ("terminated signal=15", None),
        ] {
            assert_eq!(StatusRecord::new(record(text).as_bytes()).end(), wanted, "{text}");
        }
        assert_eq!(StatusRecord::OUT_OF_MEMORY.end(), Some(Status::OutOfMemory));
    }

    #[test]
    fn nonsense_says_nothing() {
        for text in ["", "exited", "exited 256", "exited -1", "exited 1 2", "faulted", "faulted signal=", "failed 1"] {
            assert_eq!(StatusRecord::new(record(text).as_bytes()).end(), None, "{text}");
        }
        let whole = record("exited 7");
        for bytes in [&whole.as_bytes()[1..], &whole.as_bytes()[..63], format!("{whole}{whole}").as_bytes(), &[0; 64]] {
            assert_eq!(StatusRecord::new(bytes).end(), None);
            assert_eq!(StatusRecord::new(bytes).complete(Status::Unknown), Status::Unknown);
        }
    }

    #[test]
    fn the_kernel_is_believed_where_it_speaks() {
        let (exited, terminated) = (record("exited 0"), record("terminated signal=15"));
        let (exited, terminated) = (StatusRecord::new(exited.as_bytes()), StatusRecord::new(terminated.as_bytes()));
        for status in [Status::Code(7), Status::Signal(9), Status::OutOfMemory] {
            assert_eq!(exited.complete(status), status);
            assert_eq!(terminated.complete(status), status);
        }
        assert_eq!(exited.complete(Status::Unknown), Status::Code(0));
        assert_eq!(terminated.complete(Status::Unknown), Status::Signal(15));
        assert_eq!(terminated.complete(Status::Code(1)), Status::Signal(15));
        assert_eq!(exited.complete(Status::Code(1)), Status::Code(1));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..130)) {
            let record = StatusRecord::new(&bytes);
            let _ = format!("{record:?}");
            prop_assert_eq!(record.complete(Status::Signal(9)), Status::Signal(9));
            let _ = record.complete(Status::Unknown);
        }
    }
}
