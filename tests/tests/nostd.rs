//! The core needs neither a standard library nor an allocator: a program of it alone links without either, and the same
//! program does not build as soon as it has one of them, so that the proof proves something.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;
use std::process::{Command, Output};

fn build(features: &str) -> Output {
    Command::new(env!("CARGO"))
        .args(["build", "--locked", "--features", features, "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("nostd/Cargo.toml"))
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nostd"))
        .output()
        .unwrap()
}

#[test]
fn the_core_links_alone_and_only_alone() {
    let alone = build("");
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    for (feature, error) in
        [("with-alloc", "no global memory allocator found"), ("with-std", "found duplicate lang item `panic_impl`")]
    {
        let output = build(feature);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(error), "{feature}: {stderr}");
    }
}
