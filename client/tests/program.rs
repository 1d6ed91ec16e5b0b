//! The program itself: its exit code, its environment, and whoever reads its output and stops.
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{FakeDaemon, Folder, frame, read_frame};
use fulmar_core::wire::{Data, Payload, Success, Text};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vmmc_local"))
}

#[test]
fn the_folder_can_come_from_the_environment() {
    let folder = Folder::new();
    let output = program().arg("info").env("FULMAR_RUN", &folder.0).output().unwrap();
    assert_eq!(output.status.code(), Some(122));
    assert!(String::from_utf8(output.stderr).unwrap().contains(folder.0.to_str().unwrap()));
}

/// The page for FreeBSD cannot be typed here, but what it gives to this program can.
#[test]
fn what_the_page_for_freebsd_types_is_understood() {
    let (page, folder) = (include_str!("../../docs/freebsd.md"), Folder::new());
    let lines: Vec<_> = page.lines().filter_map(|line| line.trim().strip_prefix("vmmc_local ")).collect();
    assert!(lines.len() >= 3, "{lines:?}");
    for line in lines {
        let output = program().args(line.split_whitespace()).env("FULMAR_RUN", &folder.0).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        // Nobody is there to connect to, and no file.
        let needs_file = line.contains("web.hvt") || line.contains("freebsd.img");
        let expected = if needs_file { ": cannot be read" } else { "vmmd.sock" };
        assert!(errors.contains(expected) || errors.contains("console.sock"), "{line}: {errors}");
    }
}

#[test]
fn help_into_a_closed_pipe_is_no_crash() {
    let mut child = program().args(["create", "--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn a_state_file_that_may_not_be_read_is_said() {
    let folder = Folder::new();
    let file = folder.file("state", b"secret");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut import = program();
    import.args(["import-albatross", file.to_str().unwrap()]);
    if nix::unistd::geteuid().is_root() {
        // Nobody: root may read everything.
        import.uid(65534).gid(65534);
    }
    let output = import.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("state: cannot be read (Permission denied"), "{errors}");
    assert_eq!(output.status.code(), Some(124));
}

#[test]
fn whoever_reads_a_console_can_stop() {
    let daemon = FakeDaemon::new("console.sock", |mut stream| {
        read_frame(&mut stream);
        let line = frame(":x", Payload::Data(Data::Console { unix_ms: 0, line: Text(b"line") }));
        stream.write_all(&frame(":x", Payload::Success(Success::Text(Text(b"subscribed"))))).unwrap();
        stream.write_all(&line).unwrap();
        // No further line will ever come: the client must notice by itself that nobody reads it.
        let _ = stream.read(&mut [0]);
        Vec::new()
    });
    let mut child = program()
        .args(["--run", daemon.folder.0.to_str().unwrap(), "console", "x"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "1970-01-01T00:00:00Z line\n");
    drop(reader);
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "still there");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
}
