//! Disks: a file or a block device by its path, or a descriptor that whoever started us has opened. Nobody else has it
//! while a guest does, as far as others ask: the whole of it is locked.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use crate::inherited::Inherited;
use crate::refusal::DiskFault;
use crate::sys::{self, Errno};

/// An open disk.
pub(crate) struct Disk {
    pub(crate) file: File,
    pub(crate) capacity_bytes: u64,
    /// What tells it from every other one: the file system and the file, or the device.
    pub(crate) identity: (u64, u64),
}

/// Opens and locks what the command line says.
pub(crate) fn open(value: &OsStr, inherited: &mut Inherited) -> Result<Disk, DiskFault> {
    let file = match sys::fd_number(value.as_bytes()) {
        Some(number) => File::from(inherited.take(number).map_err(DiskFault::Open)?),
        None => open_path(value)?,
    };
    if sys::access_mode(file.as_fd()).map_err(DiskFault::Open)? != libc::O_RDWR {
        return Err(DiskFault::Open(Errno(libc::EACCES)));
    }
    let metadata = file.metadata().map_err(|error| DiskFault::Open(error.into()))?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskFault::Kind);
    }
    sys::lock(file.as_fd()).map_err(|errno| match errno {
        Errno(libc::EWOULDBLOCK | libc::EACCES) => DiskFault::Used,
        errno => DiskFault::Lock(errno),
    })?;
    let capacity_bytes = (&file).seek(SeekFrom::End(0)).map_err(|error| DiskFault::Capacity(error.into()))?;
    let identity = if kind.is_file() { (metadata.dev(), metadata.ino()) } else { (0, metadata.rdev()) };
    Ok(Disk { file, capacity_bytes, identity })
}

/// A block device is opened for ourselves alone (`O_EXCL`), which fails while the host has it mounted.
fn open_path(path: &OsStr) -> Result<File, DiskFault> {
    let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let is_device = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
    open(if is_device { libc::O_EXCL } else { 0 }).map_err(|error| match Errno::from(error) {
        Errno(libc::EBUSY) => DiskFault::Used,
        errno => DiskFault::Open(errno),
    })
}
