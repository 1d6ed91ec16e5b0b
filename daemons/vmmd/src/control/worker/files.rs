//! The thread of the images and of the files of block devices: it undoes compressions, takes digests, makes and removes files.

use std::sync::Arc;

use fulmar_core::machine::{BlockFileError, Digest, StoreError};
use fulmar_core::name::Name;
use fulmar_core::solo5::{ReadAt, ReadFailed, inspect};
use fulmar_host::blocks::Blocks;
use fulmar_host::disk::{Content, HostFolder, is_full};
use fulmar_host::spool::Spool;
use fulmar_host::store::Store;
use fulmar_host::{error, info, warning};

use super::records::RecordJob;
use super::{Images, Outbox, Outcome, Queue, Stored, errno, store_error};

/// What the thread is asked for.
pub(in super::super) enum FileJob {
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

/// What the thread has.
pub(super) struct Files {
    store: Store<Images>,
    blocks: Blocks<Arc<HostFolder>>,
    /// Where images become durable.
    records: Arc<Queue<RecordJob>>,
}

impl Files {
    pub(super) fn new(store: Store<Images>, blocks: Blocks<Arc<HostFolder>>, records: Arc<Queue<RecordJob>>) -> Self {
        Self { store, blocks, records }
    }

    pub(super) fn work(mut self, jobs: &Queue<FileJob>, outbox: &Outbox) {
        loop {
            match jobs.pop() {
                FileJob::Store { slot, spool, compressed } => {
                    outbox.tell(Outcome::Stored(slot, self.store(spool, compressed)));
                }
                FileJob::Inspect { slot, digest } => outbox.tell(Outcome::Stored(slot, self.inspect(&digest))),
                FileJob::Release(digest) => self.remove(&digest),
                FileJob::Collect(wanted) => match self.store.sweep(|digest| wanted.binary_search(digest).is_ok()) {
                    Ok(0) => {}
                    Ok(count) => info!("removed {count} unused files of the image folder"),
                    Err(error) => error!("{error}"),
                },
                FileJob::MakeBlock { slot, name, bytes } => {
                    let made = self.blocks.make(&name, bytes).map_err(|error| {
                        error!(name = name; "{name}: {error}");
                        let error = error.error;
                        if is_full(&error) { BlockFileError::DiskFull } else { BlockFileError::Disk(errno(&error)) }
                    });
                    outbox.tell(Outcome::BlockMade(slot, made));
                }
                FileJob::RemoveBlock { slot, name } => {
                    if let Err(error) = self.blocks.remove(&name) {
                        warning!(name = name; "{name}: {error}, which the next start tries again");
                    }
                    outbox.tell(Outcome::BlockRemoved(slot));
                }
                FileJob::Stop => return,
            }
        }
    }

    fn store(&mut self, spool: Spool<Images>, compressed: bool) -> Result<Stored, StoreError> {
        let placed = self.store.place(spool, compressed).map_err(|error| store_error(&error))?;
        match inspect(&ImageFile(&placed.file)) {
            Ok(facts) => {
                let stored = Stored { digest: placed.digest, bytes: placed.bytes, facts };
                // One that was there is durable already, or waits over there to be.
                if !placed.was_there {
                    self.records.push(RecordJob::Settle(placed.digest, placed.file));
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

    fn remove(&mut self, digest: &Digest) {
        if let Err(error) = self.store.remove(digest) {
            error!("{error}");
        }
    }
}

/// An image for the core to look into.
struct ImageFile<'f>(&'f std::fs::File);

impl ReadAt for ImageFile<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadFailed> {
        Content::read_at(self.0, buffer, offset).map_err(|error| ReadFailed { errno: errno(&error) })
    }
}
