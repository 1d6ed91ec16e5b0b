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
  bench [--json FILE] [--compare FILE] [--plot FILE] [NAME]...
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
            eprint!("xtask: unknown command `{}`\n\n{HELP}", other.join(" "));
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
