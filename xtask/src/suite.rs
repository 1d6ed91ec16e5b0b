//! `cargo xtask test`, `cargo xtask checks` and `cargo xtask verify`: what must hold, each step by its name.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use fulmar_tests::built::{Kind, configs};

use crate::build;
use crate::steps::{Done, Failure, cargo, root, step, target, timed};

/// Lines that are told once more of what a failed test has said, and of each panic in it.
const FAILURE_LINES: usize = 12;

/// All tests of the workspace. What a machine cannot do is skipped aloud and counted.
pub(crate) fn test() -> Done {
    let programs = build::programs()?;
    build::guests(&programs)?;
    let skips = target().join("skips");
    let _ = fs::remove_file(&skips);
    // A failure hides no other: what fails is told of all in one run.
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("FULMAR_PROGRAMS", programs.folder()).env("FULMAR_SKIPS", &skips);
    timed("tests of the workspace", || retold(&mut tests))?;
    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    for line in skipped.lines() {
        println!("SKIPPED: {line}");
    }
    println!("== all tests passed, {} skipped", skipped.lines().count());
    Ok(())
}

/// What is told once more of failed tests: of each what it said first, and what it said from a panic on.
#[derive(Default)]
struct Failures {
    /// The part of the output where failed tests are told of has come.
    begun: bool,
    /// So many lines more.
    left: usize,
    told: Vec<String>,
}

impl Failures {
    fn hear(&mut self, line: &str) {
        self.begun = (self.begun || line == "failures:") && !line.starts_with("test result:");
        if !self.begun {
            self.left = 0;
        } else if line.starts_with("---- ") || line.contains("panicked at ") {
            self.left = FAILURE_LINES;
        }
        if self.left > 0 {
            self.told.push(line.to_owned());
            self.left -= 1;
        }
    }
}

/// Runs tests, and tells at the end once more what failed: of thousands of lines only the last are looked at.
fn retold(tests: &mut Command) -> Result<(), String> {
    let mut child = tests.stdout(Stdio::piped()).spawn().map_err(|error| format!("cannot run {tests:?}: {error}"))?;
    let mut failures = Failures::default();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(|out| out.split(b'\n')) {
        let line = line.map_err(|error| format!("what tests say cannot be read: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        failures.hear(&line);
    }
    let status = child.wait().map_err(|error| format!("cannot wait for {tests:?}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    println!("== what failed, once more, the beginning of each:");
    failures.told.iter().for_each(|line| println!("{line}"));
    Err(format!("failed ({status})"))
}

/// The states of a small host, the table of transitions, the planted bugs: each, or all but the larger graphs.
pub(crate) fn verify(words: &[&str]) -> Done {
    let runs: &[&[&str]] = match words {
        [] => &[&["graphs", "usual"], &["audit"], &["table"], &["mutants"]],
        ["graphs"] => &[&["graphs", "usual"]],
        ["larger"] => &[&["graphs", "larger"]],
        ["table"] => &[&["table"]],
        ["table", "--write"] => &[&["table", "--write"]],
        ["mutants"] => &[&["mutants"]],
        _ => return Err(Failure("verify takes graphs, larger, table, table --write or mutants".into())),
    };
    let build = ["build", "--profile", "verify", "--locked", "--package", "fulmar-verification"];
    step("building the verification", &mut cargo(&build))?;
    for run in runs {
        let mut command = Command::new(target().join("verify").join("fulmar-verification"));
        // What is built again and again for a line is built incrementally, whatever holds for the rest.
        command.args(*run).current_dir(root()).env_remove("CARGO_INCREMENTAL");
        step(&format!("verification: {}", run.join(" ")), &mut command)?;
    }
    Ok(())
}

/// What must hold besides the tests.
pub(crate) fn checks() -> Done {
    step("formatting", &mut cargo(&["fmt", "--all", "--check"]))?;
    let mut clippy = cargo(&["clippy", "--workspace", "--locked", "--all-targets", "--", "--deny", "warnings"]);
    step("lints", &mut clippy)?;
    // A workspace of their own, compiled differently for each tender.
    let guests = |arguments: &[&str]| {
        let mut command = cargo(arguments);
        command.current_dir(root().join("guest"));
        command
    };
    step("formatting of the unikernels", &mut guests(&["fmt", "--all", "--check"]))?;
    for kind in [Kind::Hvt, Kind::Spt] {
        let mut clippy = guests(&["clippy", "--release", "--locked"]);
        clippy.args(configs(kind)).args(["--", "--deny", "warnings"]);
        step(&format!("lints of the unikernels for {}", kind.name()), &mut clippy)?;
    }
    let mut documentation = cargo(&["doc", "--workspace", "--locked", "--no-deps", "--document-private-items"]);
    step("documentation", documentation.env("RUSTDOCFLAGS", "--deny warnings"))?;
    if !root().join("Cargo.lock").exists() {
        return Err(Failure("Cargo.lock is missing".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_once_more_and_not_at_length() {
        let log = "fulmar: a line of a log\n".repeat(100);
        let said = format!(
            "test a ... ok\npanicked at nothing\nfailures:\n\n---- b stdout ----\n{log}thread 'b' panicked at b.rs:1:1:\n\
             what is wrong\n{log}\nfailures:\n    b\n\ntest result: FAILED. 1 passed\n---- c stdout ----\n"
        );
        let mut failures = Failures::default();
        said.lines().for_each(|line| failures.hear(line));
        assert_eq!(failures.told.len(), 2 * FAILURE_LINES, "{:?}", failures.told);
        assert_eq!(failures.told[0], "---- b stdout ----");
        assert_eq!(failures.told[FAILURE_LINES..][..2], ["thread 'b' panicked at b.rs:1:1:", "what is wrong"]);
    }
}
