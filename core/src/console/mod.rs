//! What unikernels write to their consoles: bytes become lines, lines are kept in rings, rings share one store.
//!
//! | file | what is in it |
//! |---|---|
//! | [`Splitter`] | cuts a stream of bytes into lines of bounded length, without holding any |
//! | [`Blocks`] | the store that is handed in: small blocks, taken as lines come and given back as they go |
//! | [`Ring`] | the last lines of one console; a [`Cursor`] reads them at its own pace |
//! | [`History`] | a splitter that feeds a ring: one console |
//!
//! A console that is quiet holds no block, so what a thousand of them cost is what they have written. No time is read
//! here: whoever reads bytes says when.

mod blocks;
mod history;
mod ring;
mod splitter;
#[cfg(test)]
mod tests;

pub use blocks::{BLOCK_BYTES, Blocks, Full};
pub use history::{History, PUSH_BLOCKS_MAX, fullest_domain, is_short, make_room};
pub use ring::{Cursor, LINE_BYTES_STORED_MAX, Next, Ring};
pub use splitter::{Piece, Splitter, TRUNCATED};
