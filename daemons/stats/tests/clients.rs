//! Clients: what they subscribe to is what they hear, whatever others do.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

mod common;

use std::io::Write as _;
use std::net::Shutdown;

use fulmar_core::limits::{STATS_CONNECTIONS_MAX, STATS_FRAME_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{
    Command, Header, Message, Payload, StatsCommand, Success, Tap, UnikernelCommand, encode_frame,
};
use fulmar_tests::raw::{Answer, Raw, frame};
use fulmar_tests::recorded::{self, Malformed};
use fulmar_tests::system::wait_until;

use common::{Daemon, Process, add, next, next_name};

/// The daemon still does what it is for.
fn serves(daemon: &mut Daemon) {
    assert!(daemon.is_running());
    let process = Process::start();
    daemon.add("still:here", &process);
    assert_eq!(next_name(&mut daemon.subscribe("still:")), ":here");
    assert_eq!(daemon.ask("still:here", StatsCommand::Remove), Answer::Done("removed".into()));
}

#[test]
fn names_are_as_seen_from_the_path_and_no_others_are_heard() {
    let daemon = Daemon::start();
    let processes: Vec<Process> = (0..5).map(|_| Process::start()).collect();
    for (name, process) in ["foo:web", "foo:bar:db", "foobar:x", "bar:web", "web"].iter().zip(&processes) {
        daemon.add(name, process);
    }
    for (subscribed, names) in [
        (":", &[":web", "foobar:x", "foo:bar:db", "foo:web", "bar:web"][..]),
        ("foo:", &["bar:db", ":web"]),
        ("foo:bar:", &[":db"]),
        ("foo:web", &[":web"]),
        ("web", &[":web"]),
    ] {
        let mut client = daemon.subscribe(subscribed);
        let mut heard: Vec<String> = (0..3 * names.len()).map(|_| next_name(&mut client)).collect();
        heard.sort();
        let mut expected: Vec<&str> = names.iter().flat_map(|name| [*name; 3]).collect();
        expected.sort_unstable();
        assert_eq!(heard, expected, "{subscribed}");
    }
    // Nobody else's, also where there is nothing of one's own; it comes as soon as there is.
    let mut alone = daemon.subscribe("baz:");
    let mut all = daemon.subscribe(":");
    (0..15).for_each(|_| drop(next(&mut all)));
    daemon.add("baz:own", &processes[0]);
    assert_eq!(next_name(&mut alone), ":own");
}

#[test]
fn the_sequence_is_that_of_the_subscription() {
    let daemon = Daemon::start();
    let process = Process::start();
    daemon.add("web", &process);
    let mut client = daemon.connect();
    let header = Header::new(0xfedc_ba98_7654_3210, Name::ROOT);
    let payload = Payload::Command(Command::Stats(StatsCommand::Subscribe));
    assert!(client.send(encode_frame(&Message { header, payload }, &mut [0; 256]).unwrap()));
    assert_eq!(client.receive(), Answer::Done("subscribed".into()));
    assert_eq!(next(&mut client).unwrap().1, 0xfedc_ba98_7654_3210);
}

/// The daemon's own switches are what it did.
fn times_it_ran(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn nothing_is_measured_for_nobody() {
    let daemon = Daemon::start();
    let process = Process::start();
    daemon.add("web", &process);
    let mut client = daemon.subscribe(":");
    (0..3).for_each(|_| drop(next(&mut client)));
    drop(client);
    // It still calls vmmd once a second, and looks once more whether somebody is there.
    let (before, begun) = (times_it_ran(&daemon), std::time::Instant::now());
    assert!(wait_until(|| begun.elapsed().as_millis() > 2_500));
    let ran = times_it_ran(&daemon) - before;
    assert!(ran < 12, "it ran {ran} times, and 25 measurements would have been due");
}

#[test]
fn who_subscribes_is_served_and_who_goes_on_talking_is_not() {
    let mut daemon = Daemon::start();
    let process = Process::start();
    daemon.add("web", &process);
    let mut client = daemon.subscribe(":");
    assert_eq!(next_name(&mut client), ":web");
    assert!(client.send(&frame(":", Command::Stats(StatsCommand::Subscribe))));
    while next(&mut client).is_some() {}
    // Twice in one breath.
    let mut client = daemon.connect();
    assert!(client.send(&frame(":", Command::Stats(StatsCommand::Subscribe)).repeat(2)));
    while client.receive_bytes().is_some() {}
    serves(&mut daemon);
}

#[test]
fn three_hundred_subscribers_are_served_and_too_many_connections_are_refused() {
    let mut daemon = Daemon::start();
    let (web, db) = (Process::start(), Process::start());
    daemon.add("foo:web", &web);
    daemon.add("bar:db", &db);
    let names = ["foo:", "bar:", "foo:web"];
    let mut clients: Vec<Raw> = (0..300).map(|number| daemon.subscribe(names[number % 3])).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(next_name(client), [":web", ":db", ":web"][number % 3], "{round}");
        }
    }
    clients.extend((300..STATS_CONNECTIONS_MAX).map(|_| daemon.connect()));
    assert_eq!(daemon.connect().receive(), Answer::Closed);
    assert_eq!(next_name(&mut clients[0]), ":web");
    drop(clients);
    assert!(wait_until(|| daemon.ask("bar:db", StatsCommand::Remove) == Answer::Done("removed".into())));
    serves(&mut daemon);
}

#[test]
fn who_does_not_read_is_closed_and_nobody_else_waits() {
    let mut daemon = Daemon::start();
    let process = Process::start();
    for number in 0..200 {
        daemon.add(&format!("u{number}"), &process);
    }
    let (slow, mut quick) = (daemon.subscribe(":"), daemon.subscribe("u7"));
    let mut heard = 0;
    while !daemon.said().contains("a subscriber that reads too slowly is closed") {
        assert_eq!(next_name(&mut quick), ":u7");
        heard += 1;
        assert!(heard < 10_000);
    }
    assert!(heard > 50, "{heard}");
    assert_eq!(next_name(&mut quick), ":u7");
    drop(slow);
    serves(&mut daemon);
}

#[test]
fn what_never_ends_is_closed() {
    let mut daemon = Daemon::start();
    let (mut length, mut body, mut deaf) = (daemon.connect(), daemon.connect(), daemon.connect());
    let mut idle = daemon.connect();
    assert!(length.send(&[0, 0]) && body.send(&[0, 0, 0, 40, 0x30, 38, 0x30]));
    let question = frame("web", Command::Stats(StatsCommand::Remove)).repeat(100);
    while deaf.0.write_all(&question).is_ok() {}
    assert_eq!(length.receive(), Answer::Closed);
    assert_eq!(body.receive(), Answer::Closed);
    assert!(wait_until(|| daemon.said().matches("did not come to an end").count() == 3), "{}", daemon.said());
    // One that only has not asked yet has all the time that it wants.
    assert_eq!(idle.ask("web", Command::Stats(StatsCommand::Remove)), Answer::Done("removed".into()));
    serves(&mut daemon);
}

#[test]
fn commands_that_make_no_sense_are_answered() {
    let mut daemon = Daemon::start();
    let process = Process::start();
    let many = [Tap { bridge: "", tap: "" }; 64];
    for (name, command, text) in [
        ("foo:", add(process.pid(), "", &[]), "path used instead of name"),
        ("web", add(0, "", &[]), "its process has ended"),
        ("web", add(-1, "", &[]), "its process has ended"),
        ("web", add((1 << 62) - 1, "", &[]), "its process has ended"),
        ("web", add(process.pid(), "", &many), "a unikernel has at most 63 interfaces"),
        ("web", StatsCommand::Initial, "unknown command: this is the statistics daemon"),
    ] {
        assert_eq!(daemon.ask(name, command), Answer::Refused(text.into()), "{name}");
    }
    let header = Header::new(0, Name::ROOT);
    for payload in [
        Payload::Command(Command::Unikernel(UnikernelCommand::Destroy)),
        Payload::Success(Success::Empty),
        Payload::Failure("no".into()),
    ] {
        let mut client = daemon.connect();
        assert!(client.send(encode_frame(&Message { header, payload }, &mut [0; 256]).unwrap()));
        assert!(client.receive().reason().starts_with("unknown command"));
        assert_eq!(client.receive(), Answer::Closed);
    }
    // The longest that is taken: 63 interfaces with names as long as they may be.
    let (bridge, tap) = ("b".repeat(67), "t".repeat(15));
    let full = vec![Tap { bridge: &bridge, tap: &tap }; 63];
    let name = format!("{}:web", "x".repeat(63));
    assert_eq!(daemon.ask(&name, add(process.pid(), "", &full)), Answer::Done("added".into()));
    assert_eq!(next_name(&mut daemon.subscribe(":")), name);
    let long = vec![Tap { bridge: &bridge, tap: &tap }; 200];
    let message = frame("web", Command::Stats(add(process.pid(), "", &long)));
    assert!(message.len() > STATS_FRAME_BYTES_MAX);
    let mut client = daemon.connect();
    client.send(&message);
    // What it had still to send may take the reason away.
    assert!(matches!(client.receive(), Answer::Refused(_) | Answer::Closed));
    daemon.expect_said("more than may be sent");
    serves(&mut daemon);
}

#[test]
fn every_malformed_message_is_refused() {
    let mut daemon = Daemon::start();
    let process = Process::start();
    daemon.add("web", &process);
    let mut subscriber = daemon.subscribe(":");
    let mut count = 0;
    for Malformed { name, bytes, .. } in recorded::malformed() {
        let mut client = daemon.connect();
        client.send_framed(&bytes);
        let _ = client.0.shutdown(Shutdown::Write);
        let answers: Vec<Answer> =
            std::iter::from_fn(|| Some(client.receive()).filter(|answer| *answer != Answer::Closed)).collect();
        assert!(matches!(answers.as_slice(), [] | [Answer::Refused(_)]), "{name}: {answers:?}");
        count += 1;
    }
    assert!(count > 100, "{count}");
    assert_eq!(next_name(&mut subscriber), ":web");
    serves(&mut daemon);
}
