//! Fifos in the place of files: no program waits for somebody who may never write to one. What the shell has opened is read all the same.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use fulmar_tests::siege::{Siege, programs};
use fulmar_tests::system::{make_folder, wait_until};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// What a program says that fails by itself.
fn refused(mut command: Command) -> String {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = wait_until(|| child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert!(ended, "it waits: {command:?}");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!status.success(), "{command:?}: {said}");
    said
}

#[test]
fn nobody_waits_for_who_writes_to_a_fifo() {
    let Some(programs) = programs("nobody_waits_for_who_writes_to_a_fifo") else { return };
    let folder = make_folder("fifos").unwrap();
    mkfifo(&folder.join("fifo"), Mode::S_IRWXU).unwrap();
    fs::write(folder.join("image.toml"), "path = \"p:\"\n[unikernel.a]\nimage = \"fifo\"\nmemory = 16\n").unwrap();
    let command = |program: &str, words: &[&str]| {
        let mut command = Command::new(programs.join(program));
        command.args(words).current_dir(&folder).env("FULMAR_RUN", &folder);
        command
    };
    assert!(command("vmmp_ca", &["generate", "--folder", "ca"]).stdout(Stdio::null()).status().unwrap().success());
    let place = ["--cert", "ca/cacert.pem", "--key", "ca/ca.key", "localhost:1"];
    let as_ca = |ca: &'static str, words: &[&'static str]| [&["--ca", ca][..], &place, words].concat();
    for (program, words) in [
        ("vmmc_local", vec!["create", "x", "fifo"]),
        ("vmmc_local", vec!["inspect", "fifo"]),
        ("vmmc_local", vec!["set-block", "b", "fifo"]),
        ("vmmc_local", vec!["deploy", "fifo"]),
        ("vmmc_local", vec!["deploy", "image.toml"]),
        ("vmmc_bistro", as_ca("ca/cacert.pem", &["revoke", "fifo"])),
        ("vmmc_bistro", as_ca("fifo", &["info"])),
        ("vmmc_remote", vec!["--ca", "fifo", "--cert", "ca/cacert.pem", "--key", "ca/ca.key", "localhost:1"]),
        ("vmmp_ca", vec!["sign", "fifo", "--folder", "ca"]),
        ("vmmp_ca", vec!["inspect", "fifo"]),
        ("vmmp_request", vec!["--key", "fifo", "info"]),
    ] {
        let said = refused(command(program, &words));
        assert!(said.contains("fifo: ") && said.contains("it is a fifo: give a file"), "{program} {words:?}: {said}");
    }
    let said = refused(command("fulmar-tender", &["fifo"]));
    assert!(said.contains("fifo: Could not open"), "{said}");
    for (file, why) in [("fifo", "it is no plain file"), ("/dev/zero", "it is no plain file")] {
        for option in ["--ca", "--cert", "--key"] {
            let run = folder.to_string_lossy().into_owned();
            let good = [("--ca", "ca/cacert.pem"), ("--cert", "ca/server.pem"), ("--key", "ca/server.key")];
            let good = good.into_iter().filter(|(other, _)| *other != option).flat_map(|(option, file)| [option, file]);
            let words: Vec<&str> = ["--run", &run, option, file, "--check"].into_iter().chain(good).collect();
            let said = refused(command("vmmd_tls", &words));
            assert!(said.lines().any(|line| line.contains(file) && line.contains(why)), "{option} {file}: {said}");
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_the_shell_has_opened_is_read() {
    let Some(siege) = Siege::begin("what_the_shell_has_opened_is_read") else { return };
    let added = siege.client(&["add-block", "siege:b", "1"]);
    assert_eq!(added.code, 117, "the policy has no block storage: {added:?}");
    assert_eq!(siege.client(&["add-block", "b", "1"]).code, 0);
    let mut command = siege.system.client(&["set-block", "b", "/dev/stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"by a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    let output = siege.system.folder().join("dumped");
    assert_eq!(siege.client(&["dump-block", "b", &output.to_string_lossy()]).code, 0);
    assert!(fs::read(Path::new(&output)).unwrap().starts_with(b"by a pipe\0"));
    siege.system.stop().unwrap();
}
