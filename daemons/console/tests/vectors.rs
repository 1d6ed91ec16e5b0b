//! Every malformed message that was recorded, messages that are cut off at each place, numbers and dates beyond all bounds, three
//! hundred subscribers, a fifo that becomes a file, a thousand unikernels that write at once. After each the daemon serves as before.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::Write as _;
use std::net::Shutdown;

use fulmar_core::limits::{CONSOLE_BYTES_MAX, CONSOLE_LINES_MAX, CONSOLES_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, ConsoleCommand, Frame, Header, Message, Payload, Window, decode, encode_frame};

use fulmar_tests::recorded::{self, Malformed};

use common::{Client, Daemon, Reply, line, wait_until, write_all};

/// As large as a number is on the wire.
const MOST: i64 = (1 << 62) - 1;

fn serves(daemon: &mut Daemon) {
    assert!(daemon.is_running());
    let unikernel = daemon.add("still:here", 1);
    write_all(&unikernel, b"still here\n");
    daemon.follow("still:here", Window::Count(1), "subscribed").expect_lines(&["still here"]);
}

fn asked(name: &str, command: ConsoleCommand) -> Vec<u8> {
    let header = Header::new(3, Name::parse(name).unwrap());
    let payload = Payload::Command(Command::Console(command));
    encode_frame(&Message { header, payload }, &mut [0; 1024]).unwrap().to_vec()
}

#[test]
fn malformed_messages_and_parts_of_good_ones() {
    let mut daemon = Daemon::start();
    let mut malformed = 0;
    for Malformed { name, bytes, .. } in recorded::malformed() {
        // Some were recorded to show what is still good.
        if decode(Frame::whole(&bytes)).is_ok() {
            continue;
        }
        let mut client = daemon.connect();
        // The daemon may have hung up before all was sent.
        let _ = client.stream.write_all(&[&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat());
        let _ = client.stream.shutdown(Shutdown::Write);
        let answers: Vec<Reply> =
            std::iter::from_fn(|| Some(client.reply()).filter(|reply| *reply != Reply::End)).collect();
        assert!(matches!(answers[..], [] | [Reply::Failure(_)]), "{name}: {answers:?}");
        malformed += 1;
    }
    assert!(malformed > 100, "{malformed}");
    let whole = asked(":", ConsoleCommand::ListInactive);
    for cut in 1..whole.len() {
        let mut client = daemon.connect();
        client.send(&whole[..cut]);
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.reply(), Reply::End, "{cut}");
    }
    let mut client = daemon.connect();
    for byte in &whole {
        client.send(&[*byte]);
    }
    assert_eq!(client.reply(), Reply::Consoles(vec![]));
    serves(&mut daemon);
}

#[test]
fn counts_and_dates_beyond_all_bounds() {
    let mut daemon = Daemon::start();
    let unikernel = daemon.add("web", 1);
    write_all(&unikernel, b"one\ntwo\n");
    let mut all = daemon.follow("web", Window::Count(MOST), "subscribed");
    all.expect_lines(&["one", "two"]);
    let mut none = daemon.follow("web", Window::Count(0), "subscribed");
    // From the year 0 on, and from the last second of the year 9999 on.
    let mut past = daemon.follow("web", Window::Since(-62_167_219_200_000), "subscribed");
    past.expect_lines(&["one", "two"]);
    let mut future = daemon.follow("web", Window::Since(253_402_300_799_999), "subscribed");
    // 2^62 and beyond are no numbers, and less than nothing is no count.
    let most = asked("web", ConsoleCommand::Subscribe(Window::Count(MOST)));
    let at = most.windows(8).position(|it| it == MOST.to_be_bytes()).unwrap();
    for first in [0x40, 0x7f, 0x80, 0xbf, 0xff] {
        let mut bytes = most.clone();
        bytes[at] = first;
        let mut client = daemon.connect();
        client.send(&bytes);
        assert!(matches!(client.reply(), Reply::Failure(_)), "{first:x}");
        assert_eq!(client.reply(), Reply::End);
    }
    write_all(&unikernel, b"three\n");
    for client in [&mut all, &mut none, &mut past, &mut future] {
        client.expect_lines(&["three"]);
    }
    serves(&mut daemon);
}

/// What takes the place of a fifo is not read, also where the name was good before; what was kept stays.
#[test]
fn a_fifo_that_becomes_a_file() {
    let mut daemon = Daemon::start();
    let unikernel = daemon.add("web", 1);
    write_all(&unikernel, b"before\n");
    let mut follower = daemon.follow("web", Window::Count(9), "subscribed");
    follower.expect_lines(&["before"]);
    let path = daemon.fifo(":web");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "not for you\n").unwrap();
    // It goes on where it was: it has the fifo open.
    write_all(&unikernel, b"after\n");
    follower.expect_lines(&["after"]);
    let mut vmmd = daemon.connect();
    vmmd.ask("web", 0, ConsoleCommand::Add { unikernels: 9 });
    assert!(matches!(vmmd.reply(), Reply::Failure(text) if text.ends_with("is not a fifo: remove it")));
    drop(unikernel);
    daemon.wait_for_inactive(":", &[":web"]);
    let mut again = daemon.follow("web", Window::Count(9), "subscribed");
    again.expect_lines(&["before", "after"]);
    serves(&mut daemon);
}

#[test]
fn three_hundred_subscribers() {
    let mut daemon = Daemon::start();
    let unikernels: Vec<_> = (0..100).map(|number| daemon.add(&format!("t:u{number}"), 200)).collect();
    let mut subscribers: Vec<Client> =
        (0..300).map(|number| daemon.follow(&format!("t:u{}", number % 100), Window::Count(0), "subscribed")).collect();
    for (number, unikernel) in unikernels.iter().enumerate() {
        write_all(unikernel, format!("I am {number}\n").as_bytes());
    }
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        assert_eq!(subscriber.reply(), line(&format!("I am {}", number % 100)));
    }
    drop(subscribers);
    serves(&mut daemon);
}

/// Each writes more than is kept of it, all at once. What is kept of all together has its bound, each of the last to write has its
/// last lines, and the memory is given back to nobody else.
#[test]
fn a_thousand_that_write_at_once_stay_within_the_bound() {
    const UNIKERNELS: usize = 1000;
    let mut daemon = Daemon::start();
    let unikernels: Vec<_> = (0..UNIKERNELS).map(|number| daemon.add(&format!("t:u{number}"), 2000)).collect();
    let before = daemon.resident_kib();
    let text = "x".repeat(100);
    let lines = 2 * CONSOLE_BYTES_MAX / text.len();
    std::thread::scope(|scope| {
        for part in unikernels.chunks(UNIKERNELS / 4) {
            scope.spawn(|| {
                for number in (0..lines).step_by(100) {
                    let block: String = (number..number + 100).map(|number| format!("{number} {text}\n")).collect();
                    part.iter().for_each(|unikernel| write_all(unikernel, block.as_bytes()));
                }
                part.iter().for_each(|unikernel| write_all(unikernel, b"last\n"));
            });
        }
    });
    for number in (0..UNIKERNELS).step_by(37) {
        let mut last = None;
        let name = format!("t:u{number}");
        wait_until("the last line", || {
            last = Some(daemon.follow(&name, Window::Count(1), "subscribed").reply());
            last == Some(line("last"))
        });
    }
    let kept = |name: &str| {
        let mut client = daemon.follow(name, Window::Count(MOST), "subscribed");
        std::iter::from_fn(|| Some(client.reply())).take_while(|reply| *reply != line("last")).count()
    };
    let counts: Vec<usize> = (0..UNIKERNELS).step_by(101).map(|number| kept(&format!("t:u{number}"))).collect();
    // All of one domain share alike: a thousandth of 64 MiB is not what one may have alone.
    assert!(counts.iter().all(|count| (100..CONSOLE_LINES_MAX).contains(count)), "{counts:?}");
    if let (Some(before), Some(after)) = (before, daemon.resident_kib()) {
        // Beside the lines: what each console and each connection has of its own.
        let most = CONSOLES_BYTES_MAX as u64 / 1024 + 8 * 1024;
        println!("{UNIKERNELS} consoles flooded: {before} KiB before, {after} KiB after; {counts:?} lines of some");
        assert!(after < before + most, "{before} KiB before, {after} KiB after");
    }
    serves(&mut daemon);
}
