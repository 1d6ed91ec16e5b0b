//! Start, end, and start again: the command line, one daemon for a folder, unikernels that do not notice.

mod common;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;

use fulmar_core::wire::{ConsoleCommand, Window};
use nix::sys::signal::Signal;

use common::{Daemon, Reply, wait_until, write_all};

#[test]
fn the_command_line() {
    let daemon = Daemon::start();
    let run = |arguments: &[&str]| daemon.command().args(arguments).output().unwrap();
    let help = run(&["--help"]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().starts_with("usage: vmmd_console"));
    let version = run(&["--version"]);
    assert!(version.status.success() && String::from_utf8(version.stdout).unwrap().starts_with("vmmd_console 0."));
    let wrong = run(&["--wrong"]);
    assert_eq!(wrong.status.code(), Some(124));
    assert_eq!(String::from_utf8(wrong.stderr).unwrap(), "vmmd_console: unknown option '--wrong', see --help\n");
    let nowhere = run(&["--run", "/nonexistent"]);
    assert_eq!(nowhere.status.code(), Some(1));
    let text = String::from_utf8(nowhere.stderr).unwrap();
    assert!(text.contains("there is no folder /nonexistent/util"), "{text}");
}

#[test]
fn a_folder_has_one_daemon_and_a_signal_ends_it_orderly() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.socket().metadata().unwrap().permissions().mode() & 0o777, 0o660);
    let second = daemon.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("another vmmd_console serves this folder"), "{text}");
    drop(daemon.connect());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        assert!(daemon.stop(signal).success());
        assert!(!daemon.socket().exists() && daemon.said().ends_with("ended by a signal\n"));
        daemon.serve();
    }
    // Killed, it leaves its socket behind, which the next one replaces.
    daemon.stop(Signal::SIGKILL);
    assert!(daemon.socket().exists());
    daemon.serve();
    daemon.follow("web", Window::Count(1), "waiting for VM");
}

#[test]
fn a_unikernel_writes_on_while_there_is_no_daemon() {
    let mut daemon = Daemon::start();
    let mut unikernel = daemon.add("web", 1);
    write_all(&unikernel, b"before\n");
    daemon.follow("web", Window::Count(1), "subscribed").expect_lines(&["before"]);
    daemon.stop(Signal::SIGKILL);
    // Neither an error nor a wait: what has no place is refused at once, and the writer goes on.
    let mut written = 0;
    loop {
        match unikernel.write(b"nobody reads this\n") {
            Ok(count) => written += count,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(written > 0);
    daemon.serve();
    let mut client = daemon.connect();
    client.ask("web", 1, ConsoleCommand::Add { unikernels: 1 });
    assert_eq!(client.reply(), Reply::Empty);
    // What the fifo held is not lost.
    daemon.follow("web", Window::Count(1), "subscribed").expect_lines(&["nobody reads this"]);
    write_all(&unikernel, b"\nafter\n");
    let mut last = daemon.follow("web", Window::Count(1), "subscribed");
    wait_until("the new line", || last.reply() == common::line("after"));
}
