//! What must hold for any bytes at all: one function a decoder, shared by the fuzzers and the properties.
//!
//! None may panic but by an `assert`, and then there is something to mend.

mod console;
mod der;
mod event_log;
mod journal;

use ::der::{Decode, Encode};
use fulmar_core::certificate::revocation::Revocations;
use fulmar_core::certificate::x509::{self, Unreadable};
use fulmar_core::certificate::{self, chain};
use fulmar_core::chunks::{Chunks, NoChunk, Piece};
use fulmar_core::halves::{Answer, Request, Status};
use fulmar_core::scan::{Event, Limits, Scanner};
use fulmar_core::solo5::{self, ReadAt, ReadFailed};
use fulmar_core::state_import;
use fulmar_core::wire::{self, Arguments, Cut, Frame, Policy};
use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;

pub use self::console::console;
pub use self::der::{compare, der};
pub use self::event_log::event_log;
pub use self::journal::journal;

const BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of the length before a frame.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Bytes of what is taken out of a message.
pub(crate) const CUT_BYTES: usize = 2000;

/// A message: what decodes comes back from its own encoding, and the header is seen without the rest.
pub fn message(bytes: &[u8]) {
    let header = wire::peek_header(bytes);
    let Ok(message) = wire::decode(Frame::whole(bytes)) else { return };
    assert_eq!(header, Some(message.header));
    let mut buffer = vec![0; BUFFER_BYTES];
    let encoded = wire::encode(&message, &mut buffer);
    assert!(encoded.is_ok_and(|again| wire::decode(Frame::whole(again)) == Ok(message)));
}

/// A message with a cut, whose place is the first byte: it comes back from its own encoding, and is the message that it is with
/// the octets back in their place.
pub fn message_with_cut(bytes: &[u8]) {
    let Some((at, head)) = bytes.split_first() else { return };
    let cut = Cut { at: usize::from(*at), len: CUT_BYTES as u64 };
    let Ok(message) = wire::decode(Frame { head, cut: Some(cut) }) else { return };
    let mut buffer = vec![0; BUFFER_BYTES];
    let encoded = wire::encode_head(&message, &mut buffer);
    let again = encoded.ok().and_then(|again| {
        let cut = again.cut.map(|cut| Cut { at: cut.at.saturating_sub(LENGTH_BYTES), ..cut })?;
        Some((again.head.get(LENGTH_BYTES..).unwrap_or_default(), cut))
    });
    let Some((head_again, cut_again)) = again else { panic!("the cut is lost: {message:?}") };
    assert_eq!(wire::decode(Frame { head: head_again, cut: Some(cut_again) }), Ok(message));
    let whole = fill(head, cut);
    let Ok(whole) = wire::decode(Frame::whole(&whole)) else { panic!("only with a cut is it a message: {message:?}") };
    let mut buffer = vec![0; BUFFER_BYTES];
    assert_eq!(wire::encode(&whole, &mut buffer), Ok(&fill(head_again, cut_again)[..]));
}

/// The bytes with octets where some were taken out.
fn fill(head: &[u8], cut: Cut) -> Vec<u8> {
    let (before, after) = head.split_at(cut.at.min(head.len()));
    [before, &[0x5a; CUT_BYTES], after].concat()
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

/// A whole certificate, as RustCrypto's `x509-cert` reads it: ours finds the same in it, or refuses it for what ours does not take.
pub fn whole_certificate(bytes: &[u8]) {
    let Ok(read) = Certificate::from_der(bytes) else { return };
    let signed = read.tbs_certificate();
    let extensions = signed.extensions().into_iter().flatten();
    let values: Vec<_> = extensions
        .filter(|extension| extension.extn_id.as_bytes() == certificate::OBJECT_IDENTIFIER)
        .map(|extension| extension.extn_value.as_bytes())
        .collect();
    let names: Vec<_> = signed.subject().iter().filter(|it| it.oid.to_string() == "2.5.4.3").collect();
    let names: Vec<_> = names.iter().map(|it| it.value.value()).collect();
    match x509::Certificate::read(bytes) {
        Ok(ours) => {
            assert_eq!((ours.extension, values.len() < 2), (values.first().copied(), true));
            assert_eq!((ours.common_name, names.len() < 2), (names.first().copied(), true));
            assert_eq!(ours.serial, signed.serial_number().as_bytes());
            assert_eq!(Ok(ours.key), signed.subject_public_key_info().to_der().as_deref());
            let _ = chain::judge(bytes, &[bytes]);
        }
        Err(Unreadable::CommonNames) => assert!(names.len() > 1),
        Err(Unreadable::Extensions | Unreadable::Malformed(_)) => {}
    }
    values.into_iter().for_each(certificate);
}

/// A list of revoked certificates: ours finds the same as RustCrypto's `x509-cert`, where both read it.
pub fn revocation_list(bytes: &[u8]) {
    let (Ok(ours), Ok(theirs)) = (Revocations::read(bytes), CertificateList::<Rfc5280>::from_der(bytes)) else {
        return;
    };
    let extensions = theirs.tbs_cert_list.crl_extensions;
    let entries = theirs.tbs_cert_list.revoked_certificates.into_iter().flatten();
    let serials: Vec<_> = entries.map(|entry| entry.serial_number.as_bytes().to_vec()).collect();
    assert_eq!(ours.serials().map(<[u8]>::to_vec).collect::<Vec<_>>(), serials);
    let mut extensions = extensions.into_iter().flatten();
    let number = extensions.rfind(|it| it.extn_id.to_string() == "2.5.29.20");
    let number = number.map(|it| i64::from_der(it.extn_value.as_bytes()));
    assert_eq!(number, Some(Ok(ours.number)));
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
    assert_eq!(scan(&mut pieces.clone()), scan(&mut [stream].into_iter()));
    assert_eq!(chunks(&mut pieces), chunks(&mut [stream].into_iter()));
}

/// The stream as chunks of a block device's content: their bytes, and whether they end, or are none.
fn chunks(pieces: &mut dyn Iterator<Item = &[u8]>) -> (Vec<u8>, Result<bool, NoChunk>) {
    let (mut chunks, mut seen) = (Chunks::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match chunks.next(&mut piece) {
                Ok(Piece::More) => break,
                Ok(Piece::Bytes(bytes)) => seen.extend_from_slice(bytes),
                Ok(Piece::End) => return (seen, Ok(true)),
                Err(error) => return (seen, Err(error)),
            }
        }
    }
    (seen, Ok(false))
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

/// What an image says about itself; the same when it is read in the smallest pieces.
pub fn image(bytes: &[u8]) {
    let facts = solo5::inspect(bytes);
    assert_eq!(solo5::inspect(&Reluctant(bytes)), facts);
    match facts {
        Ok(facts) => drop(facts.check_runnable()),
        Err(error) => drop(error.to_string()),
    }
}

/// An image of which each reading gives one byte.
struct Reluctant<'a>(&'a [u8]);

impl ReadAt for Reluctant<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadFailed> {
        self.0.read_at(offset, buf.get_mut(..1).unwrap_or_default())
    }
}

/// What the two halves of `vmmd` say to each other: what decodes comes back from its own encoding.
pub fn halves(packet: &[u8]) {
    let mut buffer = vec![0; BUFFER_BYTES];
    if let Ok(request) = Request::decode(packet) {
        assert_eq!(request.encode(&mut buffer).and_then(Request::decode), Ok(request));
        if let Request::Launch(plan) = request {
            let names = plan.networks.iter().chain(plan.argv.iter());
            assert!(names.into_iter().all(|name| !name.contains(&0)));
            drop(plan.check().map_err(|error| error.to_string()));
        }
    }
    if let Ok(answer) = Answer::decode(packet) {
        assert_eq!(answer.encode(&mut buffer).and_then(Answer::decode), Ok(answer));
        if let Answer::Ended { record, .. } = answer {
            assert_eq!(record.end().is_some(), record.end().is_some_and(|end| record.complete(Status::Unknown) == end));
        }
        if let Answer::Exited { status, record, .. } = answer {
            // The kernel is believed where it speaks, whatever a tenant has recorded; but for one word of the tender's.
            let said = record.complete(status);
            assert!(said == status || matches!(status, Status::Unknown | Status::Code(1)));
        }
    }
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
