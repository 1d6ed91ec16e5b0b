//! A stream of chunks: each is four bytes of length and as many raw bytes, and one of length 0 is the end (`docs/wire.md`,
//! block devices). A chunk may be of any length: its bytes are handed out as they come, and nothing is held.

use core::fmt;

/// A chunk of a negative length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoChunk;

impl fmt::Display for NoChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chunk has a negative length")
    }
}

impl core::error::Error for NoChunk {}

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'i> {
    /// All input is used and the stream goes on.
    More,
    /// Bytes of a chunk; not empty.
    Bytes(&'i [u8]),
    /// The end mark. What is left of the input is not of this stream.
    End,
}

/// The state of one stream between two pieces of input.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Chunks {
    /// Bytes of a length that have come, fewer than four.
    digits: u8,
    /// What they say, or bytes of the chunk that are still to come.
    left: u32,
    ended: bool,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunks {
    /// At the beginning.
    #[must_use]
    pub const fn new() -> Self {
        Self { digits: 0, left: 0, ended: false }
    }

    /// Reads on until something is to be told. `input` is moved past what is used. Call it again until it says
    /// [`Piece::More`]; after [`Piece::End`] it says only that.
    ///
    /// # Errors
    /// [`NoChunk`]; the stream is of no more use then.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Piece<'i>, NoChunk> {
        loop {
            if self.ended {
                return Ok(Piece::End);
            }
            if self.digits == 0 && self.left > 0 {
                let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
                let (piece, rest) = input.split_at_checked(size).unwrap_or((input, &[]));
                if piece.is_empty() {
                    return Ok(Piece::More);
                }
                *input = rest;
                self.left = self.left.saturating_sub(u32::try_from(piece.len()).unwrap_or(u32::MAX));
                return Ok(Piece::Bytes(piece));
            }
            let Some((digit, rest)) = input.split_first() else { return Ok(Piece::More) };
            *input = rest;
            self.left = (self.left << 8) | u32::from(*digit);
            self.digits = self.digits.wrapping_add(1) % 4;
            if self.digits == 0 {
                if self.left > i32::MAX.unsigned_abs() {
                    return Err(NoChunk);
                }
                self.ended = self.left == 0;
            }
        }
    }

    /// Bytes of the chunk that has begun which are still to come.
    #[must_use]
    pub fn announced(&self) -> u64 {
        if self.digits == 0 { u64::from(self.left) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: however a stream is cut, the same bytes come out and the same end is found. Method: all cuts of small streams.

    use super::*;

    /// What comes of a stream that arrives in these pieces.
    fn read(pieces: &[&[u8]]) -> (heapless::Vec<u8, 64>, Result<bool, NoChunk>) {
        let (mut chunks, mut read, mut ended) = (Chunks::new(), heapless::Vec::new(), false);
        for piece in pieces {
            let mut input = *piece;
            loop {
                match chunks.next(&mut input) {
                    Ok(Piece::More) => break,
                    Ok(Piece::Bytes(bytes)) => read.extend_from_slice(bytes).unwrap(),
                    Ok(Piece::End) => {
                        ended = true;
                        break;
                    }
                    Err(error) => return (read, Err(error)),
                }
            }
        }
        (read, Ok(ended))
    }

    #[test]
    fn the_same_however_it_is_cut() {
        let stream = [0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 1, 4, 0, 0, 0, 0, 9, 9];
        for one in 0..=stream.len() {
            for other in one..=stream.len() {
                let (bytes, ended) = read(&[&stream[..one], &stream[one..other], &stream[other..]]);
                assert_eq!((bytes.as_slice(), ended), (&[1, 2, 3, 4][..], Ok(true)), "{one} {other}");
            }
            let (_, ended) = read(&[&stream[..one]]);
            assert_eq!(ended, Ok(one >= 16), "{one}");
        }
    }

    #[test]
    fn lengths_at_the_bounds() {
        assert_eq!(read(&[&[0, 0, 0, 0]]), (heapless::Vec::new(), Ok(true)));
        assert_eq!(read(&[&[0x80, 0, 0, 0, 1]]).1, Err(NoChunk));
        assert_eq!(read(&[&[0xff, 0xff, 0xff, 0xff]]).1, Err(NoChunk));
        let (mut chunks, mut input) = (Chunks::new(), &[0x7f, 0xff, 0xff, 0xff, 7][..]);
        assert_eq!(chunks.next(&mut input), Ok(Piece::Bytes(&[7])));
        assert_eq!(chunks.announced(), u64::from(i32::MAX.unsigned_abs()) - 1);
        assert_eq!(chunks.next(&mut input), Ok(Piece::More));
    }
}
