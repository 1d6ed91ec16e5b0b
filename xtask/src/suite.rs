//! `cargo xtask test`, `cargo xtask checks` and `cargo xtask verify`: what must hold, each step by its name.

use std::fs;
use std::process::Command;

use fulmar_tests::built::{Kind, configs};

use crate::build;
use crate::steps::{Done, Failure, cargo, root, step, target};

/// All tests of the workspace. What a machine cannot do is skipped aloud and counted.
pub(crate) fn test() -> Done {
    let programs = build::programs()?;
    build::guests(&programs)?;
    let skips = target().join("skips");
    let _ = fs::remove_file(&skips);
    // A failure hides no other: what fails is told of all in one run.
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("FULMAR_PROGRAMS", programs.folder()).env("FULMAR_SKIPS", &skips);
    step("tests of the workspace", &mut tests)?;
    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    for line in skipped.lines() {
        println!("SKIPPED: {line}");
    }
    println!("== all tests passed, {} skipped", skipped.lines().count());
    Ok(())
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
        step(&format!("verification: {}", run.join(" ")), command.args(*run).current_dir(root()))?;
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
