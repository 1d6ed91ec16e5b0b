//! A folder as durable state needs it: a handful of operations, each of which may fail, be lost, or be torn by a crash. The
//! tests put a simulated folder here that does all three. Nothing in this file is clever; what may be relied upon after a crash is
//! decided by its users.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, Whence, lseek, unlinkat};

use crate::folder::names_in;

#[cfg(test)]
pub(crate) mod simulated;

/// What is read of a file to see that it is blank: some file systems have the last block of a file on the disk, which is smaller.
const BLANK_BYTES_MAX: usize = 128 * 1024;

/// One folder. Names are file names, without any `/`.
pub trait Folder: Send + Sync {
    /// An open file of it.
    type File: Content;

    /// Opens a file that is there, to read and write.
    ///
    /// # Errors
    /// `NotFound`, or what the system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file that is there, to read only.
    ///
    /// # Errors
    /// `NotFound`, or what the system says.
    fn open_read_only(&self, name: &str) -> io::Result<Self::File>;

    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name; whatever had it is gone.
    ///
    /// # Errors
    /// What the system says: the name may or may not have changed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, or what the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// What the system says: each of them may or may not be durable.
    fn sync(&self) -> io::Result<()>;

    /// What the disk under it has, and what of that is free to us.
    ///
    /// # Errors
    /// What the system says.
    fn space(&self) -> io::Result<Space>;

    /// The names of all files. For the start only: it allocates.
    ///
    /// # Errors
    /// What the system says.
    fn names(&self) -> io::Result<Vec<String>>;
}

/// Bytes of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// In all.
    pub bytes: u64,
    /// Still free.
    pub free_bytes: u64,
}

/// A shared folder is a folder.
impl<F: Folder> Folder for std::sync::Arc<F> {
    type File = F::File;

    fn open(&self, name: &str) -> io::Result<F::File> {
        (**self).open(name)
    }

    fn open_read_only(&self, name: &str) -> io::Result<F::File> {
        (**self).open_read_only(name)
    }

    fn create(&self, name: &str) -> io::Result<F::File> {
        (**self).create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (**self).rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (**self).remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }

    fn space(&self) -> io::Result<Space> {
        (**self).space()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        (**self).names()
    }
}

/// The bytes of an open file. Offsets and lengths are in bytes.
pub trait Content: Send + std::fmt::Debug {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says: any part of `bytes` may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads up to `into.len()` bytes; 0 only at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Cuts or grows the file.
    ///
    /// # Errors
    /// What the system says.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    /// What the system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Whether nothing but zeros is in the file: nobody has written to it. To be sure of that only so much is read; a file with more is
    /// not called blank.
    ///
    /// # Errors
    /// What the system says.
    fn is_blank(&self) -> io::Result<bool>;

    /// Whether the file has no name any more: what is written to it is lost with whoever has it open.
    ///
    /// # Errors
    /// What the system says.
    fn is_removed(&self) -> io::Result<bool>;

    /// Makes the content durable, the file's length included. After a failure nobody knows what is.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the host's file system, held open: renaming its path does not lead it astray.
#[derive(Debug)]
pub struct HostFolder {
    fd: OwnedFd,
    path: PathBuf,
}

impl HostFolder {
    /// Opens `path`, which is made (mode 0700) if it is not there; the folder above it must be.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Self::find(path)
    }

    /// Opens `path`, which is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn find(path: &Path) -> io::Result<Self> {
        let fd = open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Where it was when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(openat(&self.fd, name, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, mode)?.into())
    }
}

impl Folder for HostFolder {
    type File = File;

    fn open(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlag::O_RDWR)
    }

    fn open_read_only(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlag::O_RDONLY)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.fd)?)
    }

    fn space(&self) -> io::Result<Space> {
        let found = fstatvfs(&self.fd)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Space { bytes: bytes(found.blocks()), free_bytes: bytes(found.blocks_available()) })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        names_in(&self.fd)
    }
}

impl Content for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(self, into, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn is_blank(&self) -> io::Result<bool> {
        let (mut at, mut left, mut piece) = (0, BLANK_BYTES_MAX, [0; 4096]);
        loop {
            at = match lseek(self, at, Whence::SeekData) {
                // Nothing but a hole up to the end.
                Err(Errno::ENXIO) => return Ok(true),
                found => found?,
            };
            let read = Content::read_at(self, &mut piece, at.unsigned_abs())?;
            if read == 0 {
                return Ok(true);
            }
            left = left.saturating_sub(read);
            if left == 0 || piece.iter().take(read).any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += i64::try_from(read).unwrap_or_default();
        }
    }

    fn is_removed(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() == 0)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Whether this says that no more can be written: the disk is full, or a quota or a size limit is reached.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A folder that is ours alone for as long as this lives, or until the process ends in whatever way.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of `folder`, a file `lock` in it.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it, or what the system says.
    pub fn take(folder: &HostFolder) -> io::Result<Self> {
        let file = folder.file("lock", OFlag::O_RDWR | OFlag::O_CREAT)?;
        file.try_lock().map_err(io::Error::from)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_blank_until_somebody_writes_to_it() {
        let path = std::env::temp_dir().join(format!("fulmar-blank-{}", std::process::id()));
        let folder = HostFolder::open(&path).unwrap();
        let file = folder.create("a").unwrap();
        assert!(file.is_blank().unwrap());
        file.set_bytes(1 << 30).unwrap();
        assert!(file.is_blank().unwrap());
        // As some file systems have it from the start.
        Content::write_at(&file, &[0; 4096], (1 << 30) - 4096).unwrap();
        assert!(file.is_blank().unwrap() && folder.open_read_only("a").unwrap().is_blank().unwrap());
        Content::write_at(&file, b"x", (1 << 29) + 5).unwrap();
        assert!(!file.is_blank().unwrap() && !folder.open_read_only("a").unwrap().is_blank().unwrap());
        // So many zeros are not read.
        let zeros = folder.create("b").unwrap();
        Content::write_at(&zeros, &[0; 2 * BLANK_BYTES_MAX], 0).unwrap();
        assert!(!zeros.is_blank().unwrap());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_folder_is_locked_once() {
        let path = std::env::temp_dir().join(format!("fulmar-lock-{}", std::process::id()));
        let folder = HostFolder::open(&path).unwrap();
        let lock = FolderLock::take(&folder).unwrap();
        assert_eq!(FolderLock::take(&folder).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        FolderLock::take(&folder).unwrap();
        std::fs::remove_dir_all(path).unwrap();
    }
}
