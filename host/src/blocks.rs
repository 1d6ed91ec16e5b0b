//! The files of block devices: each is a sparse file, whose name is that of the block device and
//! [`BLOCK_FILE_SUFFIX`]. A file is durable and of its full size before a record names it, and goes only after the record
//! is gone. One that is being removed has another name until then, which ends with [`BLOCK_RETIRED_SUFFIX`] ([`Blocks::retire`]).
//! So what no record names was being made or removed when `vmmd` died, or the journal is not the one that belongs to it.
//! [`Blocks::sweep`] removes what was being removed, and what nothing was ever written to; all else it moves out of the way. Files of
//! other names, such as the disks of another program, are never touched.
//!
//! A new content arrives in a file of its own, whose name ends with [`BLOCK_ASIDE_SUFFIX`], and takes the place of the old one
//! when it is whole and durable ([`Blocks::switch`]). So there is the old content or the new one at any time; what a crash
//! leaves aside is removed by the sweep.
//!
//! The content is a tenant's: nothing here reads it.

use std::collections::BTreeSet;
use std::{fmt, io};

use fulmar_core::limits::{
    BLOCK_ASIDE_SUFFIX, BLOCK_FILE_SUFFIX, BLOCK_RETIRED_SUFFIX, BLOCK_UNCLAIMED_MAX, BLOCK_UNCLAIMED_SUFFIX,
    NAME_BYTES_MAX,
};
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

    /// Gives the file of a block device whose record is to go the name of one that is being removed.
    ///
    /// # Errors
    /// [`BlockError`]; one that is not there is no error.
    pub fn retire(&self, name: &Name) -> Result<(), BlockError> {
        self.rename(&file_name(name), &retired_name(name))
    }

    /// Undoes [`Blocks::retire`]: the record stays.
    ///
    /// # Errors
    /// [`BlockError`]; one that is not there is no error. The next start does it.
    pub fn reinstate(&self, name: &Name) -> Result<(), BlockError> {
        self.rename(&retired_name(name), &file_name(name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), BlockError> {
        match self.folder.rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("rename the file of a block device")(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the file of a block device that no record names any more. Those who have it open keep it.
    ///
    /// # Errors
    /// [`BlockError`]; one that is not there is no error.
    pub fn remove(&self, name: &Name) -> Result<(), BlockError> {
        for file in [retired_name(name), file_name(name)] {
            match self.folder.remove(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove the file of a block device")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts the folder in order, for the start only. What `is_wanted` does not want goes where nothing can be lost by that, or else is
    /// moved out of the way; so does every new content that never took its place. What is wanted and was being removed is back.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn sweep(&self, mut is_wanted: impl FnMut(&Name) -> bool) -> Result<Swept, BlockError> {
        let mut swept = Swept::default();
        let mut names: BTreeSet<_> = self.names()?.into_iter().collect();
        for file in names.clone() {
            match name_of(&file) {
                None => swept.foreign += 1,
                Some((_, Place::Unclaimed)) => swept.unclaimed += 1,
                Some((name, Place::Own)) if is_wanted(&name) => {}
                Some((name, Place::Retired)) if is_wanted(&name) && !names.contains(file_name(&name).as_str()) => {
                    self.reinstate(&name)?;
                    names.insert(file_name(&name).as_str().to_owned());
                }
                Some((name, place)) => {
                    let is_needless = match place {
                        Place::Aside => true,
                        Place::Retired => !is_wanted(&name),
                        Place::Own | Place::Unclaimed => self.is_blank(&file),
                    };
                    if is_needless {
                        self.folder.remove(&file).map_err(failed("remove the file of a block device"))?;
                        swept.removed += 1;
                        continue;
                    }
                    let free = free_name(&name, &names)?;
                    self.folder.rename(&file, &free).map_err(failed("move the file of a block device"))?;
                    names.insert(free.clone());
                    swept.moved.push((file, free));
                }
            }
        }
        if !swept.moved.is_empty() {
            self.folder.sync().map_err(failed("move the file of a block device"))?;
        }
        Ok(swept)
    }

    /// How many files of block devices there are.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn count(&self) -> Result<usize, BlockError> {
        let is_own = |name: &&std::string::String| matches!(name_of(name), Some((_, Place::Own | Place::Retired)));
        Ok(self.names()?.iter().filter(is_own).count())
    }

    fn names(&self) -> Result<Vec<std::string::String>, BlockError> {
        self.folder.names().map_err(failed("list the files of block devices"))
    }

    /// Whether nothing was ever written to a file. One that cannot be looked at may have something in it.
    fn is_blank(&self, file_name: &str) -> bool {
        self.folder.open_read_only(file_name).and_then(|file| file.is_blank()).unwrap_or(false)
    }
}

/// What [`Blocks::sweep`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Files that no record named and nobody needs, and that are gone.
    pub removed: usize,
    /// Those that no record named, with something in them: what each was called, and is called now.
    pub moved: Vec<(std::string::String, std::string::String)>,
    /// Those that were moved at an earlier start and are still there.
    pub unclaimed: usize,
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

fn retired_name(name: &Name) -> FileName {
    with_suffix(name, BLOCK_RETIRED_SUFFIX)
}

fn unclaimed_name(name: &Name, number: u8) -> FileName {
    with_suffix(name, format_args!("{BLOCK_UNCLAIMED_SUFFIX}{number}"))
}

/// A name for a file that no record names, which none of these has.
fn free_name(name: &Name, taken: &BTreeSet<std::string::String>) -> Result<std::string::String, BlockError> {
    let names = (1..=BLOCK_UNCLAIMED_MAX).map(|number| unclaimed_name(name, number).as_str().to_owned());
    let too_many = || io::Error::other(format!("{BLOCK_UNCLAIMED_MAX} of {name} are there already: move them away"));
    let mut free = names.filter(|it| !taken.contains(it));
    free.next().ok_or_else(|| failed("keep one more file of a block device that no record names")(too_many()))
}

fn with_suffix(name: &Name, suffix: impl fmt::Display) -> FileName {
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
    /// Its own, which is being removed.
    Retired,
    /// One that no record named.
    Unclaimed,
}

/// The block device whose file has this name.
fn name_of(file_name: &str) -> Option<(Name, Place)> {
    let (text, suffix) = file_name.split_at_checked(file_name.rfind('_')?)?;
    let place = match suffix {
        BLOCK_FILE_SUFFIX => Place::Own,
        BLOCK_ASIDE_SUFFIX => Place::Aside,
        BLOCK_RETIRED_SUFFIX => Place::Retired,
        _ => {
            let number = suffix.strip_prefix(BLOCK_UNCLAIMED_SUFFIX)?;
            let is_ours = (1..=BLOCK_UNCLAIMED_MAX).any(|it| it.to_string() == number);
            is_ours.then_some(Place::Unclaimed)?
        }
    };
    // A name has one text form only: what is not this one was not made here.
    Name::parse(text).ok().filter(|name| !name.is_path() && name.as_str() == text).map(|name| (name, place))
}

#[cfg(test)]
mod tests;
