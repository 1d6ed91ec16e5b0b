//! Daemons that are not there, do not answer, or answer nonsense: always one line, the right exit code, and no hang.
mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use common::{FakeDaemon, Folder, client, frame, read_frame};
use fulmar_core::wire::{Command, Payload, PolicyCommand, Success, Text};

const VMMD: &str = "vmmd.sock";
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn answers_that_are_none() {
    let good = frame(":", Payload::Success(Success::Text(Text(b"x"))));
    let other_version = {
        let mut bytes = good.clone();
        let at = bytes.windows(3).position(|window| window == [2, 1, 5]).unwrap();
        bytes[at + 2] = 4;
        bytes
    };
    let other_sequence = {
        let mut bytes = good.clone();
        let at = bytes.windows(2).position(|window| window == [4, 8]).unwrap();
        bytes[at + 9] = 1;
        bytes
    };
    for (answer, reason) in [
        (vec![], "closed the connection without a reply"),
        (vec![0, 0], "closed the connection without a reply"),
        (vec![0, 0, 0, 0], "closed the connection without a reply"),
        (vec![0xff, 0xff, 0xff, 0xff], "closed the connection without a reply"),
        (good[..good.len() - 1].to_vec(), "closed the connection without a reply"),
        (vec![0x7f, 0xff, 0xff, 0xff], "announced a reply of 2147483647 bytes"),
        (vec![4, 0, 0, 1], "announced a reply of 67108865 bytes"),
        (vec![4, 0, 0, 0, 1, 2, 3], "closed the connection without a reply"),
        (b"\0\0\0\x05hello".to_vec(), "cannot be read"),
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "announced a reply of 1213486160 bytes"),
        (other_version, "unknown version number 4"),
        (other_sequence, "did not answer what was asked"),
        (frame(":", Payload::Success(Success::Empty)), "did not answer what was asked"),
        (frame(":", Payload::Command(Command::Policy(PolicyCommand::Info))), "did not answer what was asked"),
    ] {
        let ran = FakeDaemon::answering(VMMD, answer).client(&["info"]);
        assert!(ran.errors.contains(reason), "{reason}: {}", ran.errors);
        assert_eq!((ran.code, ran.out.as_str(), ran.errors.lines().count()), (121, "", 1), "{}", ran.errors);
    }
}

#[test]
fn a_daemon_that_never_answers_is_given_up() {
    for words in [["info"].as_slice(), &["destroy", "x"], &["get", "x"], &["policy"]] {
        let daemon = FakeDaemon::new(VMMD, |mut stream| {
            read_frame(&mut stream);
            // Until the client hangs up.
            let _ = stream.read(&mut [0]);
            Vec::new()
        });
        let ran = daemon.client_within(SHORT, words);
        assert!(ran.errors.starts_with("vmmc_local: vmmd sent nothing for 0.2 s"), "{}", ran.errors);
        assert_eq!((ran.code, ran.out.as_str()), (121, ""));
    }
}

#[test]
fn a_daemon_that_stops_half_way_is_given_up() {
    let daemon = FakeDaemon::new(VMMD, |mut stream| {
        read_frame(&mut stream);
        stream.write_all(&[0, 0, 0, 100, 0x30]).unwrap();
        let _ = stream.read(&mut [0]);
        Vec::new()
    });
    let ran = daemon.client_within(SHORT, &["info"]);
    assert!(ran.errors.contains("sent nothing for"), "{}", ran.errors);
    assert_eq!(ran.code, 121);
}

#[test]
fn a_daemon_that_never_reads_is_given_up() {
    let daemon = FakeDaemon::new(VMMD, |mut stream| {
        // Only the end of the conversation is waited for: it comes when the client has given up.
        stream.set_read_timeout(None).unwrap();
        let mut first = [0; 16];
        stream.read_exact(&mut first).unwrap();
        std::thread::park_timeout(Duration::from_secs(5));
        Vec::new()
    });
    let file = daemon.folder.file("big.hvt", &common::image(1, &[], 16 << 20));
    let ran = daemon.client_within(SHORT, &["create", "x", file.to_str().unwrap()]);
    assert!(ran.errors.contains("sent nothing for"), "{}", ran.errors);
    assert_eq!(ran.code, 121);
}

#[test]
fn a_console_stream_may_be_silent_for_longer_than_a_reply() {
    let daemon = FakeDaemon::new("console.sock", |mut stream| {
        read_frame(&mut stream);
        stream.write_all(&frame(":x", Payload::Success(Success::Text(Text(b"subscribed"))))).unwrap();
        std::thread::park_timeout(SHORT * 2);
        let line = fulmar_core::wire::Data::Console { unix_ms: 0, line: Text(b"late") };
        stream.write_all(&frame(":x", Payload::Data(line))).unwrap();
        Vec::new()
    });
    let ran = daemon.client_within(SHORT, &["console", "x"]);
    assert_eq!((ran.code, ran.out.as_str()), (121, "1970-01-01T00:00:00Z late\n"));
}

#[test]
fn no_daemon_at_all() {
    let folder = Folder::new();
    let ran = client(&folder.0, SHORT, &["info"]);
    let socket = folder.0.join("util/vmmd.sock");
    let expected = format!("vmmc_local: vmmd is not running at {}: start it, or give --run DIR\n", socket.display());
    assert_eq!((ran.errors, ran.code), (expected, 122));

    drop(UnixListener::bind(&socket).unwrap());
    let ran = client(&folder.0, SHORT, &["info"]);
    assert!(ran.errors.contains("nobody listens at"), "{}", ran.errors);
    assert_eq!(ran.code, 122);

    let ran = client(&folder.0.join("x".repeat(200)), SHORT, &["info"]);
    assert!(ran.errors.contains("check --run DIR"), "{}", ran.errors);
    assert_eq!((ran.code, ran.errors.lines().count()), (122, 1));

    let ran = client(&folder.0, SHORT, &["console", "x"]);
    assert!(ran.errors.contains("vmmd_console is not running"), "{}", ran.errors);
    assert_eq!(ran.code, 122);
}

#[test]
fn command_lines_that_mean_nothing() {
    let folder = Folder::new();
    for (words, reason) in [
        ("", "Usage"),
        ("fly", "unrecognized subcommand 'fly'"),
        ("destroy", "<NAME>"),
        ("destroy a::b", "a label is empty"),
        ("destroy ../etc", "'/'"),
        ("destroy foo:", "this is a path"),
        ("info -n", "a value is required"),
        ("create x", "<IMAGE>"),
        ("create x y --mem 0", "0 is not in"),
        ("create x y --cpu 4096", "is no CPU"),
        ("create x y --exit-code 256", "256 is not in"),
        ("create x y --compression-level 10", "10 is not in"),
        ("create x y --net a-b", "letters and digits"),
        ("console x --count 1 --since 2026-01-01", "cannot be used with"),
        ("console x --since yesterday", "is no time"),
        ("add-policy foo: 0 --cpu 0", "0 is not in"),
        ("add-policy foo: 1", "--cpu <ID>"),
        ("add-policy foo: 1 --cpu 0 --mem 16", "16 is not in"),
        ("add-policy foo: 1 --cpu 0 --bridge a/b", "bridge 'a/b'"),
        ("remove-policy", "which path?"),
        ("policy foo -p bar", "cannot be used with"),
    ] {
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        let ran = client(&folder.0, SHORT, &words);
        assert!(ran.errors.contains(reason), "{words:?}: {}", ran.errors);
        assert_eq!((ran.code, ran.out.as_str()), (124, ""), "{words:?}");
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let folder = Folder::new();
    for command in [
        "create",
        "destroy",
        "info",
        "get",
        "console",
        "inactive-consoles",
        "log",
        "policy",
        "add-policy",
        "remove-policy",
        "inspect",
    ] {
        let ran = client(&folder.0, SHORT, &[command, "--help"]);
        assert!(ran.out.contains(&format!("Example:\n  vmmc_local {command}")), "{}", ran.out);
        assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
    }
}
