//! The threads that wait, so that the event loop need not: for the journal (`records`), for images and the files of block devices
//! (`files`), for the compression of an image that a client asked for. The content of block devices has threads of its own:
//! `transfers`. Each has a queue and does its jobs in their order, one at a time.
//!
//! That a record is not written before the image that it names is durable is kept by a queue: `files` asks `records` to make an
//! image durable before it says that the image is stored, and so before anybody can ask for that record.

mod files;
mod records;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use fulmar_core::limits::{IMAGE_BYTES_MAX, IMAGES_BYTES_MAX};
use fulmar_core::machine::{BlockFileError, Digest, JournalError, StoreError};
use fulmar_core::solo5::ImageFacts;
use fulmar_host::blocks::Blocks;
use fulmar_host::disk::{HostFolder, is_full};
use fulmar_host::error;
use fulmar_host::journal::{Batch, Journal};
use fulmar_host::spool::{Spool, SpoolError, Spools};
use fulmar_host::store::{self, Store};

pub(super) use self::files::FileJob;
use self::files::Files;
use self::records::{JournalSize, RecordJob, Records};
use super::transfers::{Transfer, Transferred, Transfers};

/// The folder of the images, shared with the thread.
pub(super) type Images = Arc<HostFolder>;

/// What the compressing thread is asked for.
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
    records: Arc<Queue<RecordJob>>,
    files: Arc<Queue<FileJob>>,
    pressings: Arc<Queue<Pressing>>,
    transfers: Transfers,
    outcomes: Arc<Queue<Outcome>>,
    journal_size: Arc<JournalSize>,
    threads: [Option<JoinHandle<()>>; 3],
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
            error!("could not wake the event loop: {error}");
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
        let (records, files, pressings) = (Arc::new(Queue::new()), Arc::new(Queue::new()), Arc::new(Queue::new()));
        let outcomes = Arc::new(Queue::new());
        let outbox = Outbox { outcomes: Arc::clone(&outcomes), waker: Arc::new(waker) };
        let transfers = Transfers::start(block_folder, &spools, &outbox)?;
        let mut press = Store::new(spools.clone(), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX);
        let keeper = Records::new(journal, Arc::clone(spools.folder()), Arc::clone(&files));
        let journal_size = keeper.journal_size();
        let keeper_of_files = Files::new(
            Store::new(spools, IMAGE_BYTES_MAX, IMAGES_BYTES_MAX),
            Blocks::new(Arc::clone(block_folder)),
            Arc::clone(&records),
        );
        // Where one cannot be started, the others end with the program.
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let (jobs, out) = (Arc::clone(&records), outbox.clone());
        let recording = thread("records").spawn(move || keeper.work(&jobs, &out))?;
        let (jobs, out) = (Arc::clone(&files), outbox.clone());
        let filing = thread("files").spawn(move || keeper_of_files.work(&jobs, &out))?;
        let jobs = Arc::clone(&pressings);
        let pressing = thread("compress").spawn(move || {
            while let Pressing::Compress { connection, serial, digest, level } = jobs.pop() {
                let compressed = press.compress(&digest, u32::from(level));
                outbox.tell(Outcome::Compressed(connection, serial, compressed));
            }
        })?;
        let threads = [Some(recording), Some(filing), Some(pressing)];
        Ok(Self { records, files, pressings, transfers, outcomes, journal_size, threads })
    }

    /// Bytes of the journal, and those beyond which it is written anew.
    pub(super) fn journal_bytes(&self) -> (u64, u64) {
        self.journal_size.get()
    }

    /// Asks for these records to be made durable.
    pub(super) fn append(&self, batch: Batch) {
        self.records.push(RecordJob::Append(batch));
    }

    /// Asks for something with an image or with the file of a block device.
    pub(super) fn file(&self, job: FileJob) {
        self.files.push(job);
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
        self.records.push(RecordJob::Stop);
        self.files.push(FileJob::Stop);
        self.pressings.push(Pressing::Stop);
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            // A panic over there has been reported over there.
            let _ = thread.join();
        }
    }
}

/// What the machine calls it.
pub(super) fn store_error(error: &store::StoreError) -> StoreError {
    error!("{error}");
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
        store::StoreError::Missing => StoreError::Missing,
    }
}

/// The system's number; 0 where there is none.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
