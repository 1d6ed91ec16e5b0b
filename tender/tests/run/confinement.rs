//! What a tender that runs a guest may still do, as the kernel tells: nothing that its user could not, and less.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::tender::{Running, end, image, kinds, run, tender};
use fulmar_tests::built::Kind;
use fulmar_tests::skips::skip;
use nix::unistd::geteuid;

/// Starts it and waits until its guest runs.
fn start(command: &mut Command) -> Running {
    let mut running = Running::start(command);
    running.console("My arguments");
    running
}

fn path(running: &Running, name: &str) -> String {
    format!("/proc/{}/{name}", running.id())
}

/// A line of `/proc/PID/status`.
fn status(running: &Running, key: &str) -> String {
    let text = fs::read_to_string(path(running, "status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{key}: {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn assert_confined(running: &Running) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status(running, set), 16), Ok(0), "{set}");
    }
    assert_eq!((status(running, "NoNewPrivs").as_str(), status(running, "Seccomp").as_str()), ("1", "2"));
}

#[test]
fn a_tender_of_root_becomes_nobody_who_sees_nothing() {
    if !geteuid().is_root() {
        return skip("a tender of root", "the tests do not run as root");
    }
    for kind in kinds("tender of root") {
        let running = start(&mut run(kind, "hello"));
        assert_confined(&running);
        assert_eq!(status(&running, "Uid"), "65534 65534 65534 65534");
        assert_eq!(status(&running, "Gid"), "65534 65534 65534 65534");
        assert_eq!(status(&running, "Groups"), "");
        let network = |path: &str| fs::read_link(path).unwrap();
        assert_ne!(network(&path(&running, "ns/net")), network("/proc/self/ns/net"));
        let interfaces = fs::read_to_string(path(&running, "net/dev")).unwrap();
        let names: Vec<&str> = interfaces.lines().skip(2).filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names.iter().map(|name| name.trim()).collect::<Vec<_>>(), ["lo"]);
        let root = path(&running, "root/");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "{root} is not empty");
    }
}

#[test]
fn a_tender_of_root_becomes_whom_it_is_told() {
    if !geteuid().is_root() {
        return skip("a tender told whom to become", "the tests do not run as root");
    }
    for kind in kinds("tender told whom to become") {
        for (user, uid, gid) in [("4711", "4711", "4711"), ("4711:815", "4711", "815"), ("0", "0", "0")] {
            let option = format!("--user={user}");
            let running = start(tender(kind).args(["--mem=2", option.as_str()]).arg(image(kind, "hello")));
            assert_confined(&running);
            assert_eq!(status(&running, "Uid"), [uid; 4].join(" "));
            assert_eq!(status(&running, "Gid"), [gid; 4].join(" "));
        }
    }
}

/// Root hands everything over open, as `vmmd` does; the tender belongs to nobody from the start.
#[test]
fn a_tender_of_an_ordinary_user_gives_up_what_it_can() {
    if !geteuid().is_root() {
        return skip("a tender of an ordinary user", "the tests do not run as root");
    }
    let file = fs::File::open(image(fulmar_tests::built::Kind::Spt, "hello")).unwrap();
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut command = tender(fulmar_tests::built::Kind::Spt);
    command.uid(4711).gid(4711).args(["--mem=2", &format!("@{}", std::os::fd::AsRawFd::as_raw_fd(&file))]);
    let running = start(&mut command);
    assert_confined(&running);
    assert_eq!(status(&running, "Uid"), "4711 4711 4711 4711");
    let told = end(tender(fulmar_tests::built::Kind::Spt).uid(4711).args(["--user=4712", "@0"]));
    assert_eq!(told.code(), Some(1));
    assert!(told.stderr.contains("Could not become user 4712") || told.stderr.contains("Could not open"), "{told:?}");
}

/// A number that was not open must not come to mean a file that the tender opens itself.
#[test]
fn descriptors_are_taken_before_anything_is_opened() {
    for kind in kinds("descriptors first") {
        for option in ["--status-fd=3", "--net:service=@3", "--block:storage=@3"] {
            let refused = end(tender(kind).arg(option).arg(image(kind, "devices")));
            assert_eq!(refused.code(), Some(1), "{option}: {refused:?}");
            assert!(refused.stderr.contains("@3") && refused.stderr.contains("Bad file descriptor"), "{refused:?}");
        }
    }
}

#[test]
fn nobody_is_given_a_descriptor_twice() {
    for kind in kinds("descriptor twice") {
        let (_ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&theirs);
        let options = [format!("--net:service=@{fd}"), format!("--block:storage=@{fd}")];
        let refused = end(tender(kind).args(options).arg(image(kind, "devices")));
        assert_eq!(refused.code(), Some(1));
        assert!(refused.stderr.contains("busy"), "{refused:?}");
    }
}

/// Whoever starts it cannot have all that the guest can read be executable: Linux takes that back when a 64-bit program without an
/// executable stack begins.
#[test]
fn the_personality_of_whoever_starts_it_does_not_reach_the_guest() {
    const READ_IMPLIES_EXEC: u32 = 0x40_0000;
    let tender = tender(Kind::Spt);
    let mut setarch = Command::new("setarch");
    setarch.arg("--read-implies-exec").arg(tender.get_program()).arg("--mem=2").arg(image(Kind::Spt, "hello"));
    let running = start(setarch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let personality = fs::read_to_string(path(&running, "personality")).unwrap();
    assert_eq!(u32::from_str_radix(personality.trim(), 16).map(|bits| bits & READ_IMPLIES_EXEC), Ok(0));
}
