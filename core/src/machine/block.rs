//! One block device in the machine: how far the wish for it has come, what is known of its file, and who uses it.
//!
//! Its creation is a ladder of two rungs, the file and then the record; its removal goes the other way. It is charged from
//! the first rung of the one to the last of the other. What goes on with its content is `content.rs`.

use core::fmt;

use super::arguments::DeviceName;
use super::outcome::BlockFileError;
use super::table::Named;
use crate::limits::{BLOCK_MB_MAX, IMAGE_BYTES_MAX, LABEL_BYTES_MAX};
use crate::name::Name;

/// How far the wish has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)] // a tag of its own, 0 for the first: see `Machine::new`
pub enum BlockStage {
    /// The slot is free.
    Free,
    /// Its file is being made.
    Making,
    /// Its file is durable, its record is being made so.
    Recording,
    /// There is one: the record is durable.
    Kept,
    /// The record's removal is being made durable.
    Dropping,
    /// Its record could not be written, and a crash could still bring it back: the file stays until the journal is written
    /// again. At this time, milliseconds, that is tried.
    Undoing(u64),
    /// No record names it: its file is being removed.
    Removing,
}

/// What is known of the file of a block device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)] // a tag of its own, 0 for the first: see `Machine::new`
pub enum BlockFile {
    /// There was none when `vmmd` started.
    Missing,
    /// It had so many bytes, not those of the record, when `vmmd` started.
    Bytes(u64),
    /// It is as it should be.
    Sound,
}

/// What goes on with the content of a block device that is there and that no unikernel holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)] // a tag of its own, 0 for the first: see `Machine::new`
pub enum Transfer {
    /// Nothing.
    None,
    /// It is being set: nobody else may have it.
    Set,
    /// So many clients read it: nobody may change it.
    Dumps(u16),
}

/// The record of one block device.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Block {
    /// Its name; never a path.
    pub(super) name: Name,
    /// How far the wish has come.
    pub(super) stage: BlockStage,
    /// What is known of its file.
    pub(super) file: BlockFile,
    /// What goes on with its content.
    pub(super) transfer: Transfer,
    /// Its size, MiB.
    pub(super) size_mb: u64,
    /// Whether `holder` means something.
    pub(super) held: bool,
    /// The slot of the unikernel that uses it.
    pub(super) holder: u16,
}

impl Named for Block {
    const EMPTY: Self = Self {
        name: Name::EMPTY,
        stage: BlockStage::Free,
        file: BlockFile::Missing,
        transfer: Transfer::None,
        size_mb: 0,
        held: false,
        holder: 0,
    };

    fn name(&self) -> &Name {
        &self.name
    }
}

impl Block {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How far the wish has come.
    #[must_use]
    pub fn stage(&self) -> BlockStage {
        self.stage
    }

    /// What is known of its file.
    #[must_use]
    pub fn file(&self) -> BlockFile {
        self.file
    }

    /// What goes on with its content.
    #[must_use]
    pub fn transfer(&self) -> Transfer {
        self.transfer
    }

    /// Its size, MiB.
    #[must_use]
    pub fn size_mb(&self) -> u64 {
        self.size_mb
    }

    /// Its size, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.size_mb.saturating_mul(1 << 20)
    }

    /// The slot of the unikernel that uses it, or is to use it as soon as it runs.
    #[must_use]
    pub fn holder(&self) -> Option<u16> {
        self.held.then_some(self.holder)
    }

    /// Whether it is listed: its creation was acknowledged and its removal is not durable.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        matches!(self.stage, BlockStage::Kept | BlockStage::Dropping)
    }
}

/// Why a command about a block device, or a create that names one, is not granted. The texts are the peer's where it has
/// one (`docs/wire.md`, replies).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BlockRefused {
    /// A path was given where a block device is needed.
    Path,
    /// Not a size.
    Size(i64),
    /// More bytes than a file can have.
    Overflow,
    /// There is one of this name.
    Exists,
    /// It is being made or removed.
    Busy,
    /// No room for another one on this host.
    Full,
    /// There is none of this name to tell about.
    InfoNotFound,
    /// There is none of this name to remove.
    RemoveNotFound,
    /// A unikernel uses the one that is to be removed.
    RemoveInUse,
    /// There is none of this name to set.
    SetNotFound,
    /// A unikernel uses the one that is to be set.
    SetInUse,
    /// There is none of this name to dump.
    DumpNotFound,
    /// A unikernel uses the one that is to be dumped.
    DumpInUse,
    /// Its content is being set or dumped.
    Transfer,
    /// As many are being set and dumped as may be at once.
    TransfersFull,
    /// Its content does not fit one reply.
    DumpTooLarge,
    /// The create names one that is not there.
    Missing(DeviceName),
    /// The create names one that another unikernel, or another device of the same, uses.
    InUse(DeviceName),
    /// A zvol is named, and this path may not.
    NoZvol(DeviceName),
    /// The create names one that is being set or dumped.
    InTransfer(DeviceName),
    /// The create or the dump names one whose file is not as it should be.
    Damaged(DeviceName, BlockFile),
    /// Its file could not be made, or not be given the content.
    File(BlockFileError),
}

impl fmt::Display for BlockRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("the name of a block device is needed, a path was given (it ends with ':')"),
            Self::Size(mb) => write!(f, "{mb} MB is no size of a block device: give 1 to {BLOCK_MB_MAX} MB"),
            Self::Overflow => write!(f, "overflow while computing bytes: give 1 to {BLOCK_MB_MAX} MB"),
            Self::Exists => f.write_str("block device with same name already exists"),
            Self::Busy => f.write_str("this block device is still being made or removed, try again"),
            Self::Full => f.write_str("no room for another block device on this host: remove one that nobody needs"),
            Self::InfoNotFound => f.write_str("info block: not found"),
            Self::RemoveNotFound => f.write_str("remove block: not found"),
            Self::RemoveInUse => f.write_str("remove block: is in use"),
            Self::SetNotFound => f.write_str("set block: not found"),
            Self::SetInUse => f.write_str("set block: is in use"),
            Self::DumpNotFound => f.write_str("dump block: not found"),
            Self::DumpInUse => f.write_str("dump block: is in use"),
            Self::Transfer => f.write_str("this block device is being set or dumped, try again"),
            Self::TransfersFull => f.write_str("too many block devices are being set or dumped, try again"),
            Self::DumpTooLarge => {
                let limit_mb = IMAGE_BYTES_MAX >> 20;
                write!(f, "the block device is larger than {limit_mb} MB, too large for one reply: dump it in chunks")
            }
            Self::Missing(label) => write!(f, "block device {label} does not exist"),
            Self::InUse(label) => write!(f, "block device {label} is in use"),
            Self::NoZvol(path) => write!(
                f,
                "{path} cannot be a block device here: zvols are for bhyve virtual machines of the path that vmmd was started with \
                 (--allow-zvol-for)"
            ),
            Self::InTransfer(label) => write!(f, "block device {label} is being set or dumped, try again"),
            Self::Damaged(label, BlockFile::Bytes(bytes)) => write!(
                f,
                "the file of block device {label} has another size than recorded, {bytes} bytes: restore it and start \
                 vmmd again, or remove the block device"
            ),
            Self::Damaged(label, BlockFile::Missing | BlockFile::Sound) => write!(
                f,
                "the file of block device {label} is gone: restore it and start vmmd again, or remove the block device"
            ),
            Self::File(error) => error.fmt(f),
        }
    }
}

const _: () = assert!(LABEL_BYTES_MAX <= crate::limits::DEVICE_NAME_BYTES_MAX, "a label fits a `DeviceName`");
