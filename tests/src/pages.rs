//! The pages of the documentation, and a shell that types what they have a user type.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::siege::{Said, said};
use crate::system::System;

/// The folder that pages are named from.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The blocks of a page in this language: of `sh` each the lines that a user types.
#[must_use]
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let begin = format!("\n```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// Types a line into a shell that finds the programs, as a user's does, and what is in a system's folder.
#[must_use]
pub fn typed(programs: &Path, folder: &Path, line: &str) -> Output {
    let mut path = programs.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["-e", "-o", "pipefail", "-c", line]).current_dir(folder).stdin(Stdio::null()).env("PATH", path);
    for (variable, place) in [("FULMAR_RUN", "run"), ("FULMAR_STATE", "state"), ("ALBATROSS", "albatross")] {
        bash.env(variable, folder.join(place));
    }
    bash.output().unwrap()
}

/// As [`typed`], and the line must succeed.
#[must_use]
pub fn expect_typed(programs: &Path, system: &System, line: &str) -> Said {
    let said = said(&typed(programs, system.folder(), line));
    assert_eq!(said.code, 0, "{line}\n{said:?}\n{}\n{}", system.log("vmmd"), system.log("vmmd_tls"));
    said
}
