//! What readers are told: windows, cursors, what concerns them, following; and what is refused.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use fulmar_core::limits::{LOG_CONNECTIONS_MAX, LOG_FRAME_BYTES_MAX, WIRE_INT_MAX};
use fulmar_core::name::Name;
use fulmar_core::time::{UNIX_MS_MAX, UNIX_MS_MIN};
use fulmar_core::wire::{
    Command, ConsoleCommand, Deed, Event, Header, List, LogCommand, LogFrom, Message, Note, Payload, RunEnd, Success,
    Window, encode_frame,
};

use common::{Came, Daemon, asked, count, created, name, since, told};
use fulmar_tests::recorded::{self, Malformed};
use fulmar_tests::skips::skip;
use nix::sys::signal::Signal;

const STARTED: &str = concat!("vmmd_log ", env!("CARGO_PKG_VERSION"), " started");

/// A daemon that was told of so many events, a second apart, of `a:x` and `b:y` in turn. The first event is its own.
fn with_events(number: u64) -> Daemon {
    let daemon = Daemon::start(&[]);
    let mut vmmd = daemon.connect();
    for number in 1..=number {
        let name = if number % 2 == 1 { "a:x" } else { "b:y" };
        vmmd.tell(number, i64::try_from(number).unwrap() * 1000, created(name));
    }
    daemon
}

fn event(number: u64) -> Came {
    let name = if number.is_multiple_of(2) { "a:x" } else { "b:y" };
    Came::Event(number, format!("{name}: created unikernel (asked by user 0)"))
}

#[test]
fn windows() {
    let daemon = with_events(10);
    let own = Came::Event(1, STARTED.into());
    let all: Vec<Came> = std::iter::once(own).chain((2..=11).map(event)).collect();
    assert_eq!(daemon.all(":", count(WIRE_INT_MAX)), all);
    assert_eq!(daemon.all(":", since(UNIX_MS_MIN)), all);
    assert_eq!(daemon.all(":", LogFrom::After(0)), all);
    assert_eq!(daemon.all(":", count(3)), all[8..]);
    assert_eq!(daemon.all(":", count(0)), []);
    assert_eq!(daemon.all(":", LogFrom::After(7)), all[7..]);
    assert_eq!(daemon.all(":", LogFrom::After(11)), []);
    // The daemon's own happened today.
    assert_eq!(daemon.all(":", since(9000)), [&all[..1], &all[9..]].concat());
    assert_eq!(daemon.all(":", since(UNIX_MS_MAX)), []);
    assert_eq!(daemon.last(), 11);
}

/// An hour back: the order is that of the numbers, a time finds whatever has that time or a later one, and nothing else is lost.
#[test]
fn the_clock_is_set_back() {
    const HOUR_MS: i64 = 3_600_000;
    let mut daemon = Daemon::start(&["--days=1"]);
    let mut vmmd = daemon.connect();
    let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let times = [now_ms + HOUR_MS, now_ms + HOUR_MS + 1000, now_ms, now_ms + 1000];
    for (number, unix_ms) in (1..).zip(times) {
        vmmd.tell(number, unix_ms, created(if number % 2 == 1 { "a:x" } else { "b:y" }));
    }
    let all: Vec<Came> = (2..=5).map(event).collect();
    for round in 0..2 {
        assert_eq!(daemon.all("a:", LogFrom::After(0)).len() + daemon.all("b:", LogFrom::After(0)).len(), 4, "{round}");
        assert_eq!(daemon.all(":", LogFrom::After(1))[..4], all);
        assert_eq!(daemon.all("a:", since(now_ms + 500)), all[..1]);
        assert_eq!(daemon.all("b:", since(now_ms + 500)), [all[1].clone(), all[3].clone()]);
        assert_eq!(daemon.all(":", since(now_ms + HOUR_MS + 1000)), all[1..2]);
        daemon.stop(Signal::SIGTERM);
        daemon.serve();
    }
}

/// Numbers that no client of the peer can mean are no messages: 2^62 is the first of them.
#[test]
fn counts_and_times_beyond_all_bounds() {
    let daemon = with_events(3);
    let most = asked(":", Command::Log(Window::Count(WIRE_INT_MAX)));
    let at = most.windows(8).position(|it| it == WIRE_INT_MAX.to_be_bytes()).unwrap();
    for (first, is_known) in [(0x3f, true), (0x40, false), (0x7f, false), (0xbf, false), (0x80, false)] {
        let mut bytes = most.clone();
        bytes[at] = first;
        let mut client = daemon.connect();
        client.send(&bytes);
        match client.next() {
            Came::Text(text) => assert!(is_known && text == "subscribed", "{first:x}: {text}"),
            Came::Failure(text) => assert!(!is_known, "{first:x}: {text}"),
            other => panic!("{first:x}: {other:?}"),
        }
    }
    assert_eq!(daemon.last(), 4);
}

#[test]
fn a_tenant_sees_its_own_domain() {
    let daemon = with_events(10);
    let mut vmmd = daemon.connect();
    vmmd.tell(11, 0, Event::Trouble { name: Name::ROOT, reason: "the host has a secret".into() });
    vmmd.tell(12, 0, created("a:deep:z"));
    vmmd.tell(13, 0, Event::Done { name: name("a:"), deed: Deed::AddedPolicy, user: None });
    vmmd.tell(14, 0, created("ab:x"));
    let numbers = |name: &str, from| {
        let came = daemon.all(name, from).into_iter();
        came.map(|came| if let Came::Event(number, _) = came { number } else { panic!("{came:?}") }).collect::<Vec<_>>()
    };
    assert_eq!(numbers("a:", count(100)), [2, 4, 6, 8, 10, 13, 14]);
    assert_eq!(numbers("a:", count(3)), [10, 13, 14]);
    assert_eq!(numbers("a:", LogFrom::After(8)), [10, 13, 14]);
    assert_eq!(numbers("a:x", count(2)), [8, 10]);
    assert_eq!(numbers("a:deep:", count(2)), [13]);
    assert_eq!(numbers("b:", since(9000)), [11]);
    assert_eq!(numbers("c:", count(9)), [0; 0]);
    assert_eq!(numbers(":", count(100)).len(), 15);
    // A follower too, and that events are missing concerns everybody.
    let mut follower = daemon.read("b:", count(1), true);
    assert_eq!((follower.next_number(), follower.next()), (11, Came::Note(Note::End { last: 15 })));
    vmmd.tell(15, 0, created("a:x"));
    vmmd.tell(16, 0, Event::Lost { count: 7, loss: fulmar_core::wire::Loss::Away });
    vmmd.tell(17, 0, created("b:y"));
    assert_eq!((follower.next_number(), follower.next_number()), (17, 18));
}

#[test]
fn who_follows_misses_nothing_and_nothing_comes_twice() {
    let daemon = Daemon::start(&[]);
    let mut vmmd = daemon.connect();
    let mut last = daemon.last();
    for round in 0..20 {
        let mut reader = daemon.read(":", LogFrom::After(last), true);
        for number in 1..=10 {
            vmmd.tell(round * 10 + number, 0, created("a:x"));
        }
        for _ in 0..7 {
            let number = loop {
                match reader.next() {
                    Came::Event(number, _) => break number,
                    Came::Note(Note::End { .. }) => {}
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(number, last + 1);
            last = number;
        }
    }
    assert_eq!(daemon.all(":", LogFrom::After(last)).len(), 60);
}

#[test]
fn clients_of_wire_version_5_get_what_they_can_decode() {
    let daemon = Daemon::start(&[]);
    let mut vmmd = daemon.connect();
    let a = name("a:x");
    vmmd.tell(1, 0, Event::Daemon { program: "vmmd", version: "1", up: true });
    vmmd.tell(2, 0, created("a:x"));
    vmmd.tell(3, 0, Event::Start { name: a, pid: 77, taps: List::Items(&["tap0"]), block: None });
    vmmd.tell(4, 0, Event::Ended { name: a, pid: 77, end: RunEnd::Code(3), asked: false });
    vmmd.tell(5, 0, Event::Ended { name: a, pid: 77, end: RunEnd::OutOfMemory, asked: true });
    let mut old = daemon.connect();
    old.ask(":", Command::Log(Window::Count(100)));
    let historic = |text: &str| Came::Historic(text.into());
    assert_eq!(old.next(), Came::Text("subscribed".into()));
    for text in [
        "the daemon started",
        "the daemon started",
        "a:x runs: process 77, network tap0",
        "a:x ended: exit 3",
        "a:x ended: signal 9",
    ] {
        assert_eq!(old.next(), historic(text));
    }
    vmmd.tell(6, 0, created("a:x"));
    vmmd.tell(7, 0, Event::Hup);
    assert_eq!(old.next(), historic("the daemon was told to open its files again"));
    let mut counting = daemon.connect();
    counting.ask("a:", Command::Log(Window::Count(2)));
    assert_eq!(counting.next(), Came::Text("subscribed".into()));
    assert_eq!((counting.next(), counting.next()), (historic("a:x ended: exit 3"), historic("a:x ended: signal 9")));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let daemon = with_events(1);
    let after = |after| Command::Events(LogCommand { from: LogFrom::After(after), follow: false });
    for (command, text) in [
        (Command::Log(Window::Count(-1)), "must not be negative"),
        (Command::Log(Window::Count(-WIRE_INT_MAX)), "must not be negative"),
        (Command::Events(LogCommand { from: count(-1), follow: true }), "must not be negative"),
        (after(3), "has not come so far"),
        (after(u64::MAX), "has not come so far"),
        (Command::Console(ConsoleCommand::ListInactive), "unknown command: this is the event log"),
        (Command::Host, "unknown command: this is the event log"),
    ] {
        let mut client = daemon.connect();
        client.ask(":", command);
        let Came::Failure(reason) = client.next() else { panic!("{command:?}") };
        assert!(reason.contains(text), "{reason}");
        assert_eq!(client.next(), Came::End);
    }
    for payload in [Payload::Success(Success::Empty), Payload::Failure("no".into())] {
        let mut client = daemon.connect();
        client.send(encode_frame(&Message { header: Header::new(0, Name::ROOT), payload }, &mut [0; 256]).unwrap());
        assert!(matches!(client.next(), Came::Failure(text) if text.starts_with("unknown command")));
    }
    assert_eq!(daemon.last(), 2);
}

/// Who may connect may read; what happened is for the daemons to say.
#[test]
fn only_root_and_the_user_of_the_daemons_tell() {
    const TEST: &str = "only_root_and_the_user_of_the_daemons_tell";
    const STRANGER: &str = "FULMAR_STRANGER";
    if let Some(socket) = std::env::var_os(STRANGER) {
        let mut client = common::Client { stream: std::os::unix::net::UnixStream::connect(socket).unwrap() };
        client.send(&told(1, 0, created("a:x")));
        assert_eq!(client.next(), Came::Failure("only vmmd and vmmd_tls tell what has happened".into()));
        assert_eq!(client.next(), Came::End);
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return skip(TEST, "users cannot be changed here");
    }
    let daemon = Daemon::start(&[]);
    let mut anybody = fs::metadata(daemon.socket()).unwrap().permissions();
    assert_eq!(anybody.mode() & 0o777, 0o660);
    anybody.set_mode(0o666);
    fs::set_permissions(daemon.socket(), anybody).unwrap();
    // Where it can be executed by everybody.
    let program = daemon.folder.join("stranger");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut stranger = std::process::Command::new(program);
    stranger.args(["--exact", TEST, "--nocapture"]).env(STRANGER, daemon.socket()).uid(77).gid(77);
    let output = stranger.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(daemon.said().contains("only vmmd and vmmd_tls tell what has happened"), "{}", daemon.said());
    assert_eq!(daemon.last(), 1);
}

#[test]
fn frames_that_are_none_end_the_connection_and_nothing_else() {
    let daemon = with_events(1);
    let good = asked("web", Command::Log(Window::Count(1)));
    let too_long = [&(1_u32 << 12).to_be_bytes()[..], &good[4..], &[0; LOG_FRAME_BYTES_MAX]].concat();
    let trailing = [&(u32::try_from(good.len() - 3).unwrap()).to_be_bytes()[..], &good[4..], b"x"].concat();
    let cases: [(&str, &[u8]); 6] = [
        ("no length", &[0, 0, 0, 0]),
        ("negative", &[0xff, 0xff, 0xff, 0xff]),
        ("2 GiB", &[0x7f, 0xff, 0xff, 0xff, 0x30, 0x84, 0x7f, 0xff, 0xff, 0xf9]),
        ("nonsense", &[0, 0, 0, 4, b'G', b'E', b'T', b' ']),
        ("trailing", &trailing),
        ("too long", &too_long),
    ];
    for (case, bytes) in cases {
        let mut client = daemon.connect();
        // The daemon may have hung up before all was sent.
        let _ = client.stream.write_all(bytes);
        match client.next() {
            Came::Failure(_) => assert_eq!(client.next(), Came::End, "{case}"),
            other => assert_eq!(other, Came::End, "{case}"),
        }
    }
    // Every malformed message that was recorded, and an event cut off at each place, after which the writer comes again.
    let mut malformed = 0;
    for Malformed { bytes, .. } in recorded::malformed() {
        let mut client = daemon.connect();
        let _ = client.stream.write_all(&[&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat());
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        while !matches!(client.next(), Came::End) {}
        malformed += 1;
    }
    assert!(malformed > 50, "{malformed}");
    let whole = told(2, 0, created("a:x"));
    for cut in 1..whole.len() {
        let mut client = daemon.connect();
        client.send(&whole[..cut]);
    }
    assert_eq!(daemon.last(), 2);
    let mut vmmd = daemon.connect();
    for byte in &whole {
        vmmd.send(&[*byte]);
    }
    assert_eq!((vmmd.next(), daemon.last()), (Came::Empty, 3));
}

/// So many read at once, and each gets everything; one more than there is room for is sent away, and costs nobody anything.
#[test]
fn three_hundred_readers() {
    let daemon = with_events(50);
    let mut readers: Vec<_> = (0..300)
        .map(|number| match number % 3 {
            0 => daemon.read(":", count(10), true),
            1 => daemon.read("a:", LogFrom::After(20), true),
            _ => daemon.read("b:y", since(0), true),
        })
        .collect();
    let mut vmmd = daemon.connect();
    for number in 51..=60 {
        vmmd.tell(number, 0, created(if number % 2 == 1 { "a:x" } else { "b:y" }));
    }
    for (number, reader) in readers.iter_mut().enumerate() {
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(60..)) {
            match reader.next() {
                Came::Event(number, _) => seen.push(number),
                Came::Note(Note::End { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let expected: Vec<u64> = match number % 3 {
            0 => (42..=60).collect(),
            1 => (22..=60).step_by(2).collect(),
            _ => (3..=61).step_by(2).collect(),
        };
        assert_eq!(seen, expected);
    }
    // Those who are silent cost no time.
    let before = daemon.processor_ms();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let spent = before.zip(daemon.processor_ms()).map(|(before, after)| after - before);
    assert!(spent.is_none_or(|ms| ms <= 20), "{spent:?}");
    println!("300 readers: {:?} KiB; idle for a second: {spent:?} ms of a processor", daemon.resident_kib());
    let more: Vec<_> = (0..LOG_CONNECTIONS_MAX).map(|_| daemon.connect()).collect();
    common::wait_until("one to be sent away", || daemon.said().contains("connection refused"));
    drop(more);
    drop(readers);
    common::wait_until("room", || daemon.connect().stream.write_all(&asked(":", Command::Host)).is_ok());
}
