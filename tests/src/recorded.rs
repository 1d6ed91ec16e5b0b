//! The malformed messages that were recorded, and what the peer made of each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::render::from_hex;

/// A message that was made to be refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// What it is called.
    pub name: String,
    /// The message without a length before it.
    pub bytes: Vec<u8>,
    /// Whether the peer took it all the same.
    pub is_accepted: bool,
}

/// All of them.
///
/// # Panics
/// Where a file cannot be read.
#[must_use]
pub fn malformed() -> Vec<Malformed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let index: Vec<Value> = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let of = |case: &Value| Malformed {
        name: case["name"].as_str().unwrap().to_owned(),
        bytes: match case["hex"].as_str() {
            Some(hex) => from_hex(hex),
            None => fs::read(folder.join(case["file"].as_str().unwrap().rsplit('/').next().unwrap())).unwrap(),
        },
        is_accepted: case["verdict"] == "accepted",
    };
    index.iter().filter(|case| case["codec"] == "malformed").map(of).collect()
}
