//! Decoding and encoding, in a program of its own without anything around it.

use super::Bench;
use crate::steps::{Done, cargo, step};

pub(super) fn run(_: &Bench) -> Done {
    let mut bench =
        cargo(&["run", "--release", "--quiet", "--locked", "--package", "fulmar-tests", "--bin", "bench_codec"]);
    step("messages a second", &mut bench)
}
