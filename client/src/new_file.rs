//! Files that are written with what a daemon sends: an image, the content of a block device. Nothing is overwritten, and nothing is left of
//! what did not come wholly.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::Failure;
use crate::progress::Progress;

/// Bytes that are uncompressed at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes that are left out together where all of them are zero: a block of usual file systems.
const HOLE_BYTES: u64 = 4096;

/// A file that an image or the content of a block device is written to. It was not there before, and is not there before all of it is:
/// what comes goes to another file next to it, which gets the name at the end.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    aside: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    inflater: Option<Inflater>,
    complete: bool,
    progress: Progress,
}

struct Inflater {
    stream: Decompress,
    buffer: Vec<u8>,
    ended: bool,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl NewFile {
    /// Makes the file for up to `bytes_max` bytes, readable by its owner alone: images and disks hold secrets.
    ///
    /// # Errors
    /// [`Failure::Output`], also when it is there already.
    pub fn create(path: &Path, bytes_max: u64) -> Result<Self, Failure> {
        let failure = |path: &Path| {
            let file = path.to_owned();
            move |error| Failure::Output { file, error }
        };
        if path.symlink_metadata().is_ok() {
            return Err(failure(path)(io::ErrorKind::AlreadyExists.into()));
        }
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}.part", std::process::id()));
        let aside = PathBuf::from(aside);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).map_err(failure(path))?;
        Ok(Self {
            path: path.to_owned(),
            aside,
            file,
            bytes: 0,
            bytes_max,
            inflater: None,
            complete: false,
            progress: Progress::new("received", None),
        })
    }

    /// What comes from now on is a zlib stream.
    pub fn inflate(&mut self) {
        let buffer = vec![0; PIECE_BYTES];
        self.inflater = Some(Inflater { stream: Decompress::new(true), buffer, ended: false });
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`Failure::Output`], [`Failure::Inflate`].
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let Some(mut inflater) = self.inflater.take() else { return self.put(piece) };
        let mut rest = piece;
        while !rest.is_empty() {
            if inflater.ended {
                return Err(corrupt("bytes after its end"));
            }
            let (before_in, before_out) = (inflater.stream.total_in(), inflater.stream.total_out());
            let status = inflater.stream.decompress(rest, &mut inflater.buffer, FlushDecompress::None);
            inflater.ended = status.map_err(|error| corrupt(&error.to_string()))? == Status::StreamEnd;
            let taken = usize::try_from(inflater.stream.total_in() - before_in).unwrap_or(0);
            let made = usize::try_from(inflater.stream.total_out() - before_out).unwrap_or(0);
            if taken == 0 && made == 0 && !inflater.ended {
                return Err(corrupt("it does not go on"));
            }
            rest = rest.get(taken..).unwrap_or_default();
            self.put(inflater.buffer.get(..made).unwrap_or_default())?;
        }
        self.inflater = Some(inflater);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let (mut at, mut rest) = (self.bytes, bytes);
        self.progress.add(bytes.len());
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(corrupt("it is larger than it can be"));
        }
        while !rest.is_empty() {
            // Up to the next bound of a block. One that is all zeros is left out: the file gets its length at the end.
            let to_bound = HOLE_BYTES - at % HOLE_BYTES;
            let len = usize::try_from(to_bound).unwrap_or(rest.len()).min(rest.len());
            let (block, further) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            if block.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(block, at).map_err(|error| self.failure(error))?;
            }
            (at, rest) = (at + block.len() as u64, further);
        }
        Ok(())
    }

    fn failure(&self, error: io::Error) -> Failure {
        Failure::Output { file: self.path.clone(), error }
    }

    /// Gives what has come its name, unless somebody else has taken it meanwhile.
    fn place(&self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        match std::fs::hard_link(&self.aside, &self.path) {
            Ok(()) => std::fs::remove_file(&self.aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // Not every file system has links.
            Err(_) => {
                OpenOptions::new().write(true).create_new(true).open(&self.path)?;
                std::fs::rename(&self.aside, &self.path)
            }
        }
    }

    /// All of it has come: its file stays. Says how long it is.
    ///
    /// # Errors
    /// [`Failure::Inflate`] when a zlib stream has not come to its end, [`Failure::Output`].
    pub fn finish(mut self) -> Result<u64, Failure> {
        while let Some(mut inflater) = self.inflater.take().filter(|inflater| !inflater.ended) {
            // What fits no buffer before is still inside.
            let before = inflater.stream.total_out();
            let status = inflater.stream.decompress(&[], &mut inflater.buffer, FlushDecompress::Finish);
            inflater.ended = status.map_err(|error| corrupt(&error.to_string()))? == Status::StreamEnd;
            let made = usize::try_from(inflater.stream.total_out() - before).unwrap_or(0);
            if made == 0 && !inflater.ended {
                return Err(corrupt("it ends too early"));
            }
            self.put(inflater.buffer.get(..made).unwrap_or_default())?;
            self.inflater = Some(inflater);
        }
        self.place().map_err(|error| self.failure(error))?;
        self.complete = true;
        Ok(self.bytes)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.complete {
            // Half of it is of no use; that it cannot be removed changes nothing.
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

fn corrupt(reason: &str) -> Failure {
    Failure::Inflate { error: io::Error::new(io::ErrorKind::InvalidData, reason.to_owned()) }
}
