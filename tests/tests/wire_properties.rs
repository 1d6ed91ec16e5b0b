//! What holds for all messages, not only the recorded ones: round trips, totality, and that chopping a stream changes
//! nothing. The oracle for the encoding itself is RustCrypto's `der`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;

use der::asn1::AnyRef;
use der::{Reader as _, SliceReader, Tagged};
use fulmar_core::scan::{Event, Limits, ScanError, Scanner};
use fulmar_core::wire::{self, Arguments, Cut, Frame, Message, Policy};
use fulmar_tests::{checks, generate, render};
use proptest::prelude::*;
use serde_json::Value;

const BUFFER_BYTES: usize = 64 * 1024;

fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_BYTES];
    wire::encode(message, &mut buffer).unwrap().to_vec()
}

fn recorded() -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/index.json");
    let vectors: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let hex = vectors.iter().filter_map(|vector| vector["hex"].as_str());
    hex.map(render::from_hex).collect()
}

/// All decoders of whole inputs.
fn decode_all(bytes: &[u8]) {
    checks::message(bytes);
    checks::message_with_cut(bytes);
    checks::arguments(bytes);
    checks::policy(bytes);
    checks::certificate(bytes);
    checks::state_file(bytes);
    checks::stream(bytes);
}

proptest! {
    #[test]
    fn a_message_comes_back(message in generate::message()) {
        let bytes = encode(&message);
        let decoded = wire::decode(Frame::whole(&bytes)).unwrap();
        prop_assert_eq!(render::sorted(&render::message(&decoded)), render::sorted(&render::message(&message)));
        prop_assert_eq!(encode(&decoded), bytes.clone());
        prop_assert_eq!(wire::peek_header(&bytes), Some(message.header));
        walk(&bytes);
        // One byte less than it takes is not enough, and is said to be.
        prop_assert!(wire::encode(&message, &mut vec![0; bytes.len() - 1]).is_err());
    }

    #[test]
    fn what_is_stored_comes_back(arguments in generate::arguments(), policy in generate::policy()) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let stored = arguments.encode(&mut buffer).unwrap().to_vec();
        prop_assert_eq!(Arguments::decode(&stored).unwrap().encode(&mut buffer).unwrap(), &stored[..]);
        let stored = policy.encode(&mut buffer).unwrap().to_vec();
        prop_assert_eq!(Policy::decode(&stored).unwrap().encode(&mut buffer).unwrap(), &stored[..]);
    }

    #[test]
    fn nothing_at_random_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        decode_all(&bytes);
    }

    #[test]
    fn an_image_may_be_elsewhere(message in generate::message(), at in any::<proptest::sample::Index>()) {
        let frame = frame(&encode(&message));
        let limits = Limits { divert_bytes_min: 40, diverted_bytes_max: 1 << 20 };
        let whole = scan(limits, &[&frame]);
        let at = at.index(frame.len());
        prop_assert_eq!(&whole, &scan(limits, &[&frame[..at], &frame[at..]]));
        prop_assert_eq!(&whole, &scan(limits, &frame.chunks(7).collect::<Vec<_>>()));
        let Ok(Scanned { head, cut: Some(cut), diverted }) = whole else { return Ok(()) };
        prop_assert_eq!(cut.len, diverted.len() as u64);
        let whole = [&head[..cut.at], &diverted, &head[cut.at..]].concat();
        prop_assert_eq!(&whole, &frame[4..]);
        // Either the long octets are an image, or their place is none for long ones.
        if let Ok(decoded) = wire::decode(Frame { head: &head, cut: Some(cut) }) {
            let mut buffer = vec![0; BUFFER_BYTES];
            let again = wire::encode_head(&decoded, &mut buffer).unwrap();
            prop_assert_eq!(&again.head[4..], &head[..]);
            prop_assert_eq!(again.cut, Some(Cut { at: cut.at + 4, len: cut.len }));
        }
    }

    #[test]
    fn a_cut_anywhere_never_panics(message in generate::message(), at in 0..400_usize, len in 1..400_u64) {
        let bytes = encode(&message);
        let _ = wire::decode(Frame { head: &bytes, cut: Some(Cut { at, len }) });
    }

    #[test]
    fn elements_are_read_as_the_oracle_reads_them(
        tag in prop_oneof![Just(1_u8), Just(2), Just(4), Just(5), Just(12)],
        bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(0x80), Just(0xff), Just(0x7f), any::<u8>()], 0..12),
        honest in any::<bool>(),
    ) {
        let mut element = vec![tag];
        if honest {
            element.push(u8::try_from(bytes.len()).unwrap());
        }
        element.extend(bytes);
        checks::compare(&element);
    }

    #[test]
    fn long_lengths_are_read_as_the_oracle_reads_them(len in 0..70_000_usize, count in 0..5_usize, missing in 0..2_usize) {
        let digits = len.to_be_bytes();
        let mut element = vec![4, u8::try_from(0x80 + count).unwrap()];
        element.extend(&digits[digits.len() - count..]);
        element.resize(element.len() + len.saturating_sub(missing), 7);
        checks::compare(&element);
    }

    #[test]
    fn times_are_read_as_the_oracle_reads_them(
        year in 1960..10_000_u32, month in 0..14_u32, day in 0..33_u32, hour in 0..25_u32, minute in 0..61_u32, second in 0..61_u32,
        thousandths in proptest::option::of(0..1000_u32),
    ) {
        let mut text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}");
        if let Some(thousandths) = thousandths {
            text.push_str(&format!(".{thousandths:03}"));
        }
        text.push('Z');
        checks::compare(&[&[0x18, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat());
    }
}

/// All that we write is DER in the oracle's eyes too, down to the last element.
fn walk(bytes: &[u8]) {
    let mut reader = SliceReader::new(bytes).unwrap();
    while !reader.is_finished() {
        let any: AnyRef<'_> = reader.decode().unwrap();
        if any.tag().is_constructed() {
            walk(any.value());
        }
    }
}

#[test]
fn decoders_are_total_on_short_inputs() {
    decode_all(&[]);
    for first in 0..=255_u8 {
        decode_all(&[first]);
        for second in 0..=255_u8 {
            decode_all(&[first, second]);
            // Beyond these first bytes every decoder stops at once.
            let deeper = matches!(first, 0x30 | 0xa0..=0xa6);
            for third in (0..=255_u8).filter(|third| deeper || *third == 0) {
                decode_all(&[first, second, third]);
            }
        }
    }
}

#[test]
fn one_wrong_byte_never_panics_and_never_lies() {
    for mut bytes in recorded().into_iter().filter(|bytes| bytes.len() < 400) {
        for at in 0..bytes.len() {
            let original = bytes[at];
            for wrong in [0, 1, 0x30, 0x7f, 0x80, 0x84, 0xff, original ^ 1, original ^ 0x20, original.wrapping_add(1)] {
                bytes[at] = wrong;
                decode_all(&bytes);
            }
            bytes[at] = original;
            decode_all(&bytes[..at]);
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Scanned {
    head: Vec<u8>,
    cut: Option<Cut>,
    diverted: Vec<u8>,
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// Pushes the pieces of one frame.
fn scan(limits: Limits, pieces: &[&[u8]]) -> Result<Scanned, ScanError> {
    let (mut scanner, mut head, mut diverted) = (Scanner::new(limits), vec![0; BUFFER_BYTES], Vec::new());
    for mut piece in pieces.iter().copied() {
        loop {
            match scanner.next(&mut head, &mut piece)? {
                Event::More => break,
                Event::DivertBegin { .. } => {}
                Event::Diverted(bytes) => diverted.extend_from_slice(bytes),
                Event::Frame { head_len, cut } => {
                    head.truncate(head_len);
                    return Ok(Scanned { head, cut, diverted });
                }
            }
        }
    }
    panic!("the frame is not complete")
}

#[test]
fn recorded_messages_in_any_three_pieces_are_the_same() {
    let limits = Limits { divert_bytes_min: 8, diverted_bytes_max: 100 };
    let mut diverted = 0;
    for bytes in recorded().into_iter().filter(|bytes| bytes.len() < 120).step_by(5) {
        let frame = frame(&bytes);
        let whole = scan(limits, &[&frame]);
        diverted += usize::from(whole.as_ref().is_ok_and(|scanned| scanned.cut.is_some()));
        for first in 0..=frame.len() {
            for second in first..=frame.len() {
                let pieces = [&frame[..first], &frame[first..second], &frame[second..]];
                assert_eq!(scan(limits, &pieces), whole);
            }
        }
    }
    assert!(diverted > 5, "{diverted}");
}
