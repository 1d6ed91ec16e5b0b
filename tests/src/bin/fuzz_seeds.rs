//! Writes the recorded messages, and good examples of what else is fuzzed, as seeds for the fuzzers: `cargo run -p fulmar-tests --bin fuzz_seeds fuzz/corpus`

use std::path::PathBuf;
use std::{env, fs, io};

use fulmar_tests::{images, render};
use serde_json::Value;

fn main() -> io::Result<()> {
    let corpus =
        PathBuf::from(env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: fuzz_seeds CORPUS_FOLDER"))?);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/index.json");
    let vectors: Vec<Value> = serde_json::from_str(&fs::read_to_string(path)?)?;
    for vector in &vectors {
        let (Some(hex), Some(name)) = (vector["hex"].as_str(), vector["name"].as_str()) else { continue };
        let bytes = render::from_hex(hex);
        let targets: &[(&str, &[u8])] = match vector["codec"].as_str() {
            Some("cert") => &[("certificate", &[])],
            Some("state") => &[("state_file", &[])],
            // A place for the cut, and a size for the pieces and a frame's length, go before the message.
            _ => &[("message", &[]), ("message_with_cut", &[70]), ("stream", &[9, 0, 0, 0])],
        };
        for (target, prefix) in targets {
            let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
            let prefix = if *target == "stream" { [prefix, &[len][..]].concat() } else { prefix.to_vec() };
            fs::create_dir_all(corpus.join(target))?;
            fs::write(corpus.join(target).join(name), [prefix, bytes.clone()].concat())?;
        }
    }
    for (index, image) in images::IMAGES.iter().enumerate() {
        for target in ["image", "tender_image"] {
            fs::create_dir_all(corpus.join(target))?;
            fs::write(corpus.join(target).join(format!("image-{index}")), &image.bytes)?;
        }
    }
    for (target, bytes) in [("tender_hypercalls", hypercalls()), ("tender_ring", submissions())] {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join("good"), bytes)?;
    }
    let lines =
        b"--mem=32\0--net:n=@4\0--net-mac:n=2:0:0:0:0:1\0--block:b=/d\0--block-sector-size:b=512\0--user=1:2\0--\0k\0a";
    fs::create_dir_all(corpus.join("tender_command_line"))?;
    fs::write(corpus.join("tender_command_line").join("good"), lines)
}

/// Where a guest of the fuzzer keeps things: in the middle of what it may write.
const ROOM: u64 = 0x18_0000;

/// One good call of each kind: its number, the address of its structure, the structure, in 48 bytes each.
fn hypercalls() -> Vec<u8> {
    let calls: [(u8, &[u64]); 8] = [
        (1, &[0]),
        (2, &[ROOM + 0x100, 12]),
        (3, &[1, 0, 0]),
        (4, &[2, 512, ROOM + 0x1000, 512, 0]),
        (5, &[2, 0, ROOM + 0x1000, 512, 0]),
        (6, &[1, ROOM + 0x1000, 60, 0]),
        (7, &[1, ROOM + 0x1000, 1514, 0]),
        (8, &[ROOM + 0x100, 7]),
    ];
    let call = |(number, words): &(u8, &[u64])| {
        let mut bytes = vec![*number];
        bytes.extend((ROOM as u32).to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(48, 0);
        bytes
    };
    calls.iter().flat_map(call).collect()
}

/// A frame to send, and one to receive, as they stand in the ring.
fn submissions() -> Vec<u8> {
    let submission = |operation: u32, len: u32| {
        let words = [operation, 1, ROOM as u32, 0, len, 7, 0, 0];
        words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>()
    };
    [submission(1, 60), submission(2, 1514)].concat()
}
