//! Text whose encoding nobody has checked: replies and console lines may hold any bytes.

use core::fmt;

use crate::der::{Malformed, Reader, Writer};
use crate::wire::list::{Form, Item};

/// Bytes that should be UTF-8. Shown with everything escaped that could move a terminal's cursor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Text<'a> {
    /// The text, where it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        core::str::from_utf8(self.0).ok()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?
                } else {
                    write!(f, "{character}")?
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl<'a> Item<'a> for Text<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.text().map(Text)
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.text(self.0);
    }
}

impl<'a> Item<'a> for &'a str {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.utf8()
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.text(self.as_bytes());
    }
}
