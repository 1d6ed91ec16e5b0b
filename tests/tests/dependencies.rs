//! `docs/dependencies.md` against what the three workspaces take: each crate has its row and its licence, and no row is spare.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Packages that no user ever has.
const TOOLS: &[&str] = &["fulmar-tests", "fulmar-verification", "fulmar-pages", "fulmar-xtask", "fulmar-fuzz"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// What cargo knows of a workspace.
fn metadata(folder: &str) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--locked", "--format-version", "1"]).current_dir(root().join(folder));
    let said = command.output().unwrap();
    assert!(said.status.success(), "{folder}: {}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// What is taken of others.
#[derive(Default)]
struct Taken {
    /// Crates that a package of ours names, and whether one does that users have.
    direct: BTreeMap<String, bool>,
    /// The licence of each crate, in each of its versions.
    licence_of: BTreeMap<String, BTreeSet<String>>,
    /// Of all crates, however they came in.
    licences: BTreeSet<String>,
}

fn taken() -> Taken {
    let mut taken = Taken::default();
    for folder in ["", "fuzz", "guest"] {
        let metadata = metadata(folder);
        let members: BTreeSet<&str> =
            metadata["workspace_members"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for package in metadata["packages"].as_array().unwrap() {
            let name = text(package, "name");
            if !package["source"].is_null() {
                let licence = text(package, "license").to_string();
                assert!(!licence.is_empty(), "{name} names no licence");
                taken.licence_of.entry(name.into()).or_default().insert(licence.clone());
                taken.licences.insert(licence);
            }
            if !members.contains(text(package, "id")) {
                continue;
            }
            for dependency in package["dependencies"].as_array().unwrap() {
                if dependency["source"].is_null() {
                    continue;
                }
                let is_in_programs = folder.is_empty() && !TOOLS.contains(&name) && text(dependency, "kind") != "dev";
                *taken.direct.entry(text(dependency, "name").into()).or_default() |= is_in_programs;
            }
        }
    }
    taken
}

/// The rows of the table under a heading: first and second column.
fn rows(document: &str, heading: &str) -> Vec<(String, String)> {
    let section = document.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let table = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_string());
        (cells.next().unwrap(), cells.next().unwrap())
    };
    table.map(row).collect()
}

#[test]
fn each_crate_has_its_reason_and_its_licence() {
    let document = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let taken = taken();
    for (heading, is_in_programs) in [("In the programs", true), ("In tests and tools alone", false)] {
        let rows = rows(&document, heading);
        let named: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        let wanted: Vec<&str> =
            taken.direct.iter().filter(|(_, is_in)| **is_in == is_in_programs).map(|(name, _)| name.as_str()).collect();
        assert_eq!(named, wanted, "docs/dependencies.md, {heading}: left the rows, right what is taken");
        for (name, licence) in &rows {
            assert!(taken.licence_of[name].contains(licence), "{name}: {:?}", taken.licence_of[name]);
        }
    }
}

#[test]
fn each_licence_is_known() {
    let document = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let known: BTreeSet<String> = rows(&document, "Licences").into_iter().map(|(licence, _)| licence).collect();
    assert_eq!(known, taken().licences, "docs/dependencies.md: left the rows, right what is taken");
}
