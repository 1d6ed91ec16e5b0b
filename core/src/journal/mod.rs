//! The journal of the desired state: what was asked for and acknowledged, one record a change, in one file that only
//! grows until it is written anew. Here is its format and how it is read back; `host::journal` moves the bytes.
//! This must never guess: what cannot be told to be whole is either provably the tail of a write that nobody was told
//! had succeeded, and is cut, or the journal is refused.
//!
//! ```text
//! file    = header record*
//! header  = magic[8] version:u32 salt:u32 base:u64 crc:u32            28 bytes
//! record  = length:u32 generation:u64 durable:u64 payload[length] crc:u32
//! payload = postcard of Record
//! ```
//! Numbers are little endian. Every CRC-32 starts from the salt, which differs from journal to journal, so that blocks
//! of an older journal, or a record that somebody quotes within an argument, are not taken for records of this one.
//!
//! `generation` is 1 more than that of the record before (the first: than the header's base). `durable` is the highest
//! generation that had reached the disk when this record was written. It is what tells a torn tail from a hole:
//! records written together and never acknowledged may reach the disk in any order, so a later one may be whole while an earlier
//! one is not. But a record which says that the missing one was durable proves that something acknowledged is gone.

mod frame;
mod replay;

pub use frame::{BadHeader, Full, Header, Stamp, decode_header, encode, encode_header, put, put_bytes, seal};
pub use replay::{Entry, Refused, Replay, Tail};

use serde::{Deserialize, Serialize};

use crate::limits::{ARGUMENTS_BYTES_MAX, NAME_BYTES_MAX};

/// Bytes of the header of a journal.
pub const HEADER_BYTES: usize = 28;

/// Bytes of a record around its payload.
pub const FRAME_BYTES: usize = 24;

/// Bytes of a payload: a unikernel's arguments, its name and the small fields.
pub const PAYLOAD_BYTES_MAX: usize = ARGUMENTS_BYTES_MAX + NAME_BYTES_MAX + 128;

/// Bytes of a whole record.
pub const RECORD_BYTES_MAX: usize = FRAME_BYTES + PAYLOAD_BYTES_MAX;

/// One change of the desired state. An upsert carries everything, so the last record of a name or path is the truth.
///
/// The order of the variants and of their fields is the format: new ones go to the end, none is ever changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Record<'a> {
    /// This unikernel is to run.
    Unikernel {
        /// Its name, a text form of [`crate::name::Name`].
        name: &'a str,
        /// The number of this incarnation towards the host half. It outlives compaction, the generation does not.
        unit: u64,
        /// SHA-256 of the uncompressed image; zeros for a virtual machine, which has none.
        digest: [u8; 32],
        /// Bytes of the uncompressed image.
        image_bytes: u64,
        /// What runs it: 1 hvt, 2 spt, 3 bhyve.
        target: u8,
        /// The canonical DER of its arguments.
        #[serde(borrow)]
        arguments: &'a [u8],
    },
    /// This unikernel is not to run any more.
    UnikernelGone {
        /// Its name.
        name: &'a str,
    },
    /// This path has this policy.
    Policy {
        /// The path, a text form.
        path: &'a str,
        /// The canonical DER of the policy.
        policy: &'a [u8],
    },
    /// This path has no policy any more.
    PolicyGone {
        /// The path.
        path: &'a str,
    },
    /// There is this block device; its file was durable before.
    Block {
        /// Its name.
        name: &'a str,
        /// Its size, MiB.
        size_mb: u64,
    },
    /// There is no such block device any more.
    BlockGone {
        /// Its name.
        name: &'a str,
    },
}

/// What a record is about. Of the records about one subject only the last counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject<'a> {
    /// The policy of a path. Policies are replayed before unikernels by who writes a journal anew.
    Policy(&'a str),
    /// A block device: before the unikernels that use it.
    Block(&'a str),
    /// A unikernel.
    Unikernel(&'a str),
}

impl<'a> Record<'a> {
    /// What this is about.
    #[must_use]
    pub fn subject(&self) -> Subject<'a> {
        match *self {
            Self::Unikernel { name, .. } | Self::UnikernelGone { name } => Subject::Unikernel(name),
            Self::Policy { path, .. } | Self::PolicyGone { path } => Subject::Policy(path),
            Self::Block { name, .. } | Self::BlockGone { name } => Subject::Block(name),
        }
    }

    /// Whether this ends its subject, so that a journal written anew leaves both out.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::UnikernelGone { .. } | Self::PolicyGone { .. } | Self::BlockGone { .. })
    }
}

#[cfg(test)]
mod tests;
