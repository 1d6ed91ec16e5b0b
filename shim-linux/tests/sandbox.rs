//! What a confined program may do it can do, and what it may not ends it: each deed is tried without the sandbox and within it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use fulmar_shim_linux::sandbox::{Program, confine, rows};
use fulmar_tests::system::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chdir, setsid};

/// Which deed a child is to do, and whether confined.
const DEED: &str = "FULMAR_TEST_DEED";

/// What the child says when it has done it.
const DONE: &str = "the deed was done";

/// All that have a table.
const PROGRAMS: [Program; 6] =
    [Program::Tls, Program::Console, Program::Log, Program::Stats, Program::Influx, Program::Control];

fn deed(name: &str) {
    match name {
        "a program" => drop(Command::new("/bin/true").status().unwrap()),
        "a thread" => std::thread::spawn(|| ()).join().unwrap(),
        "another host" => drop(UdpSocket::bind("127.0.0.1:0").unwrap()),
        "a signal" => kill(Pid::this(), None).unwrap(),
        "another session" => drop(setsid()),
        "another folder" => chdir("/").unwrap(),
        "a file away" => drop(fs::remove_file("/nowhere/at/all")),
        "a file's mode" => {
            drop(fs::set_permissions("/nowhere/at/all", std::os::unix::fs::PermissionsExt::from_mode(0o777)))
        }
        "a namespace" => drop(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS)),
        "another process" => drop(nix::sys::ptrace::attach(Pid::from_raw(i32::MAX))),
        "another user" => drop(nix::unistd::setuid(nix::unistd::getuid())),
        "a mount" => drop(nix::mount::umount("/nowhere/at/all")),
        "a file" => drop(fs::read("/proc/self/status").unwrap()),
        "a daemon" => drop(UnixStream::connect("/nowhere/at/all")),
        "memory" => drop(std::hint::black_box(vec![1_u8; 64 << 20])),
        other => panic!("no deed: {other}"),
    }
}

/// Not a test of its own: what the children do.
#[test]
fn child() {
    let Ok(text) = std::env::var(DEED) else { return };
    let (confined, name) = text.split_once(' ').unwrap();
    if let Some(program) = PROGRAMS.iter().find(|program| format!("{program:?}") == confined) {
        // The thread that waits for this one is confined with it, and a program of one thread may not begin to wait.
        let waits = format!("/proc/self/task/{}/syscall", Pid::this());
        let call = format!("{} ", nix::libc::SYS_futex);
        assert!(wait_until(|| fs::read_to_string(&waits).unwrap().starts_with(&call)));
        confine(*program).unwrap();
    }
    deed(name);
    println!("{DONE}");
}

/// Whether the deed was done, and by which signal the child has ended.
fn try_deed(confined: &str, name: &str) -> (bool, Option<i32>) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child", "--nocapture", "--test-threads", "1"]).env(DEED, format!("{confined} {name}"));
    let output = child.stdin(Stdio::null()).output().unwrap();
    let is_done = String::from_utf8_lossy(&output.stdout).contains(DONE);
    (is_done, output.status.signal())
}

#[test]
fn what_is_forbidden_ends_the_program() {
    let forbidden = [
        "a program",
        "a thread",
        "another host",
        "a signal",
        "another session",
        "another folder",
        "a file away",
        "a file's mode",
        "a namespace",
        "another process",
        "another user",
        "a mount",
    ];
    for name in forbidden {
        assert_eq!(try_deed("free", name), (true, None), "{name}");
        for program in PROGRAMS {
            // The one that speaks with other hosts, and has threads. What it executes is ended before it begins.
            if program == Program::Influx && ["a program", "a thread", "another host"].contains(&name) {
                continue;
            }
            let tried = try_deed(&format!("{program:?}"), name);
            assert_eq!(tried, (false, Some(Signal::SIGSYS as i32)), "{program:?}: {name}");
        }
    }
}

#[test]
fn what_is_allowed_goes_on() {
    for name in ["a file", "a daemon", "memory"] {
        assert!(try_deed("Tls", name).0, "{name}");
    }
}

#[test]
fn every_row_has_a_reason_and_stands_once() {
    for program in PROGRAMS {
        let rows = rows(program);
        let mut calls: Vec<_> = rows.iter().map(|row| (row.call, row.argument)).collect();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), rows.len(), "{program:?}");
        assert!(rows.iter().all(|row| row.why.len() > 5));
    }
}
