//! A new content arrives, in chunks or in a spool, as it is or as a zlib stream.

use flate2::{Decompress, FlushDecompress, Status};
use fulmar_core::chunks::{Chunks, Piece};
use fulmar_core::name::Name;

use super::{ContentError, Workspace, failed, size};
use crate::blocks::{Blocks, SwitchError};
use crate::disk::{Content, Folder};
use crate::spool::Spool;

/// Bytes that are left out together where all of them are zero: a block of usual file systems.
const HOLE_BYTES: usize = 4096;

static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// Bytes of a zlib stream beyond which it can be nothing but damaged or malicious, beside twice the bytes that it is for: one that
/// makes more of its input than it was would never come to an end.
const DEFLATE_EXTRA_BYTES: u64 = 64 * 1024;

/// Bytes after which what was written is made durable: whoever waits for the end does not wait for all of it then.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;

/// How far a content has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More is to come.
    More,
    /// All of it has arrived.
    Whole,
}

/// A new content of a block device, as far as it has come. Whoever drops it without [`Incoming::finish`] calls
/// [`Blocks::drop_aside`].
pub struct Incoming<F: Folder> {
    name: Name,
    file: F::File,
    /// Bytes of the block device, and those that have been written or left out.
    bytes: u64,
    at: u64,
    /// Bytes that were written since they were last made durable.
    unsynced: u64,
    chunks: Chunks,
    inflate: Option<Inflate>,
}

struct Inflate {
    stream: Decompress,
    taken: u64,
    ended: bool,
}

impl<F: Folder> Incoming<F> {
    /// A new content for this block device of so many bytes.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn begin(blocks: &Blocks<F>, name: &Name, bytes: u64, compressed: bool) -> Result<Self, ContentError> {
        let file = blocks.begin_aside(name, bytes).map_err(ContentError::File)?;
        let inflate = compressed.then(|| Inflate { stream: Decompress::new(true), taken: 0, ended: false });
        Ok(Self { name: *name, file, bytes, at: 0, unsynced: 0, chunks: Chunks::new(), inflate })
    }

    /// Takes what has come of a stream of chunks.
    ///
    /// # Errors
    /// [`ContentError`]: it is of no more use.
    pub fn take(&mut self, input: &[u8], workspace: &mut Workspace) -> Result<Progress, ContentError> {
        let mut input = input;
        loop {
            match self.chunks.next(&mut input).map_err(|_| ContentError::Cut)? {
                Piece::Bytes(bytes) => self.put(bytes, workspace)?,
                Piece::End => return Ok(Progress::Whole),
                // What is announced and does not fit need not be waited for.
                Piece::More if self.inflate.is_none() && self.chunks.announced() > self.bytes - self.at => {
                    return Err(ContentError::TooLarge);
                }
                Piece::More => return Ok(Progress::More),
            }
        }
    }

    /// Takes some of what is in a spool, from `offset` on, which is moved.
    ///
    /// # Errors
    /// [`ContentError`]: it is of no more use.
    pub fn take_spool(
        &mut self,
        spool: &Spool<F>,
        offset: &mut u64,
        workspace: &mut Workspace,
    ) -> Result<Progress, ContentError> {
        let mut piece = std::mem::take(&mut workspace.piece);
        let read = spool.read_at(&mut piece, *offset);
        let taken = read.map_err(ContentError::Spool).and_then(|read| {
            *offset += read as u64;
            self.put(&piece[..read], workspace).map(|()| if read == 0 { Progress::Whole } else { Progress::More })
        });
        workspace.piece = piece;
        taken
    }

    /// It is whole: puts it, durably, in the place of the old one.
    ///
    /// # Errors
    /// [`ContentError`]: the old one is in its place unless it is [`ContentError::Unsettled`], and nothing is left aside.
    pub fn finish(self, blocks: &Blocks<F>) -> Result<(), ContentError> {
        let name = self.name;
        let finished = self.settle(blocks);
        if finished.is_err() {
            // What cannot be removed now is removed at the next start.
            let _ = blocks.drop_aside(&name);
        }
        finished
    }

    fn settle(self, blocks: &Blocks<F>) -> Result<(), ContentError> {
        if self.inflate.is_some_and(|inflate| !inflate.ended) {
            return Err(ContentError::Compression);
        }
        self.file.sync().map_err(failed("make a new content durable"))?;
        blocks.switch(&self.name).map_err(|error| match error {
            SwitchError::NotSwitched(error) => ContentError::File(error),
            SwitchError::Unknown(error) => ContentError::Unsettled(error),
        })
    }

    fn put(&mut self, bytes: &[u8], workspace: &mut Workspace) -> Result<(), ContentError> {
        let Some(mut inflate) = self.inflate.take() else { return self.write(bytes) };
        let put = self.inflate(&mut inflate, bytes, workspace);
        self.inflate = Some(inflate);
        put
    }

    fn inflate(&mut self, inflate: &mut Inflate, bytes: &[u8], workspace: &mut Workspace) -> Result<(), ContentError> {
        inflate.taken += bytes.len() as u64;
        if inflate.taken > self.bytes.saturating_mul(2).saturating_add(DEFLATE_EXTRA_BYTES) {
            return Err(ContentError::TooLarge);
        }
        let mut rest = bytes;
        loop {
            if inflate.ended {
                return if rest.is_empty() { Ok(()) } else { Err(ContentError::Compression) };
            }
            let (before_in, before_out) = (inflate.stream.total_in(), inflate.stream.total_out());
            let status = inflate.stream.decompress(rest, &mut workspace.buffer, FlushDecompress::None);
            inflate.ended = status.map_err(|_| ContentError::Compression)? == Status::StreamEnd;
            rest = &rest[size(inflate.stream.total_in() - before_in)..];
            let made = size(inflate.stream.total_out() - before_out);
            self.write(&workspace.buffer[..made])?;
            // What filled the buffer may have left more behind.
            if rest.is_empty() && made < workspace.buffer.len() && !inflate.ended {
                return Ok(());
            }
        }
    }

    /// Writes what is not zero: the file is full of zeros.
    fn write(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        if bytes.len() as u64 > self.bytes - self.at {
            return Err(ContentError::TooLarge);
        }
        let (mut rest, mut written) = (bytes, 0);
        while !rest.is_empty() {
            // Up to the next bound of a block, so that holes are as large as can be.
            let to_bound = HOLE_BYTES - size((self.at + written as u64) % HOLE_BYTES as u64);
            let zero = |piece: &[u8]| *piece == ZEROS[..piece.len()];
            let first = rest.len().min(to_bound);
            let mut run = first;
            if zero(&rest[..first]) {
                written += run;
                rest = &bytes[written..];
                continue;
            }
            while let Some(next) = rest.get(run..rest.len().min(run + HOLE_BYTES)).filter(|next| !next.is_empty()) {
                if zero(next) {
                    break;
                }
                run += next.len();
            }
            let offset = self.at + written as u64;
            self.file.write_at(&rest[..run], offset).map_err(failed("write a new content"))?;
            self.unsynced += run as u64;
            written += run;
            rest = &bytes[written..];
        }
        self.at += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync().map_err(failed("make a new content durable"))?;
            self.unsynced = 0;
        }
        Ok(())
    }
}
