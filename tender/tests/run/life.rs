//! Unikernels from their first line to their end.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tender::{await_console, end, image, kinds, run, tender, wait};
use fulmar_tests::built::Kind;

#[test]
fn hello_says_what_it_was_given_and_ends_with_its_status() {
    for kind in kinds("hello") {
        let end = end(run(kind, "hello").args(["Ada", "--ticks=1", "--status=7"]));
        let wanted = format!(
            "Hello, Ada!\nI am a unikernel under {} with 2 MiB of memory.\n\
             My arguments: Ada --ticks=1 --status=7\ntick 1\nGood-bye.\n",
            kind.name()
        );
        assert_eq!((end.stdout, end.stderr.as_str(), end.status.code()), (wanted, "", Some(7)));
    }
}

#[test]
fn hello_knows_the_name_that_vmmd_gives_it() {
    for kind in kinds("name") {
        let end = end(run(kind, "hello").args(["--name=web", "--ticks=0"]));
        assert!(end.stdout.starts_with("Hello, World!\nI am web under "), "{end:?}");
    }
}

#[test]
fn only_the_low_byte_of_a_status_is_seen() {
    for kind in kinds("status") {
        assert_eq!(end(run(kind, "hello").args(["--ticks=0", "--status=300"])).code(), Some(44));
    }
}

#[test]
fn clocks_and_waiting_hold() {
    for kind in kinds("timer") {
        let end = end(&mut run(kind, "timer"));
        assert_eq!(end.code(), Some(0), "{end:?}");
        assert!(end.stdout.ends_with("timer: all held\n"), "{end:?}");
    }
}

/// Else the first file that is opened, a disk perhaps, would be what the guest's console is written to.
#[test]
fn a_console_that_was_never_open_does_no_harm() {
    for kind in kinds("no console") {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec \"$@\" 0<&- 1>&- 2>&-", "sh", env!("CARGO_BIN_EXE_fulmar-tender"), "--mem=2"]);
        assert_eq!(end(command.arg(image(kind, "hello")).args(["--ticks=0", "--status=5"])).code(), Some(5));
    }
}

#[test]
fn a_termination_ends_the_guest() {
    for kind in kinds("termination") {
        let mut child = run(kind, "hello").spawn().unwrap();
        await_console(&mut child, "My arguments");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let end = wait(child);
        match kind {
            Kind::Spt => assert_eq!(end.signal(), Some(15)),
            Kind::Hvt => assert_eq!((end.code(), end.stderr.as_str()), (Some(1), "solo5-hvt: Exiting on signal 15\n")),
        }
    }
}

/// A console that nobody reads neither stalls nor ends a guest: what does not fit is lost.
#[test]
fn a_full_console_does_no_harm() {
    for kind in kinds("full console") {
        let (_reader, mut writer) = std::io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while writer.write(&[b'x'; 4096]).is_ok() {}
        let end = end(run(kind, "hello").args(["--ticks=1", "--status=3"]).stdout(Stdio::from(OwnedFd::from(writer))));
        assert_eq!((end.code(), end.stderr.as_str()), (Some(3), ""));
    }
}

#[test]
fn a_console_that_is_gone_does_no_harm() {
    for kind in kinds("closed console") {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let end = end(run(kind, "hello").args(["--ticks=1", "--status=3"]).stdout(Stdio::from(OwnedFd::from(writer))));
        assert_eq!((end.code(), end.stderr.as_str()), (Some(3), ""));
    }
}

#[test]
fn the_image_can_come_as_an_open_file() {
    for kind in kinds("image by descriptor") {
        let file = std::fs::File::open(image(kind, "hello")).unwrap();
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let operand = format!("@{}", file.as_raw_fd());
        let end = end(tender(kind).args(["--mem=4", "--", &operand, "--ticks=0"]));
        assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""));
        assert!(end.stdout.contains("with 4 MiB"), "{end:?}");
    }
}

#[test]
fn kvm_can_come_as_an_open_device() {
    if kinds("kvm by descriptor").contains(&Kind::Hvt) {
        let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm").unwrap();
        fcntl(&kvm, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let option = format!("--kvm=@{}", kvm.as_raw_fd());
        let end = end(tender(Kind::Hvt).args(["--mem=2", &option]).arg(image(Kind::Hvt, "hello")).arg("--ticks=0"));
        assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn under_its_own_name_it_runs_either_kind() {
    for kind in kinds("own name") {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fulmar-tender"));
        let output = command.arg("--mem=2").arg(image(kind, "hello")).arg("--ticks=0").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn hvt_memory_comes_in_granules() {
    if kinds("granules").contains(&Kind::Hvt) {
        let end = end(tender(Kind::Hvt).arg("--mem=5").arg(image(Kind::Hvt, "hello")).arg("--ticks=0"));
        assert_eq!(end.stderr, "solo5-hvt: adjusting memory to 4194304 bytes\n");
        assert!(end.stdout.contains("with 4 MiB"), "{end:?}");
    }
}
