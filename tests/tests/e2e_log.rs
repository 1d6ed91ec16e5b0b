//! The event log beside the real daemons: what is done is told, in order and to whom it concerns; a log that is dead, stopped or
//! without room stalls nobody, and what it missed it gets, or its loss is told.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fulmar_core::limits::{EVENT_REFUSALS_PER_MINUTE_MAX, EVENTS_WAITING_BYTES_MAX};
use fulmar_core::wire;
use fulmar_tests::namespace::{Disk, inside};
use fulmar_tests::raw::{Answer, Raw};
use fulmar_tests::siege::{self, Siege, control_half, expect_gone, kill_9};
use fulmar_tests::system::{self, System, wait_until};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long a command may take while the log is stopped. Far less than for ever, far more than a busy disk needs.
const COMMAND_MAX: Duration = Duration::from_secs(60);

/// The documents that `vmmc_local log` prints.
fn documents(siege: &Siege, words: &[&str]) -> Vec<Value> {
    let said = siege.client(&[&["log", "--json"], words].concat());
    assert_eq!(said.code, 0, "{said:?}");
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What happened, as `NAME EVENT`, for this name.
fn events(siege: &Siege, name: &str) -> Vec<String> {
    let documents = documents(siege, &[name, "--count", "1000000"]);
    let events = documents.iter().filter(|it| it["event"].is_string());
    let words = |it: &Value| format!("{} {}", it["name"].as_str().unwrap_or("-"), it["event"].as_str().unwrap());
    events.map(words).collect()
}

/// Waits until the last event for this name is this one.
fn expect_last(siege: &Siege, name: &str, event: &str) {
    let last = || events(siege, name).last().is_some_and(|last| last == event);
    assert!(wait_until(last), "{event} is not the last: {:#?}\n{}", events(siege, name), siege.system.log("vmmd"));
}

fn begin(test: &str) -> Option<Siege> {
    let mut siege = Siege::begin(test)?;
    siege.system.start_log(&[]).unwrap();
    siege.expect_log("vmmd", "the event log is here");
    Some(siege)
}

fn add_policy(siege: &Siege, path: &str) {
    let said = siege.client(&["add-policy", path, "1", "--mem", "32", "--cpu", "0"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn the_story_of_some_unikernels() {
    let Some(mut siege) = begin("the_story_of_some_unikernels") else { return };
    let image = siege.image("hello");
    assert_eq!(siege.client(&["create", "siege:stays", &image]).code, 0);
    assert_eq!(siege.client(&["create", "siege:more", &image]).code, 117);
    let pid = siege.expect_listed_runs_once()["siege:stays"];
    assert_eq!(siege.client(&["restart", "siege:stays"]).code, 0);
    assert_eq!(siege.client(&["destroy", "siege:stays"]).code, 0);
    expect_last(&siege, "siege:stays", "siege:stays end");
    assert_eq!(
        events(&siege, "siege:stays"),
        [
            "siege:stays start",
            "siege:stays created unikernel",
            "siege:stays end",
            "siege:stays start",
            "siege:stays restarted unikernel",
            "siege:stays destroyed unikernel",
            "siege:stays end",
        ]
    );
    assert_eq!(events(&siege, "siege:more"), ["siege:more refused"]);
    let all = documents(&siege, &["siege:", "--count", "1000"]);
    let user = u64::from(nix::unistd::geteuid().as_raw());
    for event in all.iter().filter(|it| it["user"].is_number()) {
        assert_eq!(event["user"], user, "{event}");
    }
    let first = all.iter().find(|it| it["name"] == "siege:stays").unwrap();
    assert_eq!((&first["event"], &first["pid"]), (&"start".into(), &pid.into()));
    let refused = all.iter().find(|it| it["event"] == "refused").unwrap();
    assert!(refused["text"].as_str().unwrap().contains("siege:"), "{refused}");

    // One that fails is started again after a rest, and one that has ended for good is over.
    assert_eq!(siege.client(&["create", "siege:falls", &image, "--restart-on-fail"]).code, 0);
    let pid = siege.expect_listed_runs_once()["siege:falls"];
    kill_9(pid);
    expect_gone(&[pid]);
    let story = ["start", "created unikernel", "end", "rests", "start"].map(|event| format!("siege:falls {event}"));
    assert!(wait_until(|| events(&siege, "siege:falls") == story), "{:?}", events(&siege, "siege:falls"));
    let end = documents(&siege, &["siege:falls", "--count", "3"]);
    assert_eq!((&end[0]["signal"], &end[0]["pid"]), (&9.into(), &pid.into()));
    assert_eq!(siege.client(&["destroy", "siege:falls"]).code, 0);
    assert_eq!(siege.client(&["create", "siege:once", &image]).code, 0);
    let pid = siege.expect_listed_runs_once()["siege:once"];
    kill_9(pid);
    expect_last(&siege, "siege:once", "siege:once is over");

    // Block devices and policies.
    for (words, event) in [
        (&["add-policy", "shop:", "1", "--mem", "32", "--cpu", "0", "--block", "9"][..], "shop: added policy"),
        (&["add-block", "shop:data", "1"], "shop:data added block device"),
        (&["set-block", "shop:data", &image], "shop:data set block device"),
        (&["remove-block", "shop:data"], "shop:data removed block"),
        (&["remove-policy", "shop:"], "shop: removed policy"),
    ] {
        assert_eq!(siege.client(words).code, 0);
        expect_last(&siege, "shop:", event);
    }
    // What changes nothing is no event, nor is a question that is refused.
    let before = events(&siege, ":").len();
    add_policy(&siege, "again:");
    expect_last(&siege, ":", "again: added policy");
    add_policy(&siege, "again:");
    assert_eq!(siege.client(&["info", "nobody"]).code, 117);
    assert_eq!(siege.client(&["remove-policy", "again:"]).code, 0);
    expect_last(&siege, ":", "again: removed policy");
    assert_eq!(events(&siege, ":").len(), before + 2);

    // Each sees its own; what is about the daemons is for the root.
    assert!(events(&siege, "siege:").iter().all(|event| event.starts_with("siege:")));
    assert!(events(&siege, "shop:").iter().all(|event| event.starts_with("shop:")));
    let daemons = documents(&siege, &["--only", "daemon", "--count", "1000000"]);
    let texts: Vec<&str> = daemons.iter().filter_map(|it| it["text"].as_str()).collect();
    assert!(texts.iter().any(|text| text.starts_with("vmmd ") && text.ends_with("started")), "{texts:?}");
    assert!(texts.iter().any(|text| text.starts_with("vmmd_log ") && text.ends_with("started")), "{texts:?}");
    assert_eq!(siege.client(&["log", "siege:", "--only", "refusal"]).out.lines().count(), 1);
    siege.system.end("vmmd_log", Signal::SIGTERM).unwrap();
    let said = siege.client(&["log"]);
    assert!(said.code == 122 && said.err.contains("vmmd_log"), "{said:?}");
    siege.system.stop().unwrap();
}

/// Killed over and over while things happen, it has them all in the end, each once and in order.
#[test]
fn a_log_that_is_killed_misses_nothing() {
    let Some(mut siege) = begin("a_log_that_is_killed_misses_nothing") else { return };
    let mut last = documents(&siege, &[":"]).last().unwrap()["end"].as_u64().unwrap();
    let mut seen = Vec::new();
    for round in 0..8 {
        for number in 0..6 {
            add_policy(&siege, &format!("r{round}n{number}:"));
            if number == 2 {
                siege.system.end("vmmd_log", if round % 3 == 2 { Signal::SIGTERM } else { Signal::SIGKILL }).unwrap();
            }
        }
        siege.system.start_log(&[]).unwrap();
        let path = format!("r{round}n5: added policy");
        expect_last(&siege, &format!("r{round}n5:"), &path);
        // By cursor, as one who comes back does.
        for document in documents(&siege, &["--after", &last.to_string()]) {
            assert!(document["gap"].is_null() && document["lost"].is_null(), "{document}");
            if let Some(number) = document["number"].as_u64() {
                assert_eq!(number, last + 1);
                last = number;
                seen.extend(document["name"].as_str().map(str::to_owned));
            }
        }
    }
    let added: Vec<String> = (0..8).flat_map(|round| (0..6).map(move |number| format!("r{round}n{number}:"))).collect();
    assert_eq!(seen, added);
    // The halves of vmmd die too: what the log has stays, and the next vmmd is told of as such.
    let halves = [control_half(siege.vmmd), siege.vmmd];
    halves.iter().for_each(|half| kill_9(*half));
    expect_gone(&halves);
    siege.start_vmmd_again();
    add_policy(&siege, "later:");
    expect_last(&siege, ":", "later: added policy");
    let after = documents(&siege, &["--after", &last.to_string()]);
    assert!(after[0]["text"].as_str().unwrap().starts_with("vmmd ") && after[0]["number"] == last + 1, "{after:?}");
    siege.system.stop().unwrap();
}

/// A policy that refuses nothing, for a path of this name.
fn policy() -> wire::Policy<'static> {
    wire::Policy { cpuids: wire::List::Items(&[0]), unikernels: 1, memory: 32, block: None, bridges: wire::List::EMPTY }
}

/// What `vmmc_local host` says of this.
fn used(siege: &Siege, what: &str) -> u64 {
    let said = siege.client(&["host", "--json"]);
    let host: Value = serde_json::from_str(&said.out).unwrap();
    host["uses"][what]["used"].as_u64().unwrap()
}

/// Without a log `vmmd` keeps so many events and no more. What it had to drop is counted, shown, and told when the log comes.
#[test]
fn what_nobody_can_be_told_is_counted_and_told() {
    let Some(mut siege) = Siege::begin("what_nobody_can_be_told_is_counted_and_told") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let told_before = used(&siege, "event-bytes");
    assert!(told_before > 0 && used(&siege, "events-lost") == 0);
    // Long names make long events. Several ask at once, as each waits for the disk.
    let long = "l".repeat(63);
    let done = std::sync::atomic::AtomicU64::new(0);
    let is_full = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (socket, long, done, is_full) = (&socket, &long, &done, &is_full);
            scope.spawn(move || {
                let path = format!("{long}:{long}:t{number}:");
                for round in 0..10_000 {
                    if is_full.load(Ordering::Relaxed) {
                        return;
                    }
                    let command = match round % 2 {
                        0 => wire::PolicyCommand::Add(policy()),
                        _ => wire::PolicyCommand::Remove,
                    };
                    let answer = Raw::connect(socket).ask(&path, wire::Command::Policy(command));
                    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        assert!(wait_until(|| used(&siege, "events-lost") > 100), "{}", done.load(Ordering::Relaxed));
        is_full.store(true, Ordering::Relaxed);
    });
    let (done, lost) = (done.load(Ordering::Relaxed), used(&siege, "events-lost"));
    assert!(used(&siege, "event-bytes") <= EVENTS_WAITING_BYTES_MAX as u64);
    siege.expect_log("vmmd", "events are being lost");
    let shown = siege.client(&["host"]).out;
    let line = shown.lines().find(|line| line.starts_with("events lost")).unwrap();
    assert!(line.split_whitespace().any(|word| word == lost.to_string()), "{line}");
    siege.system.start_log(&["--size".as_ref(), "64".as_ref()]).unwrap();
    siege.expect_log("vmmd", "the event log is here");
    add_policy(&siege, "after:");
    expect_last(&siege, ":", "after: added policy");
    let all = documents(&siege, &["--after", "0"]);
    let told: Vec<&str> = all.iter().filter(|it| it["event"] == "lost").filter_map(|it| it["text"].as_str()).collect();
    // What is shorter than the one before it may find room once more.
    let counts = told.iter().map(|text| text.strip_suffix(" events are lost: the log daemon was not there").unwrap());
    assert_eq!(counts.map(|count| count.parse::<u64>().unwrap()).sum::<u64>(), lost, "{told:?}");
    let policies = all.iter().filter(|it| it["name"].as_str().is_some_and(|name| name.starts_with(&long))).count();
    assert_eq!(policies as u64 + lost, done);
    assert!(wait_until(|| used(&siege, "event-bytes") == 0));
    assert_eq!(used(&siege, "events-lost"), lost);
    siege.system.stop().unwrap();
}

/// Somebody who is refused all the time does not fill the log: so many a minute, and then how many more.
#[test]
fn refusals_do_not_fill_the_log() {
    let Some(siege) = begin("refusals_do_not_fill_the_log") else { return };
    let most = EVENT_REFUSALS_PER_MINUTE_MAX;
    let begun = Instant::now();
    let mut client = Raw::connect(&siege.system.socket("vmmd.sock"));
    let asked = 4 * most;
    for number in 0..asked {
        let answer = client.ask("nobody:", wire::Command::Policy(wire::PolicyCommand::Remove));
        assert!(matches!(answer, Answer::Refused(_)), "{number}: {answer:?}");
        // Each is a conversation of its own.
        client = Raw::connect(&siege.system.socket("vmmd.sock"));
    }
    // Minutes that have begun meanwhile, on a machine that is busy with something else.
    let minutes = begun.elapsed().as_secs() / 60 + 2;
    add_policy(&siege, "after:");
    expect_last(&siege, ":", "after: added policy");
    let refused = || events(&siege, "nobody:").iter().filter(|it| *it == "nobody: refused").count() as u64;
    assert!((most..=most * minutes).contains(&refused()), "{} events of {asked}", refused());
    // All the others are told as a number, in the first event of another minute.
    let lost = || -> u64 {
        let all = documents(&siege, &["--only", "trouble", "--count", "1000000"]);
        let texts = all.iter().filter(|it| it["event"] == "lost").filter_map(|it| it["text"].as_str());
        texts
            .filter(|it| it.contains("more commands were refused"))
            .map(|it| it.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    let mut number = 0;
    let told = wait_until(|| {
        number += 1;
        let words = if number % 2 == 0 { "add" } else { "remove" };
        match words {
            "add" => add_policy(&siege, "after:"),
            _ => assert_eq!(siege.client(&["remove-policy", "after:"]).code, 0),
        }
        lost() + refused() >= asked
    });
    assert!(told, "{} events, {} more of {asked}", refused(), lost());
    assert_eq!(lost() + refused(), asked);
    siege.system.stop().unwrap();
}

/// One that does not read any more is like one that is dead.
#[test]
fn a_log_that_stands_still_stalls_nobody() {
    let Some(mut siege) = begin("a_log_that_stands_still_stalls_nobody") else { return };
    let mut command = siege.system.client(&["log", "siege:", "--follow", "--after", "0"]);
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let log = Pid::from_raw(i32::try_from(siege.system.pid("vmmd_log").unwrap()).unwrap());
    assert!(
        lines.by_ref().map(Result::unwrap).any(|line| line.ends_with("siege:whole ended: signal 15, as it was told"))
    );
    kill(log, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let image = siege.image("hello");
    for _ in 0..3 {
        assert_eq!(siege.client(&["create", "siege:web", &image]).code, 0);
        assert_eq!(siege.client(&["destroy", "siege:web"]).code, 0);
    }
    siege.expect_service();
    assert!(begun.elapsed() < COMMAND_MAX, "{:?}", begun.elapsed());
    kill(log, Signal::SIGCONT).unwrap();
    let created = lines.by_ref().map(Result::unwrap).filter(|line| line.contains("siege:web: created unikernel"));
    assert_eq!(created.take(3).count(), 3);
    follower.kill().unwrap();
    follower.wait().unwrap();
    siege.system.end("vmmd_log", Signal::SIGKILL).unwrap();
    assert_eq!(siege.client(&["create", "siege:web", &image]).code, 0);
    assert_eq!(siege.client(&["destroy", "siege:web"]).code, 0);
    siege.system.stop().unwrap();
}

#[test]
fn a_log_whose_disk_is_full() {
    const TEST: &str = "a_log_whose_disk_is_full";
    inside(TEST, || {
        let Some(programs) = siege::programs(TEST) else { return };
        let mut siege = Siege::begin_in(System::new(system::make_folder("siege").unwrap(), programs).unwrap());
        let disk = Disk::mount(&siege.system.state().join("log"), 1 << 20, MsFlags::empty());
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(siege.system.state()).unwrap());
        std::os::unix::fs::chown(siege.system.state().join("log"), Some(owner), Some(owner)).unwrap();
        siege.system.start_log(&[]).unwrap();
        siege.expect_log("vmmd", "the event log is here");
        add_policy(&siege, "before:");
        expect_last(&siege, ":", "before: added policy");
        disk.fill_up_to(0);
        let mut added = 0;
        let losing = |siege: &Siege| siege.system.log("vmmd_log").contains("events are being lost");
        // What the file has in its last page still fits.
        while !losing(&siege) {
            add_policy(&siege, &format!("full{added}:"));
            added += 1;
            assert!(added < 500, "the disk takes everything\n{}", siege.system.log("vmmd_log"));
        }
        for number in 0..5 {
            add_policy(&siege, &format!("lost{number}:"));
        }
        // Who asks is told, while the disk is still full.
        let lost = || documents(&siege, &[":"]).iter().find_map(|it| it["lost"].as_u64());
        assert!(wait_until(|| lost().is_some_and(|lost| lost >= 6)), "{:?}", lost());
        let lost = lost().unwrap();
        let said = siege.client(&["log", "--count", "1"]);
        assert!(said.code == 0 && said.out.contains("events are lost: the disk of the log takes no more"), "{said:?}");
        assert!(siege.client(&["log", "lost0:"]).code == 0);
        disk.make_room();
        add_policy(&siege, "after:");
        expect_last(&siege, ":", "after: added policy");
        let [told, after] = &documents(&siege, &["--count", "2"])[..2] else { panic!() };
        assert_eq!(told["event"], "lost");
        assert!(told["text"].as_str().unwrap().starts_with(&format!("{lost} events are lost: the disk")), "{told}");
        assert_eq!(after["number"].as_u64().unwrap(), told["number"].as_u64().unwrap() + 1);
        // After the next start it is all as it was.
        let before = events(&siege, ":");
        siege.system.end("vmmd_log", Signal::SIGKILL).unwrap();
        disk.fill_up_to(0);
        siege.system.start_log(&[]).unwrap();
        let again = events(&siege, ":");
        assert!(again.starts_with(&before), "{again:#?}");
        siege.expect_service();
        siege.system.end("vmmd_log", Signal::SIGTERM).unwrap();
        drop(disk);
        siege.system.stop().unwrap();
    });
}
