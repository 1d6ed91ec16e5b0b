//! The bytes of a header and of one record. A record is made in two steps, because the thread that knows what is to be
//! written is not the one that knows what has reached the disk: [`put`] lays out the frame, [`seal`] stamps it.

use core::fmt;

use super::{FRAME_BYTES, HEADER_BYTES, PAYLOAD_BYTES_MAX, Record};
use crate::crc::crc32;

const MAGIC: [u8; 8] = *b"fulmarJ\n";
const VERSION: u32 = 1;

/// Where the payload begins in a record.
const PAYLOAD_AT: usize = 20;
const CRC_BYTES: usize = 4;
const _: () = assert!(PAYLOAD_AT + CRC_BYTES == FRAME_BYTES);

/// The buffer is too small for the record, or the record exceeds [`super::RECORD_BYTES_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the record does not fit the journal's buffer")
    }
}

impl core::error::Error for Full {}

/// What the head of a journal says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Where every CRC of this journal begins.
    pub salt: u32,
    /// The generation before that of the first record.
    pub base: u64,
}

/// What is known of a record only when it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The number of the record.
    pub generation: u64,
    /// The highest generation known to be on the disk; below `generation`.
    pub durable: u64,
}

/// Why a header is not one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadHeader {
    /// Too short, other magic bytes, or a wrong CRC.
    NotAJournal,
    /// Of a format that only a later version knows.
    Version(u32),
}

/// The bytes of a header.
#[must_use]
pub fn encode_header(header: Header) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let mut fields = Fields(&mut bytes);
    fields.put(&MAGIC).put(&VERSION.to_le_bytes()).put(&header.salt.to_le_bytes()).put(&header.base.to_le_bytes());
    let (head, crc) = bytes.split_at_mut(HEADER_BYTES.saturating_sub(CRC_BYTES));
    crc.copy_from_slice(&crc32(header.salt, head).to_le_bytes());
    bytes
}

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// [`BadHeader`], as the name says.
pub fn decode_header(bytes: &[u8]) -> Result<Header, BadHeader> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(BadHeader::NotAJournal)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(BadHeader::NotAJournal)?;
    if *magic != MAGIC {
        return Err(BadHeader::NotAJournal);
    }
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(BadHeader::Version(version));
    }
    let (salt, rest) = rest.split_first_chunk::<4>().ok_or(BadHeader::NotAJournal)?;
    let (base, rest) = rest.split_first_chunk::<8>().ok_or(BadHeader::NotAJournal)?;
    let header = Header { salt: u32::from_le_bytes(*salt), base: u64::from_le_bytes(*base) };
    let crc = rest.first_chunk::<4>().ok_or(BadHeader::NotAJournal)?;
    let head = bytes.get(..HEADER_BYTES.saturating_sub(CRC_BYTES)).ok_or(BadHeader::NotAJournal)?;
    if u32::from_le_bytes(*crc) != crc32(header.salt, head) { Err(BadHeader::NotAJournal) } else { Ok(header) }
}

/// Lays out a record at the beginning of `out`, still without stamp. Returns its bytes.
///
/// # Errors
/// [`Full`], and `out` holds nothing of use.
pub fn put(record: &Record<'_>, out: &mut [u8]) -> Result<usize, Full> {
    let room = out.get_mut(PAYLOAD_AT..).ok_or(Full)?;
    let payload_bytes = postcard::to_slice(record, room).map_err(|_| Full)?.len();
    let record_bytes = payload_bytes.checked_add(FRAME_BYTES).ok_or(Full)?;
    if payload_bytes > PAYLOAD_BYTES_MAX || record_bytes > out.len() {
        return Err(Full);
    }
    let length = u32::try_from(payload_bytes).map_err(|_| Full)?;
    out.get_mut(..4).ok_or(Full)?.copy_from_slice(&length.to_le_bytes());
    Ok(record_bytes)
}

/// Bytes of the record that [`put`] laid out at the beginning of `bytes`; nothing where there is none.
#[must_use]
pub fn put_bytes(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(u32::from_le_bytes(*bytes.first_chunk::<4>()?)).ok()?;
    let record_bytes = length.checked_add(FRAME_BYTES)?;
    (length > 0 && length <= PAYLOAD_BYTES_MAX && record_bytes <= bytes.len()).then_some(record_bytes)
}

/// Stamps one record, all of `record`, that [`put`] laid out: after this its bytes are final.
pub fn seal(record: &mut [u8], salt: u32, stamp: Stamp) {
    let Some(crc_at) = record.len().checked_sub(CRC_BYTES) else { return };
    let (body, crc) = record.split_at_mut(crc_at);
    let Some(stamps) = body.get_mut(4..PAYLOAD_AT) else { return };
    Fields(stamps).put(&stamp.generation.to_le_bytes()).put(&stamp.durable.to_le_bytes());
    crc.copy_from_slice(&crc32(salt, body).to_le_bytes());
}

/// Writes a whole record at the beginning of `out`. Returns its bytes.
///
/// # Errors
/// [`Full`], and `out` holds nothing of use.
pub fn encode(salt: u32, stamp: Stamp, record: &Record<'_>, out: &mut [u8]) -> Result<usize, Full> {
    let record_bytes = put(record, out)?;
    seal(out.get_mut(..record_bytes).ok_or(Full)?, salt, stamp);
    Ok(record_bytes)
}

/// A record whose CRC is right: its stamp, payload and bytes in all.
pub(super) struct Whole<'a> {
    pub(super) stamp: Stamp,
    pub(super) payload: &'a [u8],
    pub(super) record_bytes: usize,
}

/// The record at the beginning of `bytes`, if there is a whole one whose generation `plausible` accepts.
pub(super) fn decode<'a>(salt: u32, bytes: &'a [u8], plausible: impl Fn(u64) -> bool) -> Option<Whole<'a>> {
    let record_bytes = put_bytes(bytes)?;
    let (body, crc) = bytes.get(..record_bytes)?.split_at_checked(record_bytes.checked_sub(CRC_BYTES)?)?;
    let rest = body.get(4..)?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (durable, payload) = rest.split_first_chunk::<8>()?;
    let stamp = Stamp { generation: u64::from_le_bytes(*generation), durable: u64::from_le_bytes(*durable) };
    if !plausible(stamp.generation) || stamp.durable >= stamp.generation {
        return None;
    }
    let whole = crc32(salt, body).to_le_bytes() == *crc;
    whole.then_some(Whole { stamp, payload, record_bytes })
}

/// Fixed-size fields, one after the other.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn put(&mut self, field: &[u8]) -> &mut Self {
        let room = core::mem::take(&mut self.0);
        if let Some((place, rest)) = room.split_at_mut_checked(field.len()) {
            place.copy_from_slice(field);
            self.0 = rest;
        }
        self
    }
}
