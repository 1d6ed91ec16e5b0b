//! Each daemon under a user of its own, as packages have it: all of them work together, and none can do to another what
//! `docs/security.md` says that it cannot.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use fulmar_core::wire::{self, ConsoleCommand};
use fulmar_tests::namespace::inside;
use fulmar_tests::raw::{Answer, Raw};
use fulmar_tests::siege::{Siege, control_half};
use fulmar_tests::skips::skip;
use fulmar_tests::system::wait_until;
use nix::mount::{MsFlags, mount};
use nix::unistd::Uid;

/// The users of `packaging/sysusers.conf` and their numbers here.
const USERS: [(&str, u32); 4] =
    [("fulmar", 515_001), ("fulmar-console", 515_002), ("fulmar-log", 515_003), ("fulmar-stats", 515_004)];

/// Says to the test that runs again as another user which socket it is to try.
const SOCKET: &str = "FULMAR_CONSOLE_SOCKET";

/// Has the system know these users, for who is in this mount namespace.
fn add_users() {
    let known = |file: &str, lines: &str| {
        let (place, made) =
            (format!("/etc/{file}"), std::env::temp_dir().join(format!("fulmar-{file}-{}", std::process::id())));
        let before = fs::read_to_string(&place).unwrap();
        fs::write(&made, format!("{before}{lines}")).unwrap();
        mount(Some(&made), place.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        fs::remove_file(made).unwrap();
    };
    let group = USERS[0].1;
    let users = USERS.map(|(name, uid)| format!("{name}:x:{uid}:{group}::/nonexistent:/usr/sbin/nologin\n"));
    known("passwd", &users.concat());
    known("group", &format!("fulmar:x:{group}:\n"));
}

fn uid_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    let uids: BTreeSet<u32> = line.split_whitespace().map(|uid| uid.parse().unwrap()).collect();
    assert_eq!(uids.len(), 1, "{line}");
    uids.into_iter().next().unwrap()
}

/// What a program prints that a daemon's user runs, and whether it succeeds.
fn run_as(uid: u32, program: &str, words: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(words).uid(uid).gid(USERS[0].1).stdin(Stdio::null());
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn daemons_work_together_under_users_of_their_own_and_cannot_harm_each_other() {
    let test = "daemons_work_together_under_users_of_their_own_and_cannot_harm_each_other";
    if !Uid::effective().is_root() {
        return skip(test, "users cannot be changed here, run it as root");
    }
    inside(test, || {
        add_users();
        let Some(mut siege) = Siege::begin(test) else { return };
        siege.start_log();
        siege.system.start_stats(&["--interval".as_ref(), "0.2".as_ref()]).unwrap();
        let pid = |name| siege.system.pid(name).unwrap();
        let control = control_half(pid("vmmd"));
        let pids = [control, pid("vmmd_console"), pid("vmmd_log"), pid("vmmd_stats")];
        assert_eq!(pids.map(uid_of), USERS.map(|(_, uid)| uid));

        let done = |words: &[&str]| {
            let said = siege.client(words);
            assert_eq!(said.code, 0, "{words:?}: {said:?}");
            said.out
        };
        done(&["create", "siege:hello", &siege.image("spin"), "--mem", "16"]);
        assert!(wait_until(|| siege.has_console("siege:hello")), "{}", siege.system.log("vmmd_console"));
        assert!(wait_until(|| done(&["log"]).contains("siege:hello")));
        assert!(wait_until(|| done(&["stats", "--count", "1"]).contains("siege:hello")));
        none_harms_another(&siege, &pids);
        done(&["destroy", "siege:hello"]);
        for (name, pid) in ["vmmd_console", "vmmd_log", "vmmd_stats"].iter().zip(&pids[1..]) {
            assert!(Path::new(&format!("/proc/{pid}/exe")).exists(), "{name} has ended");
        }
        siege.system.stop().unwrap();
    });
}

fn none_harms_another(siege: &Siege, pids: &[u32; 4]) {
    let run = siege.system.run();
    let path = |below: &str| run.join(below).to_str().unwrap().to_owned();
    let state = siege.system.state();
    let sockets = ["vmmd.sock", "console.sock", "log.sock", "stat.sock"].map(|name| path(&format!("util/{name}")));
    let inodes = || sockets.clone().map(|socket| fs::metadata(socket).unwrap().ino());
    let before = inodes();
    for (name, uid) in &USERS[1..] {
        let is_done = |program: &str, words: &[&str]| run_as(*uid, program, words).0;
        assert!(is_done("true", &[]));
        for socket in &sockets {
            assert!(!is_done("rm", &["-f", socket]), "{name} removes {socket}");
            assert!(!is_done("mv", &["-f", socket, &format!("{socket}.old")]), "{name} moves {socket}");
            assert!(!is_done("ln", &["-sf", "/dev/null", socket]), "{name} replaces {socket}");
        }
        for folder in ["", "util", "units"] {
            assert!(!is_done("touch", &[&path(&format!("{folder}/new"))]), "{name} makes files in '{folder}'");
        }
        for (pid, (other, _)) in pids.iter().zip(USERS) {
            let signalled = is_done("kill", &["-0", &pid.to_string()]);
            assert_eq!(signalled, other == *name, "{name} signals {other}");
            assert!(!is_done("cat", &[&format!("/proc/{pid}/environ")]), "{name} looks into {other}");
        }
        // What is kept of images, block devices, policies and events.
        let (_, readable) = run_as(*uid, "find", &[state.to_str().unwrap(), "-type", "f", "-readable"]);
        let (own, foreign): (Vec<_>, Vec<_>) = readable.lines().partition(|file| file.contains("/log/"));
        assert_eq!(foreign, [""; 0], "{name} reads what is another's");
        assert_eq!(own.is_empty(), *name != "fulmar-log", "{name}: {own:?}");
        expect_no_console_added(*uid, &sockets[1]);
    }
    assert_eq!(inodes(), before);
}

/// Whose fifo is a console is believed of root and the control half alone: this test runs again, as that user.
fn expect_no_console_added(uid: u32, socket: &str) {
    let folder = std::env::temp_dir().join(format!("fulmar-users-{}-{uid}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let own = folder.join("again");
    fs::copy(std::env::current_exe().unwrap(), &own).unwrap();
    let mut again = Command::new(&own);
    again.args(["--exact", "a_stranger_adds_no_console", "--nocapture"]).env(SOCKET, socket);
    let output = again.uid(uid).gid(USERS[0].1).stdin(Stdio::null()).output().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("refused:"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_stranger_adds_no_console() {
    // On its own it is part of the test above.
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let add = wire::Command::Console(ConsoleCommand::Add { unikernels: 1 });
    let Answer::Refused(words) = Raw::connect(Path::new(&socket)).ask("siege:mine", add) else { panic!("not refused") };
    println!("refused: {words}");
}
