//! What the simulated host has found once, as the shortest run that showed it.

use fulmar_core::machine::Exit;
use fulmar_tests::ask::{Ask, PolicySpec, Spec, Wish, name};
use fulmar_tests::drive::{replay, settle};
use fulmar_tests::world::{Action, Budget, Crash, Fate, Rest, World};

const BUDGET: Budget = Budget { faults: 9, crashes: 9, commands: 99 };
const ROOMY: PolicySpec = PolicySpec { unikernels: 2, memory_mb: 64, cpus: &[0], bridges: &[], block_mb: None };
const LAUNCHED: Crash = Crash { launched: 1, ..Crash::PLAIN };

fn create(text: &str, fail: Option<&'static [i64]>) -> Action {
    Action::Ask(0, Ask { name: name(text), wish: Wish::Create(Spec { fail, ..Spec::PLAIN }) })
}

/// Two processes ran under one account: the new one, and one of before the crash that was still being killed.
#[test]
fn a_stray_keeps_its_account_while_it_dies() {
    let first = [create("p:a", None), Action::Store(true), Action::Store(true)];
    let second = [Action::Crash(LAUNCHED), create("p:b", None), Action::Store(true), Action::Store(true)];
    replay::<2, 4, 2, 2, 512>(&[&first[..], &second[..]].concat(), BUDGET).unwrap();
}

/// The record came back by a crash, and its image was gone.
#[test]
fn an_image_stays_while_its_failed_record_can_come_back() {
    let failed = [
        Action::Store(true),
        create("p:a", Some(&[])),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Unknown),
        Action::Exit(1, Exit::Signal(9)),
        Action::Store(true),
    ];
    let back = Action::Crash(Crash { rest: Rest::Kept, ..Crash::PLAIN });
    replay::<2, 4, 2, 2, 512>(&failed, BUDGET).unwrap();
    replay::<2, 4, 2, 2, 512>(&[&failed[..], &[back]].concat(), BUDGET).unwrap();
}

/// It was launched once more while the removal of its record was under way.
#[test]
fn what_ended_for_good_before_the_start_is_not_launched() {
    for (fail, away_ms) in [(None, 100), (Some(&[] as &[i64]), 20_000)] {
        let found = Crash { late: true, dying: 1, away_ms, ..Crash::PLAIN };
        let run = [
            Action::Store(true),
            create("p:a", fail),
            Action::Store(true),
            Action::Launch(0, true),
            Action::Append(1, Fate::Durable),
            Action::Crash(found),
        ];
        replay::<2, 4, 2, 2, 512>(&run, BUDGET).unwrap();
    }
}

/// It was admitted although a policy against it could come back by a crash, and then did.
#[test]
fn nothing_is_admitted_against_a_policy_that_can_come_back() {
    let tight = PolicySpec { unikernels: 2, memory_mb: 64, cpus: &[0], bridges: &[], block_mb: None };
    let spec = Spec { memory_mb: 100, fail: Some(&[2]), ..Spec::PLAIN };
    let run = [
        Action::Store(true),
        Action::Ask(0, Ask { name: name("p:q:a"), wish: Wish::Create(spec) }),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Durable),
        // It ends between being found again and the start, and rests without being charged.
        Action::Crash(Crash { late: true, dying: 1, ..Crash::PLAIN }),
        Action::Ask(0, Ask { name: name("p:q:"), wish: Wish::PolicyAdd(tight) }),
        Action::Append(1, Fate::Unknown),
        Action::Tick(0),
        Action::Launch(0, true),
        Action::Crash(Crash { rest: Rest::Kept, ..Crash::PLAIN }),
    ];
    replay::<2, 4, 2, 2, 512>(&run, BUDGET).unwrap();
    // Without the crash it runs as soon as the journal is written again.
    let mut world = World::<2, 4, 2, 2, 512>::new(BUDGET).unwrap();
    run.iter().take(9).for_each(|action| world.apply(action).unwrap());
    for action in [Action::Append(1, Fate::Durable), Action::Tick(0), Action::Launch(0, true)] {
        world.apply(&action).unwrap();
    }
    assert_eq!(world.processes.len(), 1);
}

/// What was to follow from its end was decided twice: when it ended, and when the one that was to take its place failed.
/// The second time it no longer had a label to lose, and went.
#[test]
fn what_follows_from_an_end_is_decided_once() {
    let replace = |fail| {
        let spec = Spec { fail, memory_mb: 48, ..Spec::PLAIN };
        Action::Ask(0, Ask { name: name("p:a"), wish: Wish::ForceCreate(spec) })
    };
    let word = Crash { dying: 1, word: Some(Exit::Code(64)), ..Crash::PLAIN };
    let run = [
        Action::Store(true),
        replace(Some(&[2])),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Durable),
        Action::Crash(word),
        replace(Some(&[])),
        Action::Append(1, Fate::Durable),
        Action::Store(true),
        Action::Store(false),
        Action::Append(1, Fate::Durable),
        Action::Crash(Crash { written: 1, ..Crash::PLAIN }),
    ];
    replay::<2, 4, 2, 2, 512>(&run, BUDGET).unwrap();
}

/// A client that had asked for a restart waited for an alarm, and for the next one, as long as the journal failed: nothing was
/// under way for it.
#[test]
fn a_restart_is_answered_when_the_journal_has_answered() {
    let restart = Action::Ask(0, Ask { name: name("p:a"), wish: Wish::Restart });
    let run = [
        Action::Store(true),
        create("p:a", Some(&[])),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Durable),
        // It ends between being found again and the start, and rests without being charged.
        Action::Crash(Crash { late: true, dying: 1, ..Crash::PLAIN }),
        Action::Ask(1, Ask { name: name("p:"), wish: Wish::PolicyAdd(PolicySpec { unikernels: 9, ..ROOMY }) }),
        Action::Append(1, Fate::Unknown),
        restart,
    ];
    for fate in [Fate::NotWritten, Fate::Durable] {
        let mut world = World::<2, 4, 2, 2, 512>::new(BUDGET).unwrap();
        run.iter().for_each(|action| world.apply(action).unwrap());
        world.apply(&Action::Append(1, fate)).unwrap();
        // Told, or being launched.
        assert_eq!(world.clients.iter().flatten().count(), usize::from(fate == Fate::Durable));
        settle(&mut world).unwrap();
    }
}

/// The same, where the removal of its record was asked for, and failed: it no longer had a label to lose, and went for good.
#[test]
fn what_was_to_run_without_its_label_does_so_after_a_removal_that_failed() {
    let word = Crash { dying: 1, word: Some(Exit::Code(64)), ..Crash::PLAIN };
    let run = [
        Action::Store(true),
        create("p:a", Some(&[2])),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Durable),
        Action::Crash(word),
        Action::Ask(0, Ask { name: name("p:a"), wish: Wish::Destroy }),
        Action::Append(1, Fate::Durable),
        Action::Append(1, Fate::NotWritten),
    ];
    let mut world = World::<2, 4, 2, 2, 512>::new(BUDGET).unwrap();
    run.iter().for_each(|action| world.apply(action).unwrap());
    settle(&mut world).unwrap();
    assert_eq!(world.processes.len(), 1);
}

/// While the disk took its time to write a record, the same one was asked for once more every second.
#[test]
fn a_slow_journal_is_asked_once_for_each_record() {
    let run = [
        Action::Store(true),
        create("p:a", Some(&[])),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Durable),
        Action::Crash(Crash { late: true, dying: 1, ..Crash::PLAIN }),
        Action::Ask(0, Ask { name: name("p:"), wish: Wish::PolicyAdd(ROOMY) }),
        Action::Append(1, Fate::Unknown),
        Action::Ask(0, Ask { name: name("p:storage"), wish: Wish::BlockAdd(5) }),
        Action::Store(true),
        Action::Append(1, Fate::Unknown),
    ];
    let mut world = World::<2, 4, 2, 2, 512>::new(BUDGET).unwrap();
    run.iter().for_each(|action| world.apply(action).unwrap());
    // More than ten minutes: the block device that is undone is looked at three times.
    (0..700).for_each(|_| world.apply(&Action::Tick(0)).unwrap());
    assert_eq!(world.appends.len(), 1);
    settle(&mut world).unwrap();
}

/// Whoever had it replaced had hung up, and the new one had ended for good already: its image was taken for a wrong one.
#[test]
fn the_image_of_a_replacement_that_nobody_waits_for_any_more() {
    let spec = |image, memory_mb, fail, startup| Spec { image, memory_mb, fail, startup, ..Spec::PLAIN };
    let ask = |client, wish| Action::Ask(client, Ask { name: name("p:b"), wish });
    let word = Crash { launched: 1, dying: 2, word: Some(Exit::Code(64)), ..Crash::PLAIN };
    let run = [
        Action::Store(true),
        ask(1, Wish::Create(spec(0, 100, Some(&[2]), Some(10)))),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Durable),
        Action::Crash(word),
        Action::Store(true),
        ask(0, Wish::ForceCreate(spec(1, 16, None, None))),
        Action::Store(true),
        Action::HangUp(0),
        Action::Launch(0, true),
        Action::Exit(2, Exit::OutOfMemory),
        Action::Append(1, Fate::Durable),
        Action::Append(1, Fate::Durable),
        ask(1, Wish::Get(99)),
    ];
    let mut world = World::<2, 4, 2, 2, 512>::new(BUDGET).unwrap();
    run.iter().for_each(|action| world.apply(action).unwrap());
    // Its removal may be durable after a crash, which is no loss.
    world.apply(&Action::Crash(Crash { written: 1, rest: Rest::Kept, ..Crash::PLAIN })).unwrap();
    settle(&mut world).unwrap();
}
