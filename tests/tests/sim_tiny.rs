//! Everything that can happen in few steps on a machine with room for two unikernels.

use fulmar_tests::choose::{Choose, Odometer};
use fulmar_tests::drive::settle;
use fulmar_tests::world::{Action, ActionKind, Budget, World};

type Tiny = World<2, 4, 2, 2, 512>;

/// Goes through all sequences of `steps` actions that `wanted` lets through, and returns their number.
fn go_through(start: &Tiny, steps: usize, wanted: impl Fn(&Action) -> bool) -> usize {
    let mut odometer = Odometer::new();
    let mut runs = 0;
    loop {
        let mut world = start.clone();
        let mut taken = Vec::new();
        let outcome = (0..steps).try_for_each(|_| {
            let mut actions = world.actions();
            actions.retain(&wanted);
            let action = actions[<dyn Choose>::index(&mut odometer, actions.len())];
            taken.push(action);
            world.apply(&action)
        });
        if let Err(violation) = outcome.and_then(|()| settle(&mut world)) {
            panic!("{violation}\nafter {taken:#?}");
        }
        runs += 1;
        if !odometer.advance() {
            return runs;
        }
    }
}

#[test]
fn all_that_can_happen_in_two_steps() {
    let start = Tiny::new(Budget { faults: 2, crashes: 1, commands: 2 }).unwrap();
    let runs = go_through(&start, 2, |_| true);
    assert!(runs > 1_500, "{runs}");
}

#[test]
fn two_commands_and_what_becomes_of_them_in_any_order() {
    // Without time, faults and crashes: the interleavings alone.
    let calm = |action: &Action| {
        let kind = action.kind();
        !matches!(
            kind,
            ActionKind::Fault | ActionKind::Crash | ActionKind::Wait | ActionKind::Host | ActionKind::Compact
        ) && !matches!(kind, ActionKind::Exit | ActionKind::HangUp | ActionKind::Query)
    };
    let start = Tiny::new(Budget { faults: 0, crashes: 0, commands: 2 }).unwrap();
    let mut runs = 0;
    let mut firsts = start.actions();
    firsts.retain(calm);
    for first in firsts {
        let mut world = start.clone();
        world.apply(&first).unwrap();
        if world.actions().iter().any(calm) {
            runs += go_through(&world, 3, |action| calm(action) || *action == Action::Wait(1));
        }
    }
    assert!(runs > 1_000, "{runs}");
}
