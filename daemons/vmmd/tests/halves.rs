//! The program itself: how its two halves begin and end together. It needs no privilege and starts no unikernel.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A `vmmd` in folders of its own. What is left of it goes with it.
struct Daemon {
    folder: PathBuf,
    host: Child,
}

impl Daemon {
    fn start(name: &str) -> Self {
        Self::start_by(name, vmmd)
    }

    fn start_by(name: &str, command: impl Fn(&std::path::Path) -> Command) -> Self {
        let folder = std::env::temp_dir().join(format!("fulmar-halves-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        // The control half is another user where that is possible, and has to get in.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let host = command(&folder).spawn().unwrap();
        let daemon = Self { folder, host };
        wait_until("vmmd serves", || UnixStream::connect(daemon.folder.join("run/util/vmmd.sock")).is_ok());
        daemon
    }

    fn host(&self) -> Pid {
        Pid::from_raw(self.host.id().cast_signed())
    }

    fn control(&self) -> Pid {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.host())).unwrap();
        Pid::from_raw(children.trim().parse().unwrap_or_else(|_| panic!("children: '{children}'")))
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("vmmd ends", || {
            status = self.host.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.host.kill();
        let _ = self.host.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn vmmd(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmmd"));
    command.arg("--run").arg(folder.join("run")).arg("--state").arg(folder.join("state"));
    command.args(["--tender", "/bin/true"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_gone(pid: Pid) -> bool {
    // One that nobody has waited for yet has ended as well.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn both_end_in_order_when_asked() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut daemon = Daemon::start("order");
        let control = daemon.control();
        kill(daemon.host(), signal).unwrap();
        assert!(daemon.end().success(), "{signal}");
        assert!(is_gone(control));
    }
}

#[test]
fn neither_half_stays_without_the_other() {
    let mut daemon = Daemon::start("control-dies");
    kill(daemon.control(), Signal::SIGKILL).unwrap();
    assert_eq!(daemon.end().code(), Some(1));

    let mut daemon = Daemon::start("host-dies");
    let control = daemon.control();
    kill(daemon.host(), Signal::SIGKILL).unwrap();
    assert_eq!(daemon.end().signal(), Some(9));
    wait_until("the control half ends", || is_gone(control));
}

#[test]
fn the_next_one_takes_over_at_once_after_a_crash() {
    let mut daemon = Daemon::start("crash");
    for _ in 0..5 {
        kill(daemon.host(), Signal::SIGKILL).unwrap();
        daemon.end();
        daemon.host = vmmd(&daemon.folder).spawn().unwrap();
        let socket = daemon.folder.join("run/util/vmmd.sock");
        let lock = daemon.folder.join("run/vmmd.lock");
        let own = daemon.host().to_string();
        wait_until("the next vmmd has the lock", || fs::read_to_string(&lock).is_ok_and(|pid| pid == own));
        wait_until("the next vmmd serves", || UnixStream::connect(&socket).is_ok());
    }
}

#[test]
fn a_run_folder_has_one_vmmd() {
    let daemon = Daemon::start("one");
    let second = vmmd(&daemon.folder).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("another vmmd, process {},", daemon.host())), "{said}");
}

#[test]
fn the_control_half_has_no_privileges() {
    let daemon = Daemon::start("privileges");
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.control())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    if fulmar_host::privilege::can_become(516_095, 516_095, 1) {
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
        assert!(!status.contains("Uid:\t0"), "{status}");
    } else {
        fulmar_tests::skips::skip("the_control_half_has_no_privileges", "users cannot be changed here, run it as root");
    }
}

#[test]
fn as_many_files_as_may_be_are_allowed_and_too_few_are_said_to_be() {
    let with_few = |folder: &std::path::Path| {
        let vmmd = vmmd(folder);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -S -n 300 && ulimit -H -n 500 && exec \"$0\" \"$@\""]);
        command.arg(vmmd.get_program()).args(vmmd.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let mut daemon = Daemon::start_by("files", with_few);
    for half in [daemon.host(), daemon.control()] {
        let limits = fs::read_to_string(format!("/proc/{half}/limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), ["500", "500"]);
    }
    kill(daemon.host(), Signal::SIGTERM).unwrap();
    assert!(daemon.end().success());
    let mut said = String::new();
    daemon.host.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("the limit of open files is 500") && said.contains("LimitNOFILE"), "{said}");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_vmmd")).arg("--wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "vmmd: unknown option '--wrong', see --help\n");
    let help = Command::new(env!("CARGO_BIN_EXE_vmmd")).arg("--help").output().unwrap();
    assert!(help.status.success() && help.stderr.is_empty() && help.stdout.starts_with(b"usage: vmmd"));
}
