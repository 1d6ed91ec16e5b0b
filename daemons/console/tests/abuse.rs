//! What must not hurt: frames that are none, clients that do not read, unikernels that never stop writing, things in the
//! place of fifos. After each the daemon serves as before.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use fulmar_core::limits::{CONSOLE_CONNECTIONS_MAX, CONSOLE_FRAME_BYTES_MAX, CONSOLE_LINES_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, Command, ConsoleCommand, Header, Message, Payload, UnikernelCommand, Window, encode_frame,
};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use common::{Client, Daemon, Reply, line, wait_until, write_all};

/// The daemon still does what it is for.
fn serves(daemon: &mut Daemon) {
    assert!(daemon.is_running());
    let unikernel = daemon.add("still:here", 1);
    write_all(&unikernel, b"still here\n");
    daemon.follow("still:here", Window::Count(1), "subscribed").expect_lines(&["still here"]);
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

fn asked(name: &str, command: ConsoleCommand) -> Vec<u8> {
    let header = Header::new(3, Name::parse(name).unwrap());
    let payload = Payload::Command(Command::Console(command));
    encode_frame(&Message { header, payload }, &mut [0; 1024]).unwrap().to_vec()
}

#[test]
fn frames_that_are_none_end_the_connection_and_nothing_else() {
    let mut daemon = Daemon::start();
    let good = asked("web", ConsoleCommand::ListInactive);
    let (mut version, mut name, mut choice) = (good.clone(), good.clone(), good.clone());
    let at = |needle: &[u8]| good.windows(needle.len()).position(|window| window == needle).unwrap();
    version[at(&[2, 1, 5]) + 2] = 6;
    name[at(b":web") + 2] = b'/';
    choice[at(&[0xa3, 2, 5, 0])] = 0xa7;
    let too_long = [&[0, 0, 8, 0][..], &good[4..], &[0; CONSOLE_FRAME_BYTES_MAX]].concat();
    let cases: [(&str, &[u8], bool, &str); 10] = [
        ("no length", &[0, 0, 0, 0], false, "ends the conversation"),
        ("negative", &[0xff, 0xff, 0xff, 0xff], false, "ends the conversation"),
        ("least", &[0x80, 0, 0, 0], false, "ends the conversation"),
        ("2 GiB", &[0x7f, 0xff, 0xff, 0xff, 0x30, 0x84, 0x7f, 0xff, 0xff, 0xf9], false, "connection closed"),
        ("nonsense", &framed(b"GET / HTTP/1.0"), false, "malformed"),
        ("trailing", &framed(&[&good[4..], b"x"].concat()), true, "malformed"),
        ("version", &version, false, "unknown version number 6"),
        ("name", &name, false, "invalid name"),
        ("choice", &choice, true, "unknown choice"),
        ("too long", &too_long, false, "connection closed"),
    ];
    for (case, bytes, answered, logged) in cases {
        let mut client = daemon.connect();
        // The daemon may have hung up before all was sent.
        let _ = client.stream.write_all(bytes);
        match client.reply() {
            Reply::Failure(_) => assert_eq!(client.reply(), Reply::End, "{case}"),
            other => assert_eq!((other, answered), (Reply::End, false), "{case}"),
        }
        assert!(daemon.said().contains(logged), "{case}: {}", daemon.said());
    }
    serves(&mut daemon);
}

/// The daemon gives a client its time and no more; a connection between two commands has all the time it wants.
#[test]
fn what_never_ends_is_closed() {
    let mut daemon = Daemon::start();
    let mut idle = daemon.connect();
    idle.send(&asked(":", ConsoleCommand::ListInactive));
    assert_eq!(idle.reply(), Reply::Consoles(vec![]));
    let (mut length, mut body, mut deaf) = (daemon.connect(), daemon.connect(), daemon.connect());
    length.send(&[0, 0]);
    body.send(&[0, 0, 0, 40, 0x30, 38, 0x30]);
    // It asks and asks until it is closed.
    let question = asked(":", ConsoleCommand::ListInactive).repeat(100);
    while deaf.stream.write_all(&question).is_ok() {}
    assert_eq!(length.reply(), Reply::End);
    assert_eq!(body.reply(), Reply::End);
    wait_until("all three", || daemon.said().matches("did not come to an end").count() == 3);
    idle.send(&asked(":", ConsoleCommand::ListInactive));
    assert_eq!(idle.reply(), Reply::Consoles(vec![]));
    serves(&mut daemon);
}

#[test]
fn commands_that_make_no_sense_are_answered() {
    let mut daemon = Daemon::start();
    let add = ConsoleCommand::Add { unikernels: 1 };
    for (name, command, text, closes) in [
        ("foo:", add, "path used instead of name", true),
        ("foo:", ConsoleCommand::Subscribe(Window::Count(1)), "path used instead of name", true),
        ("foo:web", ConsoleCommand::ListInactive, "name used", true),
        ("web", ConsoleCommand::Subscribe(Window::Count(-1)), "must not be negative", true),
        ("web", ConsoleCommand::Add { unikernels: -1 }, "must not be negative", false),
        ("none", add, "cannot open the fifo", false),
        ("..", add, "cannot open the fifo", false),
    ] {
        let mut client = daemon.connect();
        client.send(&asked(name, command));
        match client.reply() {
            Reply::Failure(failure) => assert!(failure.contains(text), "{failure}"),
            other => panic!("{name}: {other:?}"),
        }
        if closes {
            assert_eq!(client.reply(), Reply::End);
        } else {
            client.send(&asked(":", ConsoleCommand::ListInactive));
            assert_eq!(client.reply(), Reply::Consoles(vec![]));
        }
    }
    let header = Header::new(0, Name::ROOT);
    for payload in [
        Payload::Command(Command::Unikernel(UnikernelCommand::Destroy)),
        Payload::Success(wire::Success::Empty),
        Payload::Failure("no".into()),
    ] {
        let mut client = daemon.connect();
        client.send(encode_frame(&Message { header, payload }, &mut [0; 256]).unwrap());
        assert!(matches!(client.reply(), Reply::Failure(text) if text.starts_with("unknown command")));
        assert_eq!(client.reply(), Reply::End);
    }
    serves(&mut daemon);
}

#[test]
fn only_fifos_are_read() {
    let mut daemon = Daemon::start();
    let secret = daemon.fifo("secret");
    std::fs::write(&secret, "secret\n").unwrap();
    std::os::unix::fs::symlink(&secret, daemon.fifo("link")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", daemon.fifo("device")).unwrap();
    mkfifo(&daemon.fifo("target"), Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink(daemon.fifo("target"), daemon.fifo("other")).unwrap();
    std::fs::create_dir(daemon.fifo("folder")).unwrap();
    for name in ["secret", "link", "device", "other", "folder"] {
        let mut client = daemon.connect();
        client.ask(name, 0, ConsoleCommand::Add { unikernels: 9 });
        assert!(matches!(client.reply(), Reply::Failure(text) if text.ends_with("is not a fifo: remove it")), "{name}");
        assert!(daemon.said().contains(&format!("/fifo/:{name} is not a fifo")));
        assert!(!daemon.said().contains("secret\n\n"));
        daemon.follow(name, Window::Count(9), "waiting for VM");
    }
    assert_eq!(daemon.inactive(":"), [""; 0]);
    serves(&mut daemon);
}

#[test]
fn three_hundred_at_once_are_served_and_too_many_are_refused() {
    let mut daemon = Daemon::start();
    let unikernel = daemon.add("web", 1);
    write_all(&unikernel, b"hello\n");
    let mut clients: Vec<Client> = (0..300).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        client.send(&asked(":", ConsoleCommand::ListInactive));
    }
    for client in &mut clients {
        assert_eq!(client.reply(), Reply::Consoles(vec![]));
    }
    clients.extend((300..CONSOLE_CONNECTIONS_MAX).map(|_| daemon.connect()));
    let mut refused = daemon.connect();
    assert_eq!(refused.reply(), Reply::End);
    // Those that are connected still are.
    clients[0].ask("web", 0, ConsoleCommand::Subscribe(Window::Count(1)));
    assert_eq!(clients[0].reply(), Reply::Text("subscribed".into()));
    assert_eq!(clients[0].reply(), line("hello"));
    drop(clients);
    // The daemon learns of it in its own time.
    wait_until("free places", || {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        let sent = stream.write_all(&asked(":", ConsoleCommand::ListInactive));
        sent.is_ok() && stream.read_exact(&mut [0; 4]).is_ok()
    });
    serves(&mut daemon);
}

#[test]
fn who_does_not_read_is_closed_and_nobody_else_waits() {
    let mut daemon = Daemon::start();
    let unikernel = daemon.add("web", 1);
    let mut slow = daemon.follow("web", Window::Count(0), "subscribed");
    let mut quick = daemon.follow("web", Window::Count(0), "subscribed");
    let text = "x".repeat(200);
    let mut count = 0;
    while !daemon.said().contains("reads too slowly") {
        for _ in 0..100 {
            write_all(&unikernel, format!("{count} {text}\n").as_bytes());
            assert_eq!(quick.reply(), line(&format!("{count} {text}")));
            count += 1;
        }
        assert!(count < 100_000);
    }
    // It gets what was already on its way, then the reason, then the end.
    let mut last = None;
    loop {
        match slow.reply() {
            Reply::End => break,
            Reply::Line(line) => last = Some(line),
            other => panic!("{other:?}"),
        }
    }
    assert!(last.is_some_and(|line| line.ends_with(b"subscribe again]")));
    write_all(&unikernel, b"after\n");
    quick.expect_lines(&["after"]);
    serves(&mut daemon);
}

#[test]
fn a_flood_leaves_the_last_lines_and_takes_no_more_memory_than_they_need() {
    let mut daemon = Daemon::start();
    let before = daemon.resident_kib();
    let unikernel = daemon.add("web", 1);
    let flood: String = (0..20_000).map(|number| format!("{number:>60}\n")).collect();
    write_all(&unikernel, flood.as_bytes());
    // A megabyte without any end of line.
    write_all(&unikernel, &vec![b'y'; 1024 * 1024]);
    write_all(&unikernel, &vec![b'\n'; 500]);
    write_all(&unikernel, b"last\n");
    drop(unikernel);
    daemon.wait_for_inactive(":", &[":web"]);
    let mut client = daemon.follow("web", Window::Count(i64::MAX >> 1), "subscribed");
    let lines: Vec<Reply> = (0..CONSOLE_LINES_MAX).map(|_| client.reply()).collect();
    assert_eq!(lines.last(), Some(&line("last")));
    assert_eq!(lines.first(), Some(&line(&format!("{:>60}", 20_000 - (CONSOLE_LINES_MAX - 501)))));
    if let (Some(before), Some(after)) = (before, daemon.resident_kib()) {
        assert!(after < before + 1024, "{before} KiB before, {after} KiB after");
    }
    serves(&mut daemon);
}
