//! Bytes to lines. Nothing is held but a count: what a line has so far is already with whoever takes the pieces.

use crate::limits::CONSOLE_LINE_BYTES_MAX;

/// What is put at the end of a line that was cut at [`CONSOLE_LINE_BYTES_MAX`].
pub const TRUNCATED: &[u8] = b" [truncated]";

/// A part of what a stream of bytes says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// More bytes of the present line: at least one, no `\n` among them.
    Bytes(&'a [u8]),
    /// The present line is complete; without bytes before this, it is empty.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In a line that has this many bytes.
    Within(u16),
    /// The line was cut and marked; its end is still to be said.
    Marked,
    /// In what is left of a line that was cut.
    Dropping,
}

/// Cuts a stream into lines at each `\n`. Empty lines are lines, `\r` is a byte like any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Splitter {
    state: State,
}

const LINE_BYTES_MAX: u16 = 1024;
const _: () = assert!(LINE_BYTES_MAX as usize == CONSOLE_LINE_BYTES_MAX);

impl Splitter {
    /// At the beginning of a line.
    pub const NEW: Self = Self { state: State::Within(0) };

    /// The next piece of `chunk`, which becomes shorter. Nothing when all of it is used up: call until then.
    pub fn next_piece<'a>(&mut self, chunk: &mut &'a [u8]) -> Option<Piece<'a>> {
        if self.state == State::Marked {
            self.state = State::Dropping;
            return Some(Piece::End);
        }
        if self.state == State::Dropping {
            let end = chunk.iter().position(|byte| *byte == b'\n');
            *chunk = end.and_then(|end| chunk.get(end.saturating_add(1)..)).unwrap_or_default();
            end?;
            self.state = State::Within(0);
        }
        let State::Within(held) = self.state else { return None };
        if let Some(rest) = chunk.strip_prefix(b"\n") {
            *chunk = rest;
            self.state = State::Within(0);
            return Some(Piece::End);
        }
        if chunk.is_empty() {
            return None;
        }
        let room = LINE_BYTES_MAX.saturating_sub(held);
        if room == 0 {
            self.state = State::Marked;
            return Some(Piece::Bytes(TRUNCATED));
        }
        let length = chunk.iter().take(usize::from(room)).position(|byte| *byte == b'\n');
        let length = length.unwrap_or_else(|| chunk.len().min(usize::from(room)));
        let (bytes, rest) = chunk.split_at_checked(length)?;
        *chunk = rest;
        self.state = State::Within(held.saturating_add(u16::try_from(length).unwrap_or(room)));
        Some(Piece::Bytes(bytes))
    }

    /// The stream ends here. Whether that completes a line: one that was begun and has no `\n`.
    pub fn finish(&mut self) -> bool {
        let begun = matches!(self.state, State::Within(1..) | State::Marked);
        *self = Self::NEW;
        begun
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// All lines of a stream that comes in these chunks and then ends.
    fn lines<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::NEW;
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        for mut chunk in chunks {
            while let Some(piece) = splitter.next_piece(&mut chunk) {
                match piece {
                    Piece::Bytes(bytes) => line.extend_from_slice(bytes),
                    Piece::End => lines.push(core::mem::take(&mut line)),
                }
            }
            assert!(chunk.is_empty());
        }
        if splitter.finish() {
            lines.push(line);
        } else {
            assert!(line.is_empty());
        }
        lines
    }

    #[test]
    fn lines_of_streams() {
        let (full, over) = ([b'x'; CONSOLE_LINE_BYTES_MAX], [b'x'; CONSOLE_LINE_BYTES_MAX + 1]);
        let cut = [&full[..], TRUNCATED].concat();
        let cases: [(&[u8], &[&[u8]]); 11] = [
            (b"", &[]),
            (b"a", &[b"a"]),
            (b"a\n", &[b"a"]),
            (b"a\nb", &[b"a", b"b"]),
            (b"\n", &[b""]),
            (b"\n\na\n\n", &[b"", b"", b"a", b""]),
            (b"a\r\n\x1b[0m\xff\0\n", &[b"a\r", b"\x1b[0m\xff\0"]),
            (&full, &[&full]),
            (&[&full[..], b"\n"].concat(), &[&full]),
            (&[&over[..], b"yy\nz"].concat(), &[&cut, b"z"]),
            (&over, &[&cut]),
        ];
        for (stream, expected) in cases {
            assert_eq!(lines([stream]), expected);
            assert_eq!(lines(stream.chunks(1)), expected);
        }
    }

    /// The same in the obvious way.
    fn model(stream: &[u8]) -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = stream.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        for line in &mut lines {
            if line.len() > CONSOLE_LINE_BYTES_MAX {
                line.truncate(CONSOLE_LINE_BYTES_MAX);
                line.extend_from_slice(TRUNCATED);
            }
        }
        lines
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            parts in proptest::collection::vec((0_usize..1500, any::<bool>()), 0..12),
            sizes in proptest::collection::vec(1_usize..700, 1..5),
        ) {
            let mut stream = Vec::new();
            for (length, ends) in parts {
                stream.extend((b'a'..=b'z').cycle().take(length));
                stream.extend(ends.then_some(b'\n'));
            }
            let mut rest = &stream[..];
            let chunks = sizes.iter().cycle().map_while(|size| {
                let (chunk, after) = rest.split_at(rest.len().min(*size));
                rest = after;
                (!chunk.is_empty()).then_some(chunk)
            });
            prop_assert_eq!(lines(chunks), model(&stream));
        }
    }
}
