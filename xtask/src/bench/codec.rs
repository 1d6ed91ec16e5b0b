//! Decoding and encoding, in a program of its own without anything around it.

use serde::Deserialize;

use super::Bench;
use super::report::{Figure, Unit};
use crate::steps::{Done, Failure, cargo, timed};

/// A line of that program.
#[derive(Deserialize)]
struct Line {
    what: String,
    per_second: f64,
}

pub(super) fn run(bench: &Bench) -> Done {
    let mut codec =
        cargo(&["run", "--release", "--quiet", "--locked", "--package", "fulmar-tests", "--bin", "bench_codec"]);
    let said = timed("messages a second", || codec.output().map_err(|error| Failure(error.to_string())))?;
    if !said.status.success() {
        return Err(Failure(format!("bench_codec: {}", String::from_utf8_lossy(&said.stderr))));
    }
    for line in String::from_utf8_lossy(&said.stdout).lines() {
        let line: Line = serde_json::from_str(line).map_err(|error| Failure(format!("bench_codec: {error}")))?;
        bench.add(Figure::new("codec", &line.what, Unit::PerSecond, line.per_second));
    }
    Ok(())
}
