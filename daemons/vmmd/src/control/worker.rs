//! The thread that waits for the disk: the journal, the image store and the block devices are its own. Jobs are done in their order, one at a time;
//! that order is relied upon (an image is durable before the record that names it, and goes after the record that drops it).
//!
//! An image is told to be stored before it is durable, so that its unikernel can be launched meanwhile. It is made durable before the
//! next record is written; where that fails, a record that names it is refused.
//!
//! Compressing an image for a client takes seconds. A second thread does only that, so that no record waits for it. The content of
//! block devices has threads of its own: `transfers`.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use fulmar_core::limits::{IMAGE_BYTES_MAX, IMAGES_BYTES_MAX};
use fulmar_core::machine::{BlockFileError, Digest, JournalError, StoreError};
use fulmar_core::name::Name;
use fulmar_core::solo5::{ImageFacts, ReadAt, ReadFailed, inspect};
use fulmar_host::blocks::Blocks;
use fulmar_host::disk::{Content, HostFolder, is_full};
use fulmar_host::journal::{AppendError, Batch, Journal};
use fulmar_host::spool::{Spool, SpoolError, Spools};
use fulmar_host::store::{self, Store};

use super::log;
use super::transfers::{Transfer, Transferred, Transfers};

/// The folder of the images, shared with the thread.
pub(super) type Images = Arc<HostFolder>;

/// What the thread is asked for.
pub(super) enum Job {
    /// Make these records durable.
    Append(Batch),
    /// Check and store the image of a slot.
    Store { slot: u16, spool: Spool<Images>, compressed: bool },
    /// Look into the stored image of a slot once more.
    Inspect { slot: u16, digest: Digest },
    /// Remove an image.
    Release(Digest),
    /// Remove all images but these, which are sorted.
    Collect(Vec<Digest>),
    /// Make the file of the block device of a slot.
    MakeBlock { slot: u16, name: Name, bytes: u64 },
    /// Remove it.
    RemoveBlock { slot: u16, name: Name },
    /// End.
    Stop,
}

/// What the second thread is asked for.
pub(super) enum Pressing {
    /// Compress an image for a client.
    Compress { connection: u16, serial: u32, digest: Digest, level: u8 },
    /// End.
    Stop,
}

/// An image in the store and what it says.
pub(super) struct Stored {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) facts: ImageFacts,
}

/// What came of it.
#[expect(clippy::large_enum_variant, reason = "the queue's memory is taken once, a box would be taken each time")]
pub(super) enum Outcome {
    /// Of an append; the batch comes back for its memory.
    Appended(Batch, Result<(), JournalError>),
    /// Of a store.
    Stored(u16, Result<Stored, StoreError>),
    /// Of making the file of a block device.
    BlockMade(u16, Result<(), BlockFileError>),
    /// Of removing it.
    BlockRemoved(u16),
    /// Of a compression.
    Compressed(u16, u32, Result<Spool<Images>, store::StoreError>),
    /// Of something with the content of a block device.
    Transferred(Transferred),
}

/// A queue between two threads. It grows rather than make either wait for the other.
pub(super) struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    filled: Condvar,
}

/// Items for which a queue has room from the start.
const QUEUE_ROOM: usize = 32;

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { items: Mutex::new(VecDeque::with_capacity(QUEUE_ROOM)), filled: Condvar::new() }
    }

    pub(super) fn push(&self, item: T) {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).push_back(item);
        self.filled.notify_one();
    }

    fn try_pop(&self) -> Option<T> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn pop(&self) -> T {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(item) = items.pop_front() {
                return item;
            }
            items = self.filled.wait(items).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads, from outside.
pub(super) struct Worker {
    jobs: Arc<Queue<Job>>,
    pressings: Arc<Queue<Pressing>>,
    transfers: Transfers,
    outcomes: Arc<Queue<Outcome>>,
    journal_size: Arc<JournalSize>,
    threads: [Option<JoinHandle<()>>; 2],
}

/// Where outcomes go.
#[derive(Clone)]
pub(super) struct Outbox {
    outcomes: Arc<Queue<Outcome>>,
    waker: Arc<mio::Waker>,
}

impl Outbox {
    pub(super) fn tell(&self, outcome: Outcome) {
        self.outcomes.push(outcome);
        if let Err(error) = self.waker.wake() {
            log!("could not wake the event loop: {error}");
        }
    }
}

impl Worker {
    /// Starts the threads. They wake the event loop when there is an outcome.
    pub(super) fn start(
        journal: Journal<Arc<HostFolder>>,
        spools: Spools<Images>,
        block_folder: &Arc<HostFolder>,
        waker: mio::Waker,
    ) -> io::Result<Self> {
        let (jobs, pressings) = (Arc::new(Queue::new()), Arc::new(Queue::new()));
        let outcomes = Arc::new(Queue::new());
        let outbox = Outbox { outcomes: Arc::clone(&outcomes), waker: Arc::new(waker) };
        let transfers = Transfers::start(block_folder, &spools, &outbox)?;
        let mut press = Store::new(spools.clone(), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX);
        let journal_size = Arc::new(JournalSize::default());
        journal_size.note(&journal);
        let desk = Desk {
            journal,
            journal_size: Arc::clone(&journal_size),
            blocks: Blocks::new(Arc::clone(block_folder)),
            store: Store::new(spools, IMAGE_BYTES_MAX, IMAGES_BYTES_MAX),
            unsettled: Vec::with_capacity(UNSETTLED_ROOM),
            failed: Vec::with_capacity(UNSETTLED_ROOM),
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let (inbox, out) = (Arc::clone(&jobs), outbox.clone());
        let disk = thread("disk").spawn(move || desk.work(&inbox, &out))?;
        let inbox = Arc::clone(&pressings);
        // Where this fails, the first thread ends with the program.
        let pressing = thread("compress").spawn(move || {
            while let Pressing::Compress { connection, serial, digest, level } = inbox.pop() {
                let compressed = press.compress(&digest, u32::from(level));
                outbox.tell(Outcome::Compressed(connection, serial, compressed));
            }
        })?;
        Ok(Self { jobs, pressings, transfers, outcomes, journal_size, threads: [Some(disk), Some(pressing)] })
    }

    /// Bytes of the journal, and those beyond which it is written anew.
    pub(super) fn journal_bytes(&self) -> (u64, u64) {
        let JournalSize { bytes, bytes_max } = &*self.journal_size;
        (bytes.load(Ordering::Relaxed), bytes_max.load(Ordering::Relaxed))
    }

    /// Asks for something.
    pub(super) fn push(&self, job: Job) {
        self.jobs.push(job);
    }

    /// Asks for something that takes seconds.
    pub(super) fn press(&self, pressing: Pressing) {
        self.pressings.push(pressing);
    }

    /// Asks for something with the content of a block device.
    pub(super) fn transfer(&self, transfer: Transfer) {
        self.transfers.push(transfer);
    }

    /// What has come of something that was asked for.
    pub(super) fn next_outcome(&self) -> Option<Outcome> {
        self.outcomes.try_pop()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs.push(Job::Stop);
        self.pressings.push(Pressing::Stop);
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            // A panic over there has been reported over there.
            let _ = thread.join();
        }
    }
}

/// Images for which there is room from the start.
const UNSETTLED_ROOM: usize = 32;

/// How large the journal is, for whoever asks.
#[derive(Default)]
struct JournalSize {
    bytes: AtomicU64,
    bytes_max: AtomicU64,
}

impl JournalSize {
    fn note(&self, journal: &Journal<Arc<HostFolder>>) {
        self.bytes.store(journal.bytes(), Ordering::Relaxed);
        self.bytes_max.store(journal.bytes_max(), Ordering::Relaxed);
    }
}

struct Desk {
    journal: Journal<Arc<HostFolder>>,
    journal_size: Arc<JournalSize>,
    blocks: Blocks<Arc<HostFolder>>,
    store: Store<Images>,
    /// Images that are in the store and not yet durable.
    unsettled: Vec<(Digest, File)>,
    /// Images that could not be made durable: none of the records on their way may name them.
    failed: Vec<Digest>,
}

impl Desk {
    fn work(mut self, jobs: &Queue<Job>, outbox: &Outbox) {
        loop {
            let job = jobs.try_pop().unwrap_or_else(|| {
                self.settle();
                jobs.pop()
            });
            if !matches!(job, Job::Store { .. }) {
                self.settle();
            }
            match job {
                Job::Append(mut batch) => {
                    let appended = self.append(&mut batch);
                    outbox.tell(Outcome::Appended(batch, appended));
                    self.compact_if_wanted();
                }
                Job::Store { slot, spool, compressed } => {
                    outbox.tell(Outcome::Stored(slot, self.store(spool, compressed)));
                }
                Job::Inspect { slot, digest } => {
                    outbox.tell(Outcome::Stored(slot, self.inspect(&digest)));
                }
                Job::Release(digest) => self.remove(&digest),
                Job::Collect(wanted) => match self.store.sweep(|digest| wanted.binary_search(digest).is_ok()) {
                    Ok(0) => {}
                    Ok(count) => log!("removed {count} unused files of the image folder"),
                    Err(error) => log!("{error}"),
                },
                Job::MakeBlock { slot, name, bytes } => {
                    let made = self.blocks.make(&name, bytes).map_err(|error| {
                        log!("{name}: {error}");
                        let error = error.error;
                        if is_full(&error) { BlockFileError::DiskFull } else { BlockFileError::Disk(errno(&error)) }
                    });
                    outbox.tell(Outcome::BlockMade(slot, made));
                }
                Job::RemoveBlock { slot, name } => {
                    if let Err(error) = self.blocks.remove(&name) {
                        log!("{name}: {error}, which the next start tries again");
                    }
                    outbox.tell(Outcome::BlockRemoved(slot));
                }
                Job::Stop => return,
            }
        }
    }

    fn append(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        if self.failed.iter().any(|digest| batch.mentions(digest)) {
            batch.clear();
            return Err(JournalError::Disk(nix::errno::Errno::EIO as i32));
        }
        if self.journal.is_closed() {
            self.compact_if_wanted();
        }
        let appended = self.journal.append(batch);
        batch.clear();
        appended.map_err(|error| {
            log!("{error}");
            match error {
                AppendError::NotWritten(error) | AppendError::Unknown(error) => journal_error(&error),
                AppendError::Closed => JournalError::Disk(nix::errno::Errno::EIO as i32),
            }
        })
    }

    fn compact_if_wanted(&mut self) {
        if self.journal.wants_compaction()
            && let Err(error) = self.journal.compact()
        {
            log!("{error}");
        }
        self.journal_size.note(&self.journal);
    }

    fn store(&mut self, spool: Spool<Images>, compressed: bool) -> Result<Stored, StoreError> {
        let placed = self.store.place(spool, compressed).map_err(|error| store_error(&error))?;
        match inspect(&ImageFile(&placed.file)) {
            Ok(facts) => {
                let stored = Stored { digest: placed.digest, bytes: placed.bytes, facts };
                // One that was there is durable already, or waits here to be.
                if !placed.was_there {
                    self.unsettled.push((placed.digest, placed.file));
                }
                Ok(stored)
            }
            Err(error) => {
                if !placed.was_there {
                    self.remove(&placed.digest);
                }
                Err(StoreError::Image(error))
            }
        }
    }

    fn inspect(&self, digest: &Digest) -> Result<Stored, StoreError> {
        let file = self.store.open(digest).map_err(|error| store_error(&error))?;
        let bytes = Content::bytes(&file).map_err(|error| StoreError::Disk(errno(&error)))?;
        let facts = inspect(&ImageFile(&file)).map_err(StoreError::Image)?;
        Ok(Stored { digest: *digest, bytes, facts })
    }

    /// Makes durable what is not.
    fn settle(&mut self) {
        while let Some((digest, file)) = self.unsettled.pop() {
            self.failed.retain(|failed| *failed != digest);
            if let Err(error) = self.store.settle(&file) {
                log!("{error}");
                self.failed.push(digest);
                self.remove(&digest);
            }
        }
    }

    fn remove(&mut self, digest: &Digest) {
        if let Err(error) = self.store.remove(digest) {
            log!("{error}");
        }
    }
}

fn journal_error(error: &io::Error) -> JournalError {
    if is_full(error) { JournalError::DiskFull } else { JournalError::Disk(errno(error)) }
}

/// What the machine calls it.
pub(super) fn store_error(error: &store::StoreError) -> StoreError {
    log!("{error}");
    match error {
        store::StoreError::NotCompressed | store::StoreError::Truncated => StoreError::Compression,
        store::StoreError::Spool(SpoolError::TooLarge(_)) => StoreError::TooLarge,
        store::StoreError::Spool(SpoolError::Quota | SpoolError::UserQuota | SpoolError::Reserve) => {
            StoreError::DiskFull
        }
        store::StoreError::Full(_) => StoreError::StoreFull,
        store::StoreError::Spool(SpoolError::Io(_, error)) | store::StoreError::Io(_, error) if is_full(error) => {
            StoreError::DiskFull
        }
        store::StoreError::Spool(SpoolError::Io(_, error)) | store::StoreError::Io(_, error) => {
            StoreError::Disk(errno(error))
        }
        store::StoreError::Missing => StoreError::Disk(nix::errno::Errno::ENOENT as i32),
    }
}

/// The system's number; 0 where there is none.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// An image for the core to look into.
struct ImageFile<'f>(&'f std::fs::File);

impl ReadAt for ImageFile<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadFailed> {
        Content::read_at(self.0, buffer, offset).map_err(|error| ReadFailed { errno: errno(&error) })
    }
}
