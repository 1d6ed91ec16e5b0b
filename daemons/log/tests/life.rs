//! The log over its life: ends and starts again, torn tails, flipped bits, rotation, readers who are slow, writers who say
//! things twice.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use fulmar_core::event::{HEADER_BYTES, RECORD_BYTES_MAX};
use fulmar_core::limits::{LOG_OUTPUT_BYTES_MAX, LOG_SEGMENTS_MAX, LOG_STALL_MS_MAX};
use fulmar_core::wire::{Event, GapCause, LogFrom, Note};
use nix::sys::signal::Signal;

use common::{Came, Client, Daemon, count, created, told, wait_until};

/// Tells of events with these numbers.
fn tell(daemon: &Daemon, numbers: std::ops::RangeInclusive<u64>) {
    let mut vmmd = daemon.connect();
    for number in numbers {
        vmmd.tell(number, i64::try_from(number).unwrap(), created(&format!("a:n{number}")));
    }
}

/// Tells of many long events without waiting for each.
fn tell_much(daemon: &Daemon, first: u64, count: u64) {
    let mut vmmd = daemon.connect();
    let mut answers = Client { stream: vmmd.stream.try_clone().unwrap() };
    let reader = std::thread::spawn(move || (0..count).for_each(|_| assert_eq!(answers.next(), Came::Empty)));
    let reason = "x".repeat(600);
    let event = |_| Event::Refused { name: common::name("a:x"), reason: reason.as_str().into(), user: None };
    for number in first..first + count {
        vmmd.send(&told(number, 0, event(number)));
    }
    reader.join().unwrap();
}

/// The numbers of the events that there are, and the gaps, from this number on.
fn numbers(daemon: &Daemon, after: u64) -> (Vec<u64>, Vec<Note>) {
    let (mut numbers, mut notes) = (Vec::new(), Vec::new());
    for came in daemon.all(":", LogFrom::After(after)) {
        match came {
            Came::Event(number, _) => numbers.push(number),
            Came::Note(note) => notes.push(note),
            other => panic!("{other:?}"),
        }
    }
    (numbers, notes)
}

#[test]
fn what_was_acknowledged_is_there_after_each_end() {
    let mut daemon = Daemon::start(&[]);
    let mut told = 0;
    for round in 0..6 {
        tell(&daemon, told + 1..=told + 5);
        told += 5;
        let status = daemon.stop(if round % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
        assert_eq!(status.success(), round % 2 == 1);
        daemon.serve();
    }
    let texts: Vec<String> = daemon
        .all(":", LogFrom::After(0))
        .into_iter()
        .map(|came| if let Came::Event(_, text) = came { text } else { panic!("{came:?}") })
        .collect();
    for number in 1..=told {
        let text = format!("a:n{number}: created unikernel (asked by user 0)");
        assert_eq!(texts.iter().filter(|known| **known == text).count(), 1, "{number}: {texts:?}");
    }
    assert_eq!(texts.iter().filter(|text| text.ends_with("started")).count(), 7);
    // The last words are there where there were some.
    assert_eq!(texts.iter().filter(|text| text.ends_with("ended")).count(), 3);
    assert_eq!(texts.len() as u64, told + 10);
}

/// After a break the writer cannot know what was kept, and says it again.
#[test]
fn what_is_said_twice_is_kept_once() {
    let mut daemon = Daemon::start(&[]);
    let other = 9 << 32;
    tell(&daemon, 1..=5);
    tell(&daemon, 3..=8);
    let mut vmmd = daemon.connect();
    vmmd.tell(other | 1, 0, created("b:first"));
    daemon.stop(Signal::SIGKILL);
    daemon.serve();
    tell(&daemon, 6..=10);
    let mut vmmd = daemon.connect();
    vmmd.tell(other | 1, 0, created("b:first"));
    vmmd.tell(other | 2, 0, created("b:second"));
    assert_eq!(daemon.all("a:", LogFrom::After(0)).len(), 10);
    assert_eq!(daemon.all("b:", LogFrom::After(0)).len(), 2);
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    let mut daemon = Daemon::start(&[]);
    tell(&daemon, 1..=10);
    daemon.stop(Signal::SIGKILL);
    let segment = daemon.segments().pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    for cut in [1, 5, 30, 60] {
        let last = {
            fs::write(&segment, &whole[..whole.len() - cut]).unwrap();
            daemon.serve();
            let (numbers, notes) = numbers(&daemon, 0);
            // The number of what was cut off is not given again.
            assert!(matches!(notes[..], [Note::Gap { cause: GapCause::Damaged, .. }]), "{notes:?}");
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(daemon.said().contains("of an unfinished write"), "{}", daemon.said());
            let told = daemon.all(":", LogFrom::After(0));
            assert!(
                told.iter()
                    .any(|came| matches!(came, Came::Event(_, text) if text.contains("bytes of the log are lost"))),
                "{told:?}"
            );
            daemon.last()
        };
        // And it goes on.
        tell(&daemon, 1_000..=1_000);
        assert_eq!(daemon.last(), last + 1);
        daemon.stop(Signal::SIGKILL);
    }
    // Nothing of the newest but its name: it is begun anew.
    for file in daemon.segments() {
        fs::write(file, &whole[..HEADER_BYTES / 2]).unwrap();
    }
    daemon.serve();
    tell(&daemon, 2_000..=2_000);
    assert_eq!(daemon.all("a:", LogFrom::After(0)).len(), 1);
}

#[test]
fn a_flipped_bit_costs_one_event_and_is_told() {
    let mut daemon = Daemon::start(&[]);
    tell(&daemon, 1..=20);
    daemon.stop(Signal::SIGTERM);
    let segment = daemon.segments().pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    let middle = whole.len() / 2;
    for at in [middle, middle + 7, middle + 23, middle + 51] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&segment, &damaged).unwrap();
        daemon.serve();
        let (numbers, notes) = numbers(&daemon, 0);
        let [Note::Gap { first, next, cause: GapCause::Damaged }] = notes[..] else { panic!("{notes:?}") };
        assert_eq!(next, first + 1);
        // Two are of this start and its end before.
        assert_eq!(numbers, (1..=23).filter(|number| *number != first).collect::<Vec<_>>());
        assert_eq!(daemon.all("a:", count(100)).len(), 20);
        assert!(daemon.all("a:", LogFrom::After(first)).len() < 20);
        daemon.stop(Signal::SIGKILL);
    }
    // A segment whose head is damaged is set aside, and no number of it is given again.
    let mut damaged = whole.clone();
    damaged[10] ^= 1;
    fs::write(&segment, &damaged).unwrap();
    daemon.serve();
    assert!(daemon.last() > 22, "{}", daemon.last());
    assert_eq!(fs::read(segment.with_extension("damaged")).unwrap(), damaged);
    assert!(daemon.said().contains("is damaged: it is now"));
    tell(&daemon, 100..=100);
    assert_eq!(daemon.all("a:", count(9)).len(), 1);
}

#[test]
fn the_oldest_goes_and_who_comes_late_is_told() {
    let daemon = Daemon::start(&["--size", "1"]);
    let slice = (1 << 20) / LOG_SEGMENTS_MAX;
    let mut follower = daemon.read(":", LogFrom::After(0), true);
    assert_eq!(follower.next_number(), 1);
    assert_eq!(follower.next(), Came::Note(Note::End { last: 1 }));
    // Three times as much as is kept; one reader keeps up with it.
    for hundred in 0..48 {
        tell_much(&daemon, hundred * 100 + 1, 100);
        let seen: Vec<u64> = (0..100).map(|_| follower.next_number()).collect();
        assert_eq!(seen, (hundred * 100 + 2..=hundred * 100 + 101).collect::<Vec<_>>());
    }
    let files = daemon.segments();
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= 1 << 20 && bytes + 2 * slice > 1 << 20, "{bytes} bytes in {} files", files.len());
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= slice));
    let mode = fs::metadata(daemon.folder.join("state/log")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);

    let (kept, notes) = numbers(&daemon, 1000);
    let oldest = kept[0];
    assert_eq!(notes, [Note::Gap { first: 1001, next: oldest, cause: GapCause::Removed }]);
    assert_eq!(kept, (oldest..=4801).collect::<Vec<_>>());
    assert_eq!(files[0].file_name().unwrap().to_str().unwrap().parse(), Ok(oldest));
    // Who wants the last ones wants no word of those that are gone.
    assert_eq!(daemon.all(":", count(1 << 40)).len(), kept.len());
    assert_eq!(daemon.all("a:", count(1 << 40)).len(), kept.len());
    assert_eq!(daemon.all("a:x", count(1500)).len(), 1500.min(kept.len()));
    assert_eq!(daemon.all("b:", count(5)), []);
}

/// What is older than is wanted goes, in whole segments, when the log is opened and when it grows.
#[test]
fn what_is_too_old_goes() {
    let mut daemon = Daemon::start(&["--size", "1", "--days", "2"]);
    tell_much(&daemon, 1, 900);
    daemon.stop(Signal::SIGTERM);
    let files = daemon.segments();
    assert!(files.len() > 5, "{}", files.len());
    let day = Duration::from_secs(86_400);
    let age = |file: &Path, age: Duration| {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::now().checked_sub(age).unwrap()).unwrap();
    };
    // Two are too old, and one not yet.
    age(&files[0], 3 * day);
    age(&files[1], 2 * day + Duration::from_secs(60));
    age(&files[2], day);
    daemon.serve();
    assert_eq!(daemon.segments()[0], files[2]);
    let (kept, notes) = numbers(&daemon, 0);
    assert_eq!(notes, [Note::Gap { first: 1, next: kept[0], cause: GapCause::Removed }]);
    assert_eq!(files[2].file_name().unwrap().to_str().unwrap().parse(), Ok(kept[0]));
    // The newest is kept however old it is: what comes goes in there.
    daemon.stop(Signal::SIGTERM);
    daemon.segments().iter().for_each(|file| age(file, 9 * day));
    daemon.serve();
    let newest = daemon.segments();
    assert_eq!(newest.len(), 1);
    tell_much(&daemon, 10_001, 1);
    assert_eq!(numbers(&daemon, 0).0.last(), Some(&daemon.last()));
}

/// A reader who takes nothing costs nobody anything and gets a last word.
#[test]
fn who_takes_nothing_is_closed_with_a_last_word() {
    let daemon = Daemon::start(&[]);
    tell_much(&daemon, 1, 4000);
    let mut slow = daemon.read(":", LogFrom::After(0), true);
    let before = daemon.resident_kib();
    let many: Vec<Client> = (0..100).map(|_| daemon.read(":", LogFrom::After(0), true)).collect();
    tell_much(&daemon, 5000, 200);
    let grown = before.zip(daemon.resident_kib()).map(|(before, after)| after.saturating_sub(before));
    let bound_kib = (100 * LOG_OUTPUT_BYTES_MAX as u64) / 1024 + 4096;
    assert!(grown.is_none_or(|kib| kib < bound_kib), "{grown:?} KiB for 100 readers who take nothing");
    drop(many);
    let waited = std::time::Instant::now();
    wait_until("the slow one to be closed", || daemon.said().contains("reads too slowly"));
    assert!(waited.elapsed().as_millis() + 5_000 > u128::from(LOG_STALL_MS_MAX));
    let mut last = Came::End;
    loop {
        match slow.next() {
            Came::End => break,
            came => last = came,
        }
    }
    assert_eq!(last, Came::Note(Note::Slow));
}

#[test]
fn only_one_serves_a_folder_and_only_with_its_folders() {
    let mut daemon = Daemon::start(&[]);
    let second = daemon.command().stdin(Stdio::null()).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another vmmd_log serves this folder"));
    assert!(daemon.is_running());
    let bare = Daemon::prepare(&[]);
    fs::remove_dir(bare.folder.join("state")).unwrap();
    let output = bare.command().stdin(Stdio::null()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("choose another --state"));
    fs::write(bare.folder.join("state"), "").unwrap();
    assert!(!bare.command().stdin(Stdio::null()).status().unwrap().success());
    // A file in the place of the log's folder, and files that are none of ours in it.
    fs::remove_file(bare.folder.join("state")).unwrap();
    fs::create_dir_all(bare.folder.join("state")).unwrap();
    fs::write(bare.folder.join("state/log"), "").unwrap();
    let output = bare.command().stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    daemon.stop(Signal::SIGTERM);
    assert!(!daemon.socket().exists());
    let strange = daemon.folder.join("state/log/00000000000000000001.old");
    fs::write(&strange, "mine").unwrap();
    fs::write(daemon.folder.join("state/log/7"), "mine").unwrap();
    daemon.serve();
    tell(&daemon, 1..=1);
    assert_eq!(fs::read(strange).unwrap(), b"mine");
}

/// The longest event that there can be fits, and what is longer than a message may be is refused.
#[test]
fn the_longest_event() {
    let daemon = Daemon::start(&[]);
    let name = format!("{}:{}", vec!["x".repeat(50); 4].join(":"), "y".repeat(40));
    let taps = vec!["t".repeat(15); 63];
    let taps: Vec<&str> = taps.iter().map(String::as_str).collect();
    let mut vmmd = daemon.connect();
    let start = Event::Start {
        name: common::name(&name),
        pid: i64::from(i32::MAX),
        taps: fulmar_core::wire::List::Items(&taps),
        block: None,
    };
    vmmd.tell(1, 0, start);
    let long = "x".repeat(RECORD_BYTES_MAX - 300);
    vmmd.send(&told(2, 0, Event::Trouble { name: common::name(":"), reason: long.as_str().into() }));
    assert_eq!(vmmd.next(), Came::Empty);
    let mut sender = daemon.connect();
    let too_long = "x".repeat(3000);
    let _ = sender.stream.write_all(&told(
        3,
        0,
        Event::Trouble { name: common::name(":"), reason: too_long.as_str().into() },
    ));
    let mut rest = Vec::new();
    let _ = sender.stream.read_to_end(&mut rest);
    assert_eq!(daemon.last(), 3);
    assert!(
        matches!(&daemon.all(&name, count(1))[..], [Came::Event(2, text)] if text.matches("network").count() == 63)
    );
}
