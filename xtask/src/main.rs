//! `cargo xtask ...`: what a person does with this workspace, each as one command.

mod bench;
mod build;
mod deb;
mod demo;
mod guard;
#[cfg(target_os = "linux")]
mod picture;
mod steps;
mod suite;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask COMMAND

  demo [--keep]   build everything, run a unikernel before your eyes, clean up;
                  --keep leaves it running and says how to go on
  demo --stop     end what a demo with --keep has left running
  bench [OPTION]... [NAME]...
                  measure: codec, disk, info, create, policies, memory,
                  recovery, scale, console, stats, tls, tender (beside the original ones, if the environment variables
                  SOLO5_SPT and SOLO5_HVT name them); --json saves the figures,
                  --compare has those of a saved run beside them, --plot draws them,
                  --strict fails where an amount or a ratio misses its aim,
                  --publish measures all and writes SPECIFICATION.md anew
  test            all tests of the workspace
  verify [graphs|larger|table [--write]|mutants]
                  all states of a small host, the table of transitions, the planted
                  bugs; without a word all but `larger` (verification/README.md)
  pictures        draw the pictures of the README anew
  deb [--version VERSION]
                  a package for Debian and its relatives (docs/install.md)
  checks          what else must hold: formatting, lints, documentation
";

/// What is wrong with words that are no command, and what would be right.
fn what_is_wrong(words: &[&str]) -> String {
    match words {
        ["demo", ..] => "demo takes --keep, --stop or nothing".into(),
        ["deb", ..] => "deb takes --version VERSION or nothing".into(),
        ["pictures"] => "pictures are drawn on Linux alone".into(),
        [command @ ("pictures" | "test" | "checks"), word, ..] => {
            format!("{command} takes nothing, and there is `{word}`: leave it out")
        }
        _ => format!(
            "there is no command `{}`, but demo, bench, test, verify, pictures, deb and checks: `cargo xtask help` says what \
             they do",
            words.first().unwrap_or(&"")
        ),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["demo"] => demo::run(false),
        ["demo", "--keep"] => demo::run(true),
        ["demo", "--stop"] => demo::stop(),
        ["bench", names @ ..] => bench::run(names),
        #[cfg(target_os = "linux")]
        ["pictures"] => picture::run(),
        ["test"] => suite::test(),
        ["verify", words @ ..] => suite::verify(words),
        ["deb"] => deb::run(None),
        ["deb", "--version", version] => deb::run(Some(version)),
        ["checks"] => suite::checks(),
        // Started by `demo` alone: cleans up after it, however it ends.
        ["guard", folder] => guard::run(folder.as_ref()),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("xtask: {}", what_is_wrong(other));
            return ExitCode::from(124);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
