//! `vmmd` as a library, so that its halves can be run by tests. See [`control`].

pub mod control;
