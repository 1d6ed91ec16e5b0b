//! A spool takes bytes that arrive in pieces, before anybody knows what they are. It is a file of the image folder whose name
//! begins with `tmp-`, emptied when the spool is dropped and removed at the next start. A few empty files are used again: making
//! and removing files over and over is slow on some file systems.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use fulmar_core::limits::{DISK_RESERVE_BYTES, DISK_RESERVE_PART};
use heapless::String;

use crate::disk::{Content, Folder, is_full};

/// How the names of spool files begin.
const PREFIX: &str = "tmp-";

const FULL: &str = "the disk of the image folder is full: free some space and try again";

const GONE: &str = "the folder of images is gone: restore 'images' in the state folder and start vmmd again";

/// Why bytes were not taken. The spool is of no use any more.
#[derive(Debug)]
pub enum SpoolError {
    /// More bytes than one spool may hold; the bound.
    TooLarge(u64),
    /// More bytes than all spools together may hold.
    Quota,
    /// More bytes than the spools of one user may hold, or those of one domain.
    UserQuota,
    /// More bytes than the disk has free beside what is kept free.
    Reserve,
    /// The system said no.
    Io(&'static str, io::Error),
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(max) => write!(f, "image too large: at most {} MB are taken", max >> 20),
            Self::Quota => f.write_str("too many images are arriving at once: try again later"),
            Self::UserQuota => {
                f.write_str("too many images of this user or domain are arriving at once: try again later")
            }
            Self::Io(_, error) if is_full(error) => f.write_str(FULL),
            Self::Reserve => f.write_str(FULL),
            Self::Io(_, error) if error.kind() == io::ErrorKind::NotFound => f.write_str(GONE),
            Self::Io(attempt, error) => write!(f, "could not {attempt}: {error}"),
        }
    }
}

impl std::error::Error for SpoolError {}

/// Where spools are made. Clones share the folder and the quota.
#[derive(Debug)]
pub struct Spools<F: Folder> {
    shared: Arc<Shared<F>>,
}

#[derive(Debug)]
struct Shared<F: Folder> {
    folder: F,
    next: AtomicU64,
    /// Bytes of all spools together, and their bound.
    bytes: AtomicU64,
    bytes_max: u64,
    /// Bytes of the images that are kept.
    kept: AtomicU64,
    /// Empty files to be used again.
    spare: Mutex<heapless::Vec<(Name, F::File), SPARE_MAX>>,
}

/// Empty files that are kept.
const SPARE_MAX: usize = 4;

/// The name of a spool file: the prefix and up to 20 digits.
type Name = String<24>;

impl<F: Folder> Shared<F> {
    fn spare(&self) -> std::sync::MutexGuard<'_, heapless::Vec<(Name, F::File), SPARE_MAX>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Folder> Clone for Spools<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<F: Folder> Spools<F> {
    /// Spools in `folder`, of at most `bytes_max` bytes together.
    pub fn new(folder: F, bytes_max: u64) -> Self {
        let spare = Mutex::new(heapless::Vec::new());
        Self {
            shared: Arc::new(Shared {
                folder,
                next: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                bytes_max,
                kept: AtomicU64::new(0),
                spare,
            }),
        }
    }

    /// Removes the spools of a predecessor: at the start only, it cannot tell them from ours. Returns how many went.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn clear(&self) -> Result<usize, SpoolError> {
        let names = self.folder().names().map_err(|error| SpoolError::Io("list the spool files", error))?;
        let mut count = 0;
        for name in names.iter().filter(|name| name.starts_with(PREFIX)) {
            self.folder().remove(name).map_err(|error| SpoolError::Io("remove a spool file", error))?;
            count += 1;
        }
        Ok(count)
    }

    /// Bytes of all spools.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the images that are kept, as far as the start has looked through them.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept().load(Ordering::Relaxed)
    }

    pub(crate) fn kept(&self) -> &AtomicU64 {
        &self.shared.kept
    }

    /// Whether the disk has room for so many bytes and what is kept free.
    fn has_room(&self, bytes: u64) -> Result<bool, SpoolError> {
        let space = self.folder().space().map_err(|error| SpoolError::Io("look at the disk", error))?;
        let reserve = DISK_RESERVE_BYTES.min(space.bytes / DISK_RESERVE_PART);
        Ok(space.free_bytes >= reserve.saturating_add(bytes))
    }

    /// The folder that they are in.
    pub fn folder(&self) -> &F {
        &self.shared.folder
    }

    /// An empty spool for at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn create(&self, bytes_max: u64) -> Result<Spool<F>, SpoolError> {
        if let Some((name, file)) = self.shared.spare().pop() {
            return Ok(Spool { spools: self.clone(), name, file: Some(file), bytes: 0, bytes_max });
        }
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let mut name = Name::new();
        // It fits.
        let _ = fmt::write(&mut name, format_args!("{PREFIX}{number}"));
        let file = self.folder().create(&name).map_err(|error| SpoolError::Io("make a spool file", error))?;
        Ok(Spool { spools: self.clone(), name, file: Some(file), bytes: 0, bytes_max })
    }
}

/// A file that is not yet anything. Dropping it forgets its bytes.
#[derive(Debug)]
pub struct Spool<F: Folder> {
    spools: Spools<F>,
    name: Name,
    /// Nothing only once it has been taken.
    file: Option<F::File>,
    bytes: u64,
    bytes_max: u64,
}

impl<F: Folder> Spool<F> {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`SpoolError`]: drop the spool then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let len = bytes.len() as u64;
        if len > self.bytes_max - self.bytes {
            return Err(SpoolError::TooLarge(self.bytes_max));
        }
        if !self.spools.has_room(len)? {
            return Err(SpoolError::Reserve);
        }
        let shared = &self.spools.shared;
        let take = |taken: u64| taken.checked_add(len).filter(|sum| *sum <= shared.bytes_max);
        shared.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| SpoolError::Quota)?;
        let at = self.bytes;
        self.bytes += len;
        self.content()?.write_at(bytes, at).map_err(|error| SpoolError::Io("write a spool file", error))
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn content(&self) -> Result<&F::File, SpoolError> {
        self.file.as_ref().ok_or(SpoolError::Io("use a spool file", io::ErrorKind::NotFound.into()))
    }

    /// Reads back.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize, SpoolError> {
        self.content()?.read_at(into, offset).map_err(|error| SpoolError::Io("read a spool file", error))
    }

    /// Gives the file a name of its own, so that it outlives the spool.
    pub(crate) fn keep_as(mut self, name: &str) -> Result<F::File, SpoolError> {
        let rename = self.spools.folder().rename(&self.name, name);
        rename.map_err(|error| SpoolError::Io("rename a spool file", error))?;
        self.file.take().ok_or(SpoolError::Io("use a spool file", io::ErrorKind::NotFound.into()))
    }
}

impl<F: Folder> Drop for Spool<F> {
    fn drop(&mut self) {
        let shared = &self.spools.shared;
        shared.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let Some(file) = self.file.take() else { return };
        let kept = match file.set_bytes(0) {
            Ok(()) => shared.spare().push((self.name.clone(), file)).is_ok(),
            Err(_) => false,
        };
        if !kept {
            // What cannot be removed now is removed at the next start.
            let _ = shared.folder.remove(&self.name);
        }
    }
}
