//! The thread of the journal. Nothing that takes long but the disk itself keeps a record waiting here.
//!
//! An image is told to be stored before it is durable, so that its unikernel can be launched meanwhile. Here it becomes durable;
//! where that fails, a record that names it is refused.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fulmar_core::machine::{Digest, JournalError};
use fulmar_host::disk::{HostFolder, is_full};
use fulmar_host::error;
use fulmar_host::journal::{AppendError, Batch, Journal};
use fulmar_host::store;
use nix::errno::Errno;

use super::{FileJob, Images, Outbox, Outcome, Queue, errno};

/// What the thread is asked for.
pub(super) enum RecordJob {
    /// Make these records durable.
    Append(Batch),
    /// Make an image durable.
    Settle(Digest, File),
    /// End.
    Stop,
}

/// How large the journal is, for whoever asks.
#[derive(Default)]
pub(super) struct JournalSize {
    bytes: AtomicU64,
    bytes_max: AtomicU64,
}

impl JournalSize {
    fn note(&self, journal: &Journal<Arc<HostFolder>>) {
        self.bytes.store(journal.bytes(), Ordering::Relaxed);
        self.bytes_max.store(journal.bytes_max(), Ordering::Relaxed);
    }

    /// Bytes of it, and those beyond which it is written anew.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.bytes_max.load(Ordering::Relaxed))
    }
}

/// Images for which there is room from the start.
const FAILED_ROOM: usize = 32;

/// What the thread has.
pub(super) struct Records {
    journal: Journal<Arc<HostFolder>>,
    size: Arc<JournalSize>,
    images: Images,
    /// Where images are removed.
    files: Arc<Queue<FileJob>>,
    /// Images that could not be made durable: no record may name them.
    failed: Vec<Digest>,
}

impl Records {
    pub(super) fn new(journal: Journal<Arc<HostFolder>>, images: Images, files: Arc<Queue<FileJob>>) -> Self {
        let size = Arc::new(JournalSize::default());
        size.note(&journal);
        Self { journal, size, images, files, failed: Vec::with_capacity(FAILED_ROOM) }
    }

    pub(super) fn journal_size(&self) -> Arc<JournalSize> {
        Arc::clone(&self.size)
    }

    pub(super) fn work(mut self, jobs: &Queue<RecordJob>, outbox: &Outbox) {
        loop {
            match jobs.pop() {
                RecordJob::Append(mut batch) => {
                    let appended = self.append(&mut batch);
                    outbox.tell(Outcome::Appended(batch, appended));
                    self.compact_if_wanted();
                }
                RecordJob::Settle(digest, file) => self.settle(digest, &file),
                RecordJob::Stop => return,
            }
        }
    }

    fn append(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        if self.failed.iter().any(|digest| batch.mentions(digest)) {
            batch.clear();
            return Err(JournalError::Disk(Errno::EIO as i32));
        }
        if self.journal.is_closed() {
            self.compact_if_wanted();
        }
        let appended = self.journal.append(batch);
        batch.clear();
        appended.map_err(|error| {
            error!("{error}");
            match error {
                AppendError::NotWritten(error) if is_full(&error) => JournalError::DiskFull,
                AppendError::NotWritten(error) => JournalError::Disk(errno(&error)),
                AppendError::Unknown(error) => JournalError::Unsettled(errno(&error)),
                AppendError::Removed => JournalError::Disk(Errno::ENOENT as i32),
                AppendError::Closed => JournalError::Disk(Errno::EIO as i32),
            }
        })
    }

    fn compact_if_wanted(&mut self) {
        if self.journal.wants_compaction()
            && let Err(error) = self.journal.compact()
        {
            error!("{error}");
        }
        self.size.note(&self.journal);
    }

    /// One that fails is removed. Until then others are told that it is stored, but no record will name it before it was stored
    /// once more and has become durable.
    fn settle(&mut self, digest: Digest, file: &File) {
        self.failed.retain(|failed| *failed != digest);
        if let Err(error) = store::settle(&*self.images, file) {
            error!("{error}");
            self.failed.push(digest);
            self.files.push(FileJob::Release(digest));
        }
    }
}
