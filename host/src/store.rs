//! Images by their digest: each is a file whose name is the SHA-256, in hex, of its uncompressed bytes. One that is in use is never
//! changed. An image arrives in a spool; [`Store::place`] undoes its compression, within a bound, and gives it its name,
//! [`settle`] makes that durable. Only then may a record name it, and it may go only after the record that
//! drops it. So after a crash what no record names is unfinished or left over, and [`Store::sweep`] removes it.
//!
//! Its users are threads that may wait for the disk; one alone places and removes. A caller that loses interest drops what it holds; nothing else is needed.

use std::sync::atomic::Ordering;
use std::{fmt, io};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use heapless::String;
use sha2::{Digest as _, Sha256};

use crate::disk::{Content, Folder};
use crate::spool::{Spool, SpoolError, Spools};

const BUFFER_BYTES: usize = 64 * 1024;

/// SHA-256 of an uncompressed image.
pub type Digest = [u8; 32];

/// Why an image could not be stored or read.
#[derive(Debug)]
pub enum StoreError {
    /// It is said to be compressed and is not a zlib stream.
    NotCompressed,
    /// Its zlib stream ends too early, or something follows its end.
    Truncated,
    /// It cannot be written to its place.
    Spool(SpoolError),
    /// No more images are kept; the bound, bytes.
    Full(u64),
    /// There is none of this digest.
    Missing,
    /// The system said no.
    Io(&'static str, io::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCompressed => f.write_str("the image is said to be compressed but is no zlib stream"),
            Self::Truncated => f.write_str("the compressed image is incomplete or has a tail: send it again"),
            Self::Spool(error) => error.fmt(f),
            Self::Full(max) => write!(f, "the image store is full, it keeps {} MB: destroy a unikernel", max >> 20),
            Self::Missing => f.write_str("the image is not in the store: create the unikernel again"),
            Self::Io(attempt, error) => write!(f, "could not {attempt}: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<SpoolError> for StoreError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

/// An image under its name, perhaps not durable yet.
#[derive(Debug)]
pub struct Placed<T> {
    /// Its digest.
    pub digest: Digest,
    /// Bytes of it, uncompressed.
    pub bytes: u64,
    /// Its file.
    pub file: T,
    /// Whether it was there before.
    pub was_there: bool,
}

/// The images of a folder.
pub struct Store<F: Folder> {
    spools: Spools<F>,
    image_bytes_max: u64,
    images_bytes_max: u64,
    inflate: Decompress,
    input: Box<[u8]>,
    output: Box<[u8]>,
}

impl<F: Folder> Store<F> {
    /// The store in the folder of these spools, of images up to this size, and up to that size together. All memory is taken now.
    #[must_use]
    pub fn new(spools: Spools<F>, image_bytes_max: u64, images_bytes_max: u64) -> Self {
        let buffer = || vec![0; BUFFER_BYTES].into_boxed_slice();
        let inflate = Decompress::new(true);
        Self { spools, image_bytes_max, images_bytes_max, inflate, input: buffer(), output: buffer() }
    }

    /// Gives what has arrived its name. One that is there already is kept and the new one dropped.
    ///
    /// # Errors
    /// [`StoreError`]: what arrived is dropped.
    pub fn place(&mut self, spool: Spool<F>, compressed: bool) -> Result<Placed<F::File>, StoreError> {
        let spool = if compressed { self.inflate(&spool)? } else { spool };
        let bytes = spool.bytes();
        let digest = self.hash(spool.content()?, bytes)?;
        let name = file_name(&digest);
        if let Ok(file) = self.spools.folder().open_read_only(&name) {
            return Ok(Placed { digest, bytes, file, was_there: true });
        }
        if bytes > self.images_bytes_max.saturating_sub(self.spools.kept_bytes()) {
            return Err(StoreError::Full(self.images_bytes_max));
        }
        drop(spool.keep_as(&name)?);
        self.spools.kept().fetch_add(bytes, Ordering::Relaxed);
        let file = self.open(&digest)?;
        Ok(Placed { digest, bytes, file, was_there: false })
    }

    /// Opens an image to read.
    ///
    /// # Errors
    /// [`StoreError::Missing`] or [`StoreError::Io`].
    pub fn open(&self, digest: &Digest) -> Result<F::File, StoreError> {
        open(self.spools.folder(), digest)
    }

    /// Removes an image that no record names any more. Those who have it open keep it.
    ///
    /// # Errors
    /// [`StoreError::Io`]; one that is not there is no error.
    pub fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        let bytes = self.open(digest).and_then(|file| bytes_of(&file));
        match self.spools.folder().remove(&file_name(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::Io("remove an image", error)),
            Ok(()) => {
                let gone = bytes.unwrap_or(0);
                let rest = |kept: u64| Some(kept.saturating_sub(gone));
                // It changes something in any case.
                let _ = self.spools.kept().fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
                Ok(())
            }
        }
    }

    /// Removes every image that `is_wanted` does not want, and counts the bytes of the others. Returns how many files went. Files of
    /// other names are left alone.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sweep(&self, mut is_wanted: impl FnMut(&Digest) -> bool) -> Result<usize, StoreError> {
        let folder = self.spools.folder();
        let names = folder.names().map_err(|error| StoreError::Io("list the images", error))?;
        let images = names.iter().filter_map(|name| Some((name, digest_of(name)?)));
        let (wanted, unwanted): (Vec<_>, Vec<_>) = images.partition(|(_, digest)| is_wanted(digest));
        for (name, _) in &unwanted {
            folder.remove(name).map_err(|error| StoreError::Io("remove an unused image", error))?;
        }
        let bytes: u64 =
            wanted.iter().map(|(_, digest)| self.open(digest).and_then(|it| bytes_of(&it)).unwrap_or(0)).sum();
        self.spools.kept().store(bytes, Ordering::Relaxed);
        Ok(unwanted.len())
    }

    /// An image as a zlib stream of this level (1 to 9), in a spool.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn compress(&mut self, digest: &Digest, level: u32) -> Result<Spool<F>, StoreError> {
        let file = self.open(digest)?;
        let mut spool = self.spools.create(self.image_bytes_max)?;
        let mut compress = Compress::new(Compression::new(level.clamp(1, 9)), true);
        let mut offset = 0;
        loop {
            let read = file.read_at(&mut self.input, offset).map_err(|error| StoreError::Io("read an image", error))?;
            offset += read as u64;
            let flush = if read == 0 { FlushCompress::Finish } else { FlushCompress::None };
            let mut rest = &self.input[..read];
            loop {
                let (taken, made) = (compress.total_in(), compress.total_out());
                let status = compress.compress(rest, &mut self.output, flush);
                let status = status.map_err(|error| StoreError::Io("compress an image", io::Error::other(error)))?;
                rest = &rest[size(compress.total_in() - taken)..];
                let made = size(compress.total_out() - made);
                spool.append(&self.output[..made])?;
                if status == Status::StreamEnd {
                    return Ok(spool);
                }
                if rest.is_empty() && made < self.output.len() && read > 0 {
                    break;
                }
            }
        }
    }

    /// What a compressed spool holds, in a new one.
    fn inflate(&mut self, spool: &Spool<F>) -> Result<Spool<F>, StoreError> {
        self.inflate.reset(true);
        let mut plain = self.spools.create(self.image_bytes_max)?;
        let mut offset = 0;
        loop {
            let read = spool.read_at(&mut self.input, offset)?;
            offset += read as u64;
            let mut rest = &self.input[..read];
            loop {
                let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
                let status = self.inflate.decompress(rest, &mut self.output, FlushDecompress::None);
                let status = status.map_err(|_| StoreError::NotCompressed)?;
                rest = &rest[size(self.inflate.total_in() - taken)..];
                let made = size(self.inflate.total_out() - made);
                plain.append(&self.output[..made])?;
                if status == Status::StreamEnd {
                    let whole = rest.is_empty() && offset == spool.bytes();
                    return if whole { Ok(plain) } else { Err(StoreError::Truncated) };
                }
                if rest.is_empty() && made < self.output.len() {
                    break;
                }
            }
            if read == 0 {
                return Err(StoreError::Truncated);
            }
        }
    }

    fn hash(&mut self, file: &F::File, bytes: u64) -> Result<Digest, StoreError> {
        let mut hash = Sha256::new();
        let mut offset = 0;
        while offset < bytes {
            match file.read_at(&mut self.input, offset).map_err(|error| StoreError::Io("read an image", error))? {
                0 => break,
                read => {
                    hash.update(&self.input[..read]);
                    offset += read as u64;
                }
            }
        }
        Ok(hash.finalize().into())
    }
}

fn bytes_of(file: &impl Content) -> Result<u64, StoreError> {
    file.bytes().map_err(|error| StoreError::Io("look at an image", error))
}

/// How many images are in a folder.
///
/// # Errors
/// [`StoreError::Io`].
pub fn count<F: Folder>(folder: &F) -> Result<usize, StoreError> {
    let names = folder.names().map_err(|error| StoreError::Io("list the images", error))?;
    Ok(names.iter().filter(|name| digest_of(name).is_some()).count())
}

/// Makes an image that was placed in this folder durable.
///
/// # Errors
/// [`StoreError::Io`]: no record may name it; remove it.
pub fn settle<F: Folder>(folder: &F, placed: &F::File) -> Result<(), StoreError> {
    let done = placed.sync().and_then(|()| folder.sync());
    done.map_err(|error| StoreError::Io("make an image durable", error))
}

/// Opens the image of this digest in its folder.
///
/// # Errors
/// [`StoreError::Missing`] or [`StoreError::Io`].
pub fn open<F: Folder>(folder: &F, digest: &Digest) -> Result<F::File, StoreError> {
    folder.open_read_only(&file_name(digest)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::Missing,
        _ => StoreError::Io("open an image", error),
    })
}

fn file_name(digest: &Digest) -> String<64> {
    let mut name = String::new();
    for byte in digest {
        // 32 bytes make 64 digits.
        let _ = fmt::write(&mut name, format_args!("{byte:02x}"));
    }
    name
}

/// The digest that a file name of 64 lower-case digits stands for.
fn digest_of(name: &str) -> Option<Digest> {
    let digits = name.as_bytes();
    if digits.len() != 64 || digits.iter().any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// A difference of two counters that one buffer bounds.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
