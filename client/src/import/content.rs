//! The content of block devices: brought over as a zlib stream, so that what was never written to costs next to nothing, and
//! compared with what is there.

use std::fs::File;
use std::io::{self, Read};

use flate2::read::ZlibDecoder;
use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command, Data, Image, Payload, Success};

use super::host::done;
use super::state::BlockFile;
use crate::connection::{Connection, Daemon, Door, refused};
use crate::content::ContentFile;
use crate::error::Failure;
use crate::input;

/// Zeros are what there is most of, and any level is good enough for them.
const LEVEL: u32 = 1;

/// Bytes that are looked at at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// How a block device that is there compares with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// The same.
    Same,
    /// Another, but nothing that could be lost: all of it is zeros.
    Zeros,
    /// Another.
    Different,
}

fn open(file: &BlockFile) -> Result<File, Failure> {
    input::open(&file.path).map_err(|error| unreadable(file, error))
}

fn unreadable(file: &BlockFile, error: io::Error) -> Failure {
    Failure::Input { file: file.path.clone(), error }
}

/// Fills a new block device, which is full of zeros.
pub(super) fn fill(door: &dyn Door, file: &BlockFile) -> Result<(), Failure> {
    if is_zeros(file)? {
        return Ok(());
    }
    let mut content = ContentFile::open(&file.path)?;
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(file.name, Command::Block(BlockCommand::Set { compressed: true }))?;
    connection.send_content(file.name, &mut content, LEVEL)?;
    done(connection.receive(file.name)?)
}

/// Whether there is nothing to bring over.
pub(super) fn is_zeros(file: &BlockFile) -> Result<bool, Failure> {
    let mut source = open(file)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = read_full(&mut source, &mut piece).map_err(|error| unreadable(file, error))?;
        let read = piece.get(..count).unwrap_or_default();
        if read.is_empty() || read.iter().any(|byte| *byte != 0) {
            return Ok(read.is_empty());
        }
    }
}

/// Compares the block device of this name with the file, as far as it must.
pub(super) fn compare(door: &dyn Door, file: &BlockFile) -> Result<Content, Failure> {
    let mut source = open(file)?;
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(file.name, Command::Block(BlockCommand::Dump { level: LEVEL.into() }))?;
    let Success::BlockImage { compressed: true } = connection.receive(file.name)? else {
        return Err(Failure::Unexpected { daemon: Daemon::Vmmd });
    };
    let chunks = Chunks { connection, name: file.name, chunk: Vec::new(), taken: 0, ended: false, failure: None };
    let mut there = ZlibDecoder::new(chunks);
    let (mut ours, mut theirs) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let (mut same, mut zeros) = (true, true);
    while same || zeros {
        let count = read_full(&mut there, &mut theirs);
        let count = count.map_err(|error| there.get_mut().failure.take().unwrap_or(Failure::Inflate { error }))?;
        let theirs = theirs.get(..count).unwrap_or_default();
        let count = read_full(&mut source, &mut ours).map_err(|error| unreadable(file, error))?;
        let ours = ours.get(..count).unwrap_or_default();
        same &= ours == theirs;
        zeros &= theirs.iter().all(|byte| *byte == 0);
        if theirs.is_empty() {
            // The mark at the end is taken too: when it is here, the daemon has let go of the block device.
            there.into_inner().finish()?;
            break;
        }
    }
    Ok(match (same, zeros) {
        (true, _) => Content::Same,
        (false, true) => Content::Zeros,
        (false, false) => Content::Different,
    })
}

/// Fills the buffer as far as there is something.
fn read_full(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The chunks of a dump, one after the other.
struct Chunks {
    connection: Connection,
    name: Name,
    chunk: Vec<u8>,
    taken: usize,
    ended: bool,
    /// What the connection said when reading failed.
    failure: Option<Failure>,
}

impl Chunks {
    /// Nothing but the mark may be left.
    fn finish(mut self) -> Result<(), Failure> {
        while self.taken == self.chunk.len() && !self.ended {
            self.next()?;
        }
        if self.ended { Ok(()) } else { Err(Failure::Unexpected { daemon: Daemon::Vmmd }) }
    }

    fn next(&mut self) -> Result<(), Failure> {
        let daemon = self.connection.daemon();
        match self.connection.next_payload()? {
            Some(Payload::Data(Data::Block(Some(Image::Inline(chunk))))) => {
                self.chunk.clear();
                self.chunk.extend_from_slice(chunk);
                self.taken = 0;
            }
            Some(Payload::Data(Data::Block(None))) => self.ended = true,
            Some(Payload::Failure(text)) => return Err(refused(self.name, text)),
            Some(_) => return Err(Failure::Unexpected { daemon }),
            None => return Err(Failure::Closed { daemon }),
        }
        Ok(())
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() && !self.ended {
            if let Err(failure) = self.next() {
                self.failure = Some(failure);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        let mut rest = self.chunk.get(self.taken..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}
