//! The content of a block device on its way to a daemon: chunks, each with its length before it, the last one empty.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use fulmar_core::limits::{CHUNK_BYTES, CONTENT_PIECE_BYTES};
use fulmar_core::name::Name;

use crate::connection::{Connection, Sink};
use crate::error::Failure;
use crate::input;
use crate::progress::Progress;

/// A file whose content a block device is to have.
#[derive(Debug)]
pub struct ContentFile {
    path: PathBuf,
    file: File,
}

impl ContentFile {
    /// Opens it: a file, a device, the pipe that is our standard input.
    ///
    /// # Errors
    /// [`Failure::Input`], [`Failure::Usage`].
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failure = |error| Failure::Input { file: path.to_owned(), error };
        let file = input::open(path).map_err(failure)?;
        if file.metadata().map_err(failure)?.is_dir() {
            return Err(Failure::Usage { text: format!("{}: is a folder: give a file", path.display()) });
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes all of it, until `out` takes no more.
    fn copy(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        let mut piece = vec![0; CONTENT_PIECE_BYTES];
        let len = self.file.metadata().ok().filter(|it| it.is_file()).map(|it| it.len());
        let mut progress = Progress::new("sent", len);
        loop {
            match self.file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    out.write_all(piece.get(..count).unwrap_or_default()).map_err(Failure::print)?;
                    progress.add(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Input { file: self.path.clone(), error }),
            }
        }
    }
}

impl Connection {
    /// Sends the content of a file after the command about `name`, as a zlib stream where `level` is more than 0. Where the daemon has
    /// answered before all is sent, the rest is not: the answer is there to be received.
    ///
    /// # Errors
    /// What the file says, and as [`Connection::send`].
    pub fn send_content(&mut self, name: Name, file: &mut ContentFile, level: u32) -> Result<(), Failure> {
        let chunk_bytes = if level == 0 { CHUNK_BYTES } else { CONTENT_PIECE_BYTES };
        self.send_chunks(name, chunk_bytes, &mut |out| {
            if level == 0 {
                return file.copy(out);
            }
            let mut encoder = ZlibEncoder::new(out, Compression::new(level));
            file.copy(&mut encoder).and_then(|()| encoder.finish().map(|_| ()).map_err(Failure::print))
        })
    }

    /// Sends what `write` writes, in chunks. Where the daemon has answered before all is sent, the rest is not.
    ///
    /// # Errors
    /// What `write` says, and as [`Connection::send`].
    pub(crate) fn send_chunks(
        &mut self,
        name: Name,
        chunk_bytes: usize,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut chunker = Chunker {
            sink: self.sink(),
            chunk_bytes,
            chunk: Vec::with_capacity(chunk_bytes),
            out: Vec::with_capacity(2 * CONTENT_PIECE_BYTES),
            answered: false,
        };
        let sent = write(&mut chunker).and_then(|()| chunker.end().map_err(Failure::print));
        let (answered, error) = (chunker.answered, chunker.sink.error.take());
        match (sent, error) {
            (Ok(()), None) => Ok(()),
            (Err(_), None) if answered => Ok(()),
            (_, Some(error)) => self.sending_failed(error, name),
            (Err(failure), None) => Err(failure),
        }
    }
}

/// Makes chunks of what is written, and hands them on a few at a time.
struct Chunker<'a> {
    sink: Sink<'a>,
    chunk_bytes: usize,
    chunk: Vec<u8>,
    out: Vec<u8>,
    /// Whether there was an answer before the end.
    answered: bool,
}

impl Chunker<'_> {
    fn end_chunk(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.chunk.len()).unwrap_or(0);
        self.out.extend(len.to_be_bytes());
        self.out.append(&mut self.chunk);
        if self.out.len() < CONTENT_PIECE_BYTES && len > 0 {
            return Ok(());
        }
        if self.sink.is_answered() {
            self.answered = true;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.sink.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// What is left, and the end mark.
    fn end(&mut self) -> io::Result<()> {
        if !self.chunk.is_empty() {
            self.end_chunk()?;
        }
        self.end_chunk()?;
        self.sink.flush()
    }
}

impl Write for Chunker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.chunk_bytes - self.chunk.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.chunk.extend(taken);
        if self.chunk.len() == self.chunk_bytes {
            self.end_chunk()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
