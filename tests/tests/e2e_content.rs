//! The content of block devices with the real daemons, tenders and files: what is set is what a guest finds and what is dumped, in
//! every form that there is.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use fulmar_core::wire::{self, BlockCommand, Command, Frame, Image, Payload, Success};
use fulmar_tests::contents::{
    MB, SET, chunks, connect, done, dumped, file, files, folder, inflated, messages, padded, sample, set, zlib,
};
use fulmar_tests::raw::{Answer, frame};
use fulmar_tests::siege::Siege;
use fulmar_tests::system::wait_until;

#[test]
fn what_a_guest_writes_is_dumped_and_what_is_set_is_what_it_finds() {
    const TEST: &str = "what_a_guest_writes_is_dumped_and_what_is_set_is_what_it_finds";
    let Some(siege) = Siege::begin(TEST) else { return };
    for kind in siege.kinds(TEST) {
        let image = siege.image_for("block", kind);
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
