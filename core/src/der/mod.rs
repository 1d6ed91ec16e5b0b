//! DER as the wire needs it: a strict reader that borrows, and a writer that fills a buffer from its end.
//!
//! | file | what is in it |
//! |---|---|
//! | [`Reader`] | definite minimal lengths, minimal integers, exact booleans; every length is checked against its parent |
//! | [`Writer`] | one pass backwards, so that each length is known when it is written |
//! | [`Malformed`] | why bytes were refused, and where |

mod error;
mod number;
mod reader;
mod writer;

pub use error::{Malformed, Reason};
pub use reader::{Cut, Octets, Reader};
pub use writer::{Full, Writer, by_encoding, by_value};

/// The identifier octets that the wire uses.
pub mod tag {
    /// BOOLEAN.
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER.
    pub const INTEGER: u8 = 0x02;
    /// OCTET STRING.
    pub const OCTETS: u8 = 0x04;
    /// NULL.
    pub const NULL: u8 = 0x05;
    /// UTF8String.
    pub const UTF8: u8 = 0x0c;
    /// GeneralizedTime.
    pub const TIME: u8 = 0x18;
    /// SEQUENCE and SEQUENCE OF.
    pub const SEQUENCE: u8 = 0x30;
    /// SET OF.
    pub const SET: u8 = 0x31;

    /// The explicit context tag `[number]`, for numbers below 31.
    #[must_use]
    pub const fn context(number: u8) -> u8 {
        0xa0 | (number & 0x1f)
    }
}
