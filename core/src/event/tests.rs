//! Segments that are whole, torn and damaged.

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "tests")]

use std::vec::Vec;

use super::*;
use crate::name::Name;
use crate::wire::{Deed, Event, LogEntry};

const HEADER: Header = Header { salt: 0x1234_5678, first: 7 };

fn entry(number: u64) -> LogEntry<'static> {
    let name = Name::parse("a:b").unwrap();
    let event = match number % 3 {
        0 => Event::Startup,
        1 => Event::Done { name, deed: Deed::CreatedUnikernel, user: Some(i64::from(number as u32)) },
        _ => Event::Start { name, pid: 7, taps: crate::wire::List::EMPTY, block: None },
    };
    LogEntry { unix_ms: number as i64 * 1000, event }
}

/// A segment of so many records, and where each begins.
fn segment(count: u64) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut places) = (encode_header(HEADER).to_vec(), Vec::new());
    for number in 0..count {
        let (mut der, mut record) = ([0; EVENT_BYTES_MAX], [0; RECORD_BYTES_MAX]);
        let payload = entry(number).encode(&mut der).unwrap();
        let whole = Record { sequence: HEADER.first + number, writer: number, payload };
        let len = encode_record(HEADER.salt, &whole, &mut record).unwrap();
        places.push(bytes.len());
        bytes.extend_from_slice(&record[..len]);
    }
    (bytes, places)
}

fn numbers(bytes: &[u8]) -> (Vec<u64>, Tail) {
    let mut seen = Vec::new();
    let tail = find_tail(HEADER, bytes, |record| {
        assert_eq!(record.entry().unwrap(), entry(record.sequence - HEADER.first));
        seen.push(record.sequence);
    });
    (seen, tail)
}

#[test]
fn what_is_written_is_read() {
    let (bytes, _) = segment(20);
    assert_eq!(decode_header(&bytes), Ok(HEADER));
    let (seen, tail) = numbers(&bytes);
    assert_eq!(seen, (7..27).collect::<Vec<_>>());
    assert_eq!(tail, Tail { next: 27, bytes: bytes.len() });
}

#[test]
fn a_torn_tail_costs_the_record_that_was_being_written() {
    let (bytes, places) = segment(5);
    for cut in HEADER_BYTES..bytes.len() {
        let whole = places[1..].iter().filter(|place| **place <= cut).count() as u64;
        let (seen, tail) = numbers(&bytes[..cut]);
        assert_eq!(seen, (7..7 + whole).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(tail.bytes, places[whole as usize]);
    }
}

#[test]
fn a_flipped_bit_costs_one_record() {
    let (bytes, places) = segment(6);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if bit / 8 < HEADER_BYTES {
            assert!(decode_header(&damaged).is_err(), "bit {bit}");
            continue;
        }
        let hit = places.iter().rposition(|place| *place <= bit / 8).unwrap() as u64;
        let (seen, tail) = numbers(&damaged);
        assert_eq!(seen, (7..13).filter(|number| number - 7 != hit).collect::<Vec<_>>(), "bit {bit}");
        let last_hit = hit == 5;
        assert_eq!(tail.next, if last_hit { 12 } else { 13 });
    }
}

#[test]
fn a_step_does_not_depend_on_how_much_is_shown() {
    let (mut bytes, places) = segment(200);
    bytes[places[50] + 1] ^= 0x40;
    let mut at = HEADER_BYTES;
    let (mut expected, mut seen) = (HEADER.first, Vec::new());
    while at < bytes.len() {
        let end = bytes.len().min(at + RECORD_BYTES_MAX + 100);
        match step(HEADER.salt, &bytes[at..end], expected, 207, end == bytes.len()) {
            Step::Record(record) => {
                seen.push(record.sequence);
                expected = record.sequence + 1;
                at += record.bytes();
            }
            Step::Skip(skip) => at += skip,
            Step::Short => break,
        }
    }
    assert_eq!(seen, (7..207).filter(|number| *number != 57).collect::<Vec<_>>());
}

#[test]
fn a_record_of_another_segment_or_place_is_none() {
    let (bytes, places) = segment(3);
    let record = &bytes[places[1]..places[2]];
    assert!(matches!(step(HEADER.salt, record, 8, 9, true), Step::Record(_)));
    assert_eq!(step(HEADER.salt + 1, record, 8, 9, true), Step::Short);
    assert_eq!(step(HEADER.salt, record, 9, 20, true), Step::Short);
    assert_eq!(step(HEADER.salt, record, 0, 8, true), Step::Short);
    let mut out = [0; RECORD_BYTES_MAX + 1];
    for payload in [&[][..], &[0; EVENT_BYTES_MAX + 1]] {
        assert!(encode_record(0, &Record { sequence: 1, writer: 0, payload }, &mut out).is_err());
    }
}
