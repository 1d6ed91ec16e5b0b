//! The strict reader. It borrows, never copies, and never looks behind the end of the element that it is in.
//!
//! One octet string of a frame may have been diverted to a file (a [`Cut`]): the lengths around it still count it, the
//! bytes do not hold it. The reader keeps both in step, so that the decoders need not know.

use super::error::{Malformed, Reason};
use super::number::{integer, long_length};
use super::tag;
use crate::name::Name;
use crate::time;

/// Where the content of one octet string was taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Byte of the head before which the content belongs.
    pub at: usize,
    /// Bytes taken out; more than 0.
    pub len: u64,
}

/// The content of an OCTET STRING.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Octets<'a> {
    /// Held here.
    Inline(&'a [u8]),
    /// Taken out; this long.
    Diverted(u64),
}

/// What is left to read of one element's content.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Position of `rest` in the whole.
    at: usize,
    /// Where content is missing; a length of 0 for nowhere.
    cut: Cut,
}

/// The content of one element, and how much of it was taken out.
struct Content<'a> {
    reader: Reader<'a>,
    missing: u64,
}

impl<'a> Reader<'a> {
    /// Reads bytes of which nothing was taken out.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0, cut: Cut { at: 0, len: 0 } }
    }

    /// Reads the bytes around a cut.
    #[must_use]
    pub fn with_cut(head: &'a [u8], cut: Option<Cut>) -> Self {
        Self { rest: head, at: 0, cut: cut.unwrap_or(Cut { at: 0, len: 0 }) }
    }

    /// The error of this reason at the present position.
    #[must_use]
    #[cold]
    pub fn error(&self, reason: Reason) -> Malformed {
        Malformed::new(reason, self.at)
    }

    /// Whether everything is read.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is not yet read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes of the whole before what is not yet read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The identifier octet of the next element.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`Reason::Trailing`].
    #[inline]
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(Reason::Trailing)) }
    }

    #[inline]
    fn content(&mut self, wanted: u8) -> Result<Content<'a>, Malformed> {
        let Some((first, rest)) = self.rest.split_first() else { return Err(self.error(Reason::Truncated)) };
        if *first != wanted {
            return Err(self.error(Reason::Tag));
        }
        let (len, rest) = match rest.split_first() {
            Some((short, rest)) if *short < 0x80 => (u64::from(*short), rest),
            _ => long_length(rest).map_err(|reason| self.error(reason))?,
        };
        let at = self.at.wrapping_add(self.rest.len().wrapping_sub(rest.len()));
        let missing = self.missing(at, len)?;
        let here = usize::try_from(len.wrapping_sub(missing)).ok();
        let Some((content, rest)) = here.and_then(|here| rest.split_at_checked(here)) else {
            return Err(self.error(Reason::Truncated));
        };
        self.rest = rest;
        self.at = at.wrapping_add(content.len());
        Ok(Content { reader: Reader { rest: content, at, cut: self.cut }, missing })
    }

    /// How many of the `len` bytes of content at `at` were taken out.
    #[inline]
    fn missing(&self, at: usize, len: u64) -> Result<u64, Malformed> {
        if self.cut.len == 0 {
            return Ok(0);
        }
        let Some(before) = self.cut.at.checked_sub(at) else {
            // The cut lies before this content: behind us, or within the header just read.
            return if self.cut.at > self.at { Err(self.error(Reason::Diverted)) } else { Ok(0) };
        };
        match len.checked_sub(before as u64) {
            None | Some(0) => Ok(0),
            Some(after) if after >= self.cut.len => Ok(self.cut.len),
            Some(_) => Err(self.error(Reason::Diverted)),
        }
    }

    /// The content of a primitive element, held here as a whole.
    #[inline]
    fn primitive(&mut self, wanted: u8) -> Result<&'a [u8], Malformed> {
        let content = self.content(wanted)?;
        if content.missing != 0 {
            return Err(content.reader.error(Reason::Diverted));
        }
        Ok(content.reader.rest)
    }

    /// The content of the next element as a reader of its own; nothing says that it will be read to its end.
    ///
    /// # Errors
    /// [`Malformed`] when the next element has another tag or does not fit.
    #[inline]
    pub fn open(&mut self, wanted: u8) -> Result<Reader<'a>, Malformed> {
        self.content(wanted).map(|content| content.reader)
    }

    /// Reads the whole content of the next element with `read`.
    ///
    /// # Errors
    /// As [`Reader::open`], what `read` says, and [`Reason::Trailing`] when `read` leaves something.
    #[inline]
    pub fn within<T>(
        &mut self,
        wanted: u8,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let mut content = self.open(wanted)?;
        let value = read(&mut content)?;
        content.finish()?;
        Ok(value)
    }

    /// As [`Reader::within`] where the next element has this tag; nothing where it has another.
    ///
    /// # Errors
    /// As [`Reader::within`].
    #[inline]
    pub fn optional<T>(
        &mut self,
        wanted: u8,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.peek() == Some(wanted) { self.within(wanted, read).map(Some) } else { Ok(None) }
    }

    /// The next element of this tag with its header, unread.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn element(&mut self, wanted: u8) -> Result<&'a [u8], Malformed> {
        let whole = self.rest;
        self.primitive(wanted)?;
        Ok(whole.get(..whole.len().wrapping_sub(self.rest.len())).unwrap_or_default())
    }

    /// An INTEGER of the wire's range, [`crate::limits::WIRE_INT_MIN`] to [`crate::limits::WIRE_INT_MAX`].
    ///
    /// # Errors
    /// [`Reason::Integer`] and those of [`Reader::open`].
    #[inline]
    pub fn integer(&mut self) -> Result<i64, Malformed> {
        let start = *self;
        let content = self.primitive(tag::INTEGER)?;
        integer(content).ok_or_else(|| start.error(Reason::Integer))
    }

    /// An INTEGER, or nothing where the next element is none.
    ///
    /// # Errors
    /// As [`Reader::integer`].
    #[inline]
    pub fn optional_integer(&mut self) -> Result<Option<i64>, Malformed> {
        if self.peek() == Some(tag::INTEGER) { self.integer().map(Some) } else { Ok(None) }
    }

    /// A BOOLEAN.
    ///
    /// # Errors
    /// [`Reason::Boolean`] and those of [`Reader::open`].
    #[inline]
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        let start = *self;
        match self.primitive(tag::BOOLEAN)? {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(start.error(Reason::Boolean)),
        }
    }

    /// A NULL.
    ///
    /// # Errors
    /// [`Reason::Null`] and those of [`Reader::open`].
    #[inline]
    pub fn null(&mut self) -> Result<(), Malformed> {
        let start = *self;
        if self.primitive(tag::NULL)?.is_empty() { Ok(()) } else { Err(start.error(Reason::Null)) }
    }

    /// The bytes of a UTF8String, which need not be UTF-8.
    ///
    /// # Errors
    /// Those of [`Reader::open`].
    #[inline]
    pub fn text(&mut self) -> Result<&'a [u8], Malformed> {
        self.primitive(tag::UTF8)
    }

    /// A UTF8String.
    ///
    /// # Errors
    /// [`Reason::Utf8`] and those of [`Reader::open`].
    #[inline]
    pub fn utf8(&mut self) -> Result<&'a str, Malformed> {
        let start = *self;
        core::str::from_utf8(self.text()?).map_err(|_| start.error(Reason::Utf8))
    }

    /// A UTF8String, or nothing where the next element is none.
    ///
    /// # Errors
    /// As [`Reader::utf8`].
    #[inline]
    pub fn optional_utf8(&mut self) -> Result<Option<&'a str>, Malformed> {
        if self.peek() == Some(tag::UTF8) { self.utf8().map(Some) } else { Ok(None) }
    }

    /// A name, brought to its one text form.
    ///
    /// # Errors
    /// [`Reason::Name`] and those of [`Reader::open`].
    #[inline]
    pub fn name(&mut self) -> Result<Name, Malformed> {
        let start = *self;
        Name::parse_bytes(self.text()?).map_err(|error| start.error(Reason::Name(error)))
    }

    /// A name, as [`Reader::name`], without a copy.
    ///
    /// # Errors
    /// As [`Reader::name`].
    #[inline]
    pub fn assign_name(&mut self, name: &mut Name) -> Result<(), Malformed> {
        let start = *self;
        name.assign(self.text()?).map_err(|error| start.error(Reason::Name(error)))
    }

    /// An OCTET STRING, held here or taken out.
    ///
    /// # Errors
    /// Those of [`Reader::open`].
    #[inline]
    pub fn octets(&mut self) -> Result<Octets<'a>, Malformed> {
        let content = self.content(tag::OCTETS)?;
        if content.missing == 0 {
            return Ok(Octets::Inline(content.reader.rest));
        }
        content.reader.finish()?;
        Ok(Octets::Diverted(content.missing))
    }

    /// An OCTET STRING that must be held here.
    ///
    /// # Errors
    /// Those of [`Reader::open`], and [`Reason::Diverted`].
    #[inline]
    pub fn held_octets(&mut self) -> Result<&'a [u8], Malformed> {
        self.primitive(tag::OCTETS)
    }

    /// A 64-bit number: an OCTET STRING of 8 bytes, the highest first.
    ///
    /// # Errors
    /// [`Reason::Number`] and those of [`Reader::open`].
    #[inline]
    pub fn number(&mut self) -> Result<i64, Malformed> {
        let start = *self;
        let content = self.primitive(tag::OCTETS)?;
        content.try_into().map(i64::from_be_bytes).map_err(|_| start.error(Reason::Number))
    }

    /// A MAC address: an OCTET STRING of 6 bytes.
    ///
    /// # Errors
    /// [`Reason::Mac`] and those of [`Reader::open`].
    #[inline]
    pub fn mac(&mut self) -> Result<[u8; 6], Malformed> {
        let start = *self;
        self.primitive(tag::OCTETS)?.try_into().map_err(|_| start.error(Reason::Mac))
    }

    /// A GeneralizedTime, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Reason::Time`] and those of [`Reader::open`].
    #[inline]
    pub fn time(&mut self) -> Result<i64, Malformed> {
        let start = *self;
        time::parse(self.primitive(tag::TIME)?).ok_or_else(|| start.error(Reason::Time))
    }
}
