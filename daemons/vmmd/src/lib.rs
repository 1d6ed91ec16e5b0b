//! `vmmd` as a library, so that its halves can be run by tests and fuzzers. See [`control`] and [`host_half`].

pub mod control;
pub mod host_half;
