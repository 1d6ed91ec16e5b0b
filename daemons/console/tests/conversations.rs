//! Recorded conversations of the peer's console daemon, answered by ours byte for byte where the content is the test's.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::Path;

use fulmar_core::wire::{Data, Frame, Payload, decode};

use common::{Client, Daemon, Reply, write_all};

fn recorded(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/captures").join(file)).unwrap()
}

/// The frames of a stream, each with its length.
fn frames(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some(len) = stream.first_chunk() {
        let (frame, rest) = stream.split_at(4 + usize::try_from(u32::from_be_bytes(*len)).unwrap());
        frames.push(frame);
        stream = rest;
    }
    frames
}

/// Sends this and says what comes back, this many bytes of it.
fn ask(daemon: &Daemon, question: &[u8], answer_bytes: usize) -> Vec<u8> {
    let mut client = daemon.connect();
    client.send(question);
    let mut answer = vec![0; answer_bytes];
    client.stream.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn a_console_that_nobody_knows() {
    let daemon = Daemon::start();
    let answer = recorded("console-unknown.0.s2c.bin");
    assert_eq!(ask(&daemon, &recorded("console-unknown.0.c2s.bin"), answer.len()), answer);
}

#[test]
fn inactive_consoles() {
    let daemon = Daemon::start();
    drop(daemon.add("hello", 9));
    drop(daemon.add("net1", 9));
    daemon.wait_for_inactive(":", &[":net1", ":hello"]);
    let mut client = daemon.connect();
    client.send(&recorded("inactive-consoles.0.c2s.bin"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, recorded("inactive-consoles.0.s2c.bin"));
}

#[test]
fn lines_since_a_time() {
    let daemon = Daemon::start();
    let unikernel = daemon.add("hello", 9);
    let answer = recorded("console-since.0.s2c.bin");
    let frames = frames(&answer);
    let (first, lines) = frames.split_first().unwrap();
    let mut stamps = Vec::new();
    for frame in lines {
        match decode(Frame::whole(&frame[4..])).unwrap().payload {
            Payload::Data(Data::Console { unix_ms, line }) => {
                stamps.push(unix_ms);
                write_all(&unikernel, &[line.0, b"\n"].concat());
            }
            other => panic!("{other:?}"),
        }
    }
    let mut client = daemon.connect();
    client.send(&recorded("console-since.0.c2s.bin"));
    assert_eq!(client.frame().unwrap(), first[4..]);
    // The times are ours: all but them must be the same.
    for expected in lines {
        let frame = client.frame().unwrap();
        let (ours, theirs) = (decode(Frame::whole(&frame)).unwrap(), decode(Frame::whole(&expected[4..])).unwrap());
        assert_eq!(ours.header, theirs.header);
        match (ours.payload, theirs.payload) {
            (Payload::Data(Data::Console { line: ours, .. }), Payload::Data(Data::Console { line: theirs, .. })) => {
                assert_eq!(ours, theirs);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The whole life of the permanent connection, with several unikernels that come again and again.
#[test]
fn what_vmmd_says() {
    let daemon = Daemon::start();
    let questions = recorded("internal-vmmd-to-console.0.c2s.bin");
    let answers = recorded("internal-vmmd-to-console.0.s2c.bin");
    let _unikernels = ["pre", "n1", "ex2", "ex64"].map(|name| daemon.unikernel(name));
    for question in frames(&questions) {
        let name = decode(Frame::whole(&question[4..])).unwrap().header.name;
        if !daemon.fifo(name.as_str()).exists() {
            std::mem::forget(daemon.unikernel(name.as_str()));
        }
    }
    assert_eq!(ask(&daemon, &questions, answers.len()), answers);
    // And one by one, on a connection that stays.
    let mut client = Client::connect(daemon.socket());
    for (question, answer) in frames(&questions).into_iter().zip(frames(&answers)) {
        client.stream.write_all(question).unwrap();
        assert_eq!(client.frame().unwrap(), answer[4..]);
    }
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.reply(), Reply::End);
}
