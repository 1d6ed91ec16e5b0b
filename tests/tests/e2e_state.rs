//! A state folder that has lost its journal, all of it or its last part, loses nothing else by that: not by itself, and not by a start.
//! And what else must hold before `vmmd` starts: a check says it, and a start keeps to it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};

use fulmar_tests::managed::Place;
use fulmar_tests::siege::{self, Said, Siege, control_half, expect_gone};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{self, wait_until};
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

/// What a program says that ends by itself.
fn said_at_once(command: &mut Command) -> Said {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let has_ended = wait_until(|| child.try_wait().unwrap().is_some());
    if !has_ended {
        child.kill().unwrap();
    }
    let said = siege::said(&child.wait_with_output().unwrap());
    assert!(has_ended, "it does not end: {said:?}");
    said
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

#[test]
fn what_is_removed_under_a_running_vmmd_is_said() {
    let Some(mut siege) = Siege::begin("what_is_removed_under_a_running_vmmd_is_said") else { return };
    let state = siege.system.state();
    done(&siege, &["create", "siege:stays", &siege.image("hello")]);
    let policy = |path: &'static str| ["add-policy", path, "1", "--mem", "32", "--cpu", "0"];
    done(&siege, &policy("a:"));
    let refused = |siege: &Siege, words: &[&str], text: &str| {
        let said = siege.client(words);
        assert!(said.code != 0 && said.err.contains(text), "{words:?}: {said:?}\n{}", siege.system.log("vmmd"));
    };
    fs::remove_file(state.join("journal")).unwrap();
    refused(&siege, &policy("b:"), "the journal was removed while vmmd runs");
    // It has been written anew, with all that was acknowledged.
    done(&siege, &policy("c:"));
    let before = siege.expect_listed_runs_once();
    siege.start_vmmd_again();
    assert_eq!(siege.expect_listed_runs_once(), before);
    let policies = done(&siege, &["policy"]).out;
    assert!(policies.contains("a:") && !policies.contains("b:") && policies.contains("c:"), "{policies}");

    // One that was put in its place is not written over.
    let journal = fs::read(state.join("journal")).unwrap();
    fs::remove_file(state.join("journal")).unwrap();
    fs::write(state.join("journal"), &journal).unwrap();
    refused(&siege, &policy("b:"), "the journal was removed while vmmd runs");
    refused(&siege, &policy("b:"), "journal");
    siege.expect_log("vmmd", "the journal was replaced while vmmd runs: nothing is accepted any more");
    assert_eq!(fs::read(state.join("journal")).unwrap(), journal);
    let owner = fs::metadata(&state).unwrap();
    chown(state.join("journal"), Some(owner.uid()), Some(owner.gid())).unwrap();
    siege.start_vmmd_again();
    assert_eq!(siege.expect_listed_runs_once(), before);

    fs::remove_dir_all(state.join("images")).unwrap();
    fs::remove_dir(state.join("block")).unwrap();
    let gone = "the folder of images is gone: restore 'images' in the state folder and start vmmd again";
    refused(&siege, &["create", "siege:more", &siege.image("timer"), "--mem", "16"], gone);
    let gone = "the folder of block devices is gone: restore 'block' in the state folder and start vmmd again";
    refused(&siege, &["add-block", "p:disk", "1"], gone);
    refused(
        &siege,
        &["restart", "siege:stays", "--replace-arguments", "--mem", "16"],
        "the image is not in the folder of images any more",
    );
    done(&siege, &["destroy", "siege:stays"]);
    siege.start_vmmd_again();
    for words in [&["remove-policy", "a:"], &["remove-policy", "c:"]] {
        done(&siege, words);
    }
    siege.expect_clean();
    siege.end();
}

#[test]
fn a_start_refuses_what_a_check_refuses_with_one_line() {
    let test = "a_start_refuses_what_a_check_refuses_with_one_line";
    let Some(place) = Place::begin(test) else { return };
    let path = |name: &str| place.folder.join(name);
    let text = |name: &str| path(name).into_os_string().into_string().unwrap();
    let expect = |words: &[&str], texts: &[&str]| {
        let vmmd = || {
            let mut command = Command::new(place.programs.join("vmmd"));
            command.args(words);
            command
        };
        let checked = said_at_once(vmmd().arg("--check"));
        let started = said_at_once(&mut vmmd());
        for said in [&checked, &started] {
            assert_eq!(said.code, 1, "{words:?}: {said:?}");
            assert!(texts.iter().all(|text| said.err.contains(text)), "{words:?}, {texts:?}: {said:?}");
        }
        let errors = started.err.lines().filter(|line| !line.contains("cgroups")).count();
        assert_eq!(errors, 1, "{started:?}");
    };
    let (run, state) = (text("run"), text("state"));
    let folders = ["--run", &run, "--state", &state];
    let with = |words: &[&'static str]| [&folders[..], words].concat();
    let mode = |name: &str, mode| fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();

    expect(&["--run", &run, "--state", &run], &["cannot be both run folder and state folder"]);
    symlink(&run, path("link")).unwrap();
    expect(&["--run", &run, "--state", &text("link")], &["cannot be both run folder and state folder"]);
    expect(&with(&["--tender", "/nonexistent/tender"]), &["no tender program /nonexistent/tender: ", "see --tender"]);
    expect(&with(&["--tender", "/"]), &["/ is no program: see --tender"]);
    expect(&with(&["--user", "0"]), &["the control half is not to be root: give another --user"]);
    let long = format!("{run}/{}", "x".repeat(90));
    expect(&["--run", &long, "--state", &state], &["bytes are too long for a socket's path", "see --run"]);
    fs::write(path("file"), "").unwrap();
    expect(&["--run", &run, "--state", &text("file")], &["file is no folder: see --run and --state"]);
    for (name, said) in [("run", "the run folder"), ("state", "the state folder")] {
        mode(name, 0o777);
        expect(&folders, &[said, "has mode 777"]);
        mode(name, 0o755);
    }
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "users cannot be changed here, the rest needs root");
    }
    let range = "--user 516095:516095 is one of the 8192 user ids from 516095 on";
    expect(&with(&["--user", "516095", "--tender-uid-base", "516095"]), &[range, "choose another --tender-uid-base"]);
    chown(path("state"), Some(77), Some(77)).unwrap();
    expect(&with(&["--user", "78"]), &["state belongs to user 77", "chown -R 78:78", "or give --user 77"]);
    chown(path("state"), Some(0), Some(0)).unwrap();
    // What a copy as root leaves.
    fs::write(path("state/journal"), "").unwrap();
    expect(&with(&["--user", "78"]), &["state/journal belongs to user 0", "chown -R 78:78"]);
}

#[test]
fn a_daemon_that_would_run_as_root_says_so() {
    let test = "a_daemon_that_would_run_as_root_says_so";
    let Some(place) = Place::begin(test) else { return };
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "it is not root here");
    }
    for program in ["vmmd_console", "vmmd_stats", "vmmd_log"] {
        let said = said_at_once(place.command(program).arg("--check"));
        assert!(said.err.contains("this runs as root, which it need not: "), "{program}: {said:?}");
        chown(place.folder.join("run/util"), Some(77), Some(77)).unwrap();
        let said = said_at_once(place.command(program).arg("--check"));
        assert!(!said.err.contains("as root"), "{program}: {said:?}");
        chown(place.folder.join("run/util"), Some(0), Some(0)).unwrap();
    }
}

#[test]
fn a_second_vmmd_on_one_state_folder_says_so_in_one_line() {
    let Some(siege) = Siege::begin("a_second_vmmd_on_one_state_folder_says_so_in_one_line") else { return };
    let mut second = Command::new(system::programs().join("vmmd"));
    second.arg("--run").arg(siege.system.folder().join("run2")).arg("--state").arg(siege.system.state());
    let said = said_at_once(&mut second);
    let lines: Vec<_> = said.err.lines().filter(|line| !line.contains("cgroups")).collect();
    assert!(matches!(lines[..], [line] if line.contains("another vmmd uses this folder, stop it first")), "{lines:?}");
    assert_eq!(said.code, 1);
    siege.expect_service();
    siege.end();
}

#[test]
fn a_run_folder_that_lost_its_records_doubles_no_unikernel() {
    let test = "a_run_folder_that_lost_its_records_doubles_no_unikernel";
    let Some(mut siege) = Siege::begin(test) else { return };
    // Of the same users, and none of ours.
    let Some(other) = Siege::begin(test) else { return };
    let create = |siege: &Siege| done(siege, &["create", "siege:one", &siege.image("hello")]);
    create(&siege);
    create(&other);
    let (before, others) = (siege.expect_listed_runs_once(), other.expect_listed_runs_once());
    end_vmmd(&mut siege);
    fs::remove_dir_all(siege.system.run().join("units")).unwrap();
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    siege.expect_log("vmmd", "ended 1 tenders whose records are gone");
    assert!(wait_until(|| siege.running().values().flatten().count() == 1), "{:?}", siege.running());
    assert_ne!(siege.expect_listed_runs_once(), before);
    assert_eq!(other.expect_listed_runs_once(), others);
    for siege in [&siege, &other] {
        done(siege, &["destroy", "siege:one"]);
    }
    siege.end();
    other.end();
}
