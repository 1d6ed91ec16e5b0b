//! The least that a debugger says: look at the registers, set them, make a step, go on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Debugs a process that waits at a socket. That it may be ended for it is what the caller wants to know.
pub(crate) fn converse(process: &mut Child, socket: &Path) {
    let late = Instant::now() + PATIENCE;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < late => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("nobody waits for a debugger: {error}"),
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Not before it waits for our words.
    let waits = format!("{} ", libc::SYS_ppoll);
    let call = format!("/proc/{}/syscall", process.id());
    while process.try_wait().unwrap().is_none()
        && std::fs::read_to_string(&call).is_ok_and(|call| !call.starts_with(&waits))
        && Instant::now() < late
    {
        std::thread::yield_now();
    }
    let Some(registers) = ask(&mut stream, "g") else { return };
    for packet in [format!("G{registers}"), "s".to_owned(), "c".to_owned()] {
        if ask(&mut stream, &packet).is_none() {
            return;
        }
    }
}

/// Sends a packet and takes the answer; none if the line is cut.
fn ask(stream: &mut UnixStream, packet: &str) -> Option<String> {
    let sum = packet.bytes().fold(0u8, u8::wrapping_add);
    write!(stream, "${packet}#{sum:02x}").ok()?;
    let mut answer = Vec::new();
    while !(answer.len() > 3 && answer[answer.len() - 3] == b'#') {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        // Acknowledgements stand before the answer.
        if byte[0] != b'+' || !answer.is_empty() {
            answer.push(byte[0]);
        }
    }
    stream.write_all(b"+").ok()?;
    Some(expand(&answer[1..answer.len() - 3]))
}

/// Undoes run-length encoding: `x*C` is `x` and C - 29 more of it.
fn expand(answer: &[u8]) -> String {
    let mut text = Vec::new();
    let mut rest = answer;
    while let [byte, tail @ ..] = rest {
        match (byte, tail) {
            (b'*', [count, tail @ ..]) => {
                let last = *text.last().unwrap();
                text.extend(std::iter::repeat_n(last, usize::from(*count) - 29));
                rest = tail;
            }
            _ => {
                text.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(text).unwrap()
}
