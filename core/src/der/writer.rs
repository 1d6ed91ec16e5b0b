//! The writer. It fills a buffer from its end, so that a length is known when its header is written, and no element is
//! ever measured before it is written. Callers therefore write the last field first.
//!
//! It never fails half way: what does not fit is dropped, and [`Writer::finish`] says so.

use core::cmp::Ordering;
use core::fmt;

use super::number::integer;
use super::reader::Cut;
use super::tag;
use crate::time;

/// What should have been encoded does not fit the buffer, or holds octets that are not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message does not fit its buffer")
    }
}

impl core::error::Error for Full {}

/// A message in the making: the bytes from `start` to the end of the buffer.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    start: usize,
    /// Octets that belong here and are sent from elsewhere, and how many bytes follow them.
    absent: u64,
    after_absent: usize,
    full: bool,
}

impl<'b> Writer<'b> {
    /// An empty message at the end of `buffer`.
    #[must_use]
    pub fn new(buffer: &'b mut [u8]) -> Self {
        let start = buffer.len();
        Self { buffer, start, absent: 0, after_absent: 0, full: false }
    }

    /// The whole message.
    ///
    /// # Errors
    /// [`Full`] when it did not fit, or when octets of it were left out.
    pub fn finish(self) -> Result<&'b [u8], Full> {
        match self.finish_cut()? {
            (bytes, None) => Ok(bytes),
            (_, Some(_)) => Err(Full),
        }
    }

    /// The message, and where the octets that were left out belong.
    ///
    /// # Errors
    /// [`Full`] when it did not fit.
    pub fn finish_cut(self) -> Result<(&'b [u8], Option<Cut>), Full> {
        if self.full {
            return Err(Full);
        }
        let bytes = self.buffer.get(self.start..).ok_or(Full)?;
        let at = bytes.len().checked_sub(self.after_absent).ok_or(Full)?;
        Ok((bytes, (self.absent > 0).then_some(Cut { at, len: self.absent })))
    }

    /// Bytes written so far, those left out included.
    #[inline]
    #[must_use]
    pub fn written(&self) -> u64 {
        (self.buffer.len().wrapping_sub(self.start) as u64).wrapping_add(self.absent)
    }

    /// Puts bytes before what is there.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        let start = self.start.wrapping_sub(bytes.len());
        match self.buffer.get_mut(start..self.start) {
            Some(place) if place.len() == bytes.len() => {
                place.copy_from_slice(bytes);
                self.start = start;
            }
            _ => self.full = true,
        }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        match self.start.checked_sub(1).and_then(|start| Some((start, self.buffer.get_mut(start)?))) {
            Some((start, place)) => {
                *place = byte;
                self.start = start;
            }
            None => self.full = true,
        }
    }

    /// The header of an element whose content of `len` bytes has been written.
    #[inline]
    pub fn header(&mut self, tag: u8, len: u64) {
        let [.., low] = len.to_be_bytes();
        if len < 0x80 {
            self.bytes(&[tag, low]);
        } else if len < 0x100 {
            self.bytes(&[tag, 0x81, low]);
        } else {
            self.long_header(tag, len);
        }
    }

    fn long_header(&mut self, tag: u8, len: u64) {
        let digits = len.to_be_bytes();
        let mut count = 0x80_u8;
        for digit in digits.iter().skip_while(|digit| **digit == 0) {
            let _ = digit;
            count = count.wrapping_add(1);
        }
        for digit in digits.iter().rev().take(usize::from(count & 0x7f)) {
            self.byte(*digit);
        }
        self.bytes(&[tag, count]);
    }

    /// An element around what `write` writes.
    #[inline]
    pub fn within(&mut self, tag: u8, write: impl FnOnce(&mut Self)) {
        let end = self.written();
        write(self);
        self.header(tag, self.written().wrapping_sub(end));
    }

    /// A primitive element.
    #[inline]
    pub fn primitive(&mut self, tag: u8, content: &[u8]) {
        self.bytes(content);
        self.header(tag, content.len() as u64);
    }

    /// A UTF8String.
    #[inline]
    pub fn text(&mut self, text: &[u8]) {
        self.primitive(tag::UTF8, text);
    }

    /// A UTF8String, or nothing.
    #[inline]
    pub fn optional_text(&mut self, text: Option<&str>) {
        if let Some(text) = text {
            self.text(text.as_bytes());
        }
    }

    /// An INTEGER, in as few bytes as it takes.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        if let Ok(small) = i8::try_from(value) {
            let [byte] = small.to_be_bytes();
            return self.bytes(&[tag::INTEGER, 1, byte]);
        }
        let digits = value.to_be_bytes();
        let sign: u8 = if value < 0 { 0xff } else { 0x00 };
        let mut rest = digits.as_slice();
        while let [first, second, ..] = rest {
            if *first != sign || (second ^ sign) >= 0x80 {
                break;
            }
            rest = rest.split_first().map_or(rest, |(_, rest)| rest);
        }
        self.primitive(tag::INTEGER, rest);
    }

    /// An INTEGER, or nothing.
    #[inline]
    pub fn optional_integer(&mut self, value: Option<i64>) {
        if let Some(value) = value {
            self.integer(value);
        }
    }

    /// A BOOLEAN.
    #[inline]
    pub fn boolean(&mut self, value: bool) {
        self.bytes(&[tag::BOOLEAN, 1, if value { 0xff } else { 0x00 }]);
    }

    /// A NULL.
    #[inline]
    pub fn null(&mut self) {
        self.bytes(&[tag::NULL, 0]);
    }

    /// An OCTET STRING.
    #[inline]
    pub fn octets(&mut self, octets: &[u8]) {
        self.primitive(tag::OCTETS, octets);
    }

    /// An OCTET STRING whose `len` octets are sent from elsewhere. One message can have one.
    pub fn absent_octets(&mut self, len: u64) {
        if len > 0 {
            self.full |= self.absent > 0;
            self.after_absent = self.buffer.len().wrapping_sub(self.start);
            self.absent = len;
        }
        self.header(tag::OCTETS, len);
    }

    /// A 64-bit number as an OCTET STRING of 8 bytes.
    #[inline]
    pub fn number(&mut self, value: i64) {
        self.octets(&value.to_be_bytes());
    }

    /// A GeneralizedTime of milliseconds since 1970; what is outside the years 0 to 9999 becomes the nearest inside.
    pub fn time(&mut self, unix_ms: i64) {
        let mut text = [0; time::TEXT_BYTES_MAX];
        self.primitive(tag::TIME, time::format(unix_ms, &mut text));
    }

    /// Sorts the elements written since `end` (a value of [`Writer::written`]) by `order`, as a SET OF wants it.
    /// Elements mostly come sorted, so the common case is one pass that only compares.
    pub fn sort_since(&mut self, end: u64, order: fn(&[u8], &[u8]) -> Ordering) {
        let len = usize::try_from(self.written().wrapping_sub(end)).unwrap_or(usize::MAX);
        let end = self.start.saturating_add(len);
        let Some(region) = self.buffer.get_mut(self.start..end) else { return };
        let mut sorted = 0;
        let mut last: &[u8] = &[];
        while let Some(next) = element(region, sorted) {
            if !last.is_empty() && order(last, next) == Ordering::Greater {
                break;
            }
            last = next;
            sorted = sorted.saturating_add(next.len());
        }
        while let Some(next) = element(region, sorted) {
            let size = next.len();
            let mut place = 0;
            while let Some(smaller) = element(region, place) {
                if place >= sorted || order(smaller, next) == Ordering::Greater {
                    break;
                }
                place = place.saturating_add(smaller.len());
            }
            sorted = sorted.saturating_add(size);
            if let Some(part) = region.get_mut(place..sorted) {
                part.rotate_right(size.min(part.len()));
            }
        }
    }
}

/// Elements by their encoded bytes: the order of a SET OF.
#[must_use]
pub fn by_encoding(a: &[u8], b: &[u8]) -> Ordering {
    a.cmp(b)
}

/// INTEGERs by their values, texts by their bytes: the order in which the peer lists what it keeps as a set.
#[must_use]
pub fn by_value(a: &[u8], b: &[u8]) -> Ordering {
    let (one, other) = (content(a), content(b));
    if a.first() == Some(&tag::INTEGER) { integer(one).cmp(&integer(other)) } else { one.cmp(other) }
}

/// The element at `at`, which this writer wrote.
fn element(region: &[u8], at: usize) -> Option<&[u8]> {
    let rest = region.get(at..)?;
    let header = header_len(rest)?;
    let content = match rest.get(1..header)? {
        [short] => usize::from(*short),
        [_, digits @ ..] => digits.iter().fold(0_usize, |len, digit| (len << 8) | usize::from(*digit)),
        [] => return None,
    };
    rest.get(..header.checked_add(content)?)
}

fn content(element: &[u8]) -> &[u8] {
    header_len(element).and_then(|header| element.get(header..)).unwrap_or_default()
}

fn header_len(element: &[u8]) -> Option<usize> {
    let first = usize::from(*element.get(1)?);
    if first < 0x80 { Some(2) } else { (first & 0x7f).checked_add(2) }
}
