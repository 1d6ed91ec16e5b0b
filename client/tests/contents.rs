//! The content of block devices on its way to a daemon and back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use common::{FakeDaemon, capture, frame, read_frame};
use flate2::write::{ZlibDecoder, ZlibEncoder};
use fulmar_core::wire::{Data, Image, Payload, Success, Text};

const VMMD: &str = "vmmd.sock";

/// Bytes that hardly compress, with zeros in between.
fn sample(len: usize) -> Vec<u8> {
    let byte = |at: usize| if at / 10_000 % 3 == 1 { 0 } else { (at * at / 3 % 253) as u8 };
    (0..len).map(byte).collect()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = ZlibDecoder::new(Vec::new());
    decoder.write_all(bytes).unwrap();
    decoder.finish().unwrap()
}

/// A daemon that takes a command and all chunks, and says that it is done. It keeps all that it heard.
fn taking(answer: Vec<u8>) -> FakeDaemon {
    FakeDaemon::new(VMMD, move |mut stream| {
        let mut heard = read_frame(&mut stream);
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            heard.extend(length);
            let mut chunk = vec![0; u32::from_be_bytes(length) as usize];
            if chunk.is_empty() {
                break;
            }
            stream.read_exact(&mut chunk).unwrap();
            heard.extend(chunk);
        }
        stream.write_all(&answer).unwrap();
        heard
    })
}

/// The chunks after a command of 37 bytes.
fn chunks(heard: &[u8]) -> Vec<&[u8]> {
    let (mut chunks, mut rest) = (Vec::new(), &heard[41..]);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (chunk, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

#[test]
fn set_block_sends_what_the_reference_sends() {
    let done = capture("block-set-plain.0.s2c.bin");
    let mut daemon = taking(done.clone());
    let content = sample(1 << 20);
    let file = daemon.folder.file("disk.img", &content);
    let ran = daemon.client(&["set-block", "foo:disk1", file.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str(), ran.errors.as_str()), (0, "foo:disk1: set block device\n", ""));
    let heard = daemon.heard();
    let described: serde_json::Value = serde_json::from_slice(&capture("block-set-plain.json")).unwrap();
    let said = &described["connections"][0]["c2s"];
    let hex: String = heard[4..41].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (heard.len() as u64, hex.as_str()),
        (said["bytes"].as_u64().unwrap(), said["messages"][0]["hex"].as_str().unwrap())
    );
    let chunks = chunks(&heard);
    assert_eq!(chunks.len() as u64 + 1, said["n_messages"].as_u64().unwrap());
    assert!(chunks[..256].iter().all(|chunk| chunk.len() == 4096) && chunks[256].is_empty());
    assert!(chunks.concat() == content);
}

#[test]
fn set_block_compresses_and_never_sends_long_chunks() {
    for (len, level) in [(0, "1"), (1, "9"), (300_000, "1"), (1 << 20, "9")] {
        let mut daemon = taking(capture("block-set-plain.0.s2c.bin"));
        // Of the last one nothing can be left out.
        let content: Vec<u8> = if len == 1 << 20 {
            (0..len / 4).flat_map(|it: u32| it.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
        } else {
            sample(len as usize)
        };
        let file = daemon.folder.file("disk.img", &content);
        let words = ["set-block", "foo:disk1", file.to_str().unwrap(), "--compression-level", level, "--json"];
        let ran = daemon.client(&words);
        let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(value, serde_json::json!({ "name": "foo:disk1", "result": "set block device" }));
        let heard = daemon.heard();
        let chunks = chunks(&heard);
        assert!(chunks.iter().all(|chunk| chunk.len() <= 65_536));
        assert!(chunks[..chunks.len() - 1].iter().all(|chunk| !chunk.is_empty()) && chunks.last().unwrap().is_empty());
        assert!(inflated(&chunks.concat()) == content);
    }
}

#[test]
fn set_block_stops_when_it_is_refused() {
    // The daemon takes little, refuses and reads no more: without end there would be no end.
    let refused = frame("foo:disk1", Payload::Failure(Text(b"set block: is in use")));
    let serve = move |mut stream: UnixStream| {
        let heard = read_frame(&mut stream);
        stream.write_all(&refused).unwrap();
        // Until the client has gone.
        let mut rest = vec![0; 1 << 16];
        while stream.read(&mut rest).is_ok_and(|count| count > 0) {}
        heard
    };
    for level in ["0", "1"] {
        let daemon = FakeDaemon::new(VMMD, serve.clone());
        let ran = daemon.client(&["set-block", "foo:disk1", "/dev/zero", "--compression-level", level]);
        assert_eq!((ran.code, ran.errors.as_str()), (117, "vmmc_local: foo:disk1: set block: is in use\n"));
    }
    let daemon = FakeDaemon::new(VMMD, |_| Vec::new());
    let ran = daemon.client(&["set-block", "foo:disk1", "/dev/zero"]);
    assert_eq!(ran.code, 121, "{}", ran.errors);
}

#[test]
fn set_block_of_what_cannot_be_read_asks_nobody() {
    let folder = common::Folder::new();
    for (file, reason) in [("/nonexistent", "cannot be read"), (folder.0.to_str().unwrap(), "is a folder")] {
        let ran = common::client(&folder.0, std::time::Duration::from_secs(5), &["set-block", "x", file]);
        assert_eq!(ran.code, 124, "{}", ran.errors);
        assert!(ran.errors.contains(reason), "{}", ran.errors);
    }
}

/// What a daemon says to a dump.
fn dump(compressed: bool, octets: &[u8], chunk: usize) -> Vec<u8> {
    let mut said = frame("foo:disk1", Payload::Success(Success::BlockImage { compressed }));
    for piece in octets.chunks(chunk) {
        said.extend(frame("foo:disk1", Payload::Data(Data::Block(Some(Image::Inline(piece))))));
    }
    said.extend(frame("foo:disk1", Payload::Data(Data::Block(None))));
    said
}

#[test]
fn dump_block_writes_what_is_there() {
    let mut content = sample(200_000);
    content.resize(8 << 20, 0);
    for (compressed, request) in [(false, "block-dump-plain"), (true, "block-dump-compressed")] {
        let octets = if compressed { deflated(&content) } else { content.clone() };
        let mut daemon = FakeDaemon::answering(VMMD, dump(compressed, &octets, if compressed { 65_536 } else { 4096 }));
        let file = daemon.folder.0.join("disk.img");
        let level = if compressed { "9" } else { "0" };
        let ran =
            daemon.client(&["dump-block", "foo:disk1", file.to_str().unwrap(), "--compression-level", level, "--json"]);
        assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
        let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let expected =
            serde_json::json!({ "name": "foo:disk1", "file": file.to_str().unwrap(), "bytes": content.len() });
        assert_eq!(value, expected);
        assert!(std::fs::read(&file).unwrap() == content);
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        // What is zero takes no room.
        assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
        assert_eq!(daemon.heard(), capture(&format!("{request}.0.c2s.bin")));
    }
}

#[test]
fn dump_block_overwrites_nothing_and_leaves_no_half_content() {
    let daemon = FakeDaemon::answering(VMMD, dump(false, b"new", 10));
    let file = daemon.folder.file("there.img", b"old");
    let ran = daemon.client(&["dump-block", "foo:disk1", file.to_str().unwrap()]);
    assert!(ran.errors.contains("is there already and is not overwritten"), "{}", ran.errors);
    assert_eq!((ran.code, std::fs::read(&file).unwrap()), (125, b"old".to_vec()));

    let whole = dump(false, &sample(20_000), 4096);
    let mark = frame("foo:disk1", Payload::Data(Data::Block(None))).len();
    let failure = frame("foo:disk1", Payload::Failure(Text(b"could not read")));
    let cut = deflated(&sample(9000));
    for (reply, code) in [
        (whole[..whole.len() - mark].to_vec(), 121),
        (whole[..whole.len() - mark - 10].to_vec(), 121),
        ([&whole[..whole.len() - mark], &failure].concat(), 117),
        (frame("foo:disk1", Payload::Failure(Text(b"dump block: is in use"))), 117),
        (frame("foo:disk1", Payload::Success(Success::Empty)), 121),
        ([whole[..whole.len() - mark].to_vec(), frame("foo:disk1", Payload::Success(Success::Empty))].concat(), 121),
        (dump(true, b"no zlib stream at all", 9), 121),
        (dump(true, &cut[..cut.len() - 5], 4096), 121),
        (dump(true, &[cut.as_slice(), b"more"].concat(), 4096), 121),
        (dump(true, b"", 1), 121),
    ] {
        let daemon = FakeDaemon::answering(VMMD, reply);
        let file = daemon.folder.0.join("disk.img");
        let ran = daemon.client(&["dump-block", "foo:disk1", file.to_str().unwrap()]);
        assert_eq!((ran.code, ran.out.as_str(), ran.errors.lines().count()), (code, "", 1), "{}", ran.errors);
        let left: Vec<_> = std::fs::read_dir(&daemon.folder.0).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["util"], "{}", ran.errors);
    }
}
