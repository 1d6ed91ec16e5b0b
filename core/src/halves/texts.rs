//! A list of texts inside a message, borrowed from its bytes: each is ended by a NUL, as the kernel wants them.

use core::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// A list of texts that are free of NULs, such as an argument vector or the names of interfaces.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Texts<'a>(&'a [u8]);

impl<'a> Texts<'a> {
    /// No text.
    pub const EMPTY: Self = Self(&[]);

    /// Takes bytes in which each text ends with a NUL; none where the last does not.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        matches!(bytes.last(), None | Some(0)).then_some(Self(bytes))
    }

    /// The texts with their NULs.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The texts, each with its NUL.
    pub fn with_nul(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.0.split_inclusive(|byte| *byte == 0)
    }

    /// The texts, without NULs.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.with_nul().map(|text| text.strip_suffix(&[0]).unwrap_or(text))
    }
}

impl fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for text in self.iter() {
            write!(f, "\"{}\" ", text.escape_ascii())?;
        }
        f.write_str("]")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Texts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Deserialize::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("a text without its NUL"))
    }
}

/// No room for another text, or a NUL in one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextsFull;

impl fmt::Display for TextsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many or too long texts for one message, or a NUL in one")
    }
}

impl core::error::Error for TextsFull {}

/// Fills a buffer with texts.
#[derive(Debug)]
pub struct TextsWriter<'b> {
    buffer: &'b mut [u8],
    /// Bytes of finished texts.
    len: usize,
    /// Bytes of the text being written by [`fmt::Write`], after `len`.
    open: usize,
}

impl<'b> TextsWriter<'b> {
    /// Begins at the front of `buffer`.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0, open: 0 }
    }

    /// Adds one text.
    ///
    /// # Errors
    /// [`TextsFull`]; the texts before stay.
    pub fn push(&mut self, text: &[u8]) -> Result<(), TextsFull> {
        self.open = 0;
        self.extend(text)?;
        self.close()
    }

    /// Adds one text that is made by formatting.
    ///
    /// # Errors
    /// [`TextsFull`]; the texts before stay.
    pub fn push_format(&mut self, text: fmt::Arguments<'_>) -> Result<(), TextsFull> {
        self.open = 0;
        fmt::Write::write_fmt(self, text).map_err(|_| TextsFull)?;
        self.close()
    }

    /// The texts so far.
    #[must_use]
    pub fn texts(&self) -> Texts<'_> {
        Texts(self.buffer.get(..self.len).unwrap_or_default())
    }

    /// The texts, for as long as the buffer lives.
    #[must_use]
    pub fn finish(self) -> Texts<'b> {
        let Self { buffer, len, .. } = self;
        let buffer: &'b [u8] = buffer;
        Texts(buffer.get(..len).unwrap_or_default())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TextsFull> {
        let start = self.len.checked_add(self.open).ok_or(TextsFull)?;
        let end = start.checked_add(bytes.len()).ok_or(TextsFull)?;
        if bytes.contains(&0) {
            return Err(TextsFull);
        }
        self.buffer.get_mut(start..end).ok_or(TextsFull)?.copy_from_slice(bytes);
        self.open = end.saturating_sub(self.len);
        Ok(())
    }

    fn close(&mut self) -> Result<(), TextsFull> {
        let end = self.len.checked_add(self.open).ok_or(TextsFull)?;
        *self.buffer.get_mut(end).ok_or(TextsFull)? = 0;
        self.len = end.checked_add(1).ok_or(TextsFull)?;
        self.open = 0;
        Ok(())
    }
}

impl fmt::Write for TextsWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
