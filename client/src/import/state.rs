//! The two places that albatross keeps things in: the state file, and the folder of block devices. Nothing here is written.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fulmar_core::limits::{BLOCK_ASIDE_SUFFIX, BLOCK_FILE_SUFFIX, STATE_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::state_import::{self, State};

use crate::error::Failure;

/// Bytes of an MB.
pub(super) const MB_BYTES: u64 = 1 << 20;

/// Albatross's state file, whole in memory.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl StateFile {
    /// Reads a file of at most [`STATE_BYTES_MAX`] bytes.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failure = |error| Failure::Input { file: path.to_owned(), error };
        // Looked at before it is opened: opening a fifo would wait for somebody who writes to it.
        let metadata = fs::metadata(path).map_err(failure)?;
        if !metadata.is_file() {
            let text =
                format!("{}: is not a file: give albatross's state file, /var/lib/albatross/state", path.display());
            return Err(Failure::Usage { text });
        }
        let mut bytes = Vec::new();
        if metadata.len() <= STATE_BYTES_MAX {
            let room = usize::try_from(metadata.len()).map_err(|_| failure(io::ErrorKind::OutOfMemory.into()))?;
            bytes.try_reserve_exact(room).map_err(|_| failure(io::ErrorKind::OutOfMemory.into()))?;
            File::open(path)
                .and_then(|file| file.take(STATE_BYTES_MAX + 1).read_to_end(&mut bytes))
                .map_err(failure)?;
        }
        if metadata.len().max(bytes.len() as u64) > STATE_BYTES_MAX {
            let text = format!(
                "{}: is larger than a state file can be ({} MB): is it albatross's?",
                path.display(),
                STATE_BYTES_MAX / MB_BYTES
            );
            return Err(Failure::Usage { text });
        }
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// What it holds.
    pub(super) fn decode(&self) -> Result<State<'_>, Failure> {
        state_import::decode(&self.bytes).map_err(|error| Failure::State { file: self.path.clone(), error })
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// A file in albatross's folder of block devices.
#[derive(Debug)]
pub(super) struct Found {
    /// Its name there.
    pub(super) text: String,
    /// What it is.
    pub(super) what: What,
}

/// What a file in the folder of block devices is.
#[derive(Debug)]
pub(super) enum What {
    /// A block device.
    Block(Box<BlockFile>),
    /// Nothing that albatross would use, for this reason.
    Foreign(&'static str),
    /// A block device by its name, which cannot be one, for this reason; and what mends that.
    Unusable(String, String),
}

/// The file of a block device of albatross.
#[derive(Debug)]
pub(super) struct BlockFile {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    pub(super) size_mb: i64,
}

/// The block devices of albatross in `folder`, by name.
pub(super) fn find_blocks(folder: &Path) -> Result<Vec<Found>, Failure> {
    let failure = |error| Failure::Input { file: folder.to_owned(), error };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        let text = entry.file_name().to_string_lossy().into_owned();
        // Our own daemon keeps its block devices in the same folder where it was given the same state folder.
        if ![BLOCK_FILE_SUFFIX, BLOCK_ASIDE_SUFFIX].iter().any(|suffix| text.ends_with(suffix)) {
            let what = classify(&text, entry.path());
            found.push(Found { text, what });
        }
    }
    found.sort_by(|one, other| one.text.cmp(&other.text));
    Ok(found)
}

/// As albatross finds them when it starts: a name, and a whole number of MB that is not 0.
fn classify(text: &str, path: PathBuf) -> What {
    let name = match Name::parse(text) {
        Ok(name) if name.is_path() => return What::Foreign("it has the name of a path, not of a block device"),
        // Albatross opens the one whose name is written as it writes it, and no other.
        Ok(name) if name.as_str() == text => name,
        Ok(_) | Err(_) => return What::Foreign("its name is not that of a block device"),
    };
    // A link is not followed: whoever may write to the folder would choose what is read.
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(metadata) if metadata.is_symlink() => {
            return What::Unusable(
                "its file is a link, which is not followed".to_owned(),
                format!("put the file itself in the place of {}", path.display()),
            );
        }
        Ok(_) => return What::Foreign("it is not a file"),
        Err(error) => {
            return What::Unusable(format!("its file cannot be read ({error})"), format!("see to {}", path.display()));
        }
    };
    match i64::try_from(metadata.len() / MB_BYTES) {
        _ if metadata.len() == 0 => What::Foreign("its file is empty"),
        Ok(size_mb) if metadata.len().is_multiple_of(MB_BYTES) => {
            What::Block(Box::new(BlockFile { name, path, size_mb }))
        }
        _ => What::Unusable(
            format!("its file has {} bytes, which is no whole number of MB: albatross does not use it", metadata.len()),
            format!("truncate --size=%1M {}", path.display()),
        ),
    }
}
