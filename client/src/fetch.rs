//! The one reply that is not held in memory: an image, taken from the stream in pieces.

use fulmar_core::limits::{DIVERT_BYTES_MIN, FRAME_HEAD_BYTES_MAX, IMAGE_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::scan::{Event, Limits, ScanError, Scanner};
use fulmar_core::wire::{Cut, Frame, Image, Success};

use crate::connection::{Connection, Daemon};
use crate::error::Failure;
use crate::new_file::NewFile;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;

const LIMITS: Limits = Limits { divert_bytes_min: DIVERT_BYTES_MIN as u64, diverted_bytes_max: IMAGE_BYTES_MAX };

impl Connection {
    /// Waits for the image of `name`. The file that it goes to is opened when the daemon has agreed.
    ///
    /// # Errors
    /// As [`Connection::receive`], what `open` says, and what the file says.
    pub fn receive_image(
        &mut self,
        name: Name,
        open: impl FnOnce() -> Result<NewFile, Failure>,
    ) -> Result<NewFile, Failure> {
        let daemon = self.daemon();
        let mut scanner = Scanner::new(LIMITS);
        let mut head = vec![0; FRAME_HEAD_BYTES_MAX];
        let mut piece = vec![0; PIECE_BYTES];
        let (mut open, mut file) = (Some(open), None);
        loop {
            let mut input: &[u8] = self.read_some(&mut piece)?;
            loop {
                match scanner.next(&mut head, &mut input).map_err(|error| scan_failure(daemon, error))? {
                    Event::More => break,
                    Event::DivertBegin { len } => {
                        // In this reply nothing comes after the image: what is there before it is all there will be.
                        let at = scanner.head_len();
                        let frame = Frame { head: head.get(..at).unwrap_or_default(), cut: Some(Cut { at, len }) };
                        file = Some(agreed(self.success(name, frame)?, daemon, &mut open)?.0);
                    }
                    Event::Diverted(bytes) => {
                        file.as_mut().ok_or(Failure::Unexpected { daemon })?.take(bytes)?;
                    }
                    Event::Frame { .. } if file.is_some() => return file.ok_or(Failure::Unexpected { daemon }),
                    Event::Frame { head_len, cut } => {
                        let frame = Frame { head: head.get(..head_len).unwrap_or_default(), cut };
                        let (mut file, held) = agreed(self.success(name, frame)?, daemon, &mut open)?;
                        file.take(held)?;
                        return Ok(file);
                    }
                }
            }
        }
    }
}

/// The file for the image that the daemon sends, and what of the image is in its message.
fn agreed<'a, F: FnOnce() -> Result<NewFile, Failure>>(
    success: Success<'a>,
    daemon: Daemon,
    open: &mut Option<F>,
) -> Result<(NewFile, &'a [u8]), Failure> {
    let (Success::Image { compressed, image }, Some(open)) = (success, open.take()) else {
        return Err(Failure::Unexpected { daemon });
    };
    let mut file = open()?;
    if compressed {
        file.inflate();
    }
    match image {
        Image::Inline(bytes) => Ok((file, bytes)),
        Image::Diverted { .. } => Ok((file, &[])),
    }
}

fn scan_failure(daemon: Daemon, error: ScanError) -> Failure {
    match error {
        ScanError::NoLength => Failure::Closed { daemon },
        ScanError::FrameTooLarge { len: bytes } | ScanError::DivertedTooLarge { len: bytes, .. } => {
            Failure::Oversize { daemon, bytes }
        }
        ScanError::HeadTooLarge | ScanError::DivertedTwice | ScanError::Overrun => Failure::Unexpected { daemon },
    }
}
