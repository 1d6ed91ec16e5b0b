//! The tutorial, from its first line to its last, as root in a network of its own, with the real programs. The service manager is the
//! test: it stops and starts the daemons that a line names.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::process::{Command, Stdio};

use fulmar_tests::bridge::ip;
use fulmar_tests::namespace::inside;
use fulmar_tests::pages::{blocks, expect_typed};
use fulmar_tests::siege::{self, Said};
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
        let (mut all, mut runs) = (String::new(), Vec::new());
        for block in blocks("docs/tutorial.md", "sh") {
            for line in block.lines() {
                if let Some(words) = line.strip_prefix("systemctl ") {
                    manage(&mut system, &words.split(' ').collect::<Vec<_>>());
                    continue;
                }
                let Said { out, err, .. } = expect_typed(&programs, &system, line);
                if line == "vmmc_local info shop:one" {
                    runs.push(siege::tenders(system.folder()));
                }
                all += &(out + &err);
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
