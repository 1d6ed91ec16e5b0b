//! The core decides everything and touches nothing: names, policies, the ledger, every format on the wire and on disk,
//! and the state machine of `vmmd`. It must never read a clock, allocate, block, or know an operating system.
//!
//! | room | what is in it |
//! |---|---|
//! | [`journal`] | the file of the desired state: its format, how it is read back |
//! | [`halves`] | the messages between the two halves of `vmmd` |
//! | [`limits`] | every bound, with its reason |
//! | [`name`] | names of unikernels and of paths, their text and their order |
//! | [`policy`] | what a path may use, and when one policy contains another |
//! | [`solo5`] | what an image says about itself: target, ABI, devices |
//! | [`text`] | short texts by value |
#![no_std]
#![forbid(unsafe_code)]

pub mod halves;
pub mod journal;
pub mod limits;
pub mod name;
pub mod policy;
pub mod solo5;

pub mod text;

#[cfg(test)]
extern crate std;
