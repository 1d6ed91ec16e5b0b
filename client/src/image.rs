//! Images in files: what an image says about itself, the way into a message.
//!
//! An image goes through in pieces; only a compressed one on its way out is ever held as a whole.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use fulmar_core::limits::IMAGE_BYTES_MAX;
use fulmar_core::solo5::{self, ImageFacts, ReadAt, ReadFailed};

use crate::error::Failure;
use crate::input;
use crate::progress::Progress;

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
        let file = input::open(path).map_err(failure)?;
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
        let progress = Progress::new("sent", Some(self.bytes()));
        match self {
            Self::Plain(image) => image.copy(&mut Shown { out, progress }),
            Self::Compressed(stream) => {
                let mut out = Shown { out, progress };
                stream.chunks(PIECE_BYTES).try_for_each(|piece| out.write_all(piece)).map_err(Failure::print)
            }
        }
    }
}

/// Shows how far it is.
struct Shown<'a> {
    out: &'a mut dyn Write,
    progress: Progress,
}

impl Write for Shown<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.progress.add(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
