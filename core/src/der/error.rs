//! Why bytes were refused. Small and `Copy`: it travels by value from the depth of a decoder to the reply.

use core::fmt;

use crate::limits::{WIRE_INT_MAX, WIRE_INT_MIN};
use crate::name::NameError;

/// Bytes that are not what the grammar in `docs/wire.md` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// What is wrong.
    pub reason: Reason,
    /// Where: bytes from the start of what was decoded, a diverted octet string not counted.
    pub at: u32,
}

/// What is wrong with bytes that were refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The bytes end within an element.
    Truncated,
    /// Bytes after the end of an element, or a field that the grammar does not have.
    Trailing,
    /// A length that is indefinite or not in its shortest form.
    Length,
    /// Another element than the grammar wants here.
    Tag,
    /// A choice that the grammar does not have.
    Choice,
    /// An INTEGER that is empty, longer than it must be, or out of the wire's range.
    Integer,
    /// A BOOLEAN that is neither `00` nor `ff`.
    Boolean,
    /// A NULL with content.
    Null,
    /// A 64-bit number that is not 8 octets.
    Number,
    /// Text that is not UTF-8 where we act upon it.
    Utf8,
    /// A time that is not `YYYYMMDDhhmmss[.fff]Z`, or that does not exist.
    Time,
    /// A MAC address that is not 6 octets.
    Mac,
    /// An IPv4 address that is not 4 octets.
    Address,
    /// A name that is none.
    Name(NameError),
    /// Members of a set out of order, or twice where they must be distinct.
    Order,
    /// A field without members, which must be left out instead.
    Empty,
    /// An octet string too large to be held, where the grammar allows none.
    Diverted,
    /// A version of the protocol that is not ours.
    Version(i64),
}

impl Malformed {
    pub(crate) fn new(reason: Reason, at: usize) -> Self {
        Self { reason, at: u32::try_from(at).unwrap_or(u32::MAX) }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Version(version) => write!(f, "unknown version number {version}: this server speaks version 5"),
            reason => write!(f, "malformed message at byte {}: {reason}", self.at),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "it ends within an element",
            Self::Trailing => "unexpected bytes after an element",
            Self::Length => "a length is not in its shortest definite form",
            Self::Tag => "another element was expected",
            Self::Choice => "an unknown choice",
            Self::Integer => {
                return write!(f, "an INTEGER is not minimal or not in {WIRE_INT_MIN}..={WIRE_INT_MAX}");
            }
            Self::Boolean => "a BOOLEAN is neither 00 nor ff",
            Self::Null => "a NULL has content",
            Self::Number => "a 64-bit number does not have 8 octets",
            Self::Utf8 => "a text is not UTF-8",
            Self::Time => "a time is not of the form YYYYMMDDhhmmss[.fff]Z or does not exist",
            Self::Mac => "a MAC address does not have 6 octets",
            Self::Address => "an IPv4 address does not have 4 octets",
            Self::Name(error) => return error.fmt(f),
            Self::Order => "the members of a set are not in order, or one is there twice",
            Self::Empty => "a field without members is there: leave it out",
            Self::Diverted => "an octet string is too large for its place",
            Self::Version(version) => return write!(f, "unknown version number {version}"),
        })
    }
}

impl core::error::Error for Malformed {}
