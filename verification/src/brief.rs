//! The checks that a planted bug must not pass, and that the machine as it is does: the brief graphs and some seeds. They take
//! seconds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fulmar_tests::choose::Seeded;
use fulmar_tests::drive::{Log, Plan, run_once};

use crate::graphs::{self, Size};
use crate::model::Search;

/// Seeds that are run.
const SEEDS: u64 = 300;

/// What this says before a violation: so a planted bug that is caught is told from one that breaks something else.
pub const CAUGHT: &str = "caught by ";

/// Runs them all, up to the first that fails.
///
/// # Errors
/// Which has failed, and why.
pub fn run() -> Result<(), String> {
    for graph in graphs::all(Size::Brief) {
        let name = graph.name;
        Search::new(graph).go_through().map_err(|violation| format!("{CAUGHT}graph {name}: {violation}"))?;
    }
    for seed in 0..SEEDS {
        let run = || run_once::<8, 12, 6, 4, 4096>(&mut Seeded::new(seed), Plan::USUAL, &mut Log::default());
        let done = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it panicked, see above".into()));
        done.map_err(|violation| format!("{CAUGHT}seed {seed}: {violation}"))?;
    }
    Ok(())
}
