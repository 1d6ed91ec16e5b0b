//! Goal: nothing acknowledged is ever lost, nothing refused ever comes back, whatever fails and whenever the power goes.
//! Method: a script of upserts, ends and compactions, run once to count its operations, then once for each operation and fault.

use std::collections::BTreeMap;

use super::*;
use crate::disk::simulated::{Fault, SimulatedFolder};

/// Policies by path, as the journal tells them.
type Desired = BTreeMap<String, Vec<u8>>;

fn open(folder: &SimulatedFolder) -> Result<(Journal<SimulatedFolder>, Opened, Desired), OpenError> {
    let mut desired = Desired::new();
    let (journal, opened) = Journal::open(folder.clone(), 77, false, |entry| match entry.record {
        Record::Policy { path, policy } => drop(desired.insert(path.to_owned(), policy.to_owned())),
        Record::PolicyGone { path } => drop(desired.remove(path)),
        _ => panic!("not in the script"),
    })?;
    Ok((journal, opened, desired))
}

fn batch(records: &[Record<'_>]) -> Batch {
    let mut batch = Batch::with_room_for(records.len());
    for record in records {
        batch.push(record).unwrap();
    }
    batch
}

/// The batches of the script: each is one append.
fn script() -> Vec<Vec<Record<'static>>> {
    let policy = |path, policy| Record::Policy { path, policy };
    vec![
        vec![policy("a:", b"one")],
        vec![policy("b:", &[7; 70]), policy("a:", b"two"), policy("c:", &[8; 50])],
        vec![Record::PolicyGone { path: "b:" }],
        vec![policy("d:", &[9; 200]), Record::PolicyGone { path: "a:" }],
        vec![policy("e:", b"five")],
    ]
}

fn apply(desired: &mut Desired, records: &[Record<'_>]) {
    for record in records {
        match record {
            Record::Policy { path, policy } => drop(desired.insert((*path).to_owned(), policy.to_vec())),
            Record::PolicyGone { path } => drop(desired.remove(*path)),
            _ => {}
        }
    }
}

/// Runs the script; a compaction after the third append and whenever the journal asks for one. Returns what was acknowledged, and
/// what may or may not be there on top.
fn run(folder: &SimulatedFolder) -> (Desired, Option<Desired>) {
    let mut acknowledged = Desired::new();
    let Ok((mut journal, ..)) = open(folder) else { return (acknowledged, None) };
    for (index, records) in script().iter().enumerate() {
        if index == 3 || journal.is_closed() {
            let _ = journal.compact();
        }
        match journal.append(&mut batch(records)) {
            Ok(()) => apply(&mut acknowledged, records),
            Err(AppendError::NotWritten(_) | AppendError::Removed | AppendError::Closed) => {}
            Err(AppendError::Unknown(_)) => {
                let mut perhaps = acknowledged.clone();
                apply(&mut perhaps, records);
                if folder.operations() > 0 && journal.compact().is_err() {
                    // Nothing more can be done with this disk: its power is gone or it stays broken.
                    return (acknowledged, Some(perhaps));
                }
            }
        }
    }
    (acknowledged, None)
}

/// Every way in which seven choices fall, over and over.
fn crash_in_every_way(folder_after: impl Fn() -> SimulatedFolder, mut check: impl FnMut(&SimulatedFolder)) {
    for choices in 0..1_u32 << 7 {
        let folder = folder_after();
        let mut at = 0;
        folder.crash(|| {
            at += 1;
            choices >> ((at - 1) % 7) & 1 == 1
        });
        check(&folder);
    }
}

fn check_recovery(folder: &SimulatedFolder, acknowledged: &Desired, perhaps: Option<&Desired>, script_crashed: bool) {
    let (mut journal, _, desired) = open(folder).unwrap_or_else(|error| panic!("refused: {error}"));
    let prefix_of_the_lost = || {
        // Of a write that was never acknowledged any first part may be there.
        script().iter().any(|records| {
            (0..=records.len()).any(|count| {
                let mut state = acknowledged.clone();
                apply(&mut state, &records[..count]);
                state == desired
            })
        })
    };
    let expected = desired == *acknowledged || perhaps.is_some_and(|perhaps| desired == *perhaps);
    assert!(expected || (script_crashed && prefix_of_the_lost()), "{desired:?} instead of {acknowledged:?}");
    // And it goes on.
    journal.append(&mut batch(&[Record::Policy { path: "z:", policy: b"z" }])).unwrap();
    drop(journal);
    folder.crash(|| false);
    let (_, opened, after) = open(folder).unwrap();
    assert_eq!(opened.cut_bytes, 0);
    assert!(after.contains_key("z:") && after.len() == desired.len() + 1);
}

#[test]
fn a_crash_at_every_operation_keeps_what_was_acknowledged() {
    let count = {
        let folder = SimulatedFolder::default();
        assert_eq!(run(&folder).0.len(), 3);
        folder.operations()
    };
    for operation in 0..count {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            let after = || {
                let folder = SimulatedFolder::default();
                folder.fault_at(operation, fault);
                run(&folder);
                folder
            };
            let folder = SimulatedFolder::default();
            folder.fault_at(operation, fault);
            let (acknowledged, perhaps) = run(&folder);
            crash_in_every_way(after, |folder| check_recovery(folder, &acknowledged, perhaps.as_ref(), true));
        }
    }
}

#[test]
fn a_failure_at_every_operation_leaves_nothing_half_done() {
    let count = {
        let folder = SimulatedFolder::default();
        run(&folder);
        folder.operations()
    };
    for operation in 0..count {
        for fault in [Fault::Full, Fault::Broken] {
            let folder = SimulatedFolder::default();
            folder.fault_at(operation, fault);
            let (acknowledged, perhaps) = run(&folder);
            // The daemon is killed, the disk lives on; then the power goes as well.
            folder.heal();
            check_recovery(&folder, &acknowledged, perhaps.as_ref(), false);
            let again = || {
                let folder = SimulatedFolder::default();
                folder.fault_at(operation, fault);
                run(&folder);
                folder
            };
            crash_in_every_way(again, |folder| check_recovery(folder, &acknowledged, perhaps.as_ref(), false));
        }
    }
}

#[test]
fn two_failures_in_a_row() {
    let count = {
        let folder = SimulatedFolder::default();
        run(&folder);
        folder.operations()
    };
    for first in 0..count {
        for second in first + 1..first + 6 {
            for faults in
                [[Fault::Full, Fault::Broken], [Fault::Broken, Fault::Full], [Fault::Broken, Fault::CrashAfter]]
            {
                let folder = SimulatedFolder::default();
                folder.fault_at(first, faults[0]);
                folder.fault_at(second, faults[1]);
                let (acknowledged, perhaps) = run(&folder);
                let crashed = faults[1] == Fault::CrashAfter;
                let mut flip = false;
                folder.crash(|| {
                    flip = !flip;
                    flip
                });
                check_recovery(&folder, &acknowledged, perhaps.as_ref(), crashed);
            }
        }
    }
}

#[test]
fn a_closed_journal_refuses_until_it_is_compacted() {
    let folder = SimulatedFolder::default();
    let (mut journal, ..) = open(&folder).unwrap();
    journal.append(&mut batch(&script()[0])).unwrap();
    // The write, then its sync.
    folder.fault_at(folder.operations() + 1, Fault::Broken);
    let error = journal.append(&mut batch(&script()[1])).unwrap_err();
    assert!(matches!(error, AppendError::Unknown(_)), "{error}");
    assert!(matches!(journal.append(&mut batch(&script()[2])), Err(AppendError::Closed)));
    assert!(journal.wants_compaction());
    journal.compact().unwrap();
    journal.append(&mut batch(&script()[2])).unwrap();
    folder.crash(|| false);
    let (.., desired) = open(&folder).unwrap();
    assert_eq!(desired, Desired::from([("a:".to_owned(), b"one".to_vec())]));
}

#[test]
fn a_full_disk_is_an_answer_and_room_makes_it_go_on() {
    let folder = SimulatedFolder::default();
    let (mut journal, ..) = open(&folder).unwrap();
    folder.fault_at(folder.operations(), Fault::Full);
    let error = journal.append(&mut batch(&script()[1])).unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    journal.append(&mut batch(&script()[0])).unwrap();
    let (_, opened, desired) = open(&folder).unwrap();
    assert_eq!((desired.len(), opened.cut_bytes, opened.generation), (1, 0, 2));
}

#[test]
fn compaction_keeps_what_counts_and_the_generation_goes_on() {
    let folder = SimulatedFolder::default();
    let (mut journal, ..) = open(&folder).unwrap();
    let value = [5; 1000];
    while !journal.wants_compaction() {
        journal.append(&mut batch(&[Record::Policy { path: "a:", policy: &value }])).unwrap();
    }
    journal.append(&mut batch(&[Record::Policy { path: "b:", policy: b"b" }])).unwrap();
    let before = journal.generation();
    assert!(before > 1000);
    journal.compact().unwrap();
    assert!(!journal.wants_compaction() && journal.generation() == before + 3);
    let (_, opened, desired) = open(&folder).unwrap();
    assert_eq!((opened.records, desired.len(), desired["a:"].len()), (3, 2, 1000));
    // What compaction wrote is protected by what it wrote after it.
    let file = folder.open(NAME).unwrap();
    file.write_at(b"x", 100).unwrap();
    assert!(matches!(open(&folder), Err(OpenError::Refused(Refused::Hole { .. }))));
}

#[test]
fn what_is_kept_is_never_begun_anew_without_its_journal() {
    let kept = |folder: &SimulatedFolder| Journal::open(folder.clone(), 77, true, |_| {}).map(|_| ());
    let folder = SimulatedFolder::default();
    Journal::check(&folder, false).unwrap();
    for tried in [kept(&folder), Journal::check(&folder, true)] {
        let error = tried.unwrap_err();
        assert!(matches!(error, OpenError::Gone) && error.to_string().contains("restore it"), "{error}");
    }
    assert_eq!(folder.names().unwrap(), [""; 0]);
    // A new one is never without records, nor one from which all has gone.
    let (mut journal, ..) = open(&folder).unwrap();
    kept(&folder).unwrap();
    journal.append(&mut batch(&script()[0])).unwrap();
    journal.append(&mut batch(&[Record::PolicyGone { path: "a:" }])).unwrap();
    journal.compact().unwrap();
    kept(&folder).unwrap();
    Journal::check(&folder, true).unwrap();
    // One that has lost them all, to the last byte of the first or to the header.
    for bytes in [journal.bytes() - 1, HEADER_BYTES as u64] {
        let file = folder.open(NAME).unwrap();
        file.set_bytes(bytes).unwrap();
        for tried in [kept(&folder), Journal::check(&folder, true)] {
            let error = tried.unwrap_err();
            assert!(matches!(error, OpenError::Empty) && error.to_string().contains("restore it"), "{error}");
        }
        assert_eq!(file.bytes().unwrap(), bytes);
    }
    // With nothing that it should name it is begun anew, and goes on.
    Journal::check(&folder, false).unwrap();
    assert_eq!(open(&folder).unwrap().1, Opened { records: 1, generation: 4, cut_bytes: 0 });
    kept(&folder).unwrap();
}

#[test]
fn a_journal_without_its_name_takes_nothing_and_is_written_anew() {
    let folder = SimulatedFolder::default();
    let (mut journal, ..) = open(&folder).unwrap();
    journal.append(&mut batch(&script()[0])).unwrap();
    folder.remove(NAME).unwrap();
    let error = journal.append(&mut batch(&script()[1])).unwrap_err();
    assert!(matches!(error, AppendError::Removed) && error.to_string().contains("was removed"), "{error}");
    assert!(journal.is_closed() && journal.wants_compaction());
    journal.compact().unwrap();
    journal.append(&mut batch(&script()[4])).unwrap();
    folder.crash(|| false);
    let expected =
        Desired::from([("a:", b"one".to_vec()), ("e:", b"five".to_vec())].map(|(path, it)| (path.to_owned(), it)));
    let (mut journal, _, desired) = open(&folder).unwrap();
    assert_eq!(desired, expected);

    // One that somebody has put in its place stays.
    folder.remove(NAME).unwrap();
    folder.create(NAME).unwrap().write_at(b"restored", 0).unwrap();
    assert!(matches!(journal.append(&mut batch(&script()[1])), Err(AppendError::Removed)));
    for _ in 0..2 {
        assert!(matches!(journal.compact(), Err(OpenError::Replaced)));
        assert!(matches!(journal.append(&mut batch(&script()[1])), Err(AppendError::Closed)));
    }
    assert_eq!(folder.open(NAME).unwrap().bytes().unwrap(), 8);
}
