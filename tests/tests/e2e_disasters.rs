//! Disasters of a host: disks that fail while everything runs, a clock that was set back, a start after which a bridge is
//! missing. What runs goes on, questions are answered, and what was acknowledged is there when the disaster is over.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use fulmar_core::wire::{Command, List, Policy, PolicyCommand};
use fulmar_tests::bridge::{ip, with_bridge};
use fulmar_tests::namespace::{ThinDisk, inside};
use fulmar_tests::raw::{Answer, Raw};
use fulmar_tests::siege::{self, Siege, control_half, expect_gone, kill_9};
use fulmar_tests::system::{self, System, wait_until};
use nix::sys::signal::Signal;

/// Policies that a test may add before the disk takes no more.
const POLICIES_MAX: usize = 300;

/// Asks for a policy of this path.
fn add_policy(siege: &Siege, path: &str) -> Answer {
    let policy = Policy { cpuids: List::Items(&[0]), unikernels: 1, memory: 32, block: None, bridges: List::EMPTY };
    Raw::connect(&siege.system.socket("vmmd.sock")).ask(path, Command::Policy(PolicyCommand::Add(policy)))
}

/// Asks for policies until one is refused. Those that were acknowledged; the one that was not, and why.
fn add_policies(siege: &Siege, first: usize) -> (BTreeSet<String>, String, String) {
    let mut added = BTreeSet::new();
    for number in first..first + POLICIES_MAX {
        let path = format!("p{number}:");
        let answer = add_policy(siege, &path);
        if !matches!(answer, Answer::Done(_)) {
            println!("{} more policies, then {answer:?}", added.len());
            return (added, path, answer.reason().to_owned());
        }
        added.insert(path);
    }
    panic!("the disk takes everything");
}

/// The policies that [`add_policies`] has added.
fn policies(siege: &Siege) -> BTreeSet<String> {
    let said = siege.client(&["policy", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let paths = value["policies"].as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap().to_owned());
    paths.filter(|path| path.starts_with('p')).collect()
}

/// What runs goes on, and whoever asks is answered.
fn expect_life_goes_on(siege: &Siege) {
    siege.expect_service();
    siege.expect_line("siege:stays", "tick");
    let said = siege.client(&["info", "siege:stays"]);
    assert_eq!(said.code, 0, "{said:?}");
}

/// A siege whose state is on a thin disk, with one unikernel.
fn begin_on_thin_disk(test: &str, kind: &'static str) -> Option<(Siege, ThinDisk)> {
    let programs = siege::programs(test)?;
    let system = System::new(system::make_folder("siege").unwrap(), programs).unwrap();
    let disk = ThinDisk::mount(test, &system.state(), kind)?;
    let siege = Siege::begin_in(system);
    assert_eq!(siege.client(&["create", "siege:stays", &siege.image("hello")]).code, 0);
    Some((siege, disk))
}

#[test]
fn a_disk_that_fails_and_then_takes_no_more_changes() {
    const TEST: &str = "a_disk_that_fails_and_then_takes_no_more_changes";
    inside(TEST, || {
        let Some((mut siege, disk)) = begin_on_thin_disk(TEST, "ext4") else { return };
        let before = siege.expect_listed_runs_once();
        disk.break_off();
        let (added, unsure, reason) = add_policies(&siege, 0);
        assert!(reason.contains("journal") || reason.contains("disk"), "{reason}\n{}", siege.system.log("vmmd"));
        siege.expect_log("vmmd", "could not write the journal: ");
        // By now the file system is read-only, whatever it was that failed first.
        for words in [
            &["add-policy", "q:", "1", "--mem", "32", "--cpu", "0"][..],
            &["destroy", "siege:stays"],
            &["remove-policy", "siege:"],
            &["add-block", "disk", "1"],
            &["create", "other", &siege.image("hello")],
        ] {
            let said = siege.client(words);
            assert_eq!(said.code, 117, "{words:?}: {said:?}");
            assert!(
                ["ead-only", "Input/output error", "disk", "journal"].iter().any(|it| said.err.contains(it)),
                "{said:?}"
            );
        }
        expect_life_goes_on(&siege);
        assert_eq!(siege.expect_listed_runs_once(), before);
        assert!(policies(&siege).is_superset(&added), "{:?}", policies(&siege));

        // Nor does vmmd start on it, and it says why. The unikernel does not mind.
        let control = control_half(siege.vmmd);
        siege.system.end("vmmd", Signal::SIGTERM).unwrap();
        expect_gone(&[control]);
        let error = siege.system.start_vmmd(&[]).unwrap_err();
        assert!(error.contains("Read-only") && error.contains(&*siege.system.state().to_string_lossy()), "{error}");
        assert_eq!(siege.running().len(), 1);

        disk.unmount();
        disk.mend();
        disk.mount_again().unwrap();
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        assert_eq!(siege.expect_listed_runs_once(), before);
        let found = policies(&siege);
        let differing: Vec<_> = found.symmetric_difference(&added).collect();
        println!("after the disaster differ from what was acknowledged: {differing:?}");
        assert!(differing.iter().all(|path| **path == unsure), "{differing:?} of {found:?}");
        assert_eq!(siege.client(&["destroy", "siege:stays"]).code, 0);
        siege.count_again();
        siege.expect_nothing_left();
        drop(disk);
        siege.system.stop().unwrap();
    });
}

#[test]
fn a_disk_that_promised_too_much() {
    const TEST: &str = "a_disk_that_promised_too_much";
    inside(TEST, || {
        let Some((mut siege, disk)) = begin_on_thin_disk(TEST, "ext2") else { return };
        let before = siege.expect_listed_runs_once();
        let (mut known, mut unsure) = (BTreeSet::new(), BTreeSet::new());
        for round in 0..3 {
            disk.break_off();
            let (added, refused, reason) = add_policies(&siege, round * POLICIES_MAX);
            assert!(reason.contains("full"), "{reason}\n{}", siege.system.log("vmmd"));
            known.extend(added);
            unsure.insert(refused);
            expect_life_goes_on(&siege);
            disk.mend();
            // As soon as there is room, everything goes on.
            let path = format!("p{}:", round * POLICIES_MAX + POLICIES_MAX);
            let answer = add_policy(&siege, &path);
            assert!(matches!(answer, Answer::Done(_)), "{answer:?}\n{}", siege.system.log("vmmd"));
            known.insert(path);
        }
        // What was refused is not there, and does not come back.
        for _ in 0..2 {
            let found = policies(&siege);
            assert!(found.is_superset(&known) && found.is_disjoint(&unsure), "{found:?} and known was {known:?}");
            let halves = [control_half(siege.vmmd), siege.vmmd];
            halves.iter().for_each(|half| kill_9(*half));
            expect_gone(&halves);
            siege.start_vmmd_again();
        }
        assert_eq!(siege.expect_listed_runs_once(), before);
        assert_eq!(siege.client(&["destroy", "siege:stays"]).code, 0);
        siege.count_again();
        siege.expect_nothing_left();
        drop(disk);
        siege.system.stop().unwrap();
    });
}

#[test]
fn a_start_of_the_host_without_one_of_its_bridges() {
    with_bridge("a_start_of_the_host_without_one_of_its_bridges", None, |siege, net| {
        let make_bridge = || ip(&["link", "add", "br1", "type", "bridge"]) && ip(&["link", "set", "br1", "up"]);
        assert!(make_bridge());
        let create = |name: &str, image: &str, more: &[&str]| {
            let image = siege.image(image);
            let words = [&["create", name, &image], more].concat();
            assert!(wait_until(|| siege.client(&words).code == 0), "{}", siege.system.log("vmmd"));
        };
        create("plain", "hello", &[]);
        create("zero", "network", &["--net", "service:br0"]);
        create("one", "network", &["--net", "service:br1", "--startup", "1"]);
        assert_eq!(siege.expect_listed_runs_once().len(), 3);

        // Everything ends, and what is in the run folder does not outlive the host.
        for daemon in ["vmmd", "vmmd_console"] {
            siege.system.end(daemon, Signal::SIGTERM).unwrap();
        }
        let pids: Vec<u32> = siege.running().into_values().flatten().collect();
        pids.iter().for_each(|pid| kill_9(*pid));
        expect_gone(&pids);
        fs::remove_dir_all(siege.system.run()).unwrap();
        assert!(ip(&["link", "del", "br1"]));
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        siege.console = siege.system.start_console().unwrap();

        // The others start; this one says why not, in the log and to who asks.
        let running = || siege.running().into_keys().collect::<Vec<_>>();
        assert!(wait_until(|| running() == [":plain", ":zero"]), "{:?}", running());
        siege.expect_log("vmmd", "one does not run, next try in ");
        let log = siege.system.log("vmmd");
        let rests = log.lines().find(|line| line.contains("one does not run, next try in ")).unwrap();
        assert!(rests.contains("br1"), "{rests}");
        let listed = siege.client(&["info", "one"]);
        let why = listed.out.lines().find(|line| line.starts_with("why"));
        assert!(listed.out.contains("resting") && why.is_some_and(|line| line.contains("br1")), "{listed:?}");
        siege.expect_line("plain", "tick");
        siege.expect_line("zero", "address");

        // As soon as the bridge is there.
        assert!(make_bridge());
        assert_eq!(siege.expect_listed_runs_once().len(), 3);
        siege.expect_line("one", "address");
        assert_eq!(siege::files(&net.join("class/net/br1/brif")).len(), 1);
        for name in ["plain", "zero", "one"] {
            assert_eq!(siege.client(&["destroy", name]).code, 0);
        }
        siege.expect_clean();
        siege.count_again();
        siege.expect_nothing_left();
    });
}

#[test]
fn a_clock_that_was_set_back_is_only_seen() {
    let Some(mut siege) = Siege::begin("a_clock_that_was_set_back_is_only_seen") else { return };
    assert_eq!(siege.client(&["create", "siege:stays", &siege.image("hello"), "--restart-on-fail"]).code, 0);
    let before = siege.expect_listed_runs_once();
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    // When a unikernel was launched is when its record was written: in an hour, after the clock was set back by one.
    let units = siege.system.run().join("units");
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    for file in siege::files(&units) {
        fs::File::options().write(true).open(units.join(file)).unwrap().set_modified(in_an_hour).unwrap();
    }
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    assert_eq!(siege.expect_listed_runs_once(), before);
    for words in [&["info"][..], &["info", "siege:stays"]] {
        let said = siege.client(words);
        assert!(said.code == 0 && said.out.contains("stays"), "{said:?}");
    }
    // It rests for a second after a run that was short, not for an hour.
    let [pid] = <[u32; 1]>::try_from(before.into_values().collect::<Vec<_>>()).unwrap();
    kill_9(pid);
    expect_gone(&[pid]);
    siege.expect_log("vmmd", "siege:stays does not run, next try in 1 s");
    let again = siege.expect_listed_runs_once();
    assert!(!again.values().any(|other| *other == pid));
    assert_eq!(siege.client(&["destroy", "siege:stays"]).code, 0);
    siege.expect_clean();
    siege.count_again();
    siege.end();
}
