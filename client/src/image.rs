//! Images in files: what an image says about itself, the way into a message, the way out of a reply.
//!
//! An image goes through in pieces; only a compressed one on its way out is ever held as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};
use fulmar_core::limits::IMAGE_BYTES_MAX;
use fulmar_core::solo5::{self, ImageFacts, ReadAt, ReadFailed};

use crate::error::Failure;

/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// A unikernel's image in a file.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// An image as it goes into a message.
#[derive(Debug)]
pub enum Parcel<'a> {
    /// The file as it is.
    Plain(&'a ImageFile),
    /// Its zlib stream.
    Compressed(Vec<u8>),
}

impl ImageFile {
    /// Opens an image of at most [`IMAGE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`Failure::Input`], [`Failure::Usage`].
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failure = |error| Failure::Input { file: path.to_owned(), error };
        let file = File::open(path).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        if !metadata.is_file() {
            return Err(Failure::Usage { text: format!("{}: is not a file: give an image", path.display()) });
        }
        if metadata.len() > IMAGE_BYTES_MAX {
            let text =
                format!("{}: is larger than an image can be ({IMAGE_BYTES_MAX} bytes): strip it", path.display());
            return Err(Failure::Usage { text });
        }
        Ok(Self { path: path.to_owned(), file, bytes: metadata.len() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it says about itself.
    ///
    /// # Errors
    /// [`Failure::Image`].
    pub fn inspect(&self) -> Result<ImageFacts, Failure> {
        solo5::inspect(self).map_err(|error| Failure::Image { file: self.path.clone(), error })
    }

    /// Makes it ready to be sent, compressed where `level` is more than 0.
    ///
    /// # Errors
    /// [`Failure::Input`].
    pub fn pack(&self, level: u32) -> Result<Parcel<'_>, Failure> {
        if level == 0 {
            return Ok(Parcel::Plain(self));
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
        self.copy(&mut encoder)?;
        encoder.finish().map(Parcel::Compressed).map_err(|error| self.failure(error))
    }

    /// Writes exactly as many bytes as it had when it was opened.
    fn copy(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < self.bytes {
            let wanted = usize::try_from(self.bytes - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let place = piece.get_mut(..wanted).unwrap_or_default();
            let count = self.file.read_at(place, at).map_err(|error| self.failure(error))?;
            if count == 0 {
                return Err(self.failure(io::ErrorKind::UnexpectedEof.into()));
            }
            out.write_all(place.get(..count).unwrap_or_default()).map_err(Failure::print)?;
            at += count as u64;
        }
        Ok(())
    }

    fn failure(&self, error: io::Error) -> Failure {
        Failure::Input { file: self.path.clone(), error }
    }
}

impl ReadAt for ImageFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadFailed> {
        self.file.read_at(buf, offset).map_err(|error| ReadFailed { errno: error.raw_os_error().unwrap_or(0) })
    }
}

impl Parcel<'_> {
    /// Bytes that go into the message.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Plain(image) => image.bytes,
            Self::Compressed(stream) => stream.len() as u64,
        }
    }

    /// Whether they are a zlib stream.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        matches!(self, Self::Compressed(_))
    }

    /// Writes them.
    ///
    /// # Errors
    /// [`Failure::Input`]; the caller knows better what became of `out`.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), Failure> {
        match self {
            Self::Plain(image) => image.copy(out),
            Self::Compressed(stream) => out.write_all(stream).map_err(Failure::print),
        }
    }
}

/// A file that an image is written to. It was not there before, and is not there after a failure.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    inflater: Option<Inflater>,
    complete: bool,
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
    /// Makes the file for an image of up to `bytes_max` bytes, readable by its owner alone: images hold secrets.
    ///
    /// # Errors
    /// [`Failure::Output`], also when it is there already.
    pub fn create(path: &Path, bytes_max: u64) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| Failure::Output { file: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), file, bytes: 0, bytes_max, inflater: None, complete: false })
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
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(corrupt("it is larger than an image can be"));
        }
        self.file.write_all(bytes).map_err(|error| Failure::Output { file: self.path.clone(), error })
    }

    /// The image is complete: its file stays. Says how long it is.
    ///
    /// # Errors
    /// [`Failure::Inflate`] when a zlib stream has not come to its end.
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
        self.complete = true;
        Ok(self.bytes)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.complete {
            // Half an image is of no use; that it cannot be removed changes nothing.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn corrupt(reason: &str) -> Failure {
    Failure::Inflate { error: io::Error::new(io::ErrorKind::InvalidData, reason.to_owned()) }
}
