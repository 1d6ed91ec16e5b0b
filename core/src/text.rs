//! Short texts by value, for errors that name a thing and for names that the kernel bounds.

use core::fmt;

/// Up to `N` bytes of text; what is longer is cut.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Short<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Short<N> {
    /// No text.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; N] };

    /// The beginning of `text`, as far as it fits.
    #[must_use]
    pub fn cut(text: &[u8]) -> Self {
        const { assert!(N <= u8::MAX as usize) };
        let mut short = Self::EMPTY;
        for (place, byte) in short.bytes.iter_mut().zip(text) {
            *place = *byte;
            short.len = short.len.saturating_add(1);
        }
        short
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Display for Short<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{}", core::ascii::escape_default(*byte)))
    }
}

impl<const N: usize> fmt::Debug for Short<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
