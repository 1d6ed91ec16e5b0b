//! The push scanner: finds frames in a stream of bytes, however it is chopped, and keeps no more of each than its head.
//!
//! A frame is four bytes of length and a DER message. The scanner copies the message to a buffer of its caller, all
//! but one OCTET STRING that is too large to be held: that one is handed out piece by piece, for a spool file, and its
//! place is remembered as a [`Cut`]. So what a connection can make us hold does not depend on what it sends.
//!
//! It never judges the message. Where the bytes make no sense it goes on copying: the decoder says what is wrong.

use core::fmt;

use crate::der::{Cut, tag};

/// What a scanner lets pass. The size of the head is the size of the buffer that it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// OCTET STRINGs of more bytes than this are taken out.
    pub divert_bytes_min: u64,
    /// Bytes of an OCTET STRING that is taken out.
    pub diverted_bytes_max: u64,
}

impl Limits {
    /// Nothing is taken out: the buffer holds whole frames.
    pub const HOLD_ALL: Self = Self { divert_bytes_min: u64::MAX, diverted_bytes_max: 0 };
}

/// Why no more can be read from a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanError {
    /// A frame of no bytes, or of a negative number: the peer's way to end a conversation.
    NoLength,
    /// A frame that can be nothing but too large.
    FrameTooLarge {
        /// Bytes that it announces.
        len: u64,
    },
    /// A frame of which more than the buffer would have to be held.
    HeadTooLarge,
    /// An OCTET STRING beyond the limit.
    DivertedTooLarge {
        /// Bytes that it announces.
        len: u64,
        /// Bytes that it may have.
        max: u64,
    },
    /// A second OCTET STRING that cannot be held.
    DivertedTwice,
    /// An OCTET STRING that is longer than the frame that it is in.
    Overrun,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLength => f.write_str("a message of length 0 or less ends the conversation"),
            Self::FrameTooLarge { len } => write!(f, "message of {len} bytes: that is more than may be sent here"),
            Self::HeadTooLarge => f.write_str("message too large: only its image may be long"),
            Self::DivertedTooLarge { len, max } => {
                write!(f, "image of {len} bytes: at most {max} bytes may be sent here")
            }
            Self::DivertedTwice => f.write_str("message with two long octet strings: only its image may be long"),
            Self::Overrun => f.write_str("an octet string is longer than its message"),
        }
    }
}

impl core::error::Error for ScanError {}

/// What the scanner found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'i> {
    /// All input is used and the frame goes on.
    More,
    /// An OCTET STRING of this many bytes begins, and is taken out.
    DivertBegin {
        /// Its bytes.
        len: u64,
    },
    /// The next piece of it; not empty.
    Diverted(&'i [u8]),
    /// The frame is complete. What is left of the input is of the next.
    Frame {
        /// Bytes of the buffer that it takes.
        head_len: usize,
        /// Where an OCTET STRING was taken out.
        cut: Option<Cut>,
    },
}

/// Where in a frame the scanner is. `left` counts bytes of the part, `value` gathers a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    FrameLength {
        left: u8,
        value: u32,
    },
    Identifier,
    LongIdentifier {
        first: u8,
    },
    Length {
        first: u8,
    },
    LongLength {
        first: u8,
        left: u8,
        value: u64,
    },
    Content {
        left: u64,
    },
    Diverted {
        left: u64,
    },
    /// No element can be told apart any more, or none needs to be: the rest of the frame.
    Rest,
    Failed(ScanError),
}

/// The state of one stream between two pieces of input.
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: Limits,
    part: Part,
    frame_left: u64,
    head_len: usize,
    cut: Option<Cut>,
}

impl Scanner {
    /// A stream at the start of a frame.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, part: START, frame_left: 0, head_len: 0, cut: None }
    }

    /// Bytes of the frame that are in the buffer so far: enough, mostly, to tell whom a refusal goes to.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// Whether no byte of a frame has come.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.part == START
    }

    /// Reads on until something is to be told. `input` is moved past what is used. Call it again until it says
    /// [`Event::More`]; always give it the same `head`.
    ///
    /// # Errors
    /// [`ScanError`]; the stream is of no more use then, and every further call says the same.
    pub fn next<'i>(&mut self, head: &mut [u8], input: &mut &'i [u8]) -> Result<Event<'i>, ScanError> {
        match self.advance(head, input) {
            Err(error) => {
                self.part = Part::Failed(error);
                Err(error)
            }
            event => event,
        }
    }

    fn advance<'i>(&mut self, head: &mut [u8], input: &mut &'i [u8]) -> Result<Event<'i>, ScanError> {
        loop {
            match self.part {
                Part::Failed(error) => return Err(error),
                Part::FrameLength { left, value } => {
                    let Some((byte, rest)) = input.split_first() else { return Ok(Event::More) };
                    *input = rest;
                    self.head_len = 0;
                    self.cut = None;
                    self.frame_length(head, left, (value << 8) | u32::from(*byte))?;
                }
                Part::Content { left: 0 } => self.part = Part::Identifier,
                Part::Content { left } => {
                    let Some(used) = self.copy(head, input, left)? else { return Ok(Event::More) };
                    self.part = Part::Content { left: left.wrapping_sub(used) };
                }
                Part::Diverted { left: 0 } => self.part = Part::Identifier,
                Part::Diverted { left } => {
                    let size = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let (piece, rest) = input.split_at_checked(size).unwrap_or((input, &[]));
                    if piece.is_empty() {
                        return Ok(Event::More);
                    }
                    *input = rest;
                    let used = piece.len() as u64;
                    self.frame_left = self.frame_left.wrapping_sub(used);
                    self.part = Part::Diverted { left: left.wrapping_sub(used) };
                    return Ok(Event::Diverted(piece));
                }
                _ if self.frame_left == 0 => {
                    self.part = START;
                    return Ok(Event::Frame { head_len: self.head_len, cut: self.cut });
                }
                Part::Rest => {
                    if self.copy(head, input, self.frame_left)?.is_none() {
                        return Ok(Event::More);
                    }
                }
                Part::Identifier | Part::LongIdentifier { .. } | Part::Length { .. } | Part::LongLength { .. } => {
                    let Some(byte) = input.first().copied() else { return Ok(Event::More) };
                    self.copy(head, input, 1)?;
                    if let Some(len) = self.header(byte)? {
                        return Ok(Event::DivertBegin { len });
                    }
                }
            }
        }
    }

    /// One more byte of the frame's length.
    fn frame_length(&mut self, head: &[u8], left: u8, value: u32) -> Result<(), ScanError> {
        let left = left.wrapping_sub(1);
        self.part = Part::FrameLength { left, value };
        if left > 0 {
            return Ok(());
        }
        let len = u64::from(value);
        if value == 0 || value > i32::MAX.unsigned_abs() {
            return Err(ScanError::NoLength);
        }
        if len > self.limits.diverted_bytes_max.saturating_add(head.len() as u64) {
            return Err(ScanError::FrameTooLarge { len });
        }
        self.frame_left = len;
        // In a frame that short nothing can be taken out: it is one copy.
        self.part = if len <= self.limits.divert_bytes_min { Part::Rest } else { Part::Identifier };
        Ok(())
    }

    /// Copies up to `count` bytes to the head; nothing where there is no input.
    fn copy(&mut self, head: &mut [u8], input: &mut &[u8], count: u64) -> Result<Option<u64>, ScanError> {
        let count = usize::try_from(count.min(self.frame_left)).unwrap_or(usize::MAX).min(input.len());
        let Some((piece, rest)) = input.split_at_checked(count) else { return Ok(None) };
        if piece.is_empty() {
            return Ok(None);
        }
        let end = self.head_len.checked_add(count).ok_or(ScanError::HeadTooLarge)?;
        let place = head.get_mut(self.head_len..end).ok_or(ScanError::HeadTooLarge)?;
        place.copy_from_slice(piece);
        *input = rest;
        self.head_len = end;
        self.frame_left = self.frame_left.wrapping_sub(count as u64);
        Ok(Some(count as u64))
    }

    /// One more byte of an element's header. The length, where the content is to be taken out.
    fn header(&mut self, byte: u8) -> Result<Option<u64>, ScanError> {
        match self.part {
            Part::Identifier if byte & 0x1f == 0x1f => self.part = Part::LongIdentifier { first: byte },
            Part::Identifier => self.part = Part::Length { first: byte },
            Part::LongIdentifier { first } if byte < 0x80 => self.part = Part::Length { first },
            Part::Length { first } if byte < 0x80 => return self.content(first, u64::from(byte)),
            Part::Length { first } => {
                let left = byte & 0x7f;
                self.part =
                    if (1..=8).contains(&left) { Part::LongLength { first, left, value: 0 } } else { Part::Rest };
            }
            Part::LongLength { first, left, value } => {
                let value = (value << 8) | u64::from(byte);
                let left = left.wrapping_sub(1);
                if left == 0 {
                    return self.content(first, value);
                }
                self.part = Part::LongLength { first, left, value };
            }
            _ => {}
        }
        Ok(None)
    }

    /// The header of an element of `len` bytes is complete.
    fn content(&mut self, first: u8, len: u64) -> Result<Option<u64>, ScanError> {
        if first == tag::OCTETS && len > self.limits.divert_bytes_min {
            if self.cut.is_some() {
                return Err(ScanError::DivertedTwice);
            }
            if len > self.limits.diverted_bytes_max {
                return Err(ScanError::DivertedTooLarge { len, max: self.limits.diverted_bytes_max });
            }
            if len > self.frame_left {
                return Err(ScanError::Overrun);
            }
            self.cut = Some(Cut { at: self.head_len, len });
            self.part = Part::Diverted { left: len };
            return Ok(Some(len));
        }
        self.part = match first & CONSTRUCTED {
            // The elements within come one after the other: nobody needs to know how deep they are.
            CONSTRUCTED => Part::Identifier,
            _ if len > self.frame_left => Part::Rest,
            _ => Part::Content { left: len },
        };
        Ok(None)
    }
}

const START: Part = Part::FrameLength { left: 4, value: 0 };

/// The bit of an identifier that says that the content is made of elements.
const CONSTRUCTED: u8 = 0x20;

#[cfg(test)]
mod tests;
