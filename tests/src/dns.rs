//! A server of names for one host, in a network of its own: every name is this host, by both kinds of addresses.
#![allow(clippy::unwrap_used, reason = "for tests, which panic to fail")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

/// Where servers of names are asked.
const PORT: u16 = 53;

/// Bytes before the question.
const HEADER_BYTES: usize = 12;

/// Names that begin so have answers that are too long for a datagram: they are to be asked for by TCP.
pub const LONG: &str = "long";

/// Answers for ever, on threads of its own.
///
/// # Panics
/// Where it cannot listen, not being root in a network of its own.
pub fn serve() {
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((len, from)) = datagrams.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..len], false) {
                let _ = datagrams.send_to(&answer, from);
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Two questions may come one after the other.
            let mut len = [0; 2];
            while stream.read_exact(&mut len).is_ok() {
                let mut question = vec![0; u16::from_be_bytes(len).into()];
                let Some(answer) = stream.read_exact(&mut question).ok().and_then(|()| answer(&question, true)) else {
                    break;
                };
                let len = u16::try_from(answer.len()).unwrap().to_be_bytes();
                let _ = stream.write_all(&[&len[..], &answer].concat());
            }
        }
    });
}

/// The answer to a question (RFC 1035, section 4).
fn answer(question: &[u8], has_room: bool) -> Option<Vec<u8>> {
    let name = question.get(HEADER_BYTES..)?;
    let name_bytes = name.iter().position(|byte| *byte == 0)? + 1;
    let asked = question.get(HEADER_BYTES..HEADER_BYTES + name_bytes + 4)?;
    let kind = asked.get(name_bytes..name_bytes + 2)?;
    let is_short = has_room || !name.get(1..)?.starts_with(LONG.as_bytes());
    let address = match kind {
        _ if !is_short => None,
        [0, 1] => Some(Ipv4Addr::LOCALHOST.octets().to_vec()),
        [0, 28] => Some(Ipv6Addr::LOCALHOST.octets().to_vec()),
        _ => None,
    };
    // An answer, the question as it was wanted, recursion to be had; and whether it was cut.
    let flags = if is_short { [0x81, 0x80] } else { [0x83, 0x80] };
    let mut said = [question.get(..2)?, &flags, &[0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0], asked].concat();
    if let Some(address) = address {
        // The name as it stands in the question, its kind, the internet, for a minute.
        said.extend(
            [&[0xc0, 12][..], kind, &[0, 1, 0, 0, 0, 60, 0, u8::try_from(address.len()).ok()?], &address].concat(),
        );
    }
    Some(said)
}
