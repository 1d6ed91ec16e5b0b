//! Reading a journal back: every whole record in order, then a verdict on what is left.

use core::fmt;

use super::frame::{BadHeader, Header, Stamp, Whole, decode, decode_header};
use super::{FRAME_BYTES, HEADER_BYTES, Record};

/// One record of a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Its number.
    pub generation: u64,
    /// What it says.
    pub record: Record<'a>,
}

/// What stands after the last whole record. In both cases the journal is good up to `bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// Nothing.
    Clean {
        /// Bytes of the journal.
        bytes: u64,
        /// The last generation.
        generation: u64,
    },
    /// A write that was never acknowledged: cut it off.
    Torn {
        /// Bytes of the journal before it.
        bytes: u64,
        /// The last whole generation.
        generation: u64,
    },
}

/// Why a journal cannot be used. Nothing of it may be acted upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The head of the file is not that of a journal.
    NotAJournal,
    /// A later version wrote it.
    Version(u32),
    /// A record that had been acknowledged is damaged: newer ones follow it.
    Hole {
        /// Where the damaged record begins, in bytes.
        offset: u64,
        /// The generation before it.
        generation: u64,
        /// A whole record after it.
        follower: u64,
    },
    /// A whole record has not the number that it should have.
    Jump {
        /// Where it begins, in bytes.
        offset: u64,
        /// The generation before it.
        generation: u64,
        /// Its own.
        found: u64,
    },
    /// A whole record says what this version cannot read.
    Unknown {
        /// Where it begins, in bytes.
        offset: u64,
        /// Its generation.
        generation: u64,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAJournal => f.write_str(
                "not a journal: restore the file from a copy, or move the whole state folder away to begin empty",
            ),
            Self::Version(version) => write!(f, "journal of format {version}: run the version that wrote it"),
            Self::Hole { offset, generation, follower } => write!(
                f,
                "journal damaged at byte {offset}: good up to generation {generation}, generation {follower} follows; \
                 restore the file from a copy, or cut it to {offset} bytes to go on from generation {generation}"
            ),
            Self::Jump { offset, generation, found } => write!(
                f,
                "journal damaged at byte {offset}: generation {found} follows {generation}; \
                 restore the file from a copy, or cut it to {offset} bytes to go on from generation {generation}"
            ),
            Self::Unknown { offset, generation } => write!(
                f,
                "journal: the record at byte {offset}, generation {generation}, is of a kind unknown here: \
                 run the version that wrote it"
            ),
        }
    }
}

impl core::error::Error for Refused {}

/// A journal being read.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    bytes: &'a [u8],
    header: Header,
    offset: usize,
    generation: u64,
}

impl<'a> Replay<'a> {
    /// Begins to read a journal, all of whose bytes these are.
    ///
    /// # Errors
    /// [`Refused::NotAJournal`] or [`Refused::Version`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Refused> {
        let header = decode_header(bytes).map_err(|error| match error {
            BadHeader::NotAJournal => Refused::NotAJournal,
            BadHeader::Version(version) => Refused::Version(version),
        })?;
        Ok(Self { bytes, header, offset: HEADER_BYTES, generation: header.base })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// The next record; nothing where [`Replay::tail`] is to be asked.
    ///
    /// # Errors
    /// [`Refused::Jump`] or [`Refused::Unknown`]: stop, and undo what was done with the records before.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, Refused> {
        let Some(Whole { stamp, payload, record_bytes }) = decode(self.header.salt, self.rest(), |_| true) else {
            return Ok(None);
        };
        let offset = offset_of(self.offset);
        if Some(stamp.generation) != self.generation.checked_add(1) {
            return Err(Refused::Jump { offset, generation: self.generation, found: stamp.generation });
        }
        let record = match postcard::take_from_bytes::<Record<'a>>(payload) {
            Ok((record, [])) => record,
            _ => return Err(Refused::Unknown { offset, generation: stamp.generation }),
        };
        self.offset = self.offset.saturating_add(record_bytes);
        self.generation = stamp.generation;
        Ok(Some(Entry { generation: stamp.generation, record }))
    }

    /// The verdict on what is left when [`Replay::next_entry`] found no more.
    ///
    /// # Errors
    /// [`Refused::Hole`] when something after the damage proves that what is damaged had been acknowledged.
    pub fn tail(&self) -> Result<Tail, Refused> {
        let rest = self.rest();
        let (bytes, generation) = (offset_of(self.offset), self.generation);
        if rest.is_empty() {
            return Ok(Tail::Clean { bytes, generation });
        }
        match (1..rest.len()).find_map(|skip| self.proof_of_loss(rest.get(skip..)?)) {
            Some(follower) => Err(Refused::Hole { offset: bytes, generation, follower }),
            None => Ok(Tail::Torn { bytes, generation }),
        }
    }

    /// The generation of a whole record here which could not be here had only an unacknowledged write been torn.
    fn proof_of_loss(&self, bytes: &[u8]) -> Option<u64> {
        // No more records than the file has room for: this sorts out nearly every offset without a CRC.
        let records_max = u64::try_from(self.bytes.len() / FRAME_BYTES).unwrap_or(u64::MAX);
        let last = self.generation.saturating_add(records_max);
        let plausible = |generation| generation > self.header.base && generation <= last;
        let Stamp { generation, durable } = decode(self.header.salt, bytes, plausible)?.stamp;
        // One of the lost write comes after the first of it and knows nothing of it to be durable.
        let of_the_lost_write = durable <= self.generation && generation > self.generation.saturating_add(1);
        (!of_the_lost_write).then_some(generation)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }
}

fn offset_of(offset: usize) -> u64 {
    u64::try_from(offset).unwrap_or(u64::MAX)
}
