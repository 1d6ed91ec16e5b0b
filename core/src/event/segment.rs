//! The bytes of a segment.

use super::{FRAME_BYTES, HEADER_BYTES, RECORD_BYTES_MAX};
use crate::crc::crc32;
use crate::der::{Full, Malformed};
use crate::limits::EVENT_BYTES_MAX;
use crate::wire::LogEntry;

const MAGIC: [u8; 8] = *b"fulmarE\n";
const VERSION: u32 = 1;
const CRC_BYTES: usize = 4;

/// Where the payload begins in a record.
const PAYLOAD_AT: usize = FRAME_BYTES.saturating_sub(CRC_BYTES);

/// What the head of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Where every CRC of this segment begins.
    pub salt: u32,
    /// The number of its first record.
    pub first: u64,
}

/// Why a header is not one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadHeader {
    /// Too short, other magic bytes, or a wrong CRC.
    NotASegment,
    /// Of a format that only a later version knows.
    Version(u32),
}

/// The bytes of a header.
#[must_use]
pub fn encode_header(header: Header) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let fields = MAGIC.into_iter().chain(VERSION.to_le_bytes()).chain(header.salt.to_le_bytes());
    for (place, byte) in bytes.iter_mut().zip(fields.chain(header.first.to_le_bytes())) {
        *place = byte;
    }
    let (head, crc) = bytes.split_at_mut(HEADER_BYTES.saturating_sub(CRC_BYTES));
    crc.copy_from_slice(&crc32(header.salt, head).to_le_bytes());
    bytes
}

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// [`BadHeader`], as the name says.
pub fn decode_header(bytes: &[u8]) -> Result<Header, BadHeader> {
    let fields = || {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (salt, rest) = rest.split_first_chunk::<4>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let head = bytes.get(..HEADER_BYTES.saturating_sub(CRC_BYTES))?;
        Some((magic, u32::from_le_bytes(*version), salt, first, rest.first_chunk::<4>()?, head))
    };
    let (magic, version, salt, first, crc, head) = fields().ok_or(BadHeader::NotASegment)?;
    if *magic != MAGIC {
        return Err(BadHeader::NotASegment);
    }
    if version != VERSION {
        return Err(BadHeader::Version(version));
    }
    let header = Header { salt: u32::from_le_bytes(*salt), first: u64::from_le_bytes(*first) };
    if u32::from_le_bytes(*crc) != crc32(header.salt, head) { Err(BadHeader::NotASegment) } else { Ok(header) }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its number in the log.
    pub sequence: u64,
    /// Its number with who wrote it; 0 for the log's own.
    pub writer: u64,
    /// The stored event.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The event.
    ///
    /// # Errors
    /// [`Malformed`]: it was written by a later version, which knows more events.
    pub fn entry(&self) -> Result<LogEntry<'a>, Malformed> {
        LogEntry::decode(self.payload)
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload.len().saturating_add(FRAME_BYTES)
    }
}

/// Writes a record at the beginning of `out`. Returns its bytes.
///
/// # Errors
/// [`Full`] when `out` is too small, or the payload is empty or exceeds [`EVENT_BYTES_MAX`].
pub fn encode_record(salt: u32, record: &Record<'_>, out: &mut [u8]) -> Result<usize, Full> {
    let length = u32::try_from(record.payload.len()).map_err(|_| Full)?;
    if record.payload.is_empty() || record.payload.len() > EVENT_BYTES_MAX {
        return Err(Full);
    }
    let out = out.get_mut(..record.bytes()).ok_or(Full)?;
    let fields = length.to_le_bytes().into_iter().chain(record.sequence.to_le_bytes());
    let fields = fields.chain(record.writer.to_le_bytes()).chain(record.payload.iter().copied());
    for (place, byte) in out.iter_mut().zip(fields) {
        *place = byte;
    }
    let (body, crc) = out.split_at_mut_checked(record.bytes().saturating_sub(CRC_BYTES)).ok_or(Full)?;
    crc.copy_from_slice(&crc32(salt, body).to_le_bytes());
    Ok(record.bytes())
}

/// What is at some place of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// A whole record. Where its number is not the one that is expected, those before it are missing.
    Record(Record<'a>),
    /// So many bytes are damaged; look again behind them.
    Skip(usize),
    /// More bytes are needed to tell, at least [`RECORD_BYTES_MAX`] in all; where there are no more, nothing follows.
    Short,
}

/// What is at the beginning of `bytes`: a record with a number from `expected` on and below `end`. `is_last` says that nothing
/// follows in the segment.
#[must_use]
pub fn step(salt: u32, bytes: &[u8], expected: u64, end: u64, is_last: bool) -> Step<'_> {
    let fits = |sequence: u64| (expected..end).contains(&sequence);
    if let Some(record) = whole(salt, bytes, fits) {
        return Step::Record(record);
    }
    let could_be_cut = bytes.len() < RECORD_BYTES_MAX;
    if could_be_cut && !is_last {
        return Step::Short;
    }
    for at in 1..bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if whole(salt, rest, fits).is_some() {
            return Step::Skip(at);
        }
        if !is_last && rest.len() < RECORD_BYTES_MAX {
            // From here on a record could be cut off.
            return Step::Skip(at);
        }
    }
    Step::Short
}

/// The record at the beginning of `bytes`, if there is a whole one with a number that `fits`.
fn whole(salt: u32, bytes: &[u8], fits: impl Fn(u64) -> bool) -> Option<Record<'_>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length == 0 || length > EVENT_BYTES_MAX {
        return None;
    }
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let sequence = u64::from_le_bytes(*sequence);
    if !fits(sequence) {
        return None;
    }
    let (writer, rest) = rest.split_first_chunk::<8>()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    let crc = rest.first_chunk::<CRC_BYTES>()?;
    let body = bytes.get(..PAYLOAD_AT.checked_add(length)?)?;
    let record = Record { sequence, writer: u64::from_le_bytes(*writer), payload };
    (crc32(salt, body).to_le_bytes() == *crc).then_some(record)
}

/// Where the records of a segment end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    /// The number that comes after the last record.
    pub next: u64,
    /// Bytes of the segment up to the end of its last whole record.
    pub bytes: usize,
}

/// Goes through a whole segment, header included, and gives each record to `see`.
pub fn find_tail<'a>(header: Header, segment: &'a [u8], mut see: impl FnMut(&Record<'a>)) -> Tail {
    let mut tail = Tail { next: header.first, bytes: HEADER_BYTES.min(segment.len()) };
    let mut at = tail.bytes;
    loop {
        match step(header.salt, segment.get(at..).unwrap_or_default(), tail.next, u64::MAX, true) {
            Step::Record(record) => {
                see(&record);
                at = at.saturating_add(record.bytes());
                tail = Tail { next: record.sequence.saturating_add(1), bytes: at };
            }
            Step::Skip(bytes) => at = at.saturating_add(bytes.max(1)),
            Step::Short => return tail,
        }
    }
}
