//! Recorded conversations between the peer's programs: each message is found by the scanner however the stream is cut, is
//! read, and is written again as it was. Each file of the folder is accounted for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fulmar_core::der::Cut;
use fulmar_core::scan::{Event, Limits, Scanner};
use fulmar_core::wire::{
    self, Arguments, Bridge, Command, Config, Data, FailBehaviour, Frame, Header, Image, Kind, List, Message, Payload,
    Success, UnikernelCommand,
};
use fulmar_tests::render;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Files of the folder that hold no conversation of this wire.
const OTHERS: [(&str, &str); 2] = [
    ("influx-lineprotocol.txt", "lines for a time series database, which e2e_influx.rs is about"),
    ("influx-selfmetrics.txt", "lines for a time series database, which e2e_influx.rs is about"),
];

const WITHOUT_BYTES: &str = "the recording has the lengths of the messages and leaves out the long ones";

/// Streams of which there is no file, and why.
const WITHOUT_FILE: [(&str, &str); 12] = [
    ("block-dump-compressed.0.s2c.bin", WITHOUT_BYTES),
    ("block-dump-plain.0.s2c.bin", WITHOUT_BYTES),
    ("block-set-plain.0.c2s.bin", "1 MiB of one word: it is made anew, and has the recorded digest"),
    ("block-set-toobig.0.c2s.bin", WITHOUT_BYTES),
    ("block-set-toobig.0.s2c.bin", "nothing was sent in this direction"),
    ("create-bad-mem.0.c2s.bin", WITHOUT_BYTES),
    ("create-bad-net.0.c2s.bin", WITHOUT_BYTES),
    ("create-blk.0.c2s.bin", WITHOUT_BYTES),
    ("create-duplicate.0.c2s.bin", WITHOUT_BYTES),
    ("create-idle-compressed.0.c2s.bin", WITHOUT_BYTES),
    ("create-net.0.c2s.bin", WITHOUT_BYTES),
    ("force-create.0.c2s.bin", WITHOUT_BYTES),
];

/// The image of `foo:idle1`, as the client printed it in `get-0`.
const IDLE_BYTES: u64 = 128_984;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/captures")
}

/// One direction of a recorded connection.
struct Direction {
    /// The conversation's name.
    conversation: String,
    file: String,
    recorded: Value,
}

/// Every direction of every recorded conversation.
fn directions() -> Vec<Direction> {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.ends_with(".json")) {
        let recorded: Value = serde_json::from_slice(&fs::read(folder().join(file)).unwrap()).unwrap();
        let connections = recorded.as_array().or_else(|| recorded["connections"].as_array()).unwrap();
        for (connection, direction) in connections.iter().flat_map(|it| [(it, "c2s"), (it, "s2c")]) {
            let recorded = connection[direction].clone();
            let conversation = file.trim_end_matches(".json").to_owned();
            found.push(Direction { conversation, file: recorded["file"].as_str().unwrap().to_owned(), recorded });
        }
    }
    found
}

fn files() -> BTreeSet<String> {
    fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Bytes of the messages that were recorded, in their order; a recording lists the first fifty of a long stream.
fn lengths(direction: &Direction) -> Vec<u64> {
    let messages = direction.recorded["messages"].as_array().unwrap();
    messages.iter().map(|message| message["len"].as_u64().unwrap()).collect()
}

#[test]
fn every_file_is_accounted_for() {
    let (directions, files) = (directions(), files());
    let named: BTreeSet<_> = directions.iter().map(|direction| direction.file.clone()).collect();
    let mut accounted: BTreeSet<_> = named.iter().filter(|file| files.contains(*file)).cloned().collect();
    accounted.extend(directions.iter().map(|direction| format!("{}.json", direction.conversation)));
    accounted.extend(OTHERS.iter().map(|(file, _)| (*file).to_owned()));
    assert_eq!(files, accounted);
    // `get-0` has its long reply left out, too: it is made anew below.
    let mut without: BTreeSet<_> = WITHOUT_FILE.iter().map(|(file, _)| (*file).to_owned()).collect();
    without.insert("get-0.0.s2c.bin".to_owned());
    assert_eq!(named.difference(&files).cloned().collect::<BTreeSet<_>>(), without);
}

/// What a scanner finds: each frame, with what it took out put back.
fn scan(limits: Limits, pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<(Vec<u8>, Option<Cut>)> {
    let (mut scanner, mut head) = (Scanner::new(limits), vec![0; 64 << 10]);
    let (mut frames, mut diverted) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match scanner.next(&mut head, &mut piece).unwrap() {
                Event::More => break,
                Event::DivertBegin { .. } => diverted.clear(),
                Event::Diverted(octets) => diverted.extend_from_slice(octets),
                Event::Frame { head_len, cut } => {
                    let mut frame = head[..head_len].to_vec();
                    if let Some(cut) = cut {
                        assert_eq!(cut.len, diverted.len() as u64);
                        frame.splice(cut.at..cut.at, diverted.drain(..));
                    }
                    frames.push((frame, cut));
                }
            }
        }
    }
    assert!(scanner.is_between_frames());
    frames
}

#[test]
fn every_recorded_stream_is_read_and_written_again() {
    let (mut messages, mut cut) = (0, 0);
    for direction in directions() {
        let file = &direction.file;
        let Ok(stream) = fs::read(folder().join(file)) else { continue };
        assert_eq!(direction.recorded["bytes"], stream.len(), "{file}");
        let frames = scan(Limits::HOLD_ALL, &mut [&stream[..]].into_iter());
        assert_eq!(scan(Limits::HOLD_ALL, &mut stream.chunks(1)), frames, "{file}");
        let diverting = Limits { divert_bytes_min: 16, diverted_bytes_max: 1 << 20 };
        for size in [1, 2, 3, 7, 64, stream.len().max(1)] {
            let found = scan(diverting, &mut stream.chunks(size));
            cut += found.iter().filter(|(_, cut)| cut.is_some()).count();
            assert!(found.iter().map(|(frame, _)| frame).eq(frames.iter().map(|(frame, _)| frame)), "{file}, {size}");
        }
        let recorded = direction.recorded["messages"].as_array().unwrap();
        assert_eq!(frames.len(), recorded.len(), "{file}");
        for ((frame, _), recorded) in frames.iter().zip(recorded) {
            assert_eq!(render::hex(frame), recorded["hex"].as_str().unwrap(), "{file}");
            judge(frame, file);
            messages += 1;
        }
    }
    assert!(messages >= 100, "{messages}");
    assert!(cut > 0, "nothing was ever taken out of a message");
}

/// A message is read, and written as it was.
fn judge(bytes: &[u8], file: &str) {
    let message = wire::decode(Frame::whole(bytes)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut buffer = vec![0; bytes.len()];
    let again = wire::encode(&message, &mut buffer).unwrap();
    // A time with .000 is the one thing that is read and not written.
    if !String::from_utf8_lossy(bytes).contains(".000Z") {
        assert_eq!(render::hex(again), render::hex(bytes), "{file}");
    }
    assert_eq!(wire::decode(Frame::whole(again)).unwrap(), message);
}

#[test]
fn short_messages_of_streams_without_file_are_read_and_written_again() {
    let without: Vec<_> = directions().into_iter().filter(|it| !files().contains(&it.file)).collect();
    let mut messages = 0;
    for direction in &without {
        for hex in direction.recorded["messages"].as_array().unwrap().iter().filter_map(|it| it["hex"].as_str()) {
            let bytes = render::from_hex(hex);
            // A stream of chunks ends with one of no bytes.
            if !bytes.is_empty() {
                judge(&bytes, &direction.file);
                messages += 1;
            }
        }
    }
    assert_eq!(messages, 6, "the beginnings of two dumps and two sets, the last chunk and the end of one dump");
}

/// The client prints what the reply says, and its exit code tells a refusal.
#[test]
fn the_reply_is_what_the_client_said() {
    let mut replies = 0;
    for direction in directions().iter().filter(|it| it.file.ends_with(".s2c.bin")) {
        let path = folder().join(format!("{}.json", direction.conversation));
        let recorded: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let (Some(said), Some(reply)) =
            (recorded["stdout"].as_str(), direction.recorded["messages"][0]["hex"].as_str())
        else {
            continue;
        };
        let bytes = render::from_hex(reply);
        let reply = wire::decode(Frame::whole(&bytes)).unwrap();
        assert_eq!(matches!(reply.payload, Payload::Failure(_)), recorded["exit"] == 117, "{}", direction.file);
        let text = match reply.payload {
            Payload::Failure(text) | Payload::Success(Success::Text(text)) => text.0,
            _ => continue,
        };
        assert!(said.contains(str::from_utf8(text).unwrap()), "{}: {said}", direction.file);
        replies += 1;
    }
    assert!(replies >= 15, "{replies}");
}

/// A stream of chunks that was recorded whole: chunks are frames of raw bytes, up to one of none.
#[test]
fn the_recorded_chunks_of_a_block_device() {
    let recorded = directions().into_iter().find(|it| it.file == "block-set-plain.0.c2s.bin").unwrap();
    let content: Vec<u8> = b"albatross\n".iter().copied().cycle().take(1 << 20).collect();
    let command = render::from_hex(recorded.recorded["messages"][0]["hex"].as_str().unwrap());
    let mut stream = frame(&command);
    stream.extend(content.chunks(4096).flat_map(frame));
    stream.extend([0; 4]);
    assert_eq!(recorded.recorded["bytes"], stream.len());
    assert_eq!(
        render::hex(&Sha256::digest(&stream)),
        "cce2b2d4f9562696e228f5627b8290b98beb8c25a01b432d2a617649c2858240"
    );
    let (mut scanner, mut head, mut rest) = (Scanner::new(Limits::HOLD_ALL), vec![0; 64 << 10], stream.as_slice());
    let mut next = |rest: &mut &[u8]| match scanner.next(&mut head, rest) {
        Ok(Event::Frame { head_len, cut: None }) => Some(head[..head_len].to_vec()),
        _ => None,
    };
    assert_eq!(next(&mut rest).unwrap(), command);
    judge(&command, &recorded.file);
    let chunks: Vec<_> = std::iter::from_fn(|| next(&mut rest)).collect();
    assert!(rest.is_empty() && chunks.concat() == content);
    let mut expected = lengths(&recorded).into_iter().skip(1);
    assert!(chunks.iter().zip(&mut expected).all(|(chunk, len)| chunk.len() as u64 == len));
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// Where only the length of a message was recorded: the same command with an image of that size has it.
#[test]
fn messages_with_images_have_the_recorded_lengths() {
    let idle = Arguments {
        fail_behaviour: FailBehaviour::Quit,
        startup: None,
        add_name: true,
        cpuids: List::Items(&[0]),
        memory: 32,
        block_devices: List::Items(&[]),
        bridges: List::Items(&[]),
        argv: None,
        numcpus: 1,
        linux_boot: None,
    };
    let bridged = |bridge: &'static str| Bridge { name: "service0", bridge: Some(bridge), mac: None };
    let (good, bad) = ([bridged("peerbr0")], [bridged("nobridge")]);
    let networked = Arguments {
        fail_behaviour: FailBehaviour::Restart(List::Items(&[])),
        memory: 64,
        cpuids: List::Items(&[1]),
        add_name: false,
        bridges: List::Items(&good),
        ..idle
    };
    let badly_networked = Arguments { bridges: List::Items(&bad), ..idle };
    let create = |name, arguments, bytes| {
        let config = Config { kind: Kind::Solo5, compressed: false, image: Image::Diverted { len: bytes }, arguments };
        length(name, Payload::Command(Command::Unikernel(UnikernelCommand::Create(config))))
    };
    assert_eq!(create("foo:idle1", idle, IDLE_BYTES), recorded("create-duplicate", "c2s", 0));
    assert_eq!(create("foo:idle1", idle, IDLE_BYTES), recorded("force-create", "c2s", 0));
    let large = Arguments { memory: 4096, ..idle };
    assert_eq!(create("foo:idle2", large, IDLE_BYTES), recorded("create-bad-mem", "c2s", 0));
    // Two commands with the same image, whose size was not recorded.
    let (one, other) = (recorded("create-net", "c2s", 0), recorded("create-bad-net", "c2s", 0));
    let image_bytes = one - (create("foo:net1", networked, IDLE_BYTES) - IDLE_BYTES);
    assert_eq!(create("foo:net2", badly_networked, image_bytes), other);

    let image = Success::Image { compressed: false, image: Image::Diverted { len: IDLE_BYTES } };
    assert_eq!(length("foo:idle1", Payload::Success(image)), recorded("get-0", "s2c", 0));
    let chunk = Payload::Data(Data::Block(Some(Image::Diverted { len: 4096 })));
    for message in 1..50 {
        assert_eq!(length("foo:disk1", chunk), recorded("block-dump-plain", "s2c", message));
    }
}

/// Bytes of a message whose octets may lie elsewhere.
fn length(name: &str, payload: Payload<'_>) -> u64 {
    let header = Header::new(0, fulmar_core::name::Name::parse(name).unwrap());
    let mut buffer = [0; 4096];
    let frame = wire::encode_head(&Message { header, payload }, &mut buffer).unwrap();
    u64::from(u32::from_be_bytes(*frame.head.first_chunk().unwrap()))
}

/// The recorded length of a message.
fn recorded(conversation: &str, direction: &str, message: usize) -> u64 {
    let file = format!("{conversation}.0.{direction}.bin");
    let found = directions().into_iter().find(|it| it.file == file).unwrap();
    lengths(&found)[message]
}
