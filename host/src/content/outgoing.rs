//! A content is handed out, as it is or as a zlib stream, in chunks or in one message. Each step makes some bytes that are ready to
//! be sent; they are framed here, so that whoever sends them knows nothing of messages.

use std::io;
use std::ops::Range;

use flate2::{Compress, Compression, FlushCompress, Status};
use fulmar_core::limits::{CHUNK_BYTES, CONTENT_PIECE_BYTES, IMAGE_BYTES_MAX, NAME_BYTES_MAX};
use fulmar_core::wire::{self, Data, Header, Image, Message, Payload, Success, Text};

use super::{ContentError, Workspace, failed, size};
use crate::disk::{Content, Folder};
use crate::spool::{Spool, Spools};

/// Bytes of the longest message without its octets: a header with its name, tags and lengths.
const HEAD_BYTES_MAX: usize = NAME_BYTES_MAX + 128;

/// Bytes of content that one step looks at, at most: what compresses well would otherwise keep others waiting.
const STEP_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes of a compressed content that is held for one message: what does not compress gets a little longer.
const HELD_BYTES_MAX: u64 = IMAGE_BYTES_MAX + IMAGE_BYTES_MAX / 64;

/// In which form a content is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// 0 for the content as it is, more for a zlib stream of this level, 9 at most.
    pub level: u8,
    /// In one message instead of chunks.
    pub whole: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// The whole is being compressed: its length stands before it.
    Hold,
    /// The message that begins it.
    Head,
    Body,
    /// The mark at the end of the chunks.
    End,
    /// All has been made.
    Over,
}

/// A content on its way out.
pub struct Outgoing<F: Folder> {
    header: Header,
    form: Form,
    part: Part,
    file: F::File,
    bytes: u64,
    /// Bytes of the content, or of what is held of it, that have been used.
    offset: u64,
    deflate: Option<Compress>,
    held: Option<Spool<F>>,
    buffer: Box<[u8]>,
    /// Compressed bytes of the next chunk that are in the buffer.
    made: usize,
    ready: Range<usize>,
}

impl<F: Folder> Outgoing<F> {
    /// The content of this file of so many bytes. What it is compressed into to be held is made in `spools`.
    ///
    /// # Errors
    /// [`ContentError::Spool`].
    pub fn new(
        header: Header,
        file: F::File,
        bytes: u64,
        form: Form,
        spools: &Spools<F>,
    ) -> Result<Self, ContentError> {
        let hold = form.whole && form.level > 0;
        let deflate = (form.level > 0).then(|| Compress::new(Compression::new(u32::from(form.level.min(9))), true));
        Ok(Self {
            header,
            form,
            part: if hold { Part::Hold } else { Part::Head },
            file,
            bytes,
            offset: 0,
            deflate,
            held: if hold { Some(spools.create(HELD_BYTES_MAX)?) } else { None },
            buffer: vec![0; HEAD_BYTES_MAX + CONTENT_PIECE_BYTES].into_boxed_slice(),
            made: 0,
            ready: 0..0,
        })
    }

    /// The bytes that are ready to be sent.
    #[must_use]
    pub fn ready(&self) -> &[u8] {
        &self.buffer[self.ready.clone()]
    }

    /// So many of them have been sent.
    pub fn sent(&mut self, count: usize) {
        self.ready.start = (self.ready.start + count).min(self.ready.end);
    }

    /// Whether no further step makes anything.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.part == Part::Over
    }

    /// Makes the next bytes, or gets a bit closer to them. What was ready must have been sent.
    pub fn step(&mut self, workspace: &mut Workspace) {
        self.ready = 0..0;
        if let Err(error) = self.make(workspace) {
            // Within a message it can only be cut off. Between messages the client is told.
            let within = self.form.whole && self.part == Part::Body;
            self.part = Part::Over;
            if !within {
                let text = error.to_string();
                let failure = Payload::Failure(Text(text.as_bytes()));
                self.put(failure);
            }
        }
    }

    fn make(&mut self, workspace: &mut Workspace) -> Result<(), ContentError> {
        let compressed = self.form.level > 0;
        match (self.part, self.form.whole) {
            (Part::Over, _) => {}
            (Part::Hold, _) => self.hold(workspace)?,
            (Part::Head, false) => {
                self.part = Part::Body;
                self.put(Payload::Success(Success::BlockImage { compressed }));
            }
            (Part::Head, true) => {
                self.part = Part::Body;
                self.offset = 0;
                let len = self.held.as_ref().map_or(self.bytes, Spool::bytes);
                let image = Image::Diverted { len };
                self.put(Payload::Success(Success::OldBlockImage { compressed, image }));
            }
            (Part::Body, true) => self.copy()?,
            (Part::Body, false) if compressed => self.compress_chunk(workspace)?,
            (Part::Body, false) => self.chunks()?,
            (Part::End, _) => {
                self.part = Part::Over;
                self.put(Payload::Data(Data::Block(None)));
            }
        }
        Ok(())
    }

    /// Makes a message ready, up to the octets that follow it.
    fn put(&mut self, payload: Payload<'_>) {
        let header = self.header;
        // The texts are ours and fit.
        let written = wire::encode_head(&Message { header, payload }, &mut self.buffer).map_or(0, |it| it.head.len());
        self.ready = self.buffer.len() - written..self.buffer.len();
    }

    /// As many chunks as fit.
    fn chunks(&mut self) -> Result<(), ContentError> {
        let mut end = 0;
        while self.offset < self.bytes && end + HEAD_BYTES_MAX + CHUNK_BYTES <= self.buffer.len() {
            let len = CHUNK_BYTES.min(size(self.bytes - self.offset));
            let at = end + self.chunk_head(end, len);
            read_exact(&self.file, &mut self.buffer[at..at + len], self.offset)?;
            end = at + len;
            self.offset += len as u64;
        }
        self.ready = 0..end;
        if self.offset == self.bytes {
            self.part = Part::End;
        }
        Ok(())
    }

    /// Writes what stands before the octets of a chunk; its bytes.
    fn chunk_head(&mut self, at: usize, len: usize) -> usize {
        let mut head = [0; HEAD_BYTES_MAX];
        let octets = Image::Diverted { len: len as u64 };
        let message = Message { header: self.header, payload: Payload::Data(Data::Block(Some(octets))) };
        // A header fits by the bound of names.
        let head = wire::encode_head(&message, &mut head).map_or(&[][..], |frame| frame.head);
        self.buffer[at..at + head.len()].copy_from_slice(head);
        head.len()
    }

    /// Compresses until a chunk is full, the content is at its end, or the step has lasted long enough.
    fn compress_chunk(&mut self, workspace: &mut Workspace) -> Result<(), ContentError> {
        let place = HEAD_BYTES_MAX + self.made..HEAD_BYTES_MAX + CONTENT_PIECE_BYTES;
        let (made, ended) = deflate(
            &mut self.deflate,
            &self.file,
            (&mut self.offset, self.bytes),
            &mut self.buffer[place],
            &mut workspace.buffer,
        )?;
        self.made += made;
        if !ended && self.made < CONTENT_PIECE_BYTES {
            return Ok(());
        }
        let len = std::mem::take(&mut self.made);
        if len > 0 {
            let head = self.chunk_head(0, len);
            self.buffer.copy_within(0..head, HEAD_BYTES_MAX - head);
            self.ready = HEAD_BYTES_MAX - head..HEAD_BYTES_MAX + len;
        }
        if ended {
            self.part = Part::End;
        }
        Ok(())
    }

    /// Compresses some of it to be held.
    fn hold(&mut self, workspace: &mut Workspace) -> Result<(), ContentError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let content = (&mut self.offset, self.bytes);
        let (made, ended) = deflate(&mut self.deflate, &self.file, content, &mut self.buffer, &mut workspace.buffer)?;
        held.append(&self.buffer[..made])?;
        if ended {
            self.part = Part::Head;
        }
        Ok(())
    }

    /// The next octets of the one message.
    fn copy(&mut self) -> Result<(), ContentError> {
        let bytes = self.held.as_ref().map_or(self.bytes, Spool::bytes);
        let len = size(bytes - self.offset).min(self.buffer.len());
        let place = &mut self.buffer[..len];
        match &self.held {
            None => read_exact(&self.file, place, self.offset)?,
            Some(held) => {
                if held.read_at(place, self.offset)? < len {
                    return Err(failed("read a compressed content")(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
        self.offset += len as u64;
        self.ready = 0..len;
        if self.offset == bytes {
            self.part = Part::Over;
        }
        Ok(())
    }
}

/// Compresses from `offset` on until `out` is full, the stream is at its end or enough was looked at. Returns the bytes made, and
/// whether the stream is at its end.
fn deflate(
    stream: &mut Option<Compress>,
    file: &impl Content,
    (offset, bytes): (&mut u64, u64),
    out: &mut [u8],
    input: &mut [u8],
) -> Result<(usize, bool), ContentError> {
    let Some(stream) = stream else { return Ok((0, true)) };
    let (begin, mut filled) = (*offset, 0);
    while filled < out.len() && *offset - begin < STEP_BYTES_MAX {
        let len = size(bytes - *offset).min(input.len());
        read_exact(file, &mut input[..len], *offset)?;
        let flush = if len == 0 { FlushCompress::Finish } else { FlushCompress::None };
        let (before_in, before_out) = (stream.total_in(), stream.total_out());
        let status = stream.compress(&input[..len], &mut out[filled..], flush);
        let status = status.map_err(|error| failed("compress a content")(io::Error::other(error)))?;
        *offset += stream.total_in() - before_in;
        filled += size(stream.total_out() - before_out);
        if status == Status::StreamEnd {
            return Ok((filled, true));
        }
    }
    Ok((filled, false))
}

fn read_exact(file: &impl Content, into: &mut [u8], offset: u64) -> Result<(), ContentError> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => return Err(failed("read the file of a block device")(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => filled += read,
            Err(error) => return Err(failed("read the file of a block device")(error)),
        }
    }
    Ok(())
}
