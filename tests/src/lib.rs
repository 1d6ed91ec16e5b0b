//! What the whole-program tests, the demo and the benchmarks share. Nothing of it is part of a program that users run.

pub mod built;
pub mod generate;
pub mod render;
pub mod skips;
pub mod system;
