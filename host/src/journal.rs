//! The journal on the disk: appended to, made durable, written anew when it has grown. The format is [`fulmar_core::journal`]'s.
//!
//! What a failure means, which is all that is difficult here:
//! - A failed *write* is undone: the file is cut back and that is made durable. Then the records are certainly not there, and the
//!   journal can be used on ([`AppendError::NotWritten`]).
//! - A failed *sync*, or a failure to cut back, leaves the records in an unknown state, and the system may have dropped from memory
//!   what it could not write. Nothing is appended to such a file any more ([`AppendError::Unknown`]): [`Journal::compact`]
//!   must first write what was durable before into a new one. Until then every append is refused.
//!
//! A journal is never without records: the first one in it says nothing and is as durable as its header. So one without any has
//! lost them, and is as good as none: neither is made again beside what only its records can name.
//! - A file that has lost its name takes no records: they would be gone with this daemon. It is written anew as after the failures above,
//!   unless another file has the name by now, which may be a restored one.
//!
//! This must never report success for a record that a power failure could still take away.

use std::collections::BTreeMap;
use std::{fmt, io};

use fulmar_core::journal::{
    Entry, Full, HEADER_BYTES, Header, RECORD_BYTES_MAX, Record, Refused, Replay, Stamp, Tail, encode_header, put,
    put_bytes, seal,
};

use crate::disk::{Content, Folder, is_full};

const NAME: &str = "journal";
const NEW_NAME: &str = "journal.new";

/// What each journal begins with. Nothing could be less: the root, which the host is, has no policy on record.
const FIRST: Record<'static> = Record::PolicyGone { path: ":" };

/// A journal is written anew when it is larger than this and than [`GROWTH`] times what it was when it was last new.
const COMPACT_BYTES_MIN: u64 = 1 << 20;
const GROWTH: u64 = 4;

/// No journal is larger: 4,096 unikernels with the largest arguments, [`GROWTH`] times over.
const FILE_BYTES_MAX: u64 = 4096 * 17 * 1024 * (GROWTH + 1);

/// Records that are to be appended together. Its memory is used again and again.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// An empty batch with room for `records` of the largest size.
    #[must_use]
    pub fn with_room_for(records: usize) -> Self {
        Self { bytes: Vec::with_capacity(records.saturating_mul(RECORD_BYTES_MAX)) }
    }

    /// Adds a record; allocates only beyond the room that the batch was made with.
    ///
    /// # Errors
    /// [`Full`] when the record is larger than any may be.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), Full> {
        let begin = self.bytes.len();
        self.bytes.resize(begin + RECORD_BYTES_MAX, 0);
        let put = put(record, &mut self.bytes[begin..]);
        self.bytes.truncate(begin + put.unwrap_or(0));
        put.map(|_| ())
    }

    /// Whether there is nothing to append.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether these bytes, a digest say, occur in a record.
    #[must_use]
    pub fn mentions(&self, bytes: &[u8]) -> bool {
        self.bytes.windows(bytes.len().max(1)).any(|window| window == bytes)
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// Why the journal could not be opened. The daemon must not start.
#[derive(Debug)]
pub enum OpenError {
    /// Its content cannot be trusted.
    Refused(Refused),
    /// It is larger than any journal; bytes.
    TooLarge(u64),
    /// There is none.
    Gone,
    /// It has no records.
    Empty,
    /// It was removed while it was open, and another file has its name.
    Replaced,
    /// The system said no.
    Io(&'static str, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::TooLarge(bytes) => write!(f, "journal of {bytes} bytes: no journal is larger than {FILE_BYTES_MAX}"),
            Self::Gone => write!(f, "there is no journal, and images or block devices are: {REMEDY}"),
            Self::Empty => write!(f, "the journal has no records, and images or block devices are there: {REMEDY}"),
            Self::Replaced => f.write_str(
                "the journal was replaced while vmmd runs: nothing is accepted any more; end vmmd, and put the right one in its place",
            ),
            Self::Io(attempt, error) => write!(f, "could not {attempt}: {error}"),
        }
    }
}

/// Where a journal has lost what names images and block devices.
const REMEDY: &str = "restore it from a copy, or move the whole state folder away to begin empty";

impl std::error::Error for OpenError {}

/// Why records were not appended.
#[derive(Debug)]
pub enum AppendError {
    /// They are not in the journal; it can be used on.
    NotWritten(io::Error),
    /// Whether they are in the journal nobody knows; it must be compacted before anything else.
    Unknown(io::Error),
    /// The file has been removed, so they are in no journal; it must be compacted before anything else.
    Removed,
    /// An earlier failure has not been cleared by a compaction yet; they are not in the journal.
    Closed,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWritten(error) if is_full(error) => {
                f.write_str("the disk of the state folder is full: free some space and try again")
            }
            Self::NotWritten(error) => write!(f, "could not write the journal: {error}"),
            Self::Unknown(error) => {
                write!(f, "could not write the journal: {error}; it is unknown whether the change is kept")
            }
            Self::Removed => {
                f.write_str("the journal was removed while vmmd runs: it is written anew unless another has its place")
            }
            Self::Closed => f.write_str("the journal could not be written before: nothing is accepted until it can be"),
        }
    }
}

impl std::error::Error for AppendError {}

/// What was found at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Records that were read.
    pub records: u64,
    /// The last generation.
    pub generation: u64,
    /// Bytes of a torn write that were cut off; 0 usually.
    pub cut_bytes: u64,
}

/// The journal of a state folder. The folder must be locked by its user.
#[derive(Debug)]
pub struct Journal<F: Folder> {
    folder: F,
    file: F::File,
    header: Header,
    /// Bytes up to the end of the last durable record.
    bytes: u64,
    /// Its generation.
    generation: u64,
    /// Bytes when it was last new.
    bytes_when_new: u64,
    closed: bool,
    /// Whether it is closed since its file was removed.
    removed: bool,
}

impl<F: Folder> Journal<F> {
    /// Opens the journal, and hands every record to `each` in order. Where there is none, or none with records, an empty one is made, unless
    /// there `is_state` that it should name. `salt` is for a new one and should be hard to guess.
    ///
    /// # Errors
    /// [`OpenError`]: then whatever `each` was told must be forgotten.
    pub fn open(
        folder: F,
        salt: u32,
        is_state: bool,
        mut each: impl FnMut(Entry<'_>),
    ) -> Result<(Self, Opened), OpenError> {
        let io = |attempt| move |error| OpenError::Io(attempt, error);
        let found = match folder.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            found => Some(found.map_err(io("open the journal"))?),
        };
        if found.is_none() && is_state {
            return Err(OpenError::Gone);
        }
        match folder.remove(NEW_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("remove an unfinished journal")(error));
            }
            _ => {}
        }
        let mut file = match found {
            None => begin(&folder, Header { salt, base: 0 })?,
            Some(found) => found,
        };
        let mut read = read_records(&file, &mut each)?;
        if read.records == 0 {
            if is_state {
                return Err(OpenError::Empty);
            }
            // Of an older version, and nothing was ever asked of that.
            file = begin(&folder, Header { salt, base: read.generation })?;
            read = Read { bytes_found: read.bytes_found, ..read_records(&file, &mut each)? };
        } else if read.bytes_found > read.bytes {
            file.set_bytes(read.bytes).map_err(io("cut the torn end of the journal"))?;
        }
        // What was read may be in the memory of the system only, if the daemon alone died: from here on it counts as durable.
        file.sync().and_then(|()| folder.sync()).map_err(io("sync the journal"))?;
        let Read { header, records, generation, bytes, bytes_found } = read;
        let opened = Opened { records, generation, cut_bytes: bytes_found.saturating_sub(bytes) };
        let journal =
            Self { folder, file, header, bytes, generation, bytes_when_new: bytes, closed: false, removed: false };
        Ok((journal, opened))
    }

    /// Whether [`Journal::open`] could open it, as far as can be told without changing anything.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn check(folder: &F, is_state: bool) -> Result<(), OpenError> {
        match folder.open_read_only(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_state {
                    Err(OpenError::Gone)
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(OpenError::Io("open the journal", error)),
            Ok(file) => match read_records(&file, &mut |_| {})?.records {
                0 if is_state => Err(OpenError::Empty),
                _ => Ok(()),
            },
        }
    }

    /// Appends all records of the batch and makes them durable, or none.
    ///
    /// # Errors
    /// [`AppendError`], as the name says.
    pub fn append(&mut self, batch: &mut Batch) -> Result<(), AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        let records = seal_all(&mut batch.bytes, self.header.salt, self.generation, |_| self.generation);
        if let Err(error) = self.file.write_at(&batch.bytes, self.bytes) {
            return Err(match self.file.set_bytes(self.bytes).and_then(|()| self.file.sync()) {
                Ok(()) => AppendError::NotWritten(error),
                Err(_) => self.close(error),
            });
        }
        let removed = self.file.sync().and_then(|()| self.file.is_removed()).map_err(|error| self.close(error))?;
        if removed {
            (self.closed, self.removed) = (true, true);
            return Err(AppendError::Removed);
        }
        self.bytes += batch.bytes.len() as u64;
        self.generation += records;
        Ok(())
    }

    fn close(&mut self, error: io::Error) -> AppendError {
        self.closed = true;
        AppendError::Unknown(error)
    }

    /// Whether nothing can be appended until a compaction succeeds.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether it is time for [`Journal::compact`].
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.closed || self.bytes > self.bytes_max()
    }

    /// Bytes of its file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes beyond which it is written anew, with what counts alone; at most one batch is behind them.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        COMPACT_BYTES_MIN.max(self.bytes_when_new.saturating_mul(GROWTH))
    }

    /// The last durable generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Writes what still counts of the durable records into a new journal, which takes the place of this one.
    ///
    /// # Errors
    /// What could not be done; the journal is as it was before, or closed.
    pub fn compact(&mut self) -> Result<(), OpenError> {
        if self.removed && self.folder.open_read_only(NAME).is_ok() {
            return Err(OpenError::Replaced);
        }
        let mut content = read_all(&self.file)?;
        content.truncate(usize::try_from(self.bytes).unwrap_or(usize::MAX));
        let mut replay = Replay::new(&content).map_err(OpenError::Refused)?;
        let mut live = BTreeMap::new();
        while let Some(Entry { record, .. }) = replay.next_entry().map_err(OpenError::Refused)? {
            if record.is_end() {
                live.remove(&record.subject())
            } else {
                live.insert(record.subject(), record)
            };
        }
        let mut batch = Batch::default();
        for record in [&FIRST].into_iter().chain(live.values()) {
            batch.push(record).map_err(|Full| OpenError::Refused(Refused::NotAJournal))?;
        }
        let header = Header { salt: self.header.salt, base: self.generation };
        // By the time that the file has the name all of it is durable: each record may say so of the one before.
        let records = seal_all(&mut batch.bytes, header.salt, header.base, |before| before);
        let io = |attempt| move |error| OpenError::Io(attempt, error);
        let file = write_new(&self.folder, header, &batch.bytes).map_err(io("write the journal anew"))?;
        // Once the new file may have the name, what is appended to the old one could be lost.
        self.closed = true;
        take_place(&self.folder).map_err(io("replace the journal"))?;
        self.file = file;
        self.header = header;
        self.generation += records;
        self.bytes = (HEADER_BYTES + batch.bytes.len()) as u64;
        self.bytes_when_new = self.bytes;
        (self.closed, self.removed) = (false, false);
        Ok(())
    }
}

/// Stamps the records that lie one after the other in `bytes`, the first after generation `base`; `durable` says of each what
/// was durable, given the generation before it. Returns their number.
fn seal_all(mut bytes: &mut [u8], salt: u32, base: u64, durable: impl Fn(u64) -> u64) -> u64 {
    let mut generation = base;
    while let Some(record_bytes) = put_bytes(bytes) {
        let (record, rest) = bytes.split_at_mut(record_bytes);
        seal(record, salt, Stamp { generation: generation + 1, durable: durable(generation) });
        generation += 1;
        bytes = rest;
    }
    generation - base
}

/// What is in the file of a journal.
struct Read {
    header: Header,
    records: u64,
    generation: u64,
    /// Up to the end of the last whole record.
    bytes: u64,
    /// Of the file.
    bytes_found: u64,
}

fn read_records(file: &impl Content, each: &mut impl FnMut(Entry<'_>)) -> Result<Read, OpenError> {
    let content = read_all(file)?;
    let mut replay = Replay::new(&content).map_err(OpenError::Refused)?;
    let mut records = 0;
    while let Some(entry) = replay.next_entry().map_err(OpenError::Refused)? {
        records += 1;
        each(entry);
    }
    let (Tail::Clean { bytes, generation } | Tail::Torn { bytes, generation }) =
        replay.tail().map_err(OpenError::Refused)?;
    Ok(Read { header: replay.header(), records, generation, bytes, bytes_found: content.len() as u64 })
}

/// Makes a journal that says nothing.
fn begin<F: Folder>(folder: &F, header: Header) -> Result<F::File, OpenError> {
    let mut batch = Batch::default();
    batch.push(&FIRST).map_err(|Full| OpenError::Refused(Refused::NotAJournal))?;
    seal_all(&mut batch.bytes, header.salt, header.base, |before| before);
    let new = write_new(folder, header, &batch.bytes).and_then(|new| take_place(folder).map(|()| new));
    new.map_err(|error| OpenError::Io("make a journal", error))
}

/// A durable journal of these records, not yet under its name.
fn write_new<F: Folder>(folder: &F, header: Header, records: &[u8]) -> io::Result<F::File> {
    // One that an earlier failure left behind.
    let _ = folder.remove(NEW_NAME);
    let file = folder.create(NEW_NAME)?;
    let written = file
        .write_at(&encode_header(header), 0)
        .and_then(|()| file.write_at(records, HEADER_BYTES as u64))
        .and_then(|()| file.sync());
    if let Err(error) = written {
        let _ = folder.remove(NEW_NAME);
        return Err(error);
    }
    Ok(file)
}

/// Gives the new journal the name, durably.
fn take_place(folder: &impl Folder) -> io::Result<()> {
    folder.rename(NEW_NAME, NAME)?;
    folder.sync()
}

fn read_all(file: &impl Content) -> Result<Vec<u8>, OpenError> {
    let io = |error| OpenError::Io("read the journal", error);
    let bytes = file.bytes().map_err(io)?;
    if bytes > FILE_BYTES_MAX {
        return Err(OpenError::TooLarge(bytes));
    }
    let mut content = vec![0; usize::try_from(bytes).unwrap_or_default()];
    let mut filled = 0;
    while filled < content.len() {
        match file.read_at(&mut content[filled..], filled as u64).map_err(io)? {
            0 => break,
            read => filled += read,
        }
    }
    content.truncate(filled);
    Ok(content)
}

#[cfg(test)]
mod tests;
