//! The link to `vmmd`: what it says is done, what is no answer ends it, and with it all that was heard.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

mod common;

use std::os::unix::fs::PermissionsExt;

use fulmar_core::wire::{Payload, StatsCommand, Success, Tap};
use fulmar_host::meter::device_text;
use fulmar_host::shim::Process as Identity;
use fulmar_tests::raw::Answer;
use nix::sys::signal::Signal;

use common::{Daemon, Process, Vmmd, add, next, next_name};

/// As the host half of `vmmd` would have it: the start of a process, told apart from that of other boots.
fn identity(process: &Process) -> Identity {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = u64::from_str_radix(&boot.replace('-', "")[..16], 16).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let ticks: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    Identity { pid: process.0.id(), started: boot ^ ticks }
}

#[test]
fn the_command_line() {
    let daemon = Daemon::start();
    let run = |arguments: &[&str]| daemon.command().args(arguments).output().unwrap();
    let help = run(&["--help"]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().starts_with("usage: vmmd_stats"));
    let version = run(&["--version"]);
    assert!(version.status.success() && String::from_utf8(version.stdout).unwrap().starts_with("vmmd_stats 0."));
    for (wrong, text) in [
        (&["--wrong"][..], "unknown option '--wrong', see --help"),
        (&["--interval", "0"], "--interval: '0' is no number of seconds from 0.1 to 86400"),
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(124));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("vmmd_stats: {text}\n"));
    }
    let nowhere = run(&["--run", "/nonexistent"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8(nowhere.stderr).unwrap().contains("there is no folder /nonexistent/util"));
}

#[test]
fn a_folder_has_one_daemon_and_a_signal_ends_it_orderly() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.socket().metadata().unwrap().permissions().mode() & 0o777, 0o660);
    let second = daemon.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("another vmmd_stats serves this folder"));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        assert!(daemon.stop(signal).success());
        assert!(!daemon.socket().exists() && daemon.said().ends_with("ended by a signal\n"));
        daemon.serve();
    }
    daemon.stop(Signal::SIGKILL);
    assert!(daemon.socket().exists());
    daemon.serve();
    let process = Process::start();
    daemon.add("web", &process);
    assert_eq!(next_name(&mut daemon.subscribe(":")), ":web");
}

#[test]
fn what_vmmd_says_is_done_and_answered() {
    let daemon = Daemon::start();
    daemon.expect_said("no vmmd at");
    let listener = daemon.vmmd();
    let mut vmmd = Vmmd::link(&listener);
    let (web, mut db) = (Process::start(), Process::start());
    let mut client = daemon.subscribe(":");
    let device = device_text(identity(&web).started, None);
    let taps = [Tap { bridge: "service", tap: "vmmtap9876" }];
    assert_eq!(vmmd.tell("web", add(web.pid(), &device, &taps)), Answer::Done("added".into()));
    assert_eq!(next_name(&mut client), ":web");
    assert_eq!(vmmd.tell("db", add(db.pid(), "", &[])), Answer::Done("added".into()));
    assert!((0..50).any(|_| next_name(&mut client) == ":db"));
    assert_eq!(vmmd.tell("web", StatsCommand::Remove), Answer::Done("removed".into()));
    assert!(
        (0..50).map(|_| next_name(&mut client)).skip_while(|name| name == ":web").take(5).all(|name| name == ":db")
    );
    // One that has ended is never heard of again, whether vmmd says so or not.
    db.end();
    assert_eq!(vmmd.tell("web", add(web.pid(), &device, &taps)), Answer::Done("added".into()));
    assert!(
        (0..50).map(|_| next_name(&mut client)).skip_while(|name| name == ":db").take(5).all(|name| name == ":web")
    );
    assert_eq!(vmmd.tell("db", StatsCommand::Remove), Answer::Done("removed".into()));
    // What makes no sense is refused and ends nothing.
    for (name, command, text) in [
        ("db", add(db.pid(), "", &[]), "its process has ended"),
        ("db", add(-1, "", &[]), "its process has ended"),
        ("db", add(1 << 61, "", &[]), "its process has ended"),
        ("db:", add(web.pid(), "", &[]), "path used instead of name"),
        ("db", StatsCommand::Subscribe, "unknown command"),
        ("db", StatsCommand::Initial, "unknown command"),
    ] {
        assert_eq!(vmmd.tell(name, command), Answer::Refused(text.into()));
    }
    assert_eq!(next_name(&mut client), ":web");
}

/// Of the process that is meant there are numbers; of another one that has its id now there are none.
#[test]
fn a_process_that_started_at_another_time_is_not_measured() {
    let daemon = Daemon::start();
    let listener = daemon.vmmd();
    let mut vmmd = Vmmd::link(&listener);
    let (process, other) = (Process::start(), Process::start());
    let wrong = device_text(identity(&process).started ^ 1, Some("fulmar-00000001-7"));
    assert_eq!(vmmd.tell("web", add(process.pid(), &wrong, &[])), Answer::Refused("its process has ended".into()));
    daemon.expect_said(":web is not watched: its process has ended");
    // A restart that was not seen to begin takes what was known away all the same.
    assert_eq!(vmmd.tell("web", add(other.pid(), "", &[])), Answer::Done("added".into()));
    assert_eq!(vmmd.tell("web", add(process.pid(), &wrong, &[])), Answer::Refused("its process has ended".into()));
    assert_eq!(vmmd.tell("db", add(other.pid(), "", &[])), Answer::Done("added".into()));
    let mut client = daemon.subscribe(":");
    for _ in 0..5 {
        assert_eq!(next_name(&mut client), ":db");
    }
}

#[test]
fn without_vmmd_nothing_is_known_and_when_it_is_back_all_is() {
    let daemon = Daemon::start();
    let process = Process::start();
    let listener = daemon.vmmd();
    let mut vmmd = Vmmd::link(&listener);
    assert_eq!(vmmd.tell("web", add(process.pid(), "", &[])), Answer::Done("added".into()));
    assert_eq!(vmmd.tell("old", add(process.pid(), "", &[])), Answer::Done("added".into()));
    let mut client = daemon.subscribe(":");
    let (_, _, start) = next(&mut client).unwrap();
    for round in 0..3 {
        drop(vmmd);
        vmmd = Vmmd::accept(&listener);
        match round {
            // It is gone again before it says anything, or says what nobody can read.
            0 => {
                drop(vmmd);
                vmmd = Vmmd::accept(&listener);
                assert!(vmmd.0.send_framed(b"nonsense"));
                assert_eq!(vmmd.0.receive(), Answer::Closed);
                vmmd = Vmmd::accept(&listener);
                vmmd.say(":", 0, Payload::Failure("unknown command".into()));
                assert_eq!(vmmd.0.receive(), Answer::Closed);
                daemon.expect_said("it refuses: unknown command");
                vmmd = Vmmd::accept(&listener);
            }
            // An answer to something else.
            1 => {
                vmmd.say(":", 1, Payload::Success(Success::Empty));
                assert_eq!(vmmd.0.receive(), Answer::Closed);
                vmmd = Vmmd::accept(&listener);
            }
            _ => {}
        }
        vmmd.say(":", 0, Payload::Success(Success::Empty));
        assert_eq!(vmmd.tell("web", add(process.pid(), "", &[])), Answer::Done("added".into()));
        // Of what it did not tell again nothing is heard any more.
        let mut fresh = daemon.subscribe(":");
        for _ in 0..3 {
            assert_eq!(next_name(&mut fresh), ":web");
        }
    }
    // Who was subscribed all the time still is; the process is the same.
    let (_, _, later) = next(&mut client).unwrap();
    assert!((later.0 - start.0).abs() <= 1, "{start:?} {later:?}");
}
