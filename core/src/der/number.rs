//! The two kinds of numbers in DER that have several bytes, each in one form only.

use super::error::Reason;
use crate::limits::{WIRE_INT_MAX, WIRE_INT_MIN};

/// A length of several octets: the shortest form only.
#[cold]
pub(super) fn long_length(bytes: &[u8]) -> Result<(u64, &[u8]), Reason> {
    let (first, rest) = bytes.split_first().ok_or(Reason::Truncated)?;
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 8 {
        return Err(Reason::Length);
    }
    let (digits, rest) = rest.split_at_checked(count).ok_or(Reason::Truncated)?;
    let len = digits.iter().fold(0_u64, |len, digit| (len << 8) | u64::from(*digit));
    if len < 0x80 || digits.first() == Some(&0) {
        return Err(Reason::Length);
    }
    Ok((len, rest))
}

/// The value of a minimal INTEGER in the wire's range.
#[inline]
pub(super) fn integer(content: &[u8]) -> Option<i64> {
    let value = match content {
        [] => return None,
        [only] => return Some(i64::from(i8::from_be_bytes([*only]))),
        [0x00, second, ..] if *second < 0x80 => return None,
        [0xff, second, ..] if *second >= 0x80 => return None,
        digits if digits.len() > 8 => return None,
        [first, digits @ ..] => {
            digits.iter().fold(i64::from(i8::from_be_bytes([*first])), |value, digit| (value << 8) | i64::from(*digit))
        }
    };
    (WIRE_INT_MIN..=WIRE_INT_MAX).contains(&value).then_some(value)
}
