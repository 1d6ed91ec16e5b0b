//! The table of transitions: from which phase which input leads where, as seen in all states of the brief graphs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fulmar_tests::world::arrows::Arrow;

const HEAD: &str = "\
# Transitions

How a unikernel, a block device and a policy go from phase to phase in the machine: written by `cargo xtask verify table`, from all
states of the brief graphs. Continuous integration compares: a new arrow shows in review. Inputs that change nothing are left out.

";

/// The table of these arrows.
#[must_use]
pub fn of(arrows: &BTreeSet<Arrow>) -> String {
    let mut rows: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (from, input, to) in arrows {
        rows.entry(from).or_default().entry(input).or_default().insert(to);
    }
    let mut text = HEAD.to_owned();
    for (from, inputs) in rows {
        // Writing into a string does not fail.
        let _ = write!(text, "## {from}\n\n| input | leads to |\n|---|---|\n");
        for (input, to) in inputs {
            let short = |phase: &&str| phase.split_once(' ').map_or("", |(_, phase)| phase).to_owned();
            let to: Vec<String> = to.iter().map(short).collect();
            let _ = writeln!(text, "| {input} | {} |", to.join("<br>"));
        }
        text.push('\n');
    }
    text
}
