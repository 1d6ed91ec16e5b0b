//! The content of block devices on its way: [`Incoming`] writes a new one aside and puts it in the place of the old one when it is
//! whole, [`Outgoing`] makes of one what a client is sent. Both work in steps of bounded length and hold a bounded number of
//! bytes, however large the block device is; between two steps nothing is under way. Zeros are never written: a file stays as
//! sparse as its content.
//!
//! Nothing here waits for a client.

mod incoming;
mod outgoing;

pub use incoming::{Incoming, Progress};
pub use outgoing::{Form, Outgoing};

use std::fmt;
use std::io;

use crate::blocks::BlockError;
use crate::spool::SpoolError;

/// Bytes that are read, inflated or compressed at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Memory for a step, to be lent to any.
pub struct Workspace {
    buffer: Box<[u8]>,
    /// What is read to be put into it.
    piece: Box<[u8]>,
}

impl Default for Workspace {
    fn default() -> Self {
        let buffer = || vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { buffer: buffer(), piece: buffer() }
    }
}

/// Why a new content does not take the place of the old one, or one could not be read.
#[derive(Debug)]
pub enum ContentError {
    /// It is more than the block device holds.
    TooLarge,
    /// It is said to be a zlib stream and is none, or one that ends early, or something follows its end.
    Compression,
    /// Its chunks ended before their end mark.
    Cut,
    /// A file could not be written or read.
    File(BlockError),
    /// It is in its place, and a crash may bring the old one back.
    Unsettled(BlockError),
    /// What is held for it could not be read or written.
    Spool(SpoolError),
}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the content is more than the block device holds"),
            Self::Compression => f.write_str("the compressed content is damaged"),
            Self::Cut => f.write_str("the content ended before its end mark"),
            Self::File(error) | Self::Unsettled(error) => error.fmt(f),
            Self::Spool(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ContentError {}

impl From<SpoolError> for ContentError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

fn failed(attempt: &'static str) -> impl Fn(io::Error) -> ContentError {
    move |error| ContentError::File(BlockError { attempt, error })
}

/// A difference of two counters that one buffer bounds.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
