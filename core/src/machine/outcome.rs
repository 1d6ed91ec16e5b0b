//! What comes back from the world: how an effect ended, how a process ended.

use core::fmt;

use crate::halves::{Errno, LaunchError};
use crate::solo5::{ImageError, ImageFacts};

use super::refused::NotAdmitted;
use super::unikernel::Digest;

/// An image that is in the store, durably.
#[derive(Clone, Copy, Debug)]
pub struct StoredImage<'a> {
    /// SHA-256, uncompressed.
    pub digest: Digest,
    /// Bytes, uncompressed.
    pub bytes: u64,
    /// What it says about itself.
    pub facts: &'a ImageFacts,
}

/// Why an image could not be stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoreError {
    /// It is no image for a tender that is here.
    Image(ImageError),
    /// Not a zlib stream, or one that ends early.
    Compression,
    /// Larger than [`crate::limits::IMAGE_BYTES_MAX`].
    TooLarge,
    /// The disk is full, but for what is kept free.
    DiskFull,
    /// The disk failed with this errno.
    Disk(i32),
    /// No more images are kept: [`crate::limits::IMAGES_BYTES_MAX`].
    StoreFull,
    /// The image that is there by its record is not in the store.
    Missing,
}

/// What is not there, on all systems that have a shim.
const ENOENT: i32 = 2;

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Compression => f.write_str("the compressed image is damaged: it is no complete zlib stream"),
            Self::TooLarge => {
                let limit_mb = crate::limits::IMAGE_BYTES_MAX >> 20;
                write!(f, "the image is larger than {limit_mb} MB: strip its debug symbols")
            }
            Self::DiskFull => f.write_str("the image store's disk is full: destroy a unikernel or add space"),
            Self::Disk(ENOENT) => f.write_str(
                "the image could not be stored, the folder of images is gone: restore 'images' in the state folder and start vmmd again",
            ),
            Self::Disk(errno) => write!(f, "the image could not be stored: {}", Errno(*errno)),
            Self::Missing => f.write_str(
                "the image is not in the folder of images any more: restore it in 'images' of the state folder, or create the unikernel again",
            ),
            Self::StoreFull => {
                let limit_mb = crate::limits::IMAGES_BYTES_MAX >> 20;
                write!(f, "the image store is full, it keeps {limit_mb} MB: destroy a unikernel")
            }
        }
    }
}

/// Why a record could not be made durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JournalError {
    /// The disk is full.
    DiskFull,
    /// The disk failed with this errno.
    Disk(i32),
    /// The disk failed with this errno when the record may have been written: a crash before the journal is written again may
    /// bring the change back.
    Unsettled(i32),
}

/// No space is left, on all systems that have a shim.
const ENOSPC: i32 = 28;

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull => f.write_str("the journal's disk is full: nothing was changed, add space and try again"),
            Self::Disk(ENOENT) => {
                f.write_str("the journal was removed while vmmd runs: nothing was changed; try again, it is written anew unless another has its place")
            }
            Self::Disk(errno) => {
                write!(f, "the journal could not be written, the change was undone: {}", Errno(*errno))
            }
            Self::Unsettled(ENOSPC) => f.write_str(
                "the journal's disk is full: the change was undone, but a crash may bring it back; add space and try again",
            ),
            Self::Unsettled(errno) => write!(
                f,
                "the journal could not be written, the change was undone, but a crash may bring it back: {}",
                Errno(*errno)
            ),
        }
    }
}

/// Why the file of a block device could not be made, of which nothing is left then, or not be given another content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BlockFileError {
    /// The disk is full, or no file on it can be so large.
    DiskFull,
    /// The disk failed with this errno.
    Disk(i32),
    /// The content is more than it holds.
    TooLarge,
    /// The content is not a zlib stream, or one that ends early, or something follows its end.
    Compression,
    /// The content ended before its end mark.
    Cut,
    /// The disk failed with this errno when the new content was there already: a crash may bring the old one back.
    Unsettled(i32),
}

impl fmt::Display for BlockFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull => f.write_str("the disk of the block devices is full: ask for less or add space"),
            Self::Disk(ENOENT) => f.write_str(
                "the folder of block devices is gone: restore 'block' in the state folder and start vmmd again",
            ),
            Self::Disk(errno) => write!(f, "the file of the block device could not be written: {}", Errno(*errno)),
            Self::TooLarge => f.write_str("the content is more than the block device holds: nothing was changed"),
            Self::Compression => {
                f.write_str("the compressed content is damaged: it is no complete zlib stream, nothing was changed")
            }
            Self::Cut => f.write_str("the content ended before its end mark: nothing was changed, send it again"),
            Self::Unsettled(errno) => {
                write!(f, "a crash may bring the old content back, set it again: {}", Errno(*errno))
            }
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Exit {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// The kernel killed it: it had used up its memory.
    OutOfMemory,
    /// It is gone and nobody saw how: it ended while it was not ours to wait for.
    Unknown,
}

/// How seccomp ends a process, as signals are numbered on Linux; spt runs nowhere else.
const SIGSYS: u8 = 31;

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(SIGSYS) => write!(f, "signal {SIGSYS}: a system call that its sandbox forbids"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfMemory => f.write_str("killed by the kernel: out of memory"),
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

/// How the last run of a unikernel ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)] // a tag of its own, 0 for the first: see `Machine::new`
pub enum End {
    /// None has ended since `vmmd` started.
    None,
    /// By itself.
    Exit(Exit),
    /// It was stopped, to be started anew or replaced.
    Stopped,
}

/// Why a unikernel does not run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)] // a tag of its own, 0 for the first: see `Machine::new`
pub enum Trouble {
    /// No reason yet.
    None,
    /// Its last run ended so.
    Ended(Exit),
    /// Its last run was ended so that it can be started anew, or another one in its place.
    Stopped,
    /// It could not be launched.
    Launch(LaunchError),
    /// The host or a policy no longer allows it.
    Refused(NotAdmitted),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("not started yet"),
            Self::Ended(exit) => exit.fmt(f),
            Self::Stopped => f.write_str("stopped to be started anew"),
            Self::Launch(error) => error.fmt(f),
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}
