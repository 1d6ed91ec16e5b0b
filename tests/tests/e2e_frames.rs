//! Bytes that are no message, too long, never finished or never read, at the sockets of the real daemons.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fulmar_core::limits::CONNECTIONS_MAX;
use fulmar_core::wire::{Command, PolicyCommand, UnikernelCommand};
use fulmar_tests::raw::{Answer, INFO, Raw, Wish, frame};
use fulmar_tests::recorded::{self, Malformed};
use fulmar_tests::siege::Siege;
use fulmar_tests::system::wait_until;

const DAEMONS: [(&str, &str); 2] = [("vmmd", "vmmd.sock"), ("vmmd_console", "console.sock")];

/// A message whose length says something else.
fn with_length(length: u32, message: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), &message[4..]].concat()
}

/// Sends it, says that nothing more comes, and takes all answers.
fn converse(socket: &Path, bytes: &[u8]) -> Vec<Answer> {
    let mut client = Raw::connect(socket);
    client.send(bytes);
    let _ = client.0.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    loop {
        match client.receive() {
            Answer::Closed => return answers,
            answer => answers.push(answer),
        }
    }
}

#[test]
fn lengths_that_no_message_has() {
    let Some(siege) = Siege::begin("lengths_that_no_message_has") else { return };
    for (program, socket) in DAEMONS {
        let socket = siege.system.socket(socket);
        for length in [0_u32, 0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 0x2000_0000] {
            // Alone, and with a header that can be answered.
            assert_eq!(converse(&socket, &length.to_be_bytes()), [], "{program} {length:#x}");
            let answers = converse(&socket, &with_length(length, &frame("siege:x", INFO)));
            match answers.as_slice() {
                [] if program != "vmmd" => {}
                // Read as a signed number, as the peer does, it is 0 or less.
                [Answer::Refused(text)]
                    if (length == 0 || length > 0x7fff_ffff) && text.contains("length 0 or less") => {}
                [Answer::Refused(text)] if text.contains("more than may be sent") => {}
                other => panic!("{program} {length:#x}: {other:?}"),
            }
        }
        siege.expect_log(program, "a message of length 0 or less");
        siege.expect_log(program, "more than may be sent");
    }
    siege.end();
}

#[test]
fn messages_that_never_end() {
    let Some(siege) = Siege::begin("messages_that_never_end") else { return };
    let image = vec![7; 1 << 20];
    let create = frame("siege:half", Wish::of(&image).command());
    let info = frame("siege:half", INFO);
    let mut late: Vec<Raw> = Vec::new();
    for (_, socket) in DAEMONS {
        let socket = siege.system.socket(socket);
        for piece in [&info[..1], &info[..4], &info[..info.len() - 1]] {
            let mut client = Raw::connect(&socket);
            assert!(client.send(piece));
            late.push(client);
        }
    }
    let mut client = Raw::connect(&siege.system.socket("vmmd.sock"));
    assert!(client.send(&create[..create.len() / 2]));
    late.push(client);
    siege.expect_service();
    // Each is closed when its time is over, and the half image goes with it.
    for mut client in late {
        assert_eq!(client.receive(), Answer::Closed);
    }
    siege.expect_log("vmmd", "did not finish its message");
    siege.expect_log("vmmd_console", "did not come to an end");
    siege.end();
}

#[test]
fn every_malformed_message() {
    let Some(siege) = Siege::begin("every_malformed_message") else { return };
    let mut count = 0;
    for Malformed { name, bytes, is_accepted } in recorded::malformed() {
        for (program, socket) in DAEMONS {
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            let answers = converse(&siege.system.socket(socket), &[&length, bytes.as_slice()].concat());
            assert!(answers.len() <= 1, "{program} {name}: {answers:?}");
            if !is_accepted {
                assert!(matches!(answers.as_slice(), [] | [Answer::Refused(_)]), "{program} {name}: {answers:?}");
            }
            if let [Answer::Refused(text)] = answers.as_slice() {
                assert!(text.len() > 10, "{program} {name}: {text}");
            }
        }
        count += 1;
    }
    assert_eq!(count, 122);
    siege.expect_log("vmmd", "malformed message: ");
    siege.end();
}

#[test]
fn noise_of_every_length() {
    let Some(siege) = Siege::begin("noise_of_every_length") else { return };
    let mut state = 0x9e37_79b9_u32;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    for (program, socket) in DAEMONS {
        for length in 0..300 {
            let mut bytes: Vec<u8> = (0..length).map(|_| noise()).collect();
            // Every second one gets as far as the content.
            if length % 2 == 0 && length > 4 {
                bytes[..4].copy_from_slice(&u32::try_from(length - 4).unwrap().to_be_bytes());
            }
            let answers = converse(&siege.system.socket(socket), &bytes);
            assert_eq!(answers, [], "{program} {bytes:02x?}");
        }
    }
    siege.end();
}

#[test]
fn one_that_talks_without_end_does_not_keep_others_waiting() {
    let Some(siege) = Siege::begin("one_that_talks_without_end") else { return };
    let stop = AtomicBool::new(false);
    let socket = siege.system.socket("vmmd.sock");
    // Refused at once, it sends on as fast as it can; and one whose commands never stop.
    let refused = with_length(0x7fff_ffff, &frame("siege:x", INFO));
    let info = frame("siege:x", Command::Policy(PolicyCommand::Info));
    std::thread::scope(|scope| {
        for first in [&refused, &info] {
            let (stop, socket) = (&stop, &socket);
            scope.spawn(move || {
                let chunk = info_times(first, 1 << 18);
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Raw::connect(socket);
                    let mut reader = client.0.try_clone().unwrap();
                    let draining = std::thread::spawn(move || {
                        let mut buffer = [0; 1 << 16];
                        while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
                    });
                    let _ = client.0.write_all(first);
                    while !stop.load(Ordering::Relaxed) && client.0.write_all(&chunk).is_ok() {}
                    let _ = client.0.shutdown(Shutdown::Both);
                    draining.join().unwrap();
                }
            });
        }
        let mut served = 0;
        let all_served = wait_until(|| {
            let mut client = Raw::connect(&socket);
            client.0.set_read_timeout(Some(Duration::from_secs(25))).unwrap();
            served +=
                usize::from(matches!(client.ask("siege:y", INFO), Answer::Refused(text) if text.contains("not found")));
            served >= 50
        });
        stop.store(true, Ordering::Relaxed);
        assert!(all_served, "{served} of 50 were served");
    });
    siege.end();
}

fn info_times(message: &[u8], bytes: usize) -> Vec<u8> {
    message.iter().copied().cycle().take(bytes / message.len() * message.len()).collect()
}

#[test]
fn clients_that_never_read() {
    let Some(siege) = Siege::begin("clients_that_never_read") else { return };
    let socket = siege.system.socket("vmmd.sock");
    // A unikernel whose image is larger than all that sockets hold.
    let mut image = std::fs::read(siege.image("hello")).unwrap();
    image.resize(8 << 20, 0);
    assert_eq!(
        Raw::connect(&socket).ask("siege:big", Wish::of(&image).command()),
        Answer::Done("created unikernel".into())
    );
    let get = |level| Command::Unikernel(UnikernelCommand::Get { level });
    let mut silent: Vec<Raw> = Vec::new();
    for level in [0, 0, 0, 9] {
        let mut client = Raw::connect(&socket);
        assert!(client.send(&frame("siege:big", get(level))));
        silent.push(client);
    }
    // And many questions whose answers together are larger than all that sockets hold.
    let info = info_times(&frame(":", Command::Policy(PolicyCommand::Info)), 1 << 20);
    for _ in 0..8 {
        let mut client = Raw::connect(&socket);
        client.0.set_nonblocking(true).unwrap();
        let _ = client.0.write(&info);
        client.0.set_nonblocking(false).unwrap();
        silent.push(client);
    }
    assert_eq!(Raw::connect(&socket).ask("siege:big", get(0)), Answer::Image(8 << 20));
    assert_eq!(siege.client(&["destroy", "siege:big"]).code, 0);
    siege.expect_log("vmmd", "did not read its reply");
    // Each is over some time, with what had come until then.
    for mut client in silent {
        let mut buffer = [0; 1 << 16];
        while client.0.read(&mut buffer).is_ok_and(|read| read > 0) {}
    }
    siege.end();
}

#[test]
fn three_hundred_connections() {
    let Some(siege) = Siege::begin("three_hundred_connections") else { return };
    for (program, socket) in DAEMONS {
        let socket = siege.system.socket(socket);
        let mut clients: Vec<Raw> = (0..300).map(|_| Raw::connect(&socket)).collect();
        if program == "vmmd_console" {
            siege.expect_service();
            continue;
        }
        let asked = Raw::connect(&socket).ask("siege:x", INFO);
        assert!(asked.reason().contains("too many connections"), "{asked:?}");
        // Those that were first are served, the others have been told.
        let mut counts = [0; 3];
        for client in &mut clients {
            let sent = client.send(&frame("siege:x", INFO));
            let place = match client.receive() {
                Answer::Refused(text) if text.contains("not found") => 0,
                Answer::Refused(text) if text.contains("too many") => 1,
                Answer::Closed => 2,
                other => panic!("{sent} {other:?}"),
            };
            counts[place] += 1;
        }
        assert!(counts[0] >= CONNECTIONS_MAX - 2, "{counts:?}");
        assert!(counts[1] + counts[2] >= 300 - CONNECTIONS_MAX, "{counts:?}");
        siege.expect_log(program, "all are in use");
    }
    siege.end();
}

#[test]
fn names_that_are_none() {
    let Some(siege) = Siege::begin("names_that_are_none") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let image = std::fs::read(siege.image("hello")).unwrap();
    for command in [INFO, Wish::of(&image).command(), Command::Unikernel(UnikernelCommand::Destroy)] {
        // As long as the name that they take the place of.
        for evil in [
            "siege:../../etc",
            "siege:/etc/passw",
            "siege:a\0bbbbbbb",
            "siege::aaaaaaaa",
            "siege:-aaaaaaaa",
            "siege:aa/aaaaaa",
            "siege:\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
        ] {
            let good = format!("siege:{}", "n".repeat(evil.len() - 6));
            let mut message = frame(&good, command);
            let place = message.windows(good.len()).position(|bytes| bytes == good.as_bytes()).unwrap();
            message[place..place + evil.len()].copy_from_slice(evil.as_bytes());
            let answers = converse(&socket, &message);
            assert!(
                matches!(answers.as_slice(), [] | [Answer::Refused(_)])
                    && !answers.contains(&Answer::Done("created unikernel".into())),
                "{evil}: {answers:?}"
            );
        }
    }
    siege.expect_log("vmmd", "malformed message: ");
    // Dots alone are a lawful label, and no more than that.
    let dotted = siege.client(&["create", "siege:..", &siege.image("hello")]);
    assert_eq!(dotted.code, 0, "{dotted:?}");
    assert!(siege.system.run().join("fifo").join("siege:..").exists());
    assert_eq!(siege.client(&["destroy", "siege:.."]).code, 0);
    for name in ["../x", "a/b", "/", "siege:../x", "-x", "a..b/", "", "siege:", &"x".repeat(64)] {
        for words in [&["info", name][..], &["destroy", "--", name], &["create", "--", name, &siege.image("hello")]] {
            if words[0] == "info" && matches!(name, "siege:" | "-x" | "") {
                continue;
            }
            let said = siege.client_before(words);
            assert_eq!(said.code, 124, "{words:?}: {said:?}");
            assert!(!said.err.is_empty(), "{words:?}");
        }
    }
    for words in
        [&["info", "siege:nobody"][..], &["destroy", "siege:nobody"], &["get", "siege:nobody", "--output", "/dev/null"]]
    {
        let said = siege.client(words);
        assert_eq!(said.code, 117, "{words:?}: {said:?}");
        assert!(said.err.contains("nobody") && said.err.contains("found"), "{words:?}: {said:?}");
    }
    siege.end();
}
