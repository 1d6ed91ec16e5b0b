//! `cargo xtask verify` builds this and runs it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use fulmar_tests::world::arrows::Arrows;
use fulmar_verification::graphs::{self, Size};
use fulmar_verification::model::{Found, Search};
use fulmar_verification::{audit, brief, mutants, table};

const HELP: &str = "\
usage: fulmar-verification COMMAND

  graphs [brief|usual|larger] [NAME]   go through all states of the graphs, or of one
  audit                                whether states that count as one go on as one
  table [--write]                      compare verification/transitions.md with the machine, or write it anew
  brief                                the checks that planted bugs must not pass
  mutants [NAME]...                    plant each bug and run them
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["graphs", size, name @ ..] if name.len() < 2 => match *size {
            "brief" => go_through(Size::Brief, name.first().copied()),
            "usual" => go_through(Size::Usual, name.first().copied()),
            "larger" => go_through(Size::Larger, name.first().copied()),
            _ => Err(HELP.to_owned()),
        },
        ["graphs"] => go_through(Size::Usual, None),
        ["audit"] => audit(),
        ["table"] => compare_table(),
        ["table", "--write"] => write_table(),
        ["brief"] => brief::run(),
        ["mutants", names @ ..] => mutants::run(names),
        _ => Err(HELP.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Fewer distinct states than this are no usual run.
const STATES_MIN: usize = 1_000_000;

fn go_through(size: Size, only: Option<&str>) -> Result<(), String> {
    let begun = Instant::now();
    let (mut states, mut steps) = (0, 0);
    println!("{:<10} {:>10} {:>10} {:>6} {:>8}", "graph", "states", "steps", "depth", "seconds");
    for graph in graphs::all(size).into_iter().filter(|graph| only.is_none_or(|name| name == graph.name)) {
        let name = graph.name;
        let found = Search::new(graph).go_through().map_err(|violation| format!("{name}: {violation}"))?;
        let Found { states: here, steps: taken, depth, seconds } = found;
        println!("{name:<10} {here:>10} {taken:>10} {depth:>6} {seconds:>8.1}");
        (states, steps) = (states + here, steps + taken);
    }
    println!("{:<10} {states:>10} {steps:>10} {:>6} {:>8.1}", "all", "", begun.elapsed().as_secs_f64());
    let few = size != Size::Brief && only.is_none() && states < STATES_MIN;
    if few { Err(format!("only {states} states: that is too few")) } else { Ok(()) }
}

/// States of each graph at which an audit looks.
const AUDITED: usize = 2_000;

fn audit() -> Result<(), String> {
    let mut pairs = 0;
    for graph in graphs::all(Size::Usual) {
        let name = graph.name;
        let audit = audit::audit(&Search::new(graph), AUDITED).map_err(|violation| format!("{name}: {violation}"))?;
        pairs += audit.pairs;
        println!("{name}: {} states, {} pairs that count as one go on as one", audit.states, audit.pairs);
    }
    if pairs > AUDITED { Ok(()) } else { Err(format!("only {pairs} pairs: that is too few")) }
}

fn current_table() -> Result<String, String> {
    let arrows = Arrows::default();
    for graph in graphs::all(Size::Brief) {
        let name = graph.name;
        let search = Search::drawing(graph, arrows.clone());
        search.go_through().map_err(|violation| format!("{name}: {violation}"))?;
    }
    Ok(table::of(&arrows.all()))
}

fn table_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("transitions.md")
}

fn write_table() -> Result<(), String> {
    let path = table_path();
    fs::write(&path, current_table()?).map_err(|error| format!("{}: {error}", path.display()))
}

fn compare_table() -> Result<(), String> {
    let (kept, now) = (fs::read_to_string(table_path()).unwrap_or_default(), current_table()?);
    if kept == now {
        println!("verification/transitions.md is as the machine is: {} lines", now.lines().count());
        return Ok(());
    }
    let other = kept.lines().zip(now.lines()).find(|(kept, now)| kept != now);
    Err(format!("the transitions are others ({other:?}): look at them with `cargo xtask verify table --write`"))
}
