//! A state folder that has lost its journal, all of it or its last part, loses nothing else by that: not by itself, and not by a start.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::process::Command;

use fulmar_tests::siege::{self, Said, Siege, control_half, expect_gone};
use fulmar_tests::system;
use nix::sys::signal::Signal;

/// Bytes of the header of a journal.
const HEADER_BYTES: usize = 28;

fn done(siege: &Siege, words: &[&str]) -> Said {
    let said = siege.client(words);
    assert_eq!(said.code, 0, "{words:?}: {said:?}\n{}", siege.system.log("vmmd"));
    said
}

/// Ends `vmmd`, all of it.
fn end_vmmd(siege: &mut Siege) {
    let control = control_half(siege.vmmd);
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    expect_gone(&[control]);
}

/// What `vmmd --check` says.
fn check(siege: &Siege) -> Said {
    let mut command = Command::new(system::programs().join("vmmd"));
    command.arg("--check").arg("--run").arg(siege.system.run()).arg("--state").arg(siege.system.state());
    siege::said(&command.output().unwrap())
}

/// A start and a check say so, and nothing has changed.
fn expect_refused(siege: &mut Siege, text: &str) {
    let folders = ["images", "block"].map(|name| siege.system.state().join(name));
    let before = folders.each_ref().map(|folder| siege::files(folder));
    for _ in 0..2 {
        let error = siege.system.start_vmmd(&[]).unwrap_err();
        assert!(error.contains(text) && error.contains("restore it from a copy"), "{error}");
        let said = check(siege);
        assert!(said.code != 0 && said.err.contains(text) && said.err.contains("restore it"), "{said:?}");
    }
    assert_eq!(folders.each_ref().map(|folder| siege::files(folder)), before);
    assert_eq!(siege.running().len(), 1, "what runs goes on");
}

#[test]
fn a_journal_that_is_gone_or_old_takes_no_block_device_with_it() {
    let Some(mut siege) = Siege::begin("a_journal_that_is_gone_or_old_takes_no_block_device_with_it") else { return };
    let state = siege.system.state();
    let (journal, block) = (state.join("journal"), state.join("block"));
    done(&siege, &["create", "siege:stays", &siege.image("hello")]);
    let older = fs::read(&journal).unwrap();
    let content = siege.system.folder().join("content");
    fs::write(&content, b"all that a tenant has").unwrap();
    let content = content.to_str().unwrap();
    for name in ["p:disk", "p:empty"] {
        done(&siege, &["add-block", name, "1"]);
    }
    done(&siege, &["set-block", "p:disk", content]);
    let before = siege.expect_listed_runs_once();
    end_vmmd(&mut siege);
    let whole = fs::read(&journal).unwrap();

    let away = state.join("journal.away");
    fs::rename(&journal, &away).unwrap();
    expect_refused(&mut siege, "there is no journal, and images or block devices are");
    fs::rename(&away, &journal).unwrap();
    fs::write(&journal, &whole[..HEADER_BYTES]).unwrap();
    expect_refused(&mut siege, "the journal has no records, and images or block devices are there");
    fs::write(&journal, b"no journal at all, but as long as one").unwrap();
    let said = check(&siege);
    assert!(said.code != 0 && said.err.contains("not a journal: restore the file from a copy"), "{said:?}");

    // As the remedy has it.
    fs::write(&journal, &whole).unwrap();
    assert_eq!(check(&siege).code, 0);
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    assert_eq!(siege.expect_listed_runs_once(), before);
    let dumped = siege.system.folder().join("dumped");
    let is_whole = |siege: &Siege| {
        let _ = fs::remove_file(&dumped);
        done(siege, &["dump-block", "p:disk", dumped.to_str().unwrap()]);
        fs::read(&dumped).unwrap().starts_with(b"all that a tenant has")
    };
    assert!(is_whole(&siege));

    // One that is older than the folder of block devices.
    end_vmmd(&mut siege);
    fs::write(&journal, &older).unwrap();
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    siege.expect_log("vmmd", "It is block/p:disk_un1 now: put what is wanted into a block device with set-block");
    siege.expect_log("vmmd", "removed 1 files of the block folder that no record names and nobody needs");
    assert_eq!(siege::files(&block).into_iter().collect::<Vec<_>>(), ["p:disk_un1"]);
    done(&siege, &["add-block", "p:disk", "1"]);
    done(&siege, &["set-block", "p:disk", block.join("p:disk_un1").to_str().unwrap()]);
    assert!(is_whole(&siege));
    siege.start_vmmd_again();
    siege.expect_log("vmmd", "1 files of the block folder that no record names are kept since an earlier start");
    fs::remove_file(block.join("p:disk_un1")).unwrap();
    done(&siege, &["remove-block", "p:disk"]);
    done(&siege, &["destroy", "siege:stays"]);
    siege.expect_clean();
    siege.end();
}
