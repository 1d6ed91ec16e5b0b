//! A crash before and after every effect, and after every step in many ways: nothing that was acknowledged is lost,
//! nothing is left over, and the host comes to rest.

use fulmar_core::machine::Exit;
use fulmar_tests::ask::{Ask, Octets, PolicySpec, Spec, Wish, name};
use fulmar_tests::choose::Seeded;
use fulmar_tests::drive::{Log, Plan, crash_every_way, crash_everywhere, run_once};
use fulmar_tests::world::{Action, Budget, Fate, SetFate, World};

const GOOD: Action = Action::Append(u8::MAX, Fate::Durable);

fn ask(text: &str, wish: Wish) -> Action {
    Action::Ask(0, Ask { name: name(text), wish })
}

/// A life as it should be: policy, create, restart, destroy, while a second client works on another path.
fn script() -> Vec<Action> {
    let policy = PolicySpec { unikernels: 3, memory_mb: 150, cpus: &[0, 1], bridges: &["br0"], block_mb: Some(0) };
    let restarting = Spec { fail: Some(&[]), bridge: Some("br0"), image: 3, ..Spec::PLAIN };
    let other = |wish| Action::Ask(1, Ask { name: name("r:b"), wish });
    vec![
        ask("p:", Wish::PolicyAdd(policy)),
        GOOD,
        ask("p:q:a", Wish::Create(restarting)),
        other(Wish::Create(Spec::PLAIN)),
        Action::Store(true),
        Action::Store(true),
        Action::Store(true),
        Action::Launch(1, true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Durable),
        GOOD,
        Action::Exit(1, Exit::Code(2)),
        Action::Tick(0),
        Action::Launch(0, true),
        other(Wish::Destroy),
        GOOD,
        Action::Exit(1, Exit::Signal(11)),
        Action::Tick(5_000),
        Action::Launch(0, true),
        Action::Exit(2, Exit::Signal(9)),
        Action::Store(true),
        ask("p:", Wish::PolicyAdd(PolicySpec { unikernels: 1, ..policy })),
        GOOD,
        other(Wish::Create(Spec { image: 3, bridge: Some("br1"), ..Spec::PLAIN })),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Unknown),
        Action::Exit(3, Exit::Signal(9)),
        ask("p:q:a", Wish::Destroy),
        GOOD,
        Action::Exit(1, Exit::Signal(15)),
        ask("p:", Wish::PolicyRemove),
        GOOD,
        Action::Store(true),
    ]
}

/// A life with block devices: made, used, not removed while used, one whose record fails, set and read, all gone in the end.
fn disks() -> Vec<Action> {
    let policy =
        PolicySpec { unikernels: 3, memory_mb: 150, cpus: &[0, 1], bridges: &["br0", "br1"], block_mb: Some(10) };
    let two = Spec { image: 7, bridge: Some("br0"), blocks: &["storage", "disk"], fail: Some(&[]), ..Spec::PLAIN };
    let other = |text, wish| Action::Ask(1, Ask { name: name(text), wish });
    vec![
        Action::Store(true),
        ask("p:", Wish::PolicyAdd(policy)),
        GOOD,
        ask("p:storage", Wish::BlockAdd(5)),
        other("p:disk", Wish::BlockAdd(2)),
        Action::Store(true),
        Action::Store(true),
        GOOD,
        ask("p:a", Wish::Create(two)),
        other("p:q:disk", Wish::BlockAdd(4)),
        other("p:q:disk", Wish::BlockAdd(3)),
        Action::Store(true),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Unknown),
        Action::Append(1, Fate::Durable),
        Action::Store(true),
        other("p:storage", Wish::BlockRemove),
        Action::Exit(1, Exit::Code(2)),
        other("p:storage", Wish::BlockRemove),
        Action::Tick(0),
        Action::Launch(0, true),
        ask("p:a", Wish::Destroy),
        GOOD,
        Action::Exit(1, Exit::Signal(15)),
        Action::Store(true),
        // What nobody uses is set, by chunks and in one message, and read.
        ask("p:storage", Wish::BlockSet),
        other("p:disk", Wish::BlockDump(0, false)),
        other("p:storage", Wish::BlockRemove),
        Action::Set(0, SetFate::Done),
        Action::Dumped(0),
        ask("p:storage", Wish::BlockOldSet(Octets::Compressed)),
        Action::HangUp(0),
        other("p:disk", Wish::BlockSet),
        Action::Set(1, SetFate::Unsettled),
        Action::Set(0, SetFate::Refused),
        ask("p:q:disk", Wish::BlockOldAdd(3, Octets::Plain)),
        Action::Store(true),
        GOOD,
        other("p:q:disk", Wish::BlockDump(9, true)),
        Action::Dumped(0),
        other("p:q:disk", Wish::BlockRemove),
        GOOD,
        Action::Store(true),
        ask("p:storage", Wish::BlockRemove),
        Action::Append(1, Fate::NotWritten),
        ask("p:storage", Wish::BlockRemove),
        other("p:disk", Wish::BlockRemove),
        GOOD,
        Action::Store(true),
        Action::Store(true),
    ]
}

/// Lives that are replaced and started anew: larger, smaller, with another disk, refused at each rung.
fn replacements() -> Vec<Action> {
    let policy = PolicySpec { unikernels: 1, memory_mb: 100, cpus: &[0], bridges: &["br0"], block_mb: Some(20) };
    let on_disk = Spec { image: 6, blocks: &["storage"], fail: Some(&[]), ..Spec::PLAIN };
    let larger = Spec { memory_mb: 48, ..on_disk };
    let both = Spec { image: 7, bridge: Some("br0"), blocks: &["disk", "storage"], memory_mb: 16, ..Spec::PLAIN };
    let too_large = Wish::ForceCreate(Spec { memory_mb: 300, ..on_disk });
    let other = |wish| Action::Ask(1, Ask { name: name("p:a"), wish });
    vec![
        Action::Store(true),
        ask("p:", Wish::PolicyAdd(policy)),
        GOOD,
        ask("p:storage", Wish::BlockAdd(5)),
        other(Wish::ForceCreate(Spec::PLAIN)),
        Action::Store(true),
        Action::Store(true),
        Action::Launch(0, true),
        GOOD,
        // One in its place, which is not gone before the new one is checked.
        ask("p:a", Wish::ForceCreate(on_disk)),
        other(Wish::Destroy),
        Action::Store(true),
        Action::Exit(1, Exit::Signal(15)),
        Action::Launch(0, true),
        GOOD,
        Action::Store(true),
        // The disk stays with the one that has it, whatever becomes of the other.
        ask("p:disk", Wish::BlockAdd(5)),
        Action::Store(true),
        GOOD,
        other(too_large),
        ask("p:a", Wish::ForceCreate(both)),
        Action::Store(true),
        Action::Tick(0),
        Action::Exit(2, Exit::Signal(9)),
        Action::Launch(0, false),
        Action::Launch(0, true),
        Action::Store(true),
        ask("p:a", Wish::RestartWith(larger)),
        Action::Exit(2, Exit::Code(2)),
        Action::Store(true),
        Action::Launch(0, true),
        Action::Append(1, Fate::Unknown),
        Action::Exit(4, Exit::Signal(9)),
        Action::Tick(0),
        Action::Launch(0, true),
        ask("p:a", Wish::RestartWith(larger)),
        Action::Store(true),
        Action::Exit(2, Exit::Signal(15)),
        Action::Launch(0, true),
        GOOD,
        // As it is, while somebody else wants it gone.
        ask("p:a", Wish::Restart),
        other(Wish::Restart),
        Action::Exit(5, Exit::Code(0)),
        Action::Launch(0, true),
        ask("p:a", Wish::Restart),
        other(Wish::Destroy),
        GOOD,
        Action::Exit(5, Exit::Signal(15)),
        Action::Store(true),
    ]
}

#[test]
fn replacements_are_as_they_should_be() {
    let mut world = World::<8, 12, 6, 4, 4096>::new(Budget { faults: 8, crashes: 0, commands: 100 }).unwrap();
    replacements().iter().for_each(|action| world.apply(action).unwrap());
    for (what, times) in [
        ("created unikernel", 1),
        ("replaced", 1),
        ("restarted with other arguments", 1),
        ("restarted", 2),
        ("refused: destroyed meanwhile", 1),
        ("refused: busy", 1),
        ("refused: admission", 1),
        ("refused: launch", 1),
        ("refused: journal", 1),
        ("destroyed unikernel", 1),
    ] {
        assert_eq!(world.marks.get(what), Some(&times), "{what} of {:#?}", world.marks);
    }
    assert_eq!(world.machine.unikernels().count(), 0);
}

#[test]
fn every_way_to_crash_in_lives_that_are_replaced() {
    crash_everywhere::<8, 12, 6, 4, 4096>(&replacements()).unwrap();
    crash_everywhere::<2, 4, 2, 2, 512>(&replacements()).unwrap();
    let runs = crash_every_way::<8, 12, 6, 4, 4096>(&replacements()).unwrap();
    assert!(runs > 900, "{runs}");
}

#[test]
fn the_life_with_disks_is_as_it_should_be() {
    let mut world = World::<8, 12, 6, 4, 4096>::new(Budget { faults: 8, crashes: 0, commands: 100 }).unwrap();
    disks().iter().for_each(|action| world.apply(action).unwrap());
    for (what, times) in [
        ("added block device", 3),
        ("set block device", 1),
        ("content unsettled", 1),
        ("content refused", 1),
        ("dumped", 2),
        ("refused: transfer", 1),
        ("refused: admission", 1),
        ("refused: journal", 2),
        ("created unikernel", 1),
        ("refused: remove in use", 2),
        ("removed block", 3),
        ("block removed", 4),
    ] {
        assert_eq!(world.marks.get(what), Some(&times), "{what} of {:#?}", world.marks);
    }
    assert!(world.block_files.is_empty() && world.machine.blocks().count() == 0);
}

#[test]
fn every_way_to_crash_in_a_life_with_disks() {
    crash_everywhere::<8, 12, 6, 4, 4096>(&disks()).unwrap();
    crash_everywhere::<2, 4, 2, 2, 512>(&disks()).unwrap();
    let runs = crash_every_way::<8, 12, 6, 4, 4096>(&disks()).unwrap();
    assert!(runs > 500, "{runs}");
}

#[test]
fn the_life_is_as_it_should_be() {
    let mut world = World::<8, 12, 6, 4, 4096>::new(Budget { faults: 8, crashes: 0, commands: 100 }).unwrap();
    script().iter().for_each(|action| world.apply(action).unwrap());
    for (what, times) in [
        ("added policy", 2),
        ("created unikernel", 2),
        ("refused: journal", 1),
        ("exit, to run again", 2),
        ("destroyed unikernel", 2),
        ("removed policy", 1),
        ("launched", 5),
    ] {
        assert_eq!(world.marks.get(what), Some(&times), "{what} of {:#?}", world.marks);
    }
    assert_eq!(world.machine.unikernels().count(), 0);
}

#[test]
fn a_crash_before_and_after_each_effect_of_a_life() {
    let runs = crash_everywhere::<8, 12, 6, 4, 4096>(&script()).unwrap();
    assert!(runs > 30, "{runs}");
    crash_everywhere::<2, 4, 2, 2, 512>(&script()).unwrap();
}

#[test]
fn every_way_to_crash_after_each_step_of_a_life() {
    let runs = crash_every_way::<8, 12, 6, 4, 4096>(&script()).unwrap();
    assert!(runs > 500, "{runs}");
}

#[test]
fn a_crash_before_and_after_each_effect_of_random_lives() {
    let plan = Plan { steps: 120, budget: Budget { faults: 8, crashes: 0, commands: 100 } };
    for seed in 1000..1012 {
        let mut log = Log::default();
        run_once::<8, 12, 6, 4, 4096>(&mut Seeded::new(seed), plan, &mut log).unwrap();
        if let Err(violation) = crash_everywhere::<8, 12, 6, 4, 4096>(&log.actions) {
            panic!("SEED={seed}: {violation}\nin {:#?}", log.actions);
        }
    }
}
