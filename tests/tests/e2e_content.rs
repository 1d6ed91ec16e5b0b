//! The content of block devices with the real daemons, tenders and files: what is set is what a guest finds and what is dumped; what
//! is refused, cut off or killed leaves the old content, and nothing else.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::{ZlibDecoder, ZlibEncoder};
use fulmar_core::limits::TRANSFERS_MAX;
use fulmar_core::wire::{self, BlockCommand, Command, Data, Frame, Image, Payload, Success};
use fulmar_tests::built::Kind;
use fulmar_tests::namespace::{Disk, inside};
use fulmar_tests::raw::{Answer, Raw, frame};
use fulmar_tests::siege::{self, Siege, control_half};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{self, System, is_gone, wait_until};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MB: usize = 1 << 20;
const SET: Command<'static> = Command::Block(BlockCommand::Set { compressed: false });
const SET_COMPRESSED: Command<'static> = Command::Block(BlockCommand::Set { compressed: true });
const DUMP: Command<'static> = Command::Block(BlockCommand::Dump { level: 0 });

fn folder(siege: &Siege) -> PathBuf {
    siege.system.state().join("block")
}

fn files(siege: &Siege) -> BTreeSet<String> {
    siege::files(&folder(siege))
}

fn done(siege: &Siege, words: &[&str]) -> String {
    let said = siege.client(words);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}: {said:?}\n{}", siege.system.log("vmmd"));
    said.out
}

fn refused(siege: &Siege, words: &[&str], reason: &str) {
    let said = siege.client(words);
    assert_eq!(said.code, 117, "{words:?}: {said:?}");
    assert!(said.err.contains(reason), "{words:?}: {said:?}");
}

/// Bytes that do not compress well, with a hole in them.
fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let mut sample: Vec<u8> = (0..len).map(|_| next()).collect();
    if let Some(hole) = sample.get_mut(8192..65536) {
        hole.fill(0);
    }
    sample
}

/// A file of the system's folder with this content.
fn file(siege: &Siege, name: &str, content: &[u8]) -> String {
    let path = siege.system.folder().join(name);
    fs::write(&path, content).unwrap();
    path.to_string_lossy().into_owned()
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn inflated(stream: &[u8]) -> Vec<u8> {
    let mut decoder = ZlibDecoder::new(Vec::new());
    decoder.write_all(stream).unwrap();
    decoder.finish().unwrap()
}

/// The chunks of a content and the end mark.
fn chunks(content: &[u8], chunk: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for piece in content.chunks(chunk) {
        stream.extend(u32::try_from(piece.len()).unwrap().to_be_bytes());
        stream.extend(piece);
    }
    stream.extend([0; 4]);
    stream
}

fn connect(siege: &Siege) -> Raw {
    Raw::connect(&siege.system.socket("vmmd.sock"))
}

/// What a whole conversation that sets comes to. What is sent may be more than the daemon takes.
fn set(siege: &Siege, name: &str, command: Command<'_>, stream: &[u8]) -> Answer {
    let mut raw = connect(siege);
    raw.send(&frame(name, command));
    raw.send(stream);
    raw.receive()
}

/// The messages of a dump.
fn messages(raw: &mut Raw) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| raw.receive_bytes()).collect()
}

/// The content that a dump hands out.
fn dumped(siege: &Siege, name: &str, level: i64) -> Vec<u8> {
    try_dumped(siege, name, level).unwrap_or_else(|| panic!("it is not dumped\n{}", siege.system.log("vmmd")))
}

/// As [`dumped`]; nothing where it is refused.
fn try_dumped(siege: &Siege, name: &str, level: i64) -> Option<Vec<u8>> {
    let mut raw = connect(siege);
    raw.send(&frame(name, Command::Block(BlockCommand::Dump { level })));
    let messages = messages(&mut raw);
    let (first, rest) = messages.split_first()?;
    let (last, chunks) = rest.split_last()?;
    let payload = |bytes: &'_ [u8]| format!("{:?}", wire::decode(Frame::whole(bytes)).unwrap().payload);
    assert_eq!(payload(first), format!("{:?}", Payload::Success(Success::BlockImage { compressed: level > 0 })));
    assert_eq!(payload(last), format!("{:?}", Payload::Data(Data::Block(None))));
    let mut content = Vec::new();
    for chunk in chunks {
        match wire::decode(Frame::whole(chunk)).unwrap().payload {
            Payload::Data(Data::Block(Some(Image::Inline(bytes)))) => {
                assert!(bytes.len() <= if level > 0 { 65536 } else { 4096 });
                content.extend(bytes);
            }
            other => panic!("{other:?}"),
        }
    }
    Some(if level > 0 { inflated(&content) } else { content })
}

fn padded(content: &[u8], megabytes: usize) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(megabytes * MB, 0);
    padded
}

#[test]
fn what_a_guest_writes_is_dumped_and_what_is_set_is_what_it_finds() {
    const TEST: &str = "what_a_guest_writes_is_dumped_and_what_is_set_is_what_it_finds";
    let Some(siege) = Siege::begin(TEST) else { return };
    for kind in [Kind::Spt, Kind::Hvt] {
        let image = siege.image_for("block", kind);
        if !Path::new(&image).exists() {
            skip(TEST, "there is no unikernel called block");
            continue;
        }
        if kind == Kind::Hvt && siege.system.log("vmmd").contains("/dev/kvm cannot be opened") {
            skip(TEST, "no /dev/kvm");
            continue;
        }
        done(&siege, &["add-block", "p:one", "2"]);
        done(&siege, &["add-block", "p:two", "2"]);
        let run = |name: &str, block: &str, argument: &str, line: &str| {
            let block = format!("--block=storage:{block}");
            done(&siege, &["create", name, &image, &block, "--arg", argument]);
            siege.expect_line(name, line);
            assert!(wait_until(|| siege.names().is_empty()));
        };
        run("p:writes", "one", "--write=7", "all sectors written");
        for (level, copy) in [("0", "plain.img"), ("9", "compressed.img")] {
            let copy = siege.system.folder().join(copy);
            let path = copy.to_string_lossy().into_owned();
            let said = done(&siege, &["dump-block", "p:one", &path, "--compression-level", level]);
            assert_eq!(said, format!("p:one: 2.0 MB written to {path}\n"));
            assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert!(fs::read(&copy).unwrap() == fs::read(folder(&siege).join("p:one_disk")).unwrap());
            // What is there is not overwritten.
            let again = siege.client(&["dump-block", "p:one", &path]);
            assert_eq!(again.code, 125, "{again:?}");
            let said = done(&siege, &["set-block", "p:two", &path, "--compression-level", level]);
            assert_eq!(said, "p:two: set block device\n");
            run("p:reads", "two", "--verify=7", "all sectors as written");
            // Nothing of it is left for the next round.
            done(&siege, &["set-block", "p:two", "/dev/null"]);
            assert!(dumped(&siege, "p:two", 0) == padded(&[], 2));
            fs::remove_file(&copy).unwrap();
        }
        done(&siege, &["remove-block", "p:one"]);
        done(&siege, &["remove-block", "p:two"]);
    }
    siege.end();
}

#[test]
fn a_content_is_as_sparse_as_it_was() {
    let Some(siege) = Siege::begin("a_content_is_as_sparse_as_it_was") else { return };
    done(&siege, &["add-block", "wide", "64"]);
    let mut content = vec![0; 64 * MB];
    content[40 * MB + 5] = 1;
    let path = file(&siege, "wide.img", &content);
    for level in ["0", "1"] {
        done(&siege, &["set-block", "wide", &path, "--compression-level", level]);
        let metadata = fs::metadata(folder(&siege).join(":wide_disk")).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (64 << 20, 0o600));
        assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
        let copy = siege.system.folder().join("copy.img");
        done(&siege, &["dump-block", "wide", &copy.to_string_lossy(), "--compression-level", level]);
        assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 1 << 20);
        assert!(fs::read(&copy).unwrap() == content);
        fs::remove_file(copy).unwrap();
    }
    done(&siege, &["remove-block", "wide"]);
    siege.end();
}

#[test]
fn what_is_not_right_leaves_the_old_content() {
    let Some(siege) = Siege::begin("what_is_not_right_leaves_the_old_content") else { return };
    done(&siege, &["add-block", "data", "1"]);
    let old = sample(MB, 3);
    assert_eq!(set(&siege, "data", SET, &chunks(&old, 4096)), Answer::Done("set block device".into()));
    let (short, long) = (sample(100_000, 5), sample(MB + 1, 6));
    let mut tail = zlib(&short);
    tail.extend([0; 9]);
    let cut = zlib(&short)[..30_000].to_vec();
    let mut damaged = zlib(&short);
    damaged[20_000..30_000].fill(0x55);
    let bomb = zlib(&vec![0; 40 * MB]);
    let huge = [&0x7fff_ffff_u32.to_be_bytes()[..], &[7; 4096]].concat();
    let negative = [&chunks(&short, 4096)[..8200], &[0xff; 4]].concat();
    let (too_large, no_zlib) = ("more than the block device holds", "no complete zlib stream");
    let cases: &[(&str, Command<'_>, Vec<u8>, &str)] = &[
        ("too long", SET, chunks(&long, 4096), too_large),
        ("much too long", SET, chunks(&[1; 40 * MB], 4096), too_large),
        ("in one chunk", SET, chunks(&long, 2 * MB), too_large),
        ("announced", SET, huge, too_large),
        ("negative", SET, negative, "ended before its end mark"),
        ("too long, compressed", SET_COMPRESSED, chunks(&zlib(&long), 4096), too_large),
        ("a bomb", SET_COMPRESSED, chunks(&bomb, 4096), too_large),
        ("with a tail", SET_COMPRESSED, chunks(&tail, 4096), no_zlib),
        ("cut", SET_COMPRESSED, chunks(&cut, 4096), no_zlib),
        ("damaged", SET_COMPRESSED, chunks(&damaged, 4096), no_zlib),
        ("not compressed", SET_COMPRESSED, chunks(&short, 4096), no_zlib),
        ("nothing", SET_COMPRESSED, chunks(&[], 1), no_zlib),
        ("without end", SET_COMPRESSED, huge_announced(), no_zlib),
    ];
    for (what, command, stream, reason) in cases {
        let answer = set(&siege, "data", *command, stream);
        assert!(answer.reason().contains(reason), "{what}: {answer:?}");
        assert!(dumped(&siege, "data", 0) == old, "{what}");
        assert_eq!(files(&siege), [":data_disk".to_owned()].into(), "{what}");
    }
    // The end comes without its mark: who can still hear it is told, who is gone is not.
    let mut raw = connect(&siege);
    raw.send(&frame("data", SET));
    raw.send(&chunks(&short, 4096)[..50_000]);
    raw.0.shutdown(Shutdown::Write).unwrap();
    assert!(raw.receive().reason().contains("ended before its end mark"));
    let mut raw = connect(&siege);
    raw.send(&frame("data", SET));
    raw.send(&chunks(&short, 4096)[..50_000]);
    drop(raw);
    assert!(wait_until(|| try_dumped(&siege, "data", 0).as_ref() == Some(&old)));
    assert_eq!(files(&siege).len(), 1);
    // Refused before anything is read: whoever sends on gets to read why.
    for (name, command, reason) in [
        ("none", SET, "set block: not found"),
        ("p:", SET, "set block: not found"),
        ("none", DUMP, "dump block: not found"),
    ] {
        let answer = set(&siege, name, command, &chunks(&[1; 20 * MB], 4096));
        assert_eq!(answer.reason(), reason);
    }
    // Any size of chunk is taken, and none at all: then all is zero.
    for chunk in [1, 4097, 1 << 20] {
        assert_eq!(set(&siege, "data", SET, &chunks(&short, chunk)), Answer::Done("set block device".into()));
        assert!(dumped(&siege, "data", 6) == padded(&short, 1));
        let answer = set(&siege, "data", SET_COMPRESSED, &chunks(&zlib(&old), chunk));
        assert_eq!(answer, Answer::Done("set block device".into()));
        assert!(dumped(&siege, "data", 1) == old);
    }
    assert_eq!(set(&siege, "data", SET, &[0; 4]), Answer::Done("set block device".into()));
    assert!(dumped(&siege, "data", 0) == padded(&[], 1));
    let missing = siege.client(&["set-block", "data", "/nonexistent"]);
    assert_eq!(missing.code, 124, "{missing:?}");
    let path = file(&siege, "long.img", &long);
    refused(&siege, &["set-block", "data", &path], too_large);
    refused(&siege, &["set-block", "data", "/dev/zero"], too_large);
    done(&siege, &["remove-block", "data"]);
    siege.end();
}

/// A compressed stream of which more is announced than ever comes, in a chunk that is no zlib stream.
fn huge_announced() -> Vec<u8> {
    [&0x7fff_ffff_u32.to_be_bytes()[..], &[0xff; 5000]].concat()
}

#[test]
fn nobody_else_has_it_meanwhile() {
    let Some(siege) = Siege::begin("nobody_else_has_it_meanwhile") else { return };
    done(&siege, &["add-block", "storage", "1"]);
    let image = siege.image("block");
    let create = ["create", "uses", &image, "--block=storage"];
    let busy = "this block device is being set or dumped, try again";
    let mut setting = connect(&siege);
    setting.send(&frame("storage", SET));
    assert!(wait_until(|| siege.client(&["dump-block", "storage", "/nonexistent/x"]).err.contains(busy)));
    refused(&siege, &["set-block", "storage", "/dev/null"], busy);
    refused(&siege, &["remove-block", "storage"], busy);
    refused(&siege, &create, "block device storage is being set or dumped, try again");
    setting.send(&chunks(b"content", 3));
    assert_eq!(setting.receive(), Answer::Done("set block device".into()));
    // As many read as may, and nobody changes it.
    done(&siege, &["add-block", "large", "16"]);
    let mut dumping: Vec<Raw> = Vec::new();
    for _ in 0..TRANSFERS_MAX {
        let mut raw = connect(&siege);
        raw.send(&frame("large", DUMP));
        assert!(raw.receive_bytes().is_some());
        dumping.push(raw);
    }
    assert!(connect(&siege).ask("large", DUMP).reason().contains("too many block devices"));
    assert!(connect(&siege).ask("storage", SET).reason().contains("too many block devices"));
    refused(&siege, &["remove-block", "large"], busy);
    refused(&siege, &["create", "uses", &image, "--block=storage:large"], "large is being set or dumped");
    // Each that goes leaves its place to another.
    drop(dumping.pop());
    assert!(wait_until(|| siege.client(&["set-block", "storage", "/dev/null"]).code == 0));
    drop(dumping);
    assert!(wait_until(|| siege.client(&["remove-block", "large"]).code == 0));
    // What a unikernel has is its own, also while it rests.
    let spin = siege.system.folder().join("counting.spt");
    fs::write(&spin, fulmar_tests::images::counting()).unwrap();
    done(&siege, &["create", "uses", &spin.to_string_lossy(), "--block=storage"]);
    refused(&siege, &["set-block", "storage", "/dev/null"], "set block: is in use");
    refused(&siege, &["dump-block", "storage"], "dump block: is in use");
    assert_eq!(set(&siege, "storage", SET, &chunks(&[1; 9 * MB], 4096)).reason(), "set block: is in use");
    done(&siege, &["destroy", "uses"]);
    done(&siege, &["remove-block", "storage"]);
    siege.end();
}

#[test]
fn the_old_forms() {
    let Some(siege) = Siege::begin("the_old_forms") else { return };
    let (one, two) = (sample(MB, 1), sample(300_000, 2));
    let (packed, large) = (zlib(&one), vec![1; MB + 1]);
    let ask = |name: &str, command: BlockCommand<'_>| connect(&siege).ask(name, Command::Block(command));
    let add = |compressed, data| BlockCommand::OldAdd { size: 1, compressed, data };
    let inline = |bytes| Some(Image::Inline(bytes));
    let added = Answer::Done("added block device".into());
    assert_eq!(ask("empty", add(false, None)), added);
    assert!(dumped(&siege, "empty", 0) == padded(&[], 1));
    assert_eq!(ask("plain", add(false, inline(&two))), added);
    assert!(dumped(&siege, "plain", 0) == padded(&two, 1));
    assert_eq!(ask("packed", add(true, inline(&packed))), added);
    assert!(dumped(&siege, "packed", 0) == one);
    assert!(ask("plain", add(false, None)).reason().contains("already exists"));
    for (compressed, data, reason) in [
        (false, &large, "more than the block device holds"),
        (true, &zlib(&large), "more than the block device holds"),
        (true, &two, "no complete zlib stream"),
        (true, &Vec::new(), "no complete zlib stream"),
    ] {
        assert!(ask("bad", add(compressed, inline(data))).reason().contains(reason));
        let old = BlockCommand::OldSet { compressed, data: Image::Inline(data) };
        assert!(ask("packed", old).reason().contains(reason));
    }
    assert!(dumped(&siege, "packed", 0) == one);
    let names = [":empty_disk", ":packed_disk", ":plain_disk"].map(str::to_owned);
    assert_eq!(files(&siege), names.into());
    // A small one is held in memory, a large one in a file; both are set.
    for (compressed, data, expected) in
        [(false, b"few".to_vec(), b"few".to_vec()), (false, one.clone(), one.clone()), (true, zlib(&two), two.clone())]
    {
        let old = BlockCommand::OldSet { compressed, data: Image::Inline(&data) };
        assert_eq!(ask("empty", old), Answer::Done("set block device".into()));
        for level in [0, 5] {
            let mut raw = connect(&siege);
            raw.send(&frame("empty", Command::Block(BlockCommand::OldDump { level })));
            let reply = raw.receive_bytes().unwrap();
            let payload = wire::decode(Frame::whole(&reply)).unwrap().payload;
            let Payload::Success(Success::OldBlockImage { compressed, image: Image::Inline(image) }) = payload else {
                panic!("{payload:?}")
            };
            assert_eq!(compressed, level > 0);
            let content = if compressed { inflated(image) } else { image.to_vec() };
            assert!(content == padded(&expected, 1));
            assert!(raw.receive_bytes().is_none());
        }
    }
    assert_eq!(ask("none", BlockCommand::OldDump { level: 0 }).reason(), "dump block: not found");
    assert_eq!(
        ask("none", BlockCommand::OldSet { compressed: false, data: Image::Inline(b"x") }).reason(),
        "set block: not found"
    );
    done(&siege, &["add-block", "wide", "257"]);
    assert!(ask("wide", BlockCommand::OldDump { level: 0 }).reason().contains("too large for one reply"));
    for name in ["empty", "packed", "plain", "wide"] {
        done(&siege, &["remove-block", name]);
    }
    siege.end();
}

/// A recorded half of a conversation.
fn capture(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/captures").join(file)).unwrap()
}

/// A side of a recorded conversation.
struct Side {
    bytes: usize,
    count: usize,
    /// The lengths of its first and last messages, and their bytes where they are short.
    messages: Vec<(usize, Option<String>)>,
}

fn recorded(name: &str, side: &str) -> Side {
    let value: serde_json::Value = serde_json::from_slice(&capture(&format!("{name}.json"))).unwrap();
    let said = &value["connections"][0][side];
    let number = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let message = |it: &serde_json::Value| (number(&it["len"]), it["hex"].as_str().map(str::to_owned));
    let messages = said["messages"].as_array().unwrap().iter().map(message).collect();
    Side { bytes: number(&said["bytes"]), count: number(&said["n_messages"]), messages }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn the_recorded_conversations() {
    let Some(siege) = Siege::begin("the_recorded_conversations") else { return };
    done(&siege, &["add-block", "foo:disk1", "2"]);
    // The command and as many chunks, of what is no longer known.
    for (name, reply) in [("block-set-plain", Some("block-set-plain.0.s2c.bin")), ("block-set-toobig", None)] {
        let said = recorded(name, "c2s");
        let command = bytes(said.messages[0].1.as_ref().unwrap());
        let sent = sample((said.count - 2) * 4096, 4);
        let stream =
            [&u32::try_from(command.len()).unwrap().to_be_bytes()[..], &command, &chunks(&sent, 4096)].concat();
        let mut raw = connect(&siege);
        raw.send(&stream);
        match reply {
            Some(reply) => {
                assert_eq!(stream.len(), said.bytes);
                let mut heard = Vec::new();
                raw.0.read_to_end(&mut heard).unwrap();
                assert_eq!(heard, capture(reply));
                assert!(dumped(&siege, "foo:disk1", 0) == padded(&sent, 2));
            }
            // The reference says nothing more, for ever.
            None => assert!(raw.receive().reason().contains("more than the block device holds")),
        }
    }
    // The reference was given what does not compress, so that its chunks are full.
    let content = sample(2 * MB, 9);
    assert_eq!(set(&siege, "foo:disk1", SET, &chunks(&content, 4096)), Answer::Done("set block device".into()));
    for name in ["block-dump-plain", "block-dump-compressed"] {
        let mut raw = connect(&siege);
        raw.send(&capture(&format!("{name}.0.c2s.bin")));
        let heard = messages(&mut raw);
        let Side { bytes: total, count, messages: described } = recorded(name, "s2c");
        assert_eq!(Some(hex(&heard[0])), described[0].1);
        if name == "block-dump-plain" {
            // The last message is the mark at the end, whose bytes are no longer known but by their sum.
            assert_eq!((heard.len(), heard.iter().map(|it| 4 + it.len()).sum::<usize>()), (count, total));
            assert!(heard.iter().zip(&described).all(|(message, (len, _))| message.len() == *len));
        } else {
            // Another compressor: as full chunks, not the same bytes.
            let longest = described.iter().map(|(len, _)| *len).max().unwrap();
            assert!(heard.iter().all(|message| message.len() <= longest));
            assert!(heard[1..heard.len() - 2].iter().all(|message| message.len() + 4 >= longest));
        }
    }
    assert!(dumped(&siege, "foo:disk1", 0) == content);
    done(&siege, &["remove-block", "foo:disk1"]);
    siege.end();
}

#[test]
fn who_is_silent_or_does_not_read_is_ended() {
    let Some(siege) = Siege::begin("who_is_silent_or_does_not_read_is_ended") else { return };
    done(&siege, &["add-block", "silent", "1"]);
    done(&siege, &["add-block", "unread", "16"]);
    done(&siege, &["add-block", "packed", "16"]);
    let path = file(&siege, "content.img", &sample(16 * MB, 4));
    done(&siege, &["set-block", "packed", &path]);
    // One says nothing after the command, one stops within a chunk, two do not read, one of them what is compressed.
    let mut silent = connect(&siege);
    silent.send(&frame("silent", SET));
    done(&siege, &["add-block", "stops", "1"]);
    let mut stops = connect(&siege);
    stops.send(&frame("stops", SET));
    stops.send(&0x000f_ffff_u32.to_be_bytes());
    stops.send(&[7; 9000]);
    let mut unread = connect(&siege);
    unread.send(&frame("unread", DUMP));
    let mut packed = connect(&siege);
    packed.send(&frame("packed", Command::Block(BlockCommand::Dump { level: 1 })));
    let names = ["silent", "stops", "unread", "packed"];
    let mut left: BTreeSet<&str> = names.into();
    for name in names {
        refused(&siege, &["remove-block", name], "is being set or dumped");
    }
    assert!(wait_until(|| {
        left.retain(|name| siege.client(&["remove-block", name]).code != 0);
        left.is_empty()
    }));
    assert_eq!((silent.receive(), stops.receive()), (Answer::Closed, Answer::Closed));
    assert!(files(&siege).is_empty());
    siege.expect_log("vmmd", "the client did not finish its message");
    siege.expect_log("vmmd", "the client did not read its reply");
    siege.end();
}

#[test]
fn a_hundred_times_leave_nothing() {
    let Some(siege) = Siege::begin("a_hundred_times_leave_nothing") else { return };
    done(&siege, &["add-block", "data", "1"]);
    let one = sample(MB, 8);
    for round in 0_i64..100 {
        let answer = match round % 4 {
            0 => set(&siege, "data", SET, &chunks(&one, 4096)),
            1 => set(&siege, "data", SET_COMPRESSED, &chunks(&zlib(&one), 30_000)),
            2 => {
                // Gone before or while it is being sent.
                let mut raw = connect(&siege);
                raw.send(&frame("data", Command::Block(BlockCommand::Dump { level: round % 10 })));
                if round % 8 == 2 {
                    assert!(raw.receive_bytes().is_some());
                }
                drop(raw);
                // It has gone when it can be set.
                let again = || set(&siege, "data", SET, &chunks(&one, 4096)) == Answer::Done("set block device".into());
                assert!(wait_until(again));
                continue;
            }
            _ => set(&siege, "data", SET, &chunks(&[3; MB + 1], 60_000)),
        };
        assert_eq!(round % 4 == 3, matches!(answer, Answer::Refused(_)), "{answer:?}");
        assert!(dumped(&siege, "data", round % 10) == one);
        assert_eq!(files(&siege), [":data_disk".to_owned()].into());
    }
    done(&siege, &["remove-block", "data"]);
    assert!(files(&siege).is_empty());
    siege.end();
}

#[test]
fn killed_while_it_sets_vmmd_keeps_the_old_content() {
    let Some(mut siege) = Siege::begin("killed_while_it_sets_vmmd_keeps_the_old_content") else { return };
    let pid = |id: u32| Pid::from_raw(i32::try_from(id).unwrap());
    done(&siege, &["add-block", "data", "4"]);
    let old = sample(4 * MB, 2);
    assert_eq!(set(&siege, "data", SET, &chunks(&old, 4096)), Answer::Done("set block device".into()));
    for sent in [0, 1, 3 * MB] {
        let control = control_half(siege.vmmd);
        let mut raw = connect(&siege);
        raw.send(&frame("data", SET));
        let stream = chunks(&[9; 4 * MB], 4096);
        raw.send(&stream[..sent]);
        // The new content arrives in a file of its own, which nobody else has.
        assert!(sent < MB || wait_until(|| files(&siege).contains(":data_new")));
        kill(pid(control), Signal::SIGKILL).unwrap();
        let (host, half) = (pid(siege.vmmd), pid(control));
        assert!(wait_until(|| is_gone(host) && is_gone(half)));
        siege.system.end("vmmd", Signal::SIGTERM).unwrap();
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        assert!(dumped(&siege, "data", 0) == old);
        assert_eq!(files(&siege), [":data_disk".to_owned()].into());
    }
    done(&siege, &["remove-block", "data"]);
    siege.count_again();
    siege.end();
}

#[test]
fn a_full_disk_leaves_the_old_content() {
    inside("a_full_disk_leaves_the_old_content", || {
        let Some(programs) = siege::programs("a_full_disk_leaves_the_old_content") else { return };
        let system = System::new(system::make_folder("siege").unwrap(), programs).unwrap();
        let disk = Disk::mount(&system.state(), 8 << 20, MsFlags::empty());
        let siege = Siege::begin_in(system);
        done(&siege, &["add-block", "data", "4"]);
        let old = sample(3 * MB, 2);
        assert_eq!(set(&siege, "data", SET, &chunks(&old, 4096)), Answer::Done("set block device".into()));
        disk.fill_up_to(1 << 20);
        // The old and the new one are both there for a while, which is more than there is.
        for (command, stream) in
            [(SET, chunks(&sample(3 * MB, 7), 4096)), (SET_COMPRESSED, chunks(&zlib(&sample(3 * MB, 7)), 4096))]
        {
            let answer = set(&siege, "data", command, &stream);
            assert!(answer.reason().contains("the disk of the block devices is full"), "{answer:?}");
            assert!(dumped(&siege, "data", 0) == padded(&old, 4));
            assert_eq!(files(&siege), [":data_disk".to_owned()].into());
        }
        disk.make_room();
        assert_eq!(set(&siege, "data", SET, &chunks(b"few", 4096)), Answer::Done("set block device".into()));
        done(&siege, &["remove-block", "data"]);
        drop(disk);
        siege.system.stop().unwrap();
    });
}
