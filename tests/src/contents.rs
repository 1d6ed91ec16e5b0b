//! The content of block devices in whole-program tests: what is sent to set one, and what a dump of one hands out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::{ZlibDecoder, ZlibEncoder};
use fulmar_core::wire::{self, BlockCommand, Command, Data, Frame, Image, Payload, Success};

use crate::raw::{Answer, Raw, frame};
use crate::siege::{self, Siege};

/// Bytes of one MB.
pub const MB: usize = 1 << 20;
/// Set it to the chunks that follow.
pub const SET: Command<'static> = Command::Block(BlockCommand::Set { compressed: false });
/// The same, of a zlib stream.
pub const SET_COMPRESSED: Command<'static> = Command::Block(BlockCommand::Set { compressed: true });
/// Hand it out as it is.
pub const DUMP: Command<'static> = Command::Block(BlockCommand::Dump { level: 0 });

/// Where the files of block devices are.
#[must_use]
pub fn folder(siege: &Siege) -> PathBuf {
    siege.system.state().join("block")
}

/// Their names.
#[must_use]
pub fn files(siege: &Siege) -> BTreeSet<String> {
    siege::files(&folder(siege))
}

/// Runs the client, which must succeed; what it says.
pub fn done(siege: &Siege, words: &[&str]) -> String {
    let said = siege.client(words);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}: {said:?}\n{}", siege.system.log("vmmd"));
    said.out
}

/// Runs the client, which must be refused for this reason.
pub fn refused(siege: &Siege, words: &[&str], reason: &str) {
    let said = siege.client(words);
    assert_eq!(said.code, 117, "{words:?}: {said:?}");
    assert!(said.err.contains(reason), "{words:?}: {said:?}");
}

/// Bytes that do not compress well, with a hole in them.
#[must_use]
pub fn sample(len: usize, seed: u64) -> Vec<u8> {
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
#[must_use]
pub fn file(siege: &Siege, name: &str, content: &[u8]) -> String {
    let path = siege.system.folder().join(name);
    fs::write(&path, content).unwrap();
    path.to_string_lossy().into_owned()
}

/// A zlib stream of this.
#[must_use]
pub fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What a zlib stream holds.
#[must_use]
pub fn inflated(stream: &[u8]) -> Vec<u8> {
    let mut decoder = ZlibDecoder::new(Vec::new());
    decoder.write_all(stream).unwrap();
    decoder.finish().unwrap()
}

/// The chunks of a content and the end mark.
#[must_use]
pub fn chunks(content: &[u8], chunk: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for piece in content.chunks(chunk) {
        stream.extend(u32::try_from(piece.len()).unwrap().to_be_bytes());
        stream.extend(piece);
    }
    stream.extend([0; 4]);
    stream
}

/// A connection to `vmmd`.
#[must_use]
pub fn connect(siege: &Siege) -> Raw {
    Raw::connect(&siege.system.socket("vmmd.sock"))
}

/// What a whole conversation that sets comes to. What is sent may be more than the daemon takes.
pub fn set(siege: &Siege, name: &str, command: Command<'_>, stream: &[u8]) -> Answer {
    let mut raw = connect(siege);
    raw.send(&frame(name, command));
    raw.send(stream);
    raw.receive()
}

/// The messages of a dump, up to the end of the connection.
pub fn messages(raw: &mut Raw) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| raw.receive_bytes()).collect()
}

/// The content that a dump hands out.
#[must_use]
pub fn dumped(siege: &Siege, name: &str, level: i64) -> Vec<u8> {
    try_dumped(siege, name, level).unwrap_or_else(|| panic!("it is not dumped\n{}", siege.system.log("vmmd")))
}

/// As [`dumped`]; nothing where it is refused.
#[must_use]
pub fn try_dumped(siege: &Siege, name: &str, level: i64) -> Option<Vec<u8>> {
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

/// A content as a block device of so many MB has it.
#[must_use]
pub fn padded(content: &[u8], megabytes: usize) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(megabytes * MB, 0);
    padded
}
