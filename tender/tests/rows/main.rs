//! The filter's table, row by row: without any one of them some guest dies, so none is spare; and a set of calls that no row
//! allows ends the process. This program is also the process that it looks at: see `child`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod child;
mod gdb;
#[path = "../run/process.rs"]
mod process;
mod scenarios;

use std::collections::BTreeMap;

use fulmar_tests::built::Kind;
use process::kinds;
use scenarios::{Scenario, all};

fn main() {
    if let Some(code) = child::run_if_asked() {
        std::process::exit(code);
    }
    let kinds = kinds("rows");
    let scenarios: Vec<Scenario> = all().into_iter().filter(|scenario| kinds.contains(&scenario.kind)).collect();
    no_row_is_spare(&scenarios);
    what_no_row_allows_ends_the_process(&scenarios);
    println!("\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n");
}

/// For every row that any guest is run with there is a guest that dies of SIGSYS without it.
fn no_row_is_spare(scenarios: &[Scenario]) {
    let mut needed: BTreeMap<(Kind, String), bool> = BTreeMap::new();
    for scenario in scenarios {
        let whole = scenario.run(&["whole"]);
        assert!((scenario.is_good)(whole.status), "{}: {:?} {}", scenario.name, whole.status, whole.stderr);
        for (index, row) in scenario.rows().into_iter().enumerate() {
            let is_needed = needed.entry((scenario.kind, row)).or_default();
            if !*is_needed {
                let end = scenario.run(&["without", &index.to_string()]);
                *is_needed = end.signal() == Some(libc::SIGSYS);
            }
        }
    }
    assert!(needed.len() > 20, "{needed:#?}");
    let spare: Vec<_> = needed.iter().filter(|(_, needed)| !**needed).map(|(row, _)| row).collect();
    assert!(spare.is_empty(), "no guest needs these rows: {spare:#?}");
    println!("test no_row_is_spare ... ok: {} rows, {} guests", needed.len(), scenarios.len());
}

/// In a process that is confined and about to run a guest with all devices.
fn what_no_row_allows_ends_the_process(scenarios: &[Scenario]) {
    for scenario in scenarios.iter().filter(|scenario| scenario.name == "devices") {
        for call in child::FORBIDDEN {
            let end = scenario.run(&["call", call.name]);
            assert_eq!(end.signal(), Some(libc::SIGSYS), "{:?}, {}: {end:?}", scenario.kind, call.name);
        }
    }
    println!("test what_no_row_allows_ends_the_process ... ok: {} calls", child::FORBIDDEN.len());
}
