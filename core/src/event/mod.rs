//! The segments of the event log: their format, how a record is made, how they are read back. `vmmd_log` moves the bytes.
//! This must never guess: a record is whole and in its place, or it is not there, and then the reader is told which are missing.
//!
//! ```text
//! segment = header record*                   a file, named by the number of its first record in 20 digits
//! header  = magic[8] version:u32 salt:u32 first:u64 crc:u32              28 bytes
//! record  = length:u32 sequence:u64 writer:u64 payload[length] crc:u32
//! payload = DER of SEQ { time, event }                                   docs/wire.md
//! ```
//! Numbers are little endian. Every CRC-32 starts from the salt, so that a record that somebody quotes within an event is not
//! taken for one of this segment. `sequence` is 1 more than that of the record before, in this segment and from one to the next:
//! whatever is missing shows. `writer` is the number that the writer gave this event, 0 for the log's own: after a break the
//! writer sends again what was not acknowledged, and what is there already is known by it.
//!
//! What is damaged in the middle does not hide what follows: [`step`] finds the next whole record. At the end of the newest
//! segment it is the tail of a write that was cut off, and is cut.

mod segment;

pub use segment::{
    BadHeader, Header, Record, Step, Tail, decode_header, encode_header, encode_record, find_tail, step,
};

use crate::limits::EVENT_BYTES_MAX;

/// Bytes of the header of a segment.
pub const HEADER_BYTES: usize = 28;

/// Bytes of a record around its payload.
pub const FRAME_BYTES: usize = 24;

/// Bytes of a whole record.
pub const RECORD_BYTES_MAX: usize = FRAME_BYTES + EVENT_BYTES_MAX;

/// Bytes of the shortest record: of the shortest event that there is.
pub const RECORD_BYTES_MIN: usize = FRAME_BYTES + 1;

#[cfg(test)]
mod tests;
