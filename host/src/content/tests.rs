//! Goal: a content is the old one or the new one, wholly, whatever comes and whatever fails; what is handed out is what is there.
//! Method: all lengths around the bounds, both forms, streams that are cut, damaged and too long, a folder that fails and forgets.

use std::io::Write as _;

use flate2::write::{ZlibDecoder, ZlibEncoder};
use fulmar_core::wire::Frame;

use super::*;
use crate::blocks::Blocks;
use crate::disk::simulated::{Fault, SimulatedFolder};
use crate::disk::{Content, Folder};
use crate::spool::Spools;
use fulmar_core::name::Name;
use fulmar_core::wire::{self, Data, Header, Image, Payload, Success};

const BYTES: usize = 3 * 4096 + 512;

fn name() -> Name {
    Name::parse("p:a").unwrap()
}

/// A block device of [`BYTES`] whose bytes are all 7, durably.
fn device() -> (SimulatedFolder, Blocks<SimulatedFolder>) {
    let folder = SimulatedFolder::default();
    let blocks = Blocks::new(folder.clone());
    blocks.make(&name(), BYTES as u64).unwrap();
    let file = blocks.open(&name()).unwrap();
    file.write_at(&[7; BYTES], 0).unwrap();
    Content::sync(&file).unwrap();
    (folder, blocks)
}

fn content(blocks: &Blocks<SimulatedFolder>) -> Vec<u8> {
    let mut content = vec![0; 2 * BYTES];
    let read = blocks.open(&name()).unwrap().read_at(&mut content, 0).unwrap();
    content.truncate(read);
    content
}

/// Something of this length that has zeros in it and compresses a bit.
fn sample(len: usize) -> Vec<u8> {
    let byte = |at: usize| if at / 4096 % 2 == 1 { 0 } else { (at * at / 7 % 251) as u8 };
    (0..len).map(byte).collect()
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(BYTES, 0);
    padded
}

fn compressed(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn chunked(content: &[u8], chunk: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for piece in content.chunks(chunk) {
        stream.extend((piece.len() as u32).to_be_bytes());
        stream.extend(piece);
    }
    stream.extend([0; 4]);
    stream
}

/// Sets it by a stream that comes in pieces of this size.
fn set(blocks: &Blocks<SimulatedFolder>, stream: &[u8], piece: usize, is_compressed: bool) -> Result<(), ContentError> {
    let mut workspace = Workspace::default();
    let mut incoming = Incoming::begin(blocks, &name(), BYTES as u64, is_compressed)?;
    for piece in stream.chunks(piece) {
        match incoming.take(piece, &mut workspace) {
            Ok(Progress::More) => {}
            Ok(Progress::Whole) => return incoming.finish(blocks),
            Err(error) => {
                // Where the power is off it goes at the next start.
                let _ = blocks.drop_aside(&name());
                return Err(error);
            }
        }
    }
    blocks.drop_aside(&name()).unwrap();
    Err(ContentError::Cut)
}

#[test]
fn every_length_comes_out_as_it_went_in() {
    for len in [0, 1, 511, 4095, 4096, 4097, 8192, 8193, 3 * 4096, BYTES - 1, BYTES] {
        for (chunk, piece) in [(4096, 100_000), (1, 7), (5000, 4096), (BYTES + 1, 1000)] {
            let sample = sample(len);
            let (_, blocks) = device();
            set(&blocks, &chunked(&sample, chunk), piece, false).unwrap();
            assert!(content(&blocks) == padded(&sample), "{len} {chunk} {piece}");
            let (folder, blocks) = device();
            set(&blocks, &chunked(&compressed(&sample), chunk), piece, true).unwrap();
            assert!(content(&blocks) == padded(&sample), "{len} {chunk} {piece}, compressed");
            assert_eq!(folder.names().unwrap(), ["p:a_disk"]);
        }
    }
}

#[test]
fn what_is_not_right_changes_nothing() {
    let (long, short) = (sample(BYTES + 1), sample(5000));
    let mut tail = compressed(&short);
    tail.push(0);
    let cut = &compressed(&short)[..compressed(&short).len() - 1];
    let mut damaged = compressed(&short);
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0xff);
    let bomb = compressed(&vec![0; 100 * BYTES]);
    let empty_blocks = [&[0x78, 0x9c][..], &[0, 0, 0, 0xff, 0xff].repeat(30_000)].concat();
    let too_large = |error: &ContentError| matches!(error, ContentError::TooLarge);
    let not_zlib = |error: &ContentError| matches!(error, ContentError::Compression);
    let is_cut = |error: &ContentError| matches!(error, ContentError::Cut);
    let negative = [&chunked(&short, 4096)[..4100], &[0x80, 0, 0, 0]].concat();
    type Case<'a> = (&'a str, Vec<u8>, bool, &'a dyn Fn(&ContentError) -> bool);
    let cases: [Case<'_>; 12] = [
        ("too long", chunked(&long, 4096), false, &too_large),
        ("too long, compressed", chunked(&compressed(&long), 4096), true, &too_large),
        ("announced", vec![0x7f, 0xff, 0xff, 0xff], false, &too_large),
        ("bomb", chunked(&bomb, 65536), true, &too_large),
        ("without end", chunked(&empty_blocks, 65536), true, &too_large),
        ("tail", chunked(&tail, 4096), true, &not_zlib),
        ("cut", chunked(cut, 4096), true, &not_zlib),
        ("damaged", chunked(&damaged, 4096), true, &not_zlib),
        ("plain", chunked(&short, 4096), true, &not_zlib),
        ("nothing", chunked(&[], 4096), true, &not_zlib),
        ("negative", negative, false, &is_cut),
        ("no end mark", chunked(&short, 4096)[..5000].to_vec(), false, &is_cut),
    ];
    for (what, stream, is_compressed, expected) in &cases {
        for piece in [3, 4096, 1 << 20] {
            let (folder, blocks) = device();
            let error = set(&blocks, stream, piece, *is_compressed).unwrap_err();
            assert!(expected(&error), "{what}: {error:?}");
            assert!(content(&blocks) == [7; BYTES], "{what}");
            assert_eq!(folder.names().unwrap(), ["p:a_disk"], "{what}");
        }
    }
}

#[test]
fn a_spool_is_a_content_too() {
    for (bytes, is_compressed) in [(sample(9000), false), (compressed(&sample(9000)), true)] {
        let (folder, blocks) = device();
        let mut spool = Spools::new(folder, 1 << 20).create(1 << 20).unwrap();
        spool.append(&bytes).unwrap();
        let mut incoming = Incoming::begin(&blocks, &name(), BYTES as u64, is_compressed).unwrap();
        let (mut offset, mut workspace) = (0, Workspace::default());
        while incoming.take_spool(&spool, &mut offset, &mut workspace).unwrap() == Progress::More {}
        assert_eq!(offset, bytes.len() as u64);
        incoming.finish(&blocks).unwrap();
        assert!(content(&blocks) == padded(&sample(9000)));
    }
}

#[test]
fn old_or_new_whatever_fails_and_wherever_the_power_goes() {
    let new = sample(2 * 4096 + 9);
    let mut kept_new = 0;
    for fault in [Fault::Full, Fault::Broken, Fault::CrashBefore, Fault::CrashAfter] {
        for operation in 0..9 {
            for survives in [false, true] {
                let (folder, blocks) = device();
                folder.crash(|| true);
                folder.fault_at(operation, fault);
                let outcome = set(&blocks, &chunked(&new, 4096), 1 << 20, false);
                let now = content(&blocks);
                let unsettled = matches!(outcome, Err(ContentError::Unsettled(_)));
                if outcome.is_err() && !unsettled && !matches!(fault, Fault::CrashAfter) {
                    assert!(now == [7; BYTES], "{fault:?} at {operation}: {outcome:?}");
                }
                folder.crash(|| survives);
                let after = content(&blocks);
                let is_new = after == padded(&new);
                assert!(is_new || after == [7; BYTES], "{fault:?} at {operation}");
                assert!(is_new || outcome.is_err(), "{fault:?} at {operation}: told, and gone");
                kept_new += usize::from(is_new);
                blocks.sweep(|it| *it == name()).unwrap();
                assert_eq!(folder.names().unwrap(), ["p:a_disk"]);
            }
        }
    }
    assert!(kept_new > 8, "{kept_new}");
}

/// All that a client is sent.
fn dump(blocks: &Blocks<SimulatedFolder>, folder: &SimulatedFolder, form: Form, bytes: u64) -> Vec<u8> {
    let header = Header::new(9, name());
    let file = blocks.open_read_only(&name()).unwrap();
    let spools = Spools::new(folder.clone(), 1 << 30);
    let mut outgoing = Outgoing::new(header, file, bytes, form, &spools).unwrap();
    let (mut sent, mut workspace) = (Vec::new(), Workspace::default());
    while !outgoing.is_over() {
        outgoing.step(&mut workspace);
        // Whoever takes it takes what he can.
        while !outgoing.ready().is_empty() {
            let count = outgoing.ready().len().div_ceil(2);
            sent.extend(&outgoing.ready()[..count]);
            outgoing.sent(count);
        }
    }
    sent
}

/// The messages in these bytes.
fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (message, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        messages.push(message);
        bytes = rest;
    }
    messages
}

fn inflated(stream: &[u8]) -> Vec<u8> {
    let mut decoder = ZlibDecoder::new(Vec::new());
    decoder.write_all(stream).unwrap();
    decoder.finish().unwrap()
}

#[test]
fn what_is_handed_out_is_what_is_there() {
    for len in [1, 4095, 4096, 4097, BYTES, 40 * 4096, 50 * 4096 + 17] {
        let folder = SimulatedFolder::default();
        let blocks = Blocks::new(folder.clone());
        blocks.make(&name(), len as u64).unwrap();
        blocks.open(&name()).unwrap().write_at(&sample(len), 0).unwrap();
        for (level, whole) in [(0, false), (1, false), (9, false), (0, true), (6, true)] {
            let sent = dump(&blocks, &folder, Form { level, whole }, len as u64);
            let mut octets = Vec::new();
            let messages = messages(&sent);
            for (index, message) in messages.iter().enumerate() {
                let message = wire::decode(Frame::whole(message)).unwrap();
                assert_eq!(message.header, Header::new(9, name()));
                let last = index + 1 == messages.len();
                match message.payload {
                    Payload::Success(Success::BlockImage { compressed }) if index == 0 => {
                        assert_eq!((compressed, whole), (level > 0, false));
                    }
                    Payload::Success(Success::OldBlockImage { compressed, image: Image::Inline(image) }) => {
                        assert_eq!((compressed, whole, last), (level > 0, true, true));
                        octets.extend(image);
                    }
                    Payload::Data(Data::Block(Some(Image::Inline(chunk)))) if !whole && !last => {
                        assert!(!chunk.is_empty() && chunk.len() <= if level == 0 { 4096 } else { 65536 });
                        octets.extend(chunk);
                    }
                    Payload::Data(Data::Block(None)) => assert!(last && !whole),
                    other => panic!("{other:?}"),
                }
            }
            let plain = if level == 0 { octets } else { inflated(&octets) };
            assert!(plain == sample(len), "{len} at {level}, whole {whole}");
        }
        // What was held is gone.
        assert_eq!(folder.names().unwrap().iter().filter(|it| it.starts_with("p:")).count(), 1);
    }
}

#[test]
fn what_cannot_be_read_is_told_between_messages_and_cut_off_within_one() {
    let (folder, blocks) = device();
    // The file is shorter than its record says.
    let sent = dump(&blocks, &folder, Form { level: 0, whole: false }, BYTES as u64 + 1);
    let last = messages(&sent).pop().unwrap();
    assert!(matches!(wire::decode(Frame::whole(last)).unwrap().payload, Payload::Failure(_)));
    let sent = dump(&blocks, &folder, Form { level: 3, whole: false }, BYTES as u64 + 1);
    let last = messages(&sent).pop().unwrap();
    assert!(matches!(wire::decode(Frame::whole(last)).unwrap().payload, Payload::Failure(_)));
    let sent = dump(&blocks, &folder, Form { level: 0, whole: true }, BYTES as u64 + 1);
    let announced = u32::from_be_bytes(*sent.first_chunk().unwrap()) as usize;
    assert!(sent.len() < 4 + announced);
    let sent = dump(&blocks, &folder, Form { level: 3, whole: true }, BYTES as u64 + 1);
    let last = messages(&sent).pop().unwrap();
    assert!(matches!(wire::decode(Frame::whole(last)).unwrap().payload, Payload::Failure(_)));
}
