//! Going through all states that a small host can reach, with the real machine in its middle.

pub mod audit;
pub mod graphs;
pub mod model;
