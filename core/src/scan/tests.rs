//! The scanner: chopped at every place, and everything that is too much.

use std::vec::Vec;

use super::*;

const LIMITS: Limits = Limits { divert_bytes_min: 4, diverted_bytes_max: 64 };

/// What a stream in these pieces gives: heads with their cuts, and all diverted bytes.
type Seen = (Vec<(Vec<u8>, Option<Cut>)>, Vec<u8>);

fn scan<'a>(limits: Limits, head_len: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Seen, ScanError> {
    let mut scanner = Scanner::new(limits);
    let mut head = std::vec![0; head_len];
    let (mut frames, mut diverted) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match scanner.next(&mut head, &mut piece)? {
                Event::More => break,
                Event::DivertBegin { len } => assert!(len > limits.divert_bytes_min),
                Event::Diverted(bytes) => diverted.extend_from_slice(bytes),
                Event::Frame { head_len, cut } => frames.push((head[..head_len].to_vec(), cut)),
            }
        }
        assert!(piece.is_empty());
    }
    assert!(scanner.is_between_frames() || frames.is_empty());
    Ok((frames, diverted))
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    frame
}

#[test]
fn state_is_small() {
    assert!(size_of::<Scanner>() <= 96, "{}", size_of::<Scanner>());
}

#[test]
fn the_large_octet_string_is_taken_out() {
    let stream = frame(b"\x30\x0c\x02\x01\x05\x04\x05image\x05\x00");
    let expected = (b"\x30\x0c\x02\x01\x05\x04\x05\x05\x00".to_vec(), Some(Cut { at: 7, len: 5 }));
    assert_eq!(scan(LIMITS, 16, [&stream[..]]), Ok((std::vec![expected], b"image".to_vec())));
}

#[test]
fn chopping_changes_nothing() {
    let mut stream = frame(b"\x30\x0c\x02\x01\x05\x04\x05image\x05\x00");
    stream
        .extend(frame(b"\x30\x82\x00\x20\xbf\x20\x81\x1b\x24\x06\x04\x04held\x04\x81\x0bdeeper down\x01\x01\xff\xee"));
    stream.extend(frame(b"abc"));
    let whole = scan(LIMITS, 64, [&stream[..]]).unwrap();
    assert_eq!((whole.0.len(), whole.1.as_slice()), (3, &b"imagedeeper down"[..]));
    assert_eq!(scan(LIMITS, 64, stream.chunks(1)).unwrap(), whole);
    for first in 0..stream.len() {
        for second in first..stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(scan(LIMITS, 64, pieces).unwrap(), whole, "cut at {first} and {second}");
        }
    }
}

#[test]
fn what_is_too_much_is_refused_at_once() {
    for (stream, error) in [
        (&b"\0\0\0\0"[..], ScanError::NoLength),
        (b"\x80\0\0\0", ScanError::NoLength),
        (b"\xff\xff\xff\xff", ScanError::NoLength),
        (b"\x7f\xff\xff\xff", ScanError::FrameTooLarge { len: 0x7fff_ffff }),
        (b"\0\0\0\x51", ScanError::FrameTooLarge { len: 0x51 }),
        (b"\0\0\0\x40\x30\x3e\x0c\x3c0123456789abcdef", ScanError::HeadTooLarge),
        (b"\0\0\0\x50\x04\x41", ScanError::DivertedTooLarge { len: 0x41, max: 64 }),
        (b"\0\0\0\x09\x04\x08", ScanError::Overrun),
        (b"\0\0\0\x50\x04\x05image\x04\x05", ScanError::DivertedTwice),
    ] {
        let mut scanner = Scanner::new(LIMITS);
        let mut rest = stream;
        let error_seen = loop {
            match scanner.next(&mut [0; 16], &mut rest) {
                Ok(Event::More) => panic!("{stream:?} was taken"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error_seen, error);
        assert_eq!(scanner.next(&mut [0; 16], &mut &b"more"[..]), Err(error));
    }
    assert_eq!(scan(LIMITS, 8, [&frame(b"\x30\x06\x04\x04held")[..]]).unwrap().0.len(), 1);
}

#[test]
fn nonsense_is_left_to_the_decoder() {
    let nonsense = frame(b"\x30\x80\x04\x05image\x00\x00");
    assert_eq!(scan(LIMITS, 16, [&nonsense[..]]).unwrap(), (std::vec![(nonsense[4..].to_vec(), None)], Vec::new()));
}
