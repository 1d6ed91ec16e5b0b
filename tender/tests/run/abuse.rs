//! What guests, other users and careless operators try with a tender, and what must not come of it.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tender::{Disk, Running, await_console, end, image, kinds, run, tender, wait};
use fulmar_tests::built::Kind;
use fulmar_tests::system::wait_until;

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed())
}

fn keep_at_exec(fd: &impl std::os::fd::AsFd) {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
}

/// A guest that has filled the one pipe of its console and of the tender's own words does not keep anybody from ending it.
#[test]
fn a_full_console_does_not_keep_a_guest_alive() {
    if !nix::unistd::geteuid().is_root() {
        return fulmar_tests::skips::skip("a full console", "only root sees in which call a tender stands");
    }
    for kind in kinds("full console and SIGTERM") {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = run(kind, "chatty");
        command.stdout(writer.try_clone().unwrap()).stderr(writer.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        // The last place of the pipe is taken: who writes waits.
        assert!(wait_until(|| waits_in(child.id(), libc::SYS_write)));
        kill(pid(child.id()), Signal::SIGTERM).unwrap();
        assert!(wait_until(|| child.try_wait().unwrap().is_some()), "{kind:?} does not end");
        drop(reader);
    }
}

/// Whether a process stands in this system call.
fn waits_in(id: u32, call: i64) -> bool {
    let text = fs::read_to_string(format!("/proc/{id}/syscall")).unwrap_or_default();
    text.starts_with(&format!("{call} "))
}

#[test]
fn the_environment_is_forgotten() {
    for kind in kinds("environment") {
        let mut running = Running::start(run(kind, "hello").env("SECRET", "hunter2"));
        running.console("My arguments");
        let Ok(environment) = fs::read(format!("/proc/{}/environ", running.id())) else {
            return fulmar_tests::skips::skip("the environment is forgotten", "only root may look");
        };
        assert!(environment.iter().all(|byte| *byte == 0), "{}", String::from_utf8_lossy(&environment));
        // What a person looks for in a list of processes stays.
        let arguments = fs::read(format!("/proc/{}/cmdline", running.id())).unwrap();
        assert!(arguments.starts_with(format!("solo5-{}\0--mem=2\0", kind.name()).as_bytes()));
    }
}

/// Whoever may send signals does not thereby write the record of a guest's end.
#[test]
fn signals_from_outside_are_no_faults_of_the_guest() {
    let file = std::env::temp_dir().join(format!("fulmar-forged-{}", std::process::id()));
    for signal in [Signal::SIGSEGV, Signal::SIGFPE, Signal::SIGILL, Signal::SIGBUS, Signal::SIGTRAP, Signal::SIGSYS] {
        let mut command = tender(Kind::Spt);
        command.arg("--mem=2").arg(format!("--exit-status-file={}", file.display()));
        let mut child = command.arg(image(Kind::Spt, "hello")).spawn().unwrap();
        await_console(&mut child, "My arguments");
        kill(pid(child.id()), signal).unwrap();
        let end = wait(child);
        assert_eq!(end.signal(), Some(signal as i32), "{end:?}");
        assert!(end.stderr.contains("came from outside"), "{end:?}");
        let record = fs::read_to_string(&file).unwrap();
        assert!(record.starts_with("running "), "{signal}: {record}");
    }
    fs::remove_file(file).unwrap();
}

/// A path that is given by mistake keeps what it holds.
#[test]
fn what_lies_at_a_wrong_path_stays() {
    let precious = "precious ".repeat(20);
    let disk = Disk::new("precious", precious.as_bytes());
    let path = disk.path.display().to_string();
    for (options, name, wanted) in [
        (format!("--exit-status-file={path}"), "solo5-spt", "holds something else"),
        (format!("--gdb={path}"), "solo5-spt-debug", "Address already in use"),
    ] {
        let refused = end(tender(Kind::Spt).arg0(name).arg(options).arg(image(Kind::Spt, "hello")));
        assert!(refused.code() == Some(1) && refused.stderr.contains(wanted), "{refused:?}");
        assert_eq!(fs::read_to_string(&disk.path).unwrap(), precious);
    }
    let file = File::options().append(true).open(&disk.path).unwrap();
    keep_at_exec(&file);
    let option = format!("--status-fd={}", file.as_raw_fd());
    let refused = end(tender(Kind::Spt).arg(option).arg(image(Kind::Spt, "hello")));
    assert!(refused.code() == Some(1) && refused.stderr.contains("neither a pipe nor a socket"), "{refused:?}");
    assert_eq!(fs::read_to_string(&disk.path).unwrap(), precious);
}

/// One open file in the hands of two tenders, and one file under two names of one tender.
#[test]
fn one_open_file_is_one_disk() {
    for kind in kinds("open file") {
        let disk = Disk::new(&format!("shared-{}", kind.name()), &[0; 8192]);
        let file = File::options().read(true).write(true).open(&disk.path).unwrap();
        keep_at_exec(&file);
        let option = format!("--block:storage=@{}", file.as_raw_fd());
        let (_ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        keep_at_exec(&theirs);
        let mut command = tender(kind);
        command.args(["--mem=4", &option, &format!("--net:service=@{}", theirs.as_raw_fd())]);
        let mut holder = Running::start(command.arg(image(kind, "devices")));
        holder.console("waiting for a frame");
        let refused = end(tender(kind).args(["--mem=4", &option]).arg(image(kind, "block")));
        assert!(refused.code() == Some(1) && refused.stderr.contains("it is in use"), "{refused:?}");
        holder.finish();
        let path = disk.path.display();
        let twice = [format!("--block:b1={path}"), format!("--block:b2=@{}", file.as_raw_fd())];
        let refused = end(tender(kind).arg("--mem=4").args(twice).arg(image(kind, "many")));
        assert!(refused.code() == Some(1) && refused.stderr.contains("it is in use"), "{refused:?}");
    }
}

#[test]
fn an_answer_that_nobody_takes_is_no_crash() {
    for (question, code) in [("--version", 0), ("--help", 1)] {
        let full = OwnedFd::from(File::options().write(true).open("/dev/full").unwrap());
        let ended = end(tender(Kind::Spt).arg(question).stderr(Stdio::from(full)));
        assert_eq!(ended.code(), Some(code), "{ended:?}");
    }
}

/// A file that has grown to what its writer may have costs a guest its output, never its life.
#[test]
fn a_console_that_may_not_grow_does_no_harm() {
    for kind in kinds("file that may not grow") {
        let path = std::env::temp_dir().join(format!("fulmar-grown-{}-{}", kind.name(), std::process::id()));
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -f 1; exec \"$@\" >\"$0\""]).arg(&path);
        command.arg(env!("CARGO_BIN_EXE_fulmar-tender")).arg("--mem=2").arg(image(kind, "chatty"));
        let ended = end(command.args(["--lines=100", "--bytes=200"]).stdin(Stdio::null()));
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        fs::remove_file(path).unwrap();
    }
}
