//! One bounded buffer for what varies in length: the DER of each unikernel's arguments.
//!
//! Entries lie without gaps in the order of their arrival. Taking one out moves those behind it, so the owner of the
//! spans must follow with [`Span::shift`].

/// Where an entry lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Span {
    at: u32,
    len: u32,
}

impl Span {
    /// No bytes.
    pub(super) const EMPTY: Self = Self { at: 0, len: 0 };

    /// The span after the removal of `gone`.
    pub(super) fn shift(&mut self, gone: Self) {
        if self.at > gone.at {
            self.at = self.at.saturating_sub(gone.len);
        }
    }
}

/// The arena is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ArenaFull;

/// `A` bytes of entries.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Arena<const A: usize> {
    bytes: heapless::Vec<u8, A>,
}

impl<const A: usize> Arena<A> {
    /// An arena without entries.
    pub(super) const fn new() -> Self {
        const { assert!(A <= u32::MAX as usize) };
        Self { bytes: heapless::Vec::new() }
    }

    /// Bytes of all entries.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Keeps `entry`.
    ///
    /// # Errors
    /// [`ArenaFull`], and then nothing has changed.
    pub(super) fn insert(&mut self, entry: &[u8]) -> Result<Span, ArenaFull> {
        let at = u32::try_from(self.bytes.len()).map_err(|_| ArenaFull)?;
        let len = u32::try_from(entry.len()).map_err(|_| ArenaFull)?;
        self.bytes.extend_from_slice(entry).map_err(|_| ArenaFull)?;
        Ok(Span { at, len })
    }

    /// The bytes of an entry.
    pub(super) fn get(&self, span: Span) -> &[u8] {
        let start = usize::try_from(span.at).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(span.len).unwrap_or(usize::MAX));
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Puts bytes in the place of an entry; `false`, and nothing has changed, where they are not as many.
    pub(super) fn replace(&mut self, span: Span, entry: &[u8]) -> bool {
        let start = usize::try_from(span.at).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(span.len).unwrap_or(usize::MAX));
        let place = self.bytes.get_mut(start..end).filter(|place| place.len() == entry.len());
        place.map(|place| place.copy_from_slice(entry)).is_some()
    }

    /// Takes out an entry; every other span must then be [`Span::shift`]ed.
    pub(super) fn remove(&mut self, span: Span) {
        let start = usize::try_from(span.at).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(span.len).unwrap_or(usize::MAX));
        let len = self.bytes.len();
        if start > end || end > len {
            return;
        }
        self.bytes.copy_within(end.., start);
        self.bytes.truncate(len.saturating_sub(end.saturating_sub(start)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_close_up() {
        let mut arena = Arena::<8>::new();
        let first = arena.insert(b"abc").unwrap();
        let mut second = arena.insert(b"defg").unwrap();
        assert_eq!(arena.insert(b"hi"), Err(ArenaFull));
        assert_eq!(arena.get(second), b"defg");
        arena.remove(first);
        second.shift(first);
        assert_eq!(arena.get(second), b"defg");
        let third = arena.insert(b"hijk").unwrap();
        assert_eq!(arena.get(third), b"hijk");
        assert!(arena.replace(second, b"DEFG") && !arena.replace(third, b"hi"));
        assert_eq!((arena.get(second), arena.get(third)), (&b"DEFG"[..], &b"hijk"[..]));
    }
}
