//! The machine at the product's size: it costs no memory before it is used, and it takes in a full journal.

use std::fs;
use std::sync::Mutex;

use fulmar_core::journal::Record;
use fulmar_core::machine::Tenders;
use fulmar_core::machine::{Effect, Input, Life, Now, Product};
use fulmar_core::policy::{Bridges, CpuSet, Policy};
use fulmar_tests::ask::Spec;
use fulmar_tests::drive::{Plan, run_seed};

/// Behind a lock, so that it is no constant: those lie with the code.
static UNUSED: Mutex<Product> = Mutex::new(Product::new());

#[test]
fn an_unused_machine_takes_no_room_in_the_program() {
    assert_eq!(UNUSED.lock().unwrap().unikernels().count(), 0);
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let number = |at: usize, bytes: usize| -> u64 {
        program[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let (table, header_bytes, count) = (number(32, 8), number(54, 2), number(56, 2));
    let mut zeroed_bytes = 0;
    for index in 0..count {
        let header = usize::try_from(table + index * header_bytes).unwrap();
        // A loadable segment: what it takes in memory less what it takes in the file.
        if number(header, 4) == 1 {
            zeroed_bytes += number(header + 40, 8) - number(header + 32, 8);
        }
    }
    assert!(zeroed_bytes >= size_of::<Product>() as u64, "{zeroed_bytes} of {}", size_of::<Product>());
}

#[test]
fn a_few_seeds() {
    // Its machine is made on the stack when `vmmd` starts again.
    let run = || (0..4).for_each(|seed| drop(run_seed::<4096, 4096, 4096, 256, { 4 << 20 }>(seed, Plan::USUAL)));
    std::thread::Builder::new().stack_size(512 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_full_journal_comes_up_sixteen_at_a_time() {
    let run = || {
        let mut machine = Box::new(Product::new());
        let arguments = Spec { fail: Some(&[]), ..Spec::PLAIN }.arguments_der();
        let names: Vec<String> = (0..4096).map(|index| format!("p{}:q{}:u{index}", index % 7, index % 31)).collect();
        for (unit, name) in (1..).zip(&names) {
            let record =
                Record::Unikernel { name, unit, digest: [1; 32], image_bytes: 1, target: 2, arguments: &arguments };
            machine.restore(&record).unwrap();
        }
        let root = Policy {
            unikernels: 4000,
            cpus: CpuSet::first(4),
            memory_mb: 1 << 30,
            block_mb: None,
            bridges: Bridges::EMPTY,
        };
        let now = Now { ms: 1, wall_ms: 1 };
        machine.handle(
            now,
            Input::Host { root: &root, tenders: Tenders { hvt: true, spt: true, solo5: false, bhyve: None } },
        );
        machine.handle(now, Input::Start);
        let mut launching = Vec::new();
        let (mut launched, mut resting) = (0, 0);
        loop {
            while let Some(effect) = machine.next_effect() {
                match effect {
                    Effect::Launch { slot } => launching.push(slot),
                    Effect::Rest { .. } => resting += 1,
                    Effect::Collect => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(launching.len() <= 16);
            let Some(slot) = launching.pop() else { break };
            let unit = fulmar_core::halves::Unit(machine.unikernel(slot).unwrap().unit());
            machine.handle(now, Input::Launched { unit, outcome: Ok(()) });
            launched += 1;
        }
        assert_eq!(launched, 4000);
        assert_eq!(resting, 96);
        assert_eq!(machine.unikernels().filter(|(_, it)| it.life() == Life::Alive).count(), 4000);
    };
    std::thread::Builder::new().stack_size(512 << 20).spawn(run).unwrap().join().unwrap();
}
