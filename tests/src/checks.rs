//! What must hold for any bytes at all: one function a decoder, shared by the fuzzers and the properties.
//!
//! None may panic but by an `assert`, and then there is something to mend.

use fulmar_core::journal::Replay;
use fulmar_core::scan::{Event, Limits, Scanner};
use fulmar_core::solo5;
use fulmar_core::wire::{self, Arguments, Cut, Frame, Policy};
use fulmar_core::{certificate, state_import};

const BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of the length before a frame.
const LENGTH_BYTES: usize = 4;

/// A message: what decodes comes back from its own encoding, and the header is seen without the rest.
pub fn message(bytes: &[u8]) {
    let header = wire::peek_header(bytes);
    let Ok(message) = wire::decode(Frame::whole(bytes)) else { return };
    assert_eq!(header, Some(message.header));
    let mut buffer = vec![0; BUFFER_BYTES];
    let encoded = wire::encode(&message, &mut buffer);
    assert!(encoded.is_ok_and(|again| wire::decode(Frame::whole(again)) == Ok(message)));
}

/// A message with a cut, whose place is the first byte.
pub fn message_with_cut(bytes: &[u8]) {
    let Some((at, head)) = bytes.split_first() else { return };
    let cut = Cut { at: usize::from(*at), len: 2000 };
    let Ok(message) = wire::decode(Frame { head, cut: Some(cut) }) else { return };
    let mut buffer = vec![0; BUFFER_BYTES];
    let encoded = wire::encode_head(&message, &mut buffer);
    assert!(encoded.is_ok_and(|again| {
        let cut = again.cut.map(|cut| Cut { at: cut.at.saturating_sub(LENGTH_BYTES), ..cut });
        let head = again.head.get(LENGTH_BYTES..).unwrap_or_default();
        cut.is_some() && wire::decode(Frame { head, cut }) == Ok(message)
    }));
}

/// Arguments: what is stored, which is our own encoding of them, says the same and is encoded the same again. (What comes
/// may leave out the number of virtual CPUs, so it is not always what is stored.)
pub fn arguments(bytes: &[u8]) {
    let Ok(arguments) = Arguments::decode(bytes) else { return };
    let mut buffer = vec![0; BUFFER_BYTES];
    let stored = arguments.encode(&mut buffer).unwrap_or_default();
    let read = Arguments::decode(stored);
    assert_eq!(read, Ok(arguments));
    assert_eq!(read.map(|read| read.encode(&mut vec![0; BUFFER_BYTES]) == Ok(stored)), Ok(true));
}

/// A stored policy: it has one encoding.
pub fn policy(bytes: &[u8]) {
    let Ok(policy) = Policy::decode(bytes) else { return };
    assert_eq!(policy.encode(&mut vec![0; BUFFER_BYTES]), Ok(bytes));
}

/// The value of a certificate's extension.
pub fn certificate(bytes: &[u8]) {
    let Ok(command) = certificate::decode(bytes) else { return };
    let mut buffer = vec![0; BUFFER_BYTES];
    let encoded = certificate::encode(&command, &mut buffer);
    assert!(encoded.is_ok_and(|again| certificate::decode(again) == Ok(command)));
}

/// Albatross's state file: each of its unikernels and policies that we can have can be stored here.
pub fn state_file(bytes: &[u8]) {
    let Ok(state) = state_import::decode(bytes) else { return };
    for (_, config) in state.unikernels().filter_map(|entry| entry.content.ok()) {
        let mut buffer = vec![0; BUFFER_BYTES];
        assert!(config.arguments.encode(&mut buffer).is_ok_and(|stored| Arguments::decode(stored).is_ok()));
    }
    for (_, policy) in state.policies().filter_map(|entry| entry.content.ok()) {
        let mut buffer = vec![0; BUFFER_BYTES];
        assert!(policy.encode(&mut buffer).is_ok_and(|stored| Policy::decode(stored) == Ok(policy)));
    }
}

/// A stream, in pieces whose length is the first byte: what comes out does not depend on the pieces.
pub fn stream(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else { return };
    let mut pieces = stream.chunks(usize::from(*size).max(1));
    assert_eq!(scan(&mut pieces), scan(&mut [stream].into_iter()));
}

/// All that a scanner says about a stream: the bytes of each frame with what was taken out, and how it ends.
fn scan(pieces: &mut dyn Iterator<Item = &[u8]>) -> (Vec<u8>, String) {
    let mut scanner = Scanner::new(Limits { divert_bytes_min: 16, diverted_bytes_max: 300 });
    let mut head = [0; 100];
    let mut seen = Vec::new();
    for mut piece in pieces {
        loop {
            match scanner.next(&mut head, &mut piece) {
                Ok(Event::More) => break,
                Ok(Event::DivertBegin { len }) => seen.extend(len.to_be_bytes()),
                Ok(Event::Diverted(octets)) => seen.extend(octets),
                Ok(Event::Frame { head_len, cut }) => {
                    let head = head.get(..head_len).unwrap_or_default();
                    seen.extend(head);
                    let _ = wire::decode(Frame { head, cut });
                }
                Err(error) => return (seen, error.to_string()),
            }
        }
    }
    (seen, format!("{} bytes of a frame", scanner.head_len()))
}

/// A journal: replay ends, whatever is in it.
pub fn journal(bytes: &[u8]) {
    let Ok(mut replay) = Replay::new(bytes) else { return };
    let mut entries = 0_usize;
    while let Ok(Some(_)) = replay.next_entry() {
        entries += 1;
        assert!(entries <= bytes.len());
    }
}

/// What an image says about itself.
pub fn image(bytes: &[u8]) {
    let _ = solo5::inspect(bytes);
}

/// Fails where there is a certain word, which only a fuzzer that is guided by coverage finds: it shows that fuzzing works.
pub fn canary(bytes: &[u8]) {
    let mut word = bytes.iter();
    for letter in b"fulmar" {
        if word.next() != Some(letter) {
            return;
        }
    }
    panic!("the canary was found");
}
