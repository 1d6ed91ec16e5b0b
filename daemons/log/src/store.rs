//! The log on the disk: one segment grows, the oldest goes when there are too many bytes or it is too old. What the disk does not
//! take is lost, counted, and told as an event of its own as soon as the disk takes one again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fulmar_core::event::{self, HEADER_BYTES, Header, RECORD_BYTES_MAX, Record, Step};
use fulmar_core::limits::{EVENT_BYTES_MAX, LOG_AGE_PARTS, LOG_SEGMENTS_MAX, LOG_WRITERS_MAX};
use fulmar_core::wire::{Event, GapCause, LogEntry, Loss};
use fulmar_host::folder::Folder;
use fulmar_host::{error, info, warning};
use nix::fcntl::OFlag;

use crate::found::{self, file_name};
use crate::syncer::Syncer;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Of the number that a writer gives its event, the upper half says which writer it is.
const WRITER_SHIFT: u32 = 32;

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    bytes: u64,
    age_ms: u64,
}

impl Bounds {
    /// So many MiB, for so many days.
    pub(crate) fn new(size_mb: u64, days: u64) -> Self {
        Self { bytes: size_mb << 20, age_ms: days * DAY_MS }
    }

    fn segment_bytes(self) -> u64 {
        self.bytes / LOG_SEGMENTS_MAX
    }

    fn segment_ms(self) -> u64 {
        self.age_ms / LOG_AGE_PARTS
    }
}

/// One segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    /// The number after its last one.
    pub(crate) next: u64,
    /// Bytes up to the end of its last record.
    pub(crate) bytes: u64,
    /// When its first event happened.
    pub(crate) begun_ms: Option<i64>,
    /// When the latest of its events happened, whatever their order.
    pub(crate) newest_ms: i64,
    /// When it was last written to: its events may have any date.
    pub(crate) written_ms: i64,
    /// Whether something is behind its last record that could not be taken back: nothing more is written to it.
    pub(crate) spoilt: bool,
    pub(crate) file: Arc<File>,
}

/// How far somebody has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    /// The number that comes next.
    pub(crate) sequence: u64,
    /// The segment that was read last, and how far.
    segment: u64,
    offset: u64,
}

impl Place {
    /// Before the event of this number.
    pub(crate) fn before(sequence: u64) -> Self {
        Self { sequence, ..Self::default() }
    }
}

/// What a reader comes by.
#[derive(Debug)]
pub(crate) enum Seen<'a> {
    Record(Record<'a>),
    Gap { first: u64, next: u64, cause: GapCause },
}

/// Whether the reader wants more now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    More,
    /// Not even this: it is to be shown again.
    Enough,
}

/// What is left after reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    Something,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Store {
    folder: Folder,
    /// The same, for the thread that makes things durable.
    folder_file: Arc<File>,
    /// What a stranger cannot guess comes from here.
    chance: File,
    bounds: Bounds,
    segments: VecDeque<Segment>,
    /// The number of the next event.
    next: u64,
    /// Events that the disk did not take, and that no event tells of yet.
    lost: u64,
    /// The last event of each writer, the writer that wrote last at the end.
    writers: VecDeque<u64>,
    syncer: Syncer,
}

impl Store {
    /// The log in this folder, and an event that says what was cut off it.
    pub(crate) fn open(folder: &Path, bounds: Bounds) -> io::Result<Self> {
        let mut writers = VecDeque::with_capacity(LOG_WRITERS_MAX);
        let found = found::find(folder, |writer| note_writer(&mut writers, writer))?;
        let mut store = Self {
            folder: Folder::open(folder)?,
            folder_file: Arc::new(File::open(folder)?),
            chance: File::open("/dev/urandom")?,
            bounds,
            segments: found.segments.into(),
            next: found.next,
            lost: 0,
            writers,
            syncer: Syncer::start()?,
        };
        info!("{} segments, the next event is {}", store.segments.len(), store.next);
        store.remove_surplus(0);
        if found.torn_bytes > 0 {
            let count = i64::try_from(found.torn_bytes).unwrap_or(i64::MAX);
            store.keep_own(&Event::Lost { count, loss: Loss::Torn });
        }
        Ok(store)
    }

    /// The number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The number of the oldest event that is there.
    pub(crate) fn oldest(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.header.first)
    }

    /// Events that the disk did not take until now.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// The segments' first numbers, from the newest to the oldest.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = u64> {
        self.segments.iter().rev().map(|segment| segment.header.first)
    }

    /// Where the first segment begins in which something happened at this time or later.
    pub(crate) fn since(&self, unix_ms: i64) -> u64 {
        let segment = self.segments.iter().find(|segment| segment.newest_ms >= unix_ms);
        segment.map_or(self.next, |segment| segment.header.first)
    }

    /// Keeps an event of this daemon's own.
    pub(crate) fn keep_own(&mut self, event: &Event<'_>) {
        self.keep(0, &LogEntry { unix_ms: now_ms(), event: *event });
    }

    /// Keeps an event to which its writer gave this number; one that is there already is not kept twice.
    pub(crate) fn keep(&mut self, writer: u64, entry: &LogEntry<'_>) {
        if writer != 0 && self.writers.iter().any(|last| same_writer(*last, writer) && *last >= writer) {
            return;
        }
        if self.lost > 0 {
            let count = i64::try_from(self.lost).unwrap_or(i64::MAX);
            let lost = LogEntry { unix_ms: entry.unix_ms, event: Event::Lost { count, loss: Loss::Disk } };
            if self.append(0, &lost).is_ok() {
                error!("{} events are lost: the disk took no more; now it does", self.lost);
                self.lost = 0;
            }
        }
        match self.append(writer, entry) {
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    error!("events are being lost: {}: {error}", self.folder.path_of(&file_name(self.next)).display());
                }
                self.lost += 1;
            }
        }
        note_writer(&mut self.writers, writer);
    }

    fn append(&mut self, writer: u64, entry: &LogEntry<'_>) -> io::Result<()> {
        let (mut der, mut record) = ([0; EVENT_BYTES_MAX], [0; RECORD_BYTES_MAX]);
        let full = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let payload = entry.encode(&mut der).map_err(full)?;
        let sequence = self.next;
        if self.is_rotation_due(entry.unix_ms) {
            self.begin_segment()?;
        }
        let Some(segment) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        let len = event::encode_record(segment.header.salt, &Record { sequence, writer, payload }, &mut record);
        let record = record.get(..len.map_err(full)?).unwrap_or_default();
        if let Err(error) = segment.file.write_all_at(record, segment.bytes) {
            // What went there in part is not to be read, now or at the next start.
            segment.spoilt = segment.file.set_len(segment.bytes).is_err();
            return Err(error);
        }
        segment.bytes += record.len() as u64;
        segment.next = sequence + 1;
        segment.begun_ms = segment.begun_ms.or(Some(entry.unix_ms));
        segment.newest_ms = segment.newest_ms.max(entry.unix_ms);
        segment.written_ms = now_ms();
        self.next = sequence + 1;
        self.syncer.want(&segment.file);
        Ok(())
    }

    /// Something that a stranger cannot guess.
    fn salt(&self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        (&self.chance).read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn is_rotation_due(&self, unix_ms: i64) -> bool {
        let Some(segment) = self.segments.back() else { return true };
        let age_ms = segment.begun_ms.map_or(0, |begun| unix_ms.saturating_sub(begun));
        segment.spoilt
            || segment.bytes + RECORD_BYTES_MAX as u64 > self.bounds.segment_bytes()
            || u64::try_from(age_ms).is_ok_and(|age_ms| age_ms > self.bounds.segment_ms())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        // Of a spoilt segment without an event the name is wanted again.
        if self.segments.back().is_some_and(|segment| segment.header.first == self.next) {
            self.segments.pop_back();
        }
        self.remove_surplus(self.bounds.segment_bytes());
        let header = Header { salt: self.salt()?, first: self.next };
        let name = file_name(header.first);
        let opened = self.folder.open_file(&name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC, 0o600)?;
        if let Err(error) = opened.write_all_at(&event::encode_header(header), 0) {
            // An empty one is removed at the next start, if it cannot be now.
            let _ = opened.set_len(0).and_then(|()| self.folder.remove(&name));
            return Err(error);
        }
        let file = Arc::new(opened);
        self.syncer.want(&file);
        self.syncer.want(&self.folder_file);
        let bytes = HEADER_BYTES as u64;
        let next = header.first;
        self.segments.push_back(Segment {
            header,
            next,
            bytes,
            begun_ms: None,
            newest_ms: i64::MIN,
            written_ms: now_ms(),
            spoilt: false,
            file,
        });
        Ok(())
    }

    /// Removes the oldest segments until there is room for so many bytes, and those that are too old.
    fn remove_surplus(&mut self, room_bytes: u64) {
        loop {
            let bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
            let oldest_wanted = now_ms().saturating_sub(i64::try_from(self.bounds.age_ms).unwrap_or(i64::MAX));
            let Some(oldest) = self.segments.front().filter(|_| self.segments.len() > 1) else { return };
            if bytes + room_bytes <= self.bounds.bytes && oldest.written_ms >= oldest_wanted {
                return;
            }
            let name = file_name(oldest.header.first);
            if let Err(error) = self.folder.remove(&name) {
                warning!("cannot remove {}: {error}", self.folder.path_of(&name).display());
                return;
            }
            self.segments.pop_front();
            self.syncer.want(&self.folder_file);
        }
    }

    /// Makes durable what was written: at the end.
    pub(crate) fn finish(&self) {
        if let Some(segment) = self.segments.back()
            && let Err(error) = segment.file.sync_data().and_then(|()| self.folder_file.sync_data())
        {
            error!("the disk does not keep what was written: {error}");
        }
    }

    /// Shows what is at `place`, as much as one read brings, and moves it on.
    pub(crate) fn read(&self, place: &mut Place, buffer: &mut [u8], mut see: impl FnMut(Seen<'_>) -> Want) -> Left {
        let mut tell_gap = |place: &mut Place, next: u64, cause: GapCause| {
            let want = see(Seen::Gap { first: place.sequence, next, cause });
            if want == Want::More {
                place.sequence = next;
            }
        };
        if place.sequence < self.oldest() {
            tell_gap(place, self.oldest(), GapCause::Removed);
            return Left::Something;
        }
        let after = self.segments.partition_point(|segment| segment.header.first <= place.sequence);
        let Some(segment) = after.checked_sub(1).and_then(|index| self.segments.get(index)) else {
            return Left::Nothing;
        };
        if place.sequence >= segment.next {
            // Between two segments, or before the one that is not begun yet.
            let next = self.segments.get(after).map_or(self.next, |segment| segment.header.first);
            if place.sequence >= next {
                return Left::Nothing;
            }
            tell_gap(place, next, GapCause::Damaged);
            return Left::Something;
        }
        if place.segment != segment.header.first {
            (place.segment, place.offset) = (segment.header.first, HEADER_BYTES as u64);
        }
        let wanted = usize::try_from(segment.bytes.saturating_sub(place.offset)).unwrap_or(usize::MAX);
        let window = wanted.min(buffer.len());
        let window = buffer.get_mut(..window).unwrap_or_default();
        if let Err(error) = segment.file.read_exact_at(window, place.offset) {
            error!("cannot read {}: {error}", file_name(segment.header.first));
            tell_gap(place, segment.next, GapCause::Damaged);
            return Left::Something;
        }
        if window.is_empty() {
            tell_gap(place, segment.next, GapCause::Damaged);
            return Left::Something;
        }
        let is_last = window.len() == wanted;
        let Header { salt, first } = segment.header;
        let mut at = 0;
        while let Some(rest) = window.get(at..).filter(|rest| !rest.is_empty()) {
            // What comes before the place is gone through too, to find it.
            let step = event::step(salt, rest, first, segment.next, is_last);
            match step {
                Step::Record(record) if record.sequence < place.sequence => at += record.bytes(),
                Step::Record(record) => {
                    if record.sequence > place.sequence {
                        let (first, next) = (place.sequence, record.sequence);
                        if see(Seen::Gap { first, next, cause: GapCause::Damaged }) == Want::Enough {
                            break;
                        }
                        place.sequence = record.sequence;
                    }
                    let bytes = record.bytes();
                    if see(Seen::Record(record)) == Want::Enough {
                        break;
                    }
                    place.sequence += 1;
                    at += bytes;
                }
                Step::Skip(bytes) => at += bytes,
                Step::Short if is_last => at = window.len(),
                Step::Short => break,
            }
        }
        place.offset += at as u64;
        Left::Something
    }

    /// Goes through all of one segment.
    pub(crate) fn read_segment(&self, first: u64, buffer: &mut [u8], mut see: impl FnMut(&Record<'_>)) {
        let Some(segment) = self.segments.iter().find(|segment| segment.header.first == first) else { return };
        let mut place = Place::before(first);
        while place.sequence < segment.next {
            self.read(&mut place, buffer, |seen| {
                if let Seen::Record(record) = seen {
                    see(&record);
                }
                Want::More
            });
        }
    }
}

fn same_writer(one: u64, other: u64) -> bool {
    one >> WRITER_SHIFT == other >> WRITER_SHIFT
}

fn note_writer(writers: &mut VecDeque<u64>, writer: u64) {
    if writer == 0 {
        return;
    }
    writers.retain(|last| !same_writer(*last, writer));
    if writers.len() >= LOG_WRITERS_MAX {
        writers.pop_front();
    }
    writers.push_back(writer);
}

/// The wall clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    unix_ms(SystemTime::now())
}

/// A time in milliseconds since 1970.
pub(crate) fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
