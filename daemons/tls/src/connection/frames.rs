//! Where in a daemon's messages what was handed on to a client has come to: only between two of them can something else be said.

/// Bytes of the length before each message.
const LENGTH_BYTES: usize = 4;

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Frames {
    length: [u8; LENGTH_BYTES],
    /// Bytes of the length that were handed on.
    filled: usize,
    /// Bytes of the message that were not.
    left: usize,
}

impl Frames {
    /// These bytes were handed on.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                self.left -= count;
                bytes = bytes.get(count..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.length.get_mut(self.filled) {
                *place = *first;
            }
            self.filled += 1;
            bytes = rest;
            if self.filled == LENGTH_BYTES {
                self.filled = 0;
                // One of 0 or below is the end; nothing follows it.
                self.left = usize::try_from(i32::from_be_bytes(self.length)).unwrap_or(0);
            }
        }
    }

    /// Whether it is between two messages.
    pub(super) fn is_between(&self) -> bool {
        self.filled == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_between_messages_after_each_and_nowhere_else() {
        let stream = [&[0, 0, 0, 3][..], b"abc", &[0, 0, 1, 0], &[7; 256], &[0, 0, 0, 1], b"x"].concat();
        let ends = [0, 7, 7 + 260, 7 + 260 + 5];
        for piece in [1, 2, 3, 5, 7, 100, stream.len()] {
            let mut frames = Frames::default();
            let mut at = 0;
            assert!(frames.is_between());
            for bytes in stream.chunks(piece) {
                frames.pass(bytes);
                at += bytes.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "{piece}: {at}");
            }
        }
    }
}
