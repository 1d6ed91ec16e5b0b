//! What a `vmmd` finds that comes after another one: a thousand unikernels that run, or a journal of an older or of a later
//! version. It takes over all that it understands, and touches nothing where it does not.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fulmar_core::journal::{FRAME_BYTES, Record, Replay, Stamp, decode_header, encode, seal};
use fulmar_core::wire::Command;
use fulmar_tests::images;
use fulmar_tests::raw::{Answer, DESTROY, Raw, Wish};
use fulmar_tests::siege::{self, Siege, control_half, expect_gone, kill_9, pid_of};
use fulmar_tests::system::is_gone;
use nix::sys::signal::Signal;

/// Unikernels that a dead `vmmd` leaves behind.
const MANY: usize = 1_000;

/// Who creates and destroys them, at once.
const CLIENTS: usize = 4;

/// Asks for something about each of many unikernels, by several clients at once.
fn ask_all(siege: &Siege, command: Command<'static>) {
    let socket = siege.system.socket("vmmd.sock");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (socket, command) = (&socket, &command);
            scope.spawn(move || {
                for number in (client..MANY).step_by(CLIENTS) {
                    let answer = Raw::connect(socket).ask(&format!("many:u{number}"), *command);
                    assert!(matches!(answer, Answer::Done(_)), "{number}: {answer:?}");
                }
            });
        }
    });
}

#[test]
fn a_thousand_are_adopted_and_none_is_started_twice() {
    let Some(mut siege) = Siege::begin("a_thousand_are_adopted") else { return };
    let image: &'static [u8] = images::waiting().leak();
    ask_all(&siege, Wish { memory: 2, ..Wish::of(image) }.command());
    let before = siege.expect_listed_runs_once();
    assert_eq!(before.len(), MANY);

    // Killed, and then as a service is started again.
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let control = control_half(siege.vmmd);
        if signal == Signal::SIGKILL {
            kill_9(control);
        }
        siege.system.end("vmmd", signal).unwrap();
        expect_gone(&[control]);
        let logged = siege.system.log("vmmd").len();
        let begun = Instant::now();
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        // Adoption comes before the first answer.
        let listed = siege.names().len();
        println!(
            "after {signal}: {listed} adopted and listed {:.0} ms after exec",
            begun.elapsed().as_secs_f64() * 1e3
        );
        assert_eq!(siege.expect_listed_runs_once(), before, "{}", &siege.system.log("vmmd")[logged..]);
        assert_eq!(siege.system.log("vmmd")[logged..].matches(" still runs").count(), MANY);
        // A record of each, and its status.
        assert_eq!(siege::files(&siege.system.run().join("units")).len(), 2 * MANY);
    }

    ask_all(&siege, DESTROY);
    let pids: Vec<u32> = before.into_values().collect();
    expect_gone(&pids);
    siege.expect_clean();
    siege.count_again();
    siege.end();
}

/// Where the kind of a record stands: behind its length, its generation and what was durable.
const KIND_AT: usize = FRAME_BYTES - 4;

/// A kind that no version has yet.
const KIND_UNKNOWN: u8 = 99;

/// This journal with one more record, of a kind that is yet to come.
fn with_unknown_record(journal: &[u8]) -> Vec<u8> {
    let salt = decode_header(journal).unwrap().salt;
    let mut replay = Replay::new(journal).unwrap();
    let mut last = 0;
    while let Some(entry) = replay.next_entry().unwrap() {
        last = entry.generation;
    }
    let stamp = Stamp { generation: last + 1, durable: last };
    let mut record = [0; 256];
    let bytes = encode(salt, stamp, &Record::PolicyGone { path: "shop:" }, &mut record).unwrap();
    record[KIND_AT] = KIND_UNKNOWN;
    seal(&mut record[..bytes], salt, stamp);
    [journal, &record[..bytes]].concat()
}

/// Every file of a folder with what is in it.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(content(&entry)),
            false => found.push((entry.clone(), fs::read(&entry).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_journal_of_a_later_version_is_refused_and_nothing_is_touched() {
    let Some(mut siege) = Siege::begin("a_journal_of_a_later_version") else { return };
    assert_eq!(siege.client(&["create", "siege:stays", &siege.image("hello")]).code, 0);
    let before = siege.expect_listed_runs_once();
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    let path = siege.system.state().join("journal");
    let journal = fs::read(&path).unwrap();
    let mut later = journal.clone();
    later[8] += 1;
    let damaged: Vec<u8> = journal.iter().rev().copied().collect();
    for (bad, text) in [
        (later, "journal of format 2: run the version that wrote it"),
        (with_unknown_record(&journal), "is of a kind unknown here: run the version that wrote it"),
        (damaged, "not a journal: restore the file from a copy"),
    ] {
        fs::write(&path, &bad).unwrap();
        let (state, units) = (siege.system.state(), siege.system.run().join("units"));
        let there = [content(&state), content(&units)];
        let error = siege.system.start_vmmd(&[]).unwrap_err();
        assert!(error.contains(text) && error.contains(&*path.to_string_lossy()), "{error}");
        assert_eq!([content(&state), content(&units)], there);
        assert!(before.values().all(|pid| !is_gone(pid_of(*pid))));
    }
    fs::write(&path, &journal).unwrap();
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    assert_eq!(siege.expect_listed_runs_once(), before);
    assert_eq!(siege.client(&["destroy", "siege:stays"]).code, 0);
    siege.count_again();
    siege.end();
}

/// Puts a folder of `fixtures/` in the place of this system's state, as `vmmd` itself would have written it, and with these
/// block devices.
fn put_state(siege: &Siege, fixture: &str, blocks: &[(&str, u64)]) {
    let state = siege.system.state();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture);
    let files = content(&from);
    assert!(files.len() > 1, "{files:?}");
    for (path, bytes) in files {
        fs::write(state.join(path.strip_prefix(&from).unwrap()), bytes).unwrap();
    }
    for (name, bytes) in blocks {
        fs::File::create(state.join("block").join(name)).unwrap().set_len(*bytes).unwrap();
    }
    let owner = fs::metadata(&state).unwrap();
    for (path, _) in content(&state) {
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

fn said(siege: &Siege, words: &[&str]) -> String {
    let said = siege.client(words);
    assert_eq!(said.code, 0, "{said:?}\n{}", siege.system.log("vmmd"));
    said.out
}

#[test]
fn the_state_of_an_older_version_comes_up() {
    let Some(mut siege) = Siege::begin("the_state_of_an_older_version_comes_up") else { return };
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    put_state(&siege, "state-1", &[]);
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    let running = siege.expect_listed_runs_once();
    assert!(running.keys().map(String::as_str).eq([":root", "shop:deep:codes", "shop:web"]), "{running:?}");
    let arguments = |name: &str| siege::arguments(running[name]).join(" ");
    assert!(arguments("shop:web").ends_with("--name=web --port=80 two words "), "{}", arguments("shop:web"));
    assert!(arguments("shop:deep:codes").contains("--mem=3"), "{}", arguments("shop:deep:codes"));
    let codes = said(&siege, &["info", "shop:deep:codes"]);
    assert!(codes.contains("on 3") && codes.contains("startup    7"), "{codes}");
    let policies = said(&siege, &["policy", ":"]);
    assert!(!policies.contains("gone:"), "{policies}");
    for line in
        ["shop:                5     96 MB  0             -  -", "shop:deep:           1     32 MB  0             -  -"]
    {
        assert!(policies.lines().any(|it| it == line), "{line}\n{policies}");
    }
    for name in running.keys() {
        said(&siege, &["destroy", name.trim_start_matches(':')]);
    }
    expect_gone(&running.into_values().collect::<Vec<_>>());

    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    put_state(&siege, "state-1-blocks", &[("shop:data_disk", 1 << 20), ("shop:free_disk", 2 << 20)]);
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    assert_eq!(siege.expect_listed_runs_once().keys().collect::<Vec<_>>(), ["shop:db"]);
    let blocks = said(&siege, &["block"]);
    assert_eq!(blocks, "NAME       SIZE  ACTIVE\nshop:free  2 MB  no\nshop:data  1 MB  yes\n");
    said(&siege, &["destroy", "shop:db"]);
    for name in ["shop:data", "shop:free"] {
        said(&siege, &["remove-block", name]);
    }
    siege.expect_clean();
    siege.system.stop().unwrap();
}
