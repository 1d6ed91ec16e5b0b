//! The world by seeds: a few hundred that stay the same and a fresh one that is told (`SEED=... cargo test` repeats it).

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use fulmar_tests::choose::{Bytes, Choose, Seeded};
use fulmar_tests::drive::{Plan, run, run_seed};

#[test]
fn seeds_of_a_middle_machine() {
    let mut marks = BTreeMap::<&str, u64>::new();
    for seed in 0..300 {
        for (what, times) in run_seed::<8, 12, 6, 4, 4096>(seed, Plan::USUAL) {
            *marks.entry(what).or_default() += times;
        }
    }
    eprintln!("{marks:#?}");
    // Chance alone must get to all that matters, or it shows nothing.
    for what in ["replaced", "restarted", "restarted with other arguments", "refused: destroyed meanwhile", "SIGKILL"] {
        assert!(marks.get(what).is_some_and(|times| *times >= 10), "{what}: {:?}", marks.get(what));
    }
}

#[test]
fn seeds_of_a_tiny_machine() {
    for seed in 0..300 {
        run_seed::<2, 4, 2, 2, 512>(seed, Plan::USUAL);
    }
}

#[test]
fn a_fresh_seed() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(now.as_micros() as u64);
    eprintln!("SEED={seed}");
    for further in 0..20 {
        run_seed::<8, 12, 6, 4, 4096>(seed.wrapping_add(further << 40), Plan::USUAL);
    }
}

#[test]
fn bytes_drive_it_too() {
    let mut choices = Seeded::new(7);
    for _ in 0..20 {
        let bytes: Vec<u8> = (0..1000).map(|_| choices.below(256) as u8).collect();
        run(&mut Bytes::new(&bytes));
    }
}
