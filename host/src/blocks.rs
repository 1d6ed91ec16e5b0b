//! The files of block devices: each is a sparse file, whose name is that of the block device and
//! [`BLOCK_FILE_SUFFIX`]. A file is durable and of its full size before a record names it, and goes only after the record
//! is gone. So what no record names was being made or removed when `vmmd` died, and [`Blocks::sweep`] removes it. Files of
//! other names, such as the disks of another program, are never touched.
//!
//! A new content arrives in a file of its own, whose name ends with [`BLOCK_ASIDE_SUFFIX`], and takes the place of the old one
//! when it is whole and durable ([`Blocks::switch`]). So there is the old content or the new one at any time; what a crash
//! leaves aside is removed by the sweep.
//!
//! The content is a tenant's: nothing here reads it.

use std::{fmt, io};

use fulmar_core::limits::{BLOCK_ASIDE_SUFFIX, BLOCK_FILE_SUFFIX, NAME_BYTES_MAX};
use fulmar_core::name::Name;
use heapless::String;

use crate::disk::{Content, Folder};

/// What could not be done with the file of a block device.
#[derive(Debug)]
pub struct BlockError {
    /// What was attempted, to follow "could not".
    pub attempt: &'static str,
    /// What the system says.
    pub error: io::Error,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.attempt, self.error)
    }
}

impl std::error::Error for BlockError {}

fn failed(attempt: &'static str) -> impl Fn(io::Error) -> BlockError {
    move |error| BlockError { attempt, error }
}

/// The block devices of a folder.
#[derive(Debug)]
pub struct Blocks<F: Folder> {
    folder: F,
}

impl<F: Folder> Blocks<F> {
    /// Those in this folder.
    #[must_use]
    pub fn new(folder: F) -> Self {
        Self { folder }
    }

    /// Makes the file of a block device, durably. No record may name one that is there: it is left over, and goes.
    ///
    /// # Errors
    /// [`BlockError`]: nothing of it is left, or it goes at the next start.
    pub fn make(&self, name: &Name, bytes: u64) -> Result<(), BlockError> {
        self.remove(name)?;
        let file_name = file_name(name);
        let file = self.folder.create(&file_name).map_err(failed("make the file of a block device"))?;
        let made = file.set_bytes(bytes).and_then(|()| file.sync()).and_then(|()| self.folder.sync());
        made.map_err(|error| {
            let _ = self.folder.remove(&file_name);
            failed("make the file of a block device")(error)
        })
    }

    /// Makes the file in which a new content of so many bytes arrives, full of zeros. One that is there is left over.
    ///
    /// # Errors
    /// [`BlockError`]: nothing of it is left, or it goes at the next start.
    pub fn begin_aside(&self, name: &Name, bytes: u64) -> Result<F::File, BlockError> {
        let aside = aside_name(name);
        self.drop_aside(name)?;
        let file = self.folder.create(&aside).map_err(failed("make the file for a new content"))?;
        match file.set_bytes(bytes) {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = self.folder.remove(&aside);
                Err(failed("make the file for a new content")(error))
            }
        }
    }

    /// Puts the new content, which is durable, in the place of the old one, or where there was none.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn switch(&self, name: &Name) -> Result<(), SwitchError> {
        let aside = aside_name(name);
        if let Err(error) = self.folder.rename(&aside, &file_name(name)) {
            let error = failed("put a new content in its place")(error);
            // A rename that fails may have happened: then there is nothing aside any more.
            return Err(match self.folder.open_read_only(&aside) {
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => SwitchError::Unknown(error),
                _ => SwitchError::NotSwitched(error),
            });
        }
        self.folder.sync().map_err(|error| SwitchError::Unknown(failed("make a new content durable")(error)))
    }

    /// Removes a new content that is not wanted.
    ///
    /// # Errors
    /// [`BlockError`]; one that is not there is no error.
    pub fn drop_aside(&self, name: &Name) -> Result<(), BlockError> {
        match self.folder.remove(&aside_name(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove the file of a new content")(error))
            }
            _ => Ok(()),
        }
    }

    /// Opens the file of a block device to read.
    ///
    /// # Errors
    /// [`BlockError`], its kind `NotFound` where there is none.
    pub fn open_read_only(&self, name: &Name) -> Result<F::File, BlockError> {
        self.folder.open_read_only(&file_name(name)).map_err(failed("open the file of a block device"))
    }

    /// Opens the file of a block device to read and write.
    ///
    /// # Errors
    /// [`BlockError`], its kind `NotFound` where there is none.
    pub fn open(&self, name: &Name) -> Result<F::File, BlockError> {
        self.folder.open(&file_name(name)).map_err(failed("open the file of a block device"))
    }

    /// Bytes of the file of a block device; nothing where there is none.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn bytes(&self, name: &Name) -> Result<Option<u64>, BlockError> {
        match self.folder.open_read_only(&file_name(name)).and_then(|file| file.bytes()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("look at the file of a block device")(error)),
        }
    }

    /// Removes the file of a block device that no record names any more. Those who have it open keep it.
    ///
    /// # Errors
    /// [`BlockError`]; one that is not there is no error.
    pub fn remove(&self, name: &Name) -> Result<(), BlockError> {
        match self.folder.remove(&file_name(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove the file of a block device")(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the file of every block device that `is_wanted` does not want, and every new content that never took its place. For the start only. Returns how many files went and how
    /// many are none of ours and stay.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn sweep(&self, mut is_wanted: impl FnMut(&Name) -> bool) -> Result<Swept, BlockError> {
        let mut swept = Swept::default();
        for file_name in self.folder.names().map_err(failed("list the files of block devices"))? {
            match name_of(&file_name) {
                None => swept.foreign += 1,
                Some((name, Place::Own)) if is_wanted(&name) => {}
                Some(_) => {
                    self.folder.remove(&file_name).map_err(failed("remove the file of a block device"))?;
                    swept.removed += 1;
                }
            }
        }
        Ok(swept)
    }
}

/// What [`Blocks::sweep`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Files that no record named, and that are gone.
    pub removed: usize,
    /// Files that are no block devices of ours, and that stay.
    pub foreign: usize,
}

/// Why a new content is not where it should be.
#[derive(Debug)]
pub enum SwitchError {
    /// The old one is in its place.
    NotSwitched(BlockError),
    /// It is in its place, and a crash may bring the old one back.
    Unknown(BlockError),
}

type FileName = String<{ NAME_BYTES_MAX + BLOCK_FILE_SUFFIX.len() }>;

fn file_name(name: &Name) -> FileName {
    with_suffix(name, BLOCK_FILE_SUFFIX)
}

fn aside_name(name: &Name) -> FileName {
    with_suffix(name, BLOCK_ASIDE_SUFFIX)
}

fn with_suffix(name: &Name, suffix: &str) -> FileName {
    let mut file_name = String::new();
    // It has room for the longest.
    let _ = fmt::write(&mut file_name, format_args!("{name}{suffix}"));
    file_name
}

/// What a file is to its block device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Its own.
    Own,
    /// That of a new content.
    Aside,
}

/// The block device whose file has this name.
fn name_of(file_name: &str) -> Option<(Name, Place)> {
    let own = file_name.strip_suffix(BLOCK_FILE_SUFFIX).map(|text| (text, Place::Own));
    let (text, place) = own.or_else(|| file_name.strip_suffix(BLOCK_ASIDE_SUFFIX).map(|text| (text, Place::Aside)))?;
    // A name has one text form only: what is not this one was not made here.
    Name::parse(text).ok().filter(|name| !name.is_path() && name.as_str() == text).map(|name| (name, place))
}

#[cfg(test)]
mod tests;
