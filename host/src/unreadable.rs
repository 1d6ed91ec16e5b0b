//! What a client sent that is no message: whether somebody can be told, and in which words.

use std::fmt;

use fulmar_core::scan::ScanError;
use fulmar_core::wire::{Header, Malformed, peek_header};

/// Why what came is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// It is no frame.
    Scan(ScanError),
    /// It is a frame with something else in it.
    Malformed(Malformed),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scan(error) => error.fmt(f),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unreadable {}

impl Unreadable {
    /// The header of what came, of which `head` is the beginning; nothing where nobody can be answered.
    #[must_use]
    pub fn header(&self, head: &[u8]) -> Option<Header> {
        match self {
            Self::Scan(ScanError::NoLength) => None,
            _ => peek_header(head),
        }
    }
}
