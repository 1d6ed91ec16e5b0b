//! The core decides everything and touches nothing: names, policies, the ledger, every format on the wire and on disk,
//! and the state machine of `vmmd`. It must never read a clock, allocate, block, or know an operating system.
//!
//! | room | what is in it |
//! |---|---|
//! | [`certificate`] | what a certificate's extension says |
//! | [`chunks`] | a stream of chunks, of which nothing is kept |
//! | [`console`] | what unikernels write: lines, rings, the store they share |
//! | [`der`], [`time`] | the encoding that the wire uses |
//! | [`event`] | the segments of the event log: their format, how they are read back |
//! | [`halves`] | the messages between the two halves of `vmmd` |
//! | [`journal`] | the file of the desired state: its format, how it is read back |
//! | [`limits`] | every bound, with its reason |
//! | [`mac`] | MAC addresses that nobody chose |
//! | [`machine`] | every decision about unikernels and policies |
//! | [`name`] | names of unikernels and of paths, their text and their order |
//! | [`policy`] | what a path may use, and when one policy contains another |
//! | [`scan`] | frames in a stream of bytes, of which only the head is kept |
//! | [`solo5`] | what an image says about itself: target, ABI, devices |
//! | [`state_import`] | albatross's state file, for moving over |
//! | [`text`] | short texts by value |
//! | [`wire`] | every message of wire version 5 |
#![no_std]
#![forbid(unsafe_code)]

pub mod certificate;
pub mod chunks;
pub mod console;
mod crc;
pub mod der;
pub mod event;
pub mod halves;
pub mod journal;
pub mod limits;
pub mod mac;
pub mod machine;
pub mod name;
pub mod policy;
pub mod scan;
pub mod solo5;
pub mod state_import;
pub mod text;
pub mod time;
pub mod wire;

#[cfg(test)]
extern crate std;
