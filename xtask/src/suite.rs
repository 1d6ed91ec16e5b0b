//! `cargo xtask test` and `cargo xtask checks`: what must hold, each step by its name.

use std::fs;

use fulmar_tests::built::{Kind, configs};

use crate::build;
use crate::steps::{Done, Failure, cargo, root, step, target};

/// All tests of the workspace. What a machine cannot do is skipped aloud and counted.
pub(crate) fn test() -> Done {
    let programs = build::programs()?;
    build::guests(&programs)?;
    let skips = target().join("skips");
    let _ = fs::remove_file(&skips);
    let mut tests = cargo(&["test", "--workspace", "--locked"]);
    tests.env("FULMAR_PROGRAMS", programs.folder()).env("FULMAR_SKIPS", &skips);
    step("tests of the workspace", &mut tests)?;
    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    for line in skipped.lines() {
        println!("SKIPPED: {line}");
    }
    println!("== all tests passed, {} skipped", skipped.lines().count());
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
