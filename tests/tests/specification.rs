//! `SPECIFICATION.md` names no check that is not there, and no bound that is another in the code. Its figures are looked at by xtask's
//! own tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use fulmar_core::limits;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    fs::read_to_string(root().join("SPECIFICATION.md")).unwrap()
}

#[test]
fn each_promise_has_a_check_that_there_is() {
    let page = page();
    let help = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let mut checks = 0;
    let (promises, _) = page.split_once("\n## Figures").unwrap();
    for line in promises.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`: ")) {
        let mut words = line.rsplit(" | ").next().unwrap().split('`');
        let (file, check) = (words.nth(1).unwrap(), words.nth(1).unwrap());
        let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        if let Some(command) = check.strip_prefix("cargo xtask ") {
            assert!(help.contains(command.split(' ').next().unwrap()), "{check}");
        } else {
            assert!(source.contains(&format!("fn {check}(")), "{file} has no {check}");
        }
        checks += 1;
    }
    assert!(checks > 20, "{checks}");
    // Each promise of a table has one.
    for line in promises.split("\n## Bounds").next().unwrap().lines().filter(|line| line.starts_with("| ")) {
        let is_head = line == "| promise | checked by |";
        assert!(is_head || line.contains(".rs`: `") || line.contains("`: `cargo xtask "), "nothing checks: {line}");
    }
}

#[test]
fn each_bound_is_that_of_the_code() {
    let bounds: [(&str, u64); 14] = [
        ("UNIKERNELS_MAX", limits::UNIKERNELS_MAX as u64),
        ("POLICIES_MAX", limits::POLICIES_MAX as u64),
        ("BLOCKS_MAX", limits::BLOCKS_MAX as u64),
        ("DEVICES_MAX", limits::DEVICES_MAX as u64),
        ("IMAGE_BYTES_MAX", limits::IMAGE_BYTES_MAX),
        ("ARGUMENTS_BYTES_MAX", limits::ARGUMENTS_BYTES_MAX as u64),
        ("CONNECTIONS_MAX", limits::CONNECTIONS_MAX as u64),
        ("CONNECTIONS_PER_USER_MAX", limits::CONNECTIONS_PER_USER_MAX as u64),
        ("CONSOLES_BYTES_MAX", limits::CONSOLES_BYTES_MAX as u64),
        ("EVENTS_WAITING_BYTES_MAX", limits::EVENTS_WAITING_BYTES_MAX as u64),
        ("TLS_CONNECTIONS_MAX", limits::TLS_CONNECTIONS_MAX as u64),
        ("CHAIN_CERTIFICATES_MAX", limits::CHAIN_CERTIFICATES_MAX as u64),
        ("STOP_MS_MAX", limits::STOP_MS_MAX),
        ("REST_MS_MAX", limits::REST_MS_MAX),
    ];
    let page = page();
    let section = page.split("\n## ").find(|section| section.starts_with("Bounds")).unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert_eq!(rows.iter().filter(|row| row.ends_with("_MAX` |")).count(), bounds.len());
    for (name, value) in bounds {
        assert!(rows.iter().any(|row| row.ends_with(&format!("| {value} | `{name}` |"))), "{name} is {value}");
    }
}
