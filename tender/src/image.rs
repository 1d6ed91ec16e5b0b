//! The image file, by path or, as `@FD`, already open.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt as _, OpenOptionsExt as _};

use fulmar_core::solo5::{ReadAt, ReadFailed};
use libc::{ESPIPE, O_NONBLOCK};

use crate::inherited::Inherited;
use crate::refusal::Refusal;
use crate::sys::{self, Errno};

/// An image that is open for reading.
pub(crate) struct ImageFile {
    file: File,
    name: String,
}

impl ImageFile {
    /// Opens what the KERNEL operand says: a path, or `@FD` for a file that whoever started us has opened (a file of such a
    /// name is written `./@3`).
    pub(crate) fn open(operand: &OsStr, inherited: &mut Inherited) -> Result<ImageFile, Refusal> {
        let name = operand.to_string_lossy().into_owned();
        let opened = match sys::fd_number(operand.as_bytes()) {
            Some(number) => inherited.take(number).map(File::from),
            None => open(operand).map_err(Errno::from),
        };
        match opened {
            Ok(file) => Ok(ImageFile { file, name }),
            Err(errno) => Err(Refusal::KernelOpen { name, errno }),
        }
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A fifo would have us wait for its writer; as what cannot be read at any place it is refused.
fn open(path: &OsStr) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    let is_seekable = !file.metadata()?.file_type().is_fifo();
    is_seekable.then_some(file).ok_or_else(|| io::Error::from_raw_os_error(ESPIPE))
}

impl ReadAt for ImageFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadFailed> {
        // An offset beyond what a file can have is an end of file like any other.
        if i64::try_from(offset).is_err() {
            return Ok(0);
        }
        loop {
            match self.file.read_at(buf, offset) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| ReadFailed { errno: Errno::from(error).0 }),
            }
        }
    }
}
