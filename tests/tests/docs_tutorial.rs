//! The tutorial, from its first line to its last, as root in a network of its own, with the real programs. The service manager is the
//! test: it stops and starts the daemons that a line names.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use fulmar_tests::bridge::ip;
use fulmar_tests::namespace::inside;
use fulmar_tests::siege;
use fulmar_tests::skips::skip;
use fulmar_tests::system::{self, System};
use nix::sys::signal::Signal;

const IMAGES: [&str; 3] = ["hello.spt", "http.spt", "block.spt"];

/// What `systemctl` would do to the daemons of this system.
fn manage(system: &mut System, words: &[&str]) {
    let (verb, units) = words.split_first().unwrap();
    for unit in units {
        if matches!(*verb, "stop" | "restart") {
            system.end(unit, Signal::SIGTERM).unwrap();
        }
        match (*verb, *unit) {
            ("stop", _) => {}
            ("start" | "restart", "vmmd") => drop(system.start_vmmd(&[]).unwrap()),
            ("start" | "restart", "vmmd_log") => drop(system.start_log(&[]).unwrap()),
            other => panic!("nobody does {other:?}"),
        }
    }
}

/// Types a line, and gives what it says.
fn type_line(system: &System, programs: &Path, line: &str) -> String {
    let mut path = programs.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["-e", "-o", "pipefail", "-c", line]).current_dir(system.folder()).stdin(Stdio::null());
    bash.env("PATH", path).env("FULMAR_RUN", system.run()).env("FULMAR_STATE", system.state());
    let output = bash.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "{line}\n{said}\n{}", system.log("vmmd"));
    said
}

#[test]
fn the_tutorial_runs_from_top_to_bottom() {
    const TEST: &str = "the_tutorial_runs_from_top_to_bottom";
    inside(TEST, || {
        let Some(programs) = siege::programs(TEST) else { return };
        if !ip(&["link", "set", "lo", "up"]) || !ip(&["link", "add", "try", "type", "bridge"]) {
            return skip(TEST, "no bridge can be made here with `ip`");
        }
        if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
            return skip(TEST, "there is no curl here");
        }
        let mut system = System::new(system::make_folder("tutorial").unwrap(), programs.clone()).unwrap();
        for image in IMAGES {
            fs::copy(programs.join("guests").join(image), system.folder().join(image)).unwrap();
        }
        system.start_vmmd(&[]).unwrap();
        if system.log("vmmd").contains("taps cannot be made") {
            system.stop().unwrap();
            return skip(TEST, "taps cannot be made here");
        }
        system.start_console().unwrap();
        system.start_stats(&["--interval".as_ref(), "0.5".as_ref()]).unwrap();
        system.start_log(&[]).unwrap();
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial.md")).unwrap();
        let (mut all, mut runs) = (String::new(), Vec::new());
        for block in page.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()) {
            for line in block.lines() {
                if let Some(words) = line.strip_prefix("systemctl ") {
                    manage(&mut system, &words.split(' ').collect::<Vec<_>>());
                    continue;
                }
                let said = type_line(&system, &programs, line);
                if line == "vmmc_local info shop:one" {
                    runs.push(siege::tenders(system.folder()));
                }
                all += &said;
            }
        }
        for part in [
            "Hello, World!",
            ":web: created unikernel",
            "ok",
            "block: 2048 sectors of 512 bytes",
            "refused, as it should be",
            "shop:one: destroyed unikernel",
            "shop: removed policy",
        ] {
            assert!(all.contains(part), "nothing said {part}:\n{all}");
        }
        // Before and after the upgrade the same processes run; of what was restored one is new.
        assert!(runs.len() == 3 && runs[0] == runs[1] && runs[1] != runs[2] && runs[2].len() == 2, "{runs:?}");
        assert!(fs::metadata(system.folder().join("counter.img")).unwrap().len() == 1 << 20);
        system.stop().unwrap();
    });
}
