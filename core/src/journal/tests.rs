//! Goal: whatever happens to the bytes of a journal, its records come back exactly or it is refused.
//! Method: journals of arbitrary records, written in batches, then cut, flipped, zeroed and spliced.

#![allow(clippy::arithmetic_side_effects, reason = "tests")]

extern crate std;

use proptest::prelude::*;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::*;

/// A record that owns its parts.
#[derive(Clone, Debug)]
enum Owned {
    Unikernel(String, u64, [u8; 32], Vec<u8>),
    UnikernelGone(String),
    Policy(String, Vec<u8>),
    PolicyGone(String),
    Block(String, u64),
    BlockGone(String),
}

impl Owned {
    fn record(&self) -> Record<'_> {
        match self {
            Self::Unikernel(name, unit, digest, arguments) => {
                Record::Unikernel { name, unit: *unit, digest: *digest, image_bytes: *unit, target: 2, arguments }
            }
            Self::UnikernelGone(name) => Record::UnikernelGone { name },
            Self::Policy(path, policy) => Record::Policy { path, policy },
            Self::PolicyGone(path) => Record::PolicyGone { path },
            Self::Block(name, size_mb) => Record::Block { name, size_mb: *size_mb },
            Self::BlockGone(name) => Record::BlockGone { name },
        }
    }
}

fn any_record() -> impl Strategy<Value = Owned> {
    let name = "[a-z]{1,12}";
    let bytes = || prop::collection::vec(any::<u8>(), 0..90);
    prop_oneof![
        (name, any::<u64>(), any::<[u8; 32]>(), bytes()).prop_map(|(n, u, d, a)| Owned::Unikernel(n, u, d, a)),
        name.prop_map(Owned::UnikernelGone),
        (name, bytes()).prop_map(|(n, p)| Owned::Policy(n, p)),
        name.prop_map(Owned::PolicyGone),
        (name, any::<u64>()).prop_map(|(n, s)| Owned::Block(n, s)),
        name.prop_map(Owned::BlockGone),
    ]
}

/// Records in batches: those of one batch are written together and made durable together.
fn any_batches() -> impl Strategy<Value = Vec<Vec<Owned>>> {
    prop::collection::vec(prop::collection::vec(any_record(), 1..4), 1..6)
}

const HEADER: Header = Header { salt: 0x5eed, base: 41 };

/// The bytes of a journal and where each record begins, and the end.
fn journal(batches: &[Vec<Owned>]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = encode_header(HEADER).to_vec();
    let mut offsets = vec![bytes.len()];
    let mut generation = HEADER.base;
    for batch in batches {
        let durable = generation;
        for record in batch {
            generation += 1;
            let mut buffer = [0; 1024];
            let len = encode(HEADER.salt, Stamp { generation, durable }, &record.record(), &mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..len]);
            offsets.push(bytes.len());
        }
    }
    (bytes, offsets)
}

/// What comes back: how many records, each checked against what was written, and the verdict.
fn replay(bytes: &[u8], written: &[Owned]) -> Result<(usize, Tail), Refused> {
    let mut replay = Replay::new(bytes)?;
    assert_eq!(replay.header(), HEADER);
    let mut count = 0;
    while let Some(entry) = replay.next_entry()? {
        assert_eq!(entry.record, written[count].record(), "silently wrong");
        count += 1;
        assert_eq!(entry.generation, HEADER.base + count as u64);
    }
    Ok((count, replay.tail()?))
}

proptest! {
    #[test]
    fn a_whole_journal_comes_back(batches in any_batches()) {
        let (bytes, _) = journal(&batches);
        let all = batches.concat();
        let (count, tail) = replay(&bytes, &all).unwrap();
        prop_assert_eq!(count, all.len());
        prop_assert_eq!(tail, Tail::Clean { bytes: bytes.len() as u64, generation: HEADER.base + count as u64 });
    }

    #[test]
    fn a_truncated_journal_keeps_exactly_its_whole_records(batches in any_batches(), cut in any::<prop::sample::Index>()) {
        let (bytes, offsets) = journal(&batches);
        let cut = HEADER_BYTES + cut.index(bytes.len() - HEADER_BYTES + 1);
        let whole = offsets.iter().filter(|offset| **offset <= cut).count() - 1;
        let (count, tail) = replay(&bytes[..cut], &batches.concat()).unwrap();
        prop_assert_eq!(count, whole);
        let (bytes, generation) = (offsets[whole] as u64, HEADER.base + whole as u64);
        let expected = if offsets[whole] == cut { Tail::Clean { bytes, generation } } else { Tail::Torn { bytes, generation } };
        prop_assert_eq!(tail, expected);
    }

    #[test]
    fn a_flipped_bit_in_what_was_acknowledged_is_refused(
        batches in any_batches(), last in any_record(), at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let mut batches = batches;
        let (older, _) = journal(&batches);
        batches.push(vec![last]);
        let (mut bytes, _) = journal(&batches);
        bytes[at.index(older.len())] ^= 1 << bit;
        prop_assert!(replay(&bytes, &batches.concat()).is_err());
    }

    #[test]
    fn a_flipped_bit_in_the_last_write_loses_no_more_than_that_write(
        batches in any_batches(), at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let (mut bytes, _) = journal(&batches);
        let (older, _) = journal(&batches[..batches.len() - 1]);
        let kept: usize = batches[..batches.len() - 1].iter().map(Vec::len).sum();
        let at = older.len() + at.index(bytes.len() - older.len());
        bytes[at] ^= 1 << bit;
        let (count, tail) = replay(&bytes, &batches.concat()).unwrap();
        prop_assert!(count >= kept && count < batches.concat().len());
        let torn = matches!(tail, Tail::Torn { .. });
        prop_assert!(torn);
    }

    #[test]
    fn a_torn_last_write_is_cut_whatever_parts_of_it_are_on_the_disk(
        batches in any_batches(), lost in prop::collection::vec(any::<bool>(), 64),
    ) {
        // Blocks of 16 bytes stand for the disk's sectors.
        let (mut bytes, _) = journal(&batches);
        let (older, _) = journal(&batches[..batches.len() - 1]);
        let kept: usize = batches[..batches.len() - 1].iter().map(Vec::len).sum();
        for (block, lost) in bytes[older.len()..].chunks_mut(16).zip(lost) {
            if lost {
                block.fill(0);
            }
        }
        let (count, _) = replay(&bytes, &batches.concat()).unwrap();
        prop_assert!(count >= kept);
    }

    #[test]
    fn a_missing_or_doubled_record_is_refused(batches in any_batches(), at in any::<prop::sample::Index>()) {
        let (bytes, offsets) = journal(&batches);
        let index = at.index(offsets.len() - 1);
        let (start, end) = (offsets[index], offsets[index + 1]);
        let doubled = [&bytes[..end], &bytes[start..]].concat();
        prop_assert!(replay(&doubled, &[batches.concat(), batches.concat()].concat()).is_err());
        if end < bytes.len() {
            let missing = [&bytes[..start], &bytes[end..]].concat();
            prop_assert!(replay(&missing, &batches.concat()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let whole = [&encode_header(HEADER)[..], &bytes].concat();
        prop_assert_eq!(replay(&whole, &[]).unwrap().0, 0);
        prop_assert_eq!(Replay::new(&bytes).unwrap_err(), Refused::NotAJournal);
    }
}

#[test]
fn a_record_quoted_in_an_argument_proves_nothing() {
    // Somebody who does not know the salt puts a record into its arguments, then the machine loses power.
    let mut quoted = [0; 256];
    let record = Record::UnikernelGone { name: "a" };
    let stamp = Stamp { generation: HEADER.base + 3, durable: HEADER.base + 2 };
    let len = encode(0, stamp, &record, &mut quoted).unwrap();
    let batches = [vec![Owned::Policy("p".into(), [&quoted[..len], &[0; 40]].concat())]];
    let (bytes, _) = journal(&batches);
    let (count, tail) = replay(&bytes[..bytes.len() - 1], &batches.concat()).unwrap();
    assert!(count == 0 && matches!(tail, Tail::Torn { .. }));
}

#[test]
fn a_record_that_is_too_large_is_refused_before_it_is_written() {
    let arguments = [7; PAYLOAD_BYTES_MAX];
    let record = Record::Policy { path: "p:", policy: &arguments };
    assert_eq!(put(&record, &mut [0; RECORD_BYTES_MAX + 100]), Err(Full));
    assert_eq!(put(&Record::PolicyGone { path: "p:" }, &mut [0; 10]), Err(Full));
    let largest = Record::Unikernel {
        name: core::str::from_utf8(&[b'x'; NAME_BYTES_MAX]).unwrap(),
        unit: u64::MAX,
        digest: [255; 32],
        image_bytes: u64::MAX,
        target: 2,
        arguments: &[7; ARGUMENTS_BYTES_MAX],
    };
    assert!(put(&largest, &mut [0; RECORD_BYTES_MAX]).is_ok());
}

#[test]
fn a_later_version_is_named() {
    let mut header = encode_header(HEADER);
    header[8] = 2;
    assert_eq!(Replay::new(&header).unwrap_err(), Refused::Version(2));
}

/// The records of a fixture, the last generation being 10, after a header that all of them have.
fn fixture(bytes: &[u8]) -> Vec<Record<'_>> {
    let mut replay = Replay::new(bytes).unwrap();
    assert_eq!(replay.header(), Header { salt: 0x1234_5678, base: 6 });
    let mut records = Vec::new();
    while let Some(entry) = replay.next_entry().unwrap() {
        records.push(entry);
    }
    assert_eq!(records.last().unwrap().generation, 10);
    assert_eq!(replay.tail().unwrap(), Tail::Clean { bytes: bytes.len() as u64, generation: 10 });
    records.iter().map(|entry| entry.record).collect()
}

/// The first format, byte for byte: it is read for ever.
#[test]
fn fixture_of_format_1() {
    let unikernel = Record::Unikernel {
        name: "foo:web",
        unit: 300,
        digest: [0xab; 32],
        image_bytes: 70_000,
        target: 1,
        arguments: &[0x30, 0],
    };
    let expected = [
        unikernel,
        Record::UnikernelGone { name: "foo:web" },
        Record::Policy { path: "foo:", policy: &[0x30, 0] },
        Record::PolicyGone { path: "foo:" },
    ];
    assert_eq!(fixture(include_bytes!("fixture-1.journal")), expected);
}

/// The same format with the records of block devices, which came later.
#[test]
fn fixture_of_format_1_with_block_devices() {
    let expected = [
        Record::Policy { path: "foo:", policy: &[0x30, 0] },
        Record::Block { name: "foo:storage", size_mb: 300 },
        Record::Block { name: ":disk", size_mb: u64::MAX },
        Record::BlockGone { name: "foo:storage" },
    ];
    assert_eq!(fixture(include_bytes!("fixture-1-blocks.journal")), expected);
}
