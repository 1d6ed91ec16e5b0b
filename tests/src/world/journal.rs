//! The journal of a simulated host: the real bytes on a disk that can lose or tear what was not made durable.

use std::collections::BTreeMap;

use fulmar_core::journal::{
    HEADER_BYTES, Header, RECORD_BYTES_MAX, Record, Replay, Stamp, Subject, Tail, encode_header, put, seal,
};
use fulmar_core::machine::{Digest, JournalError};
use fulmar_core::name::Name;

use crate::oracle;

/// What is desired of a unikernel, durably.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Its number.
    pub unit: u64,
    /// Its image.
    pub digest: Digest,
    /// Bytes of its image.
    pub image_bytes: u64,
    /// What runs it.
    pub target: u8,
    /// Its arguments.
    pub arguments: Vec<u8>,
}

/// The desired state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// The unikernels.
    pub unikernels: BTreeMap<Name, Kept>,
    /// The policies, in DER.
    pub policies: BTreeMap<Name, Vec<u8>>,
    /// The block devices and their sizes, MiB.
    pub blocks: BTreeMap<Name, u64>,
}

/// What becomes of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Durable.
    Durable,
    /// Not written, and known not to be.
    NotWritten,
    /// Written or not, nobody knows before the next start.
    Unknown,
}

impl Fate {
    /// What the machine is told of an append that is not known to be durable.
    pub(super) fn error(self) -> JournalError {
        if self == Self::Unknown { JournalError::Unsettled(EIO) } else { JournalError::Disk(EIO) }
    }
}

/// The number of an input or output that failed.
const EIO: i32 = 5;

/// What a crash leaves of bytes that were not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// All of them.
    Kept,
    /// None.
    Lost,
    /// This part of them, of 256.
    Cut(u8),
    /// All but a piece that begins at this part, of 256.
    Holed(u8),
}

impl State {
    /// The same, but no unikernel is told its label: an exit code 64 takes that away at any time.
    #[must_use]
    pub fn unnamed(&self) -> Self {
        let mut unnamed = self.clone();
        unnamed.unikernels.values_mut().for_each(|kept| kept.arguments = oracle::unnamed(&kept.arguments));
        unnamed
    }

    /// Takes in a record.
    ///
    /// # Errors
    /// A record whose name is none.
    pub fn take(&mut self, record: &Record<'_>) -> Result<(), String> {
        let name = |text: &str| Name::parse(text).map_err(|error| format!("journal: {text}: {error}"));
        match *record {
            Record::Unikernel { name: text, unit, digest, image_bytes, target, arguments } => {
                let kept = Kept { unit, digest, image_bytes, target, arguments: arguments.to_vec() };
                self.unikernels.insert(name(text)?, kept);
            }
            Record::UnikernelGone { name: text } => {
                self.unikernels.remove(&name(text)?);
            }
            Record::Policy { path, policy } => {
                self.policies.insert(name(path)?, policy.to_vec());
            }
            Record::PolicyGone { path } => {
                self.policies.remove(&name(path)?);
            }
            Record::Block { name: text, size_mb } => {
                self.blocks.insert(name(text)?, size_mb);
            }
            Record::BlockGone { name: text } => {
                self.blocks.remove(&name(text)?);
            }
        }
        Ok(())
    }
}

/// A record that waits to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Laid {
    bytes: Vec<u8>,
    subject: Option<Name>,
}

impl Laid {
    /// Lays out a record.
    ///
    /// # Errors
    /// A record that is too long.
    pub fn new(record: &Record<'_>) -> Result<Self, String> {
        let mut bytes = vec![0; RECORD_BYTES_MAX];
        let len = put(record, &mut bytes).map_err(|error| error.to_string())?;
        bytes.truncate(len);
        let (Subject::Unikernel(name) | Subject::Policy(name) | Subject::Block(name)) = record.subject();
        Ok(Self { bytes, subject: Name::parse(name).ok() })
    }

    /// The name or path that it is about.
    #[must_use]
    pub fn subject(&self) -> Option<Name> {
        self.subject
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Journal {
    header: Header,
    durable: Vec<u8>,
    generation: u64,
    /// What a failed append may have left behind the durable bytes. While it is there nothing is appended.
    unknown: Option<Vec<u8>>,
    /// What the durable bytes say.
    state: State,
}

impl Default for Journal {
    fn default() -> Self {
        let header = Header { salt: 0x0b5e_55ed, base: 0 };
        let durable = encode_header(header).to_vec();
        Self { header, durable, generation: 0, unknown: None, state: State::default() }
    }
}

impl Journal {
    /// What is durable.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether an append has failed in a way that nobody knows.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.unknown.is_some()
    }

    /// What may be durable although its append has failed.
    ///
    /// # Errors
    /// Bytes that are no records.
    pub fn state_if_unknown_is_kept(&self) -> Result<Vec<State>, String> {
        let mut states = vec![self.state.clone()];
        if let Some(unknown) = &self.unknown {
            let bytes = [&self.durable[..], unknown].concat();
            let mut replay = Replay::new(&bytes).map_err(|error| error.to_string())?;
            let mut state = State::default();
            while let Some(entry) = replay.next_entry().map_err(|error| error.to_string())? {
                state.take(&entry.record)?;
                if entry.generation > self.generation {
                    states.push(state.clone());
                }
            }
        }
        Ok(states)
    }

    fn sealed(&self, records: &[Laid]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (generation, record) in (self.generation + 1..).zip(records) {
            let mut record = record.bytes.clone();
            seal(&mut record, self.header.salt, Stamp { generation, durable: self.generation });
            bytes.append(&mut record);
        }
        bytes
    }

    /// Appends records in one batch. `true` when they are durable.
    ///
    /// # Errors
    /// What the bytes of this journal should never say.
    pub fn append(&mut self, records: &[Laid], fate: Fate) -> Result<bool, String> {
        match fate {
            Fate::NotWritten => return Ok(false),
            Fate::Unknown => {
                // A journal that is closed already refuses before it writes anything.
                let bytes = self.sealed(records);
                self.unknown.get_or_insert(bytes);
                return Ok(false);
            }
            Fate::Durable => {}
        }
        if self.unknown.is_some() {
            self.compact()?;
        }
        let bytes = self.sealed(records);
        self.durable.extend_from_slice(&bytes);
        self.read_back()?;
        Ok(true)
    }

    /// Writes the durable state anew.
    ///
    /// # Errors
    /// What the bytes of this journal should never say.
    pub fn compact(&mut self) -> Result<(), String> {
        let before = self.state.clone();
        let policies =
            before.policies.iter().map(|(path, policy)| Laid::new(&Record::Policy { path: path.as_str(), policy }));
        let unikernels = before.unikernels.iter().map(|(name, kept)| {
            Laid::new(&Record::Unikernel {
                name: name.as_str(),
                unit: kept.unit,
                digest: kept.digest,
                image_bytes: kept.image_bytes,
                target: kept.target,
                arguments: &kept.arguments,
            })
        });
        let blocks = before
            .blocks
            .iter()
            .map(|(name, size_mb)| Laid::new(&Record::Block { name: name.as_str(), size_mb: *size_mb }));
        let records = policies.chain(blocks).chain(unikernels).collect::<Result<Vec<_>, _>>()?;
        self.header.base = self.generation;
        self.durable = encode_header(self.header).to_vec();
        let bytes = self.sealed(&records);
        self.durable.extend_from_slice(&bytes);
        self.unknown = None;
        self.read_back()?;
        if self.state == before { Ok(()) } else { Err("journal: a compaction has changed what it says".into()) }
    }

    fn read_back(&mut self) -> Result<(), String> {
        let mut replay = Replay::new(&self.durable).map_err(|error| error.to_string())?;
        let mut state = State::default();
        while let Some(entry) = replay.next_entry().map_err(|error| error.to_string())? {
            state.take(&entry.record)?;
            self.generation = entry.generation;
        }
        self.state = state;
        match replay.tail() {
            Ok(Tail::Clean { .. }) => Ok(()),
            tail => Err(format!("journal: {tail:?} after a durable append")),
        }
    }

    /// Loses power while `in_flight` is being written. Afterwards [`Journal::bytes`] are what a new process finds.
    pub fn crash(&mut self, in_flight: &[Laid], rest: Rest) {
        let loose = self.unknown.take().unwrap_or_else(|| self.sealed(in_flight));
        let part = |of: u8| loose.len() * usize::from(of) / 256;
        let kept = match rest {
            Rest::Kept => loose.clone(),
            Rest::Lost => Vec::new(),
            Rest::Cut(at) => loose[..part(at)].to_vec(),
            Rest::Holed(at) => {
                let mut kept = loose.clone();
                let end = kept.len().min(part(at) + 16);
                kept[part(at)..end].fill(0);
                kept
            }
        };
        self.durable.extend_from_slice(&kept);
    }

    /// The bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.durable
    }

    /// Opens the file after a crash: cuts a torn end.
    ///
    /// # Errors
    /// A journal that would be refused.
    pub fn open(&mut self) -> Result<(), String> {
        let bytes = self.durable.clone();
        let mut replay = Replay::new(&bytes).map_err(|error| error.to_string())?;
        while replay.next_entry().map_err(|error| error.to_string())?.is_some() {}
        if let Tail::Torn { bytes, .. } = replay.tail().map_err(|error| error.to_string())? {
            self.durable.truncate(usize::try_from(bytes).unwrap_or(HEADER_BYTES));
        }
        self.generation = self.header.base;
        self.read_back()
    }
}
