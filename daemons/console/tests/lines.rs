//! Lines of unikernels on their way to those who follow them: history, windows, live, ends.

mod common;

use fulmar_core::limits::{CONSOLE_LINE_BYTES_MAX, CONSOLE_SUBSCRIBERS_MAX};
use fulmar_core::wire::{ConsoleCommand, Window};

use common::{Daemon, Reply, line, write_all};

const ALL: Window = Window::Count(i64::MAX >> 1);

#[test]
fn history_and_then_live_lines_for_two() {
    let daemon = Daemon::start();
    let unikernel = daemon.add("foo:web", 5);
    write_all(&unikernel, b"one\n\ntwo\r\n\xff\x00\x1b\nthr");
    let mut first = daemon.follow("foo:web", ALL, "subscribed");
    first.expect_lines(&["one", "", "two\r"]);
    assert_eq!(first.reply(), Reply::Line(b"\xff\0\x1b".to_vec()));
    let mut second = daemon.follow("foo:web", Window::Count(1), "subscribed");
    assert_eq!(second.reply(), Reply::Line(b"\xff\0\x1b".to_vec()));
    let mut third = daemon.follow("foo:web", Window::Count(0), "subscribed");
    write_all(&unikernel, b"ee\nfour\n");
    for client in [&mut first, &mut second, &mut third] {
        client.expect_lines(&["three", "four"]);
    }
    drop(unikernel);
    daemon.wait_for_inactive(":", &["foo:web"]);
    assert_eq!(daemon.follow("foo:web", Window::Count(1), "subscribed").reply(), line("four"));
}

#[test]
fn since_a_time() {
    let daemon = Daemon::start();
    let unikernel = daemon.add("web", 5);
    write_all(&unikernel, b"one\n");
    let mut client = daemon.follow("web", Window::Since(0), "subscribed");
    let (first_ms, reply) = client.stamped();
    assert_eq!(reply, line("one"));
    let now_ms = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    };
    common::wait_until("the next millisecond", || now_ms() > first_ms);
    write_all(&unikernel, b"two\n");
    let (second_ms, reply) = client.stamped();
    assert_eq!(reply, line("two"));
    assert!(second_ms > first_ms);
    daemon.follow("web", Window::Since(first_ms), "subscribed").expect_lines(&["one", "two"]);
    daemon.follow("web", Window::Since(first_ms + 1), "subscribed").expect_lines(&["two"]);
    daemon.follow("web", Window::Since(second_ms), "subscribed").expect_lines(&["two"]);
    let mut future = daemon.follow("web", Window::Since(253_402_300_799_999), "subscribed");
    write_all(&unikernel, b"three\n");
    future.expect_lines(&["three"]);
}

#[test]
fn long_lines_are_cut_and_the_last_one_needs_no_end() {
    let daemon = Daemon::start();
    let unikernel = daemon.add("web", 5);
    let full = "x".repeat(CONSOLE_LINE_BYTES_MAX);
    write_all(&unikernel, format!("{full}\n{full}y{full}\nshort\nrest").as_bytes());
    let mut client = daemon.follow("web", ALL, "subscribed");
    client.expect_lines(&[&full, &format!("{full} [truncated]"), "short"]);
    drop(unikernel);
    client.expect_lines(&["rest"]);
}

#[test]
fn a_restarted_unikernel_keeps_its_ring_and_its_subscribers() {
    let daemon = Daemon::start();
    let first = daemon.add("web", 5);
    let mut client = daemon.follow("web", ALL, "subscribed");
    write_all(&first, b"first\nlast words");
    drop(first);
    client.expect_lines(&["first", "last words"]);
    let second = daemon.add("web", 5);
    write_all(&second, b"second\n");
    client.expect_lines(&["second"]);
    // A new fifo while the old one is still held: what is in the old one comes first.
    write_all(&second, b"in the old fifo");
    let third = daemon.add("web", 5);
    write_all(&third, b"third\nhalf");
    client.expect_lines(&["in the old fifo", "third"]);
    // The same fifo again, as a vmmd that was restarted tells it: nothing is lost or cut.
    let mut again = daemon.connect();
    again.ask("web", 9, ConsoleCommand::Add { unikernels: 5 });
    assert_eq!(again.reply(), Reply::Empty);
    write_all(&third, b" and half\n");
    client.expect_lines(&["half and half"]);
    daemon.follow("web", Window::Count(3), "subscribed").expect_lines(&["in the old fifo", "third", "half and half"]);
}

#[test]
fn one_can_wait_for_a_unikernel() {
    let daemon = Daemon::start();
    let mut early = daemon.follow("web", Window::Count(20), "waiting for VM");
    assert_eq!(daemon.inactive(":"), [""; 0]);
    let unikernel = daemon.add("web", 5);
    write_all(&unikernel, b"here\n");
    early.expect_lines(&["here"]);
}

#[test]
fn the_oldest_of_too_many_subscribers_goes() {
    let daemon = Daemon::start();
    let unikernel = daemon.add("web", 5);
    write_all(&unikernel, b"one\n");
    let mut clients: Vec<_> = (0..=CONSOLE_SUBSCRIBERS_MAX).map(|_| daemon.follow("web", ALL, "subscribed")).collect();
    let mut oldest = clients.remove(0);
    oldest.expect_lines(&["one", "[the console goes on, but 6 newer subscribers have its places: subscribe again]"]);
    assert_eq!(oldest.reply(), Reply::End);
    write_all(&unikernel, b"two\n");
    for client in &mut clients {
        client.expect_lines(&["one", "two"]);
    }
}

#[test]
fn whatever_a_subscriber_says_ends_it() {
    let daemon = Daemon::start();
    let _unikernel = daemon.add("web", 5);
    let mut client = daemon.follow("web", ALL, "subscribed");
    client.send(b"x");
    assert_eq!(client.reply(), Reply::End);
    let mut closed = daemon.follow("web", ALL, "subscribed");
    closed.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(closed.reply(), Reply::End);
}

#[test]
fn of_a_path_only_so_many_are_kept() {
    let daemon = Daemon::start();
    for name in ["foo:c", "foo:a", "foo:b", "foo:deep:z", "other"] {
        drop(daemon.add(name, 9));
    }
    daemon.wait_for_inactive(":", &[":other", "foo:deep:z", "foo:c", "foo:b", "foo:a"]);
    assert_eq!(daemon.inactive("foo:"), ["deep:z", ":c", ":b", ":a"]);
    let mut follower = daemon.follow("foo:a", ALL, "subscribed");
    let running = daemon.add("foo:d", 2);
    follower.expect_lines(&["[this console is kept no longer: those of newer unikernels have its place]"]);
    assert_eq!(follower.reply(), Reply::End);
    assert_eq!(daemon.inactive("foo:"), ["deep:z", ":c"]);
    let second = daemon.add("foo:e", 0);
    assert_eq!(daemon.inactive("foo:"), ["deep:z"]);
    // Those that run are never dropped.
    drop((running, second));
    daemon.wait_for_inactive("foo:", &[":e", "deep:z", ":d"]);
}
