//! A list of revoked certificates as X.509 has it (RFC 5280 section 5.1), as far as it is read here: its number and whom it names.

use core::fmt;

use super::x509::{next_extension, serial_number, x509_tag::BITS};
use crate::der::{Malformed, Reader, tag};

/// id-ce-cRLNumber, 2.5.29.20.
const NUMBER: [u8; 3] = [0x55, 0x1d, 0x14];

/// id-ce-deltaCRLIndicator, 2.5.29.27.
const DELTA: [u8; 3] = [0x55, 0x1d, 0x1b];

/// id-ce-issuingDistributionPoint, 2.5.29.28.
const SCOPE: [u8; 3] = [0x55, 0x1d, 0x1c];

/// UTCTime.
const UTC_TIME: u8 = 0x17;

/// The version of lists that can have extensions.
const VERSION_2: i64 = 1;

/// A list of revoked certificates.
#[derive(Clone, Copy, Debug)]
pub struct Revocations<'a> {
    /// Its number: a higher one replaces a lower one.
    pub number: i64,
    entries: Reader<'a>,
}

/// Why a list is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListFault {
    /// It is none in DER.
    Malformed(Malformed),
    /// It has no number.
    NoNumber,
    /// It names only what has changed, or only some kinds of certificates.
    Partial,
}

impl fmt::Display for ListFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => {
                write!(
                    f,
                    "the list of revoked certificates cannot be read, byte {}: {}",
                    malformed.at, malformed.reason
                )
            }
            Self::NoNumber => f.write_str("the list of revoked certificates has no number: make one with a cRLNumber"),
            Self::Partial => {
                f.write_str("the list of revoked certificates is not complete: make one of all that are revoked")
            }
        }
    }
}

impl core::error::Error for ListFault {}

impl From<Malformed> for ListFault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<'a> Revocations<'a> {
    /// Reads a list. Every entry has been read once then.
    ///
    /// # Errors
    /// [`ListFault`], as it says.
    pub fn read(der: &'a [u8]) -> Result<Self, ListFault> {
        let mut whole = Reader::new(der);
        let mut list = whole.open(tag::SEQUENCE)?;
        whole.finish()?;
        let mut signed = list.open(tag::SEQUENCE)?;
        list.open(tag::SEQUENCE)?;
        list.open(BITS)?;
        list.finish()?;

        let before = signed;
        if signed.peek() != Some(tag::INTEGER) {
            return Err(ListFault::NoNumber);
        }
        if signed.integer()? != VERSION_2 {
            return Err(before.error(crate::der::Reason::Choice).into());
        }
        signed.open(tag::SEQUENCE)?; // the algorithm of the signature
        signed.open(tag::SEQUENCE)?; // the issuer
        let mut times = 0_u8;
        while let Some(time @ (UTC_TIME | tag::TIME)) = signed.peek() {
            signed.open(time)?;
            times = times.saturating_add(1);
        }
        if !(1..=2).contains(&times) {
            return Err(signed.error(crate::der::Reason::Tag).into());
        }
        let entries = match signed.peek() {
            Some(tag::SEQUENCE) => signed.open(tag::SEQUENCE)?,
            _ => Reader::new(&[]),
        };
        let mut check = entries;
        while !check.is_empty() {
            next_serial(&mut check)?;
        }
        let mut number = None;
        if signed.peek() == Some(tag::context(0)) {
            let mut field = signed.open(tag::context(0))?;
            let mut extensions = field.open(tag::SEQUENCE)?;
            field.finish()?;
            while let Some((identifier, value)) = next_extension(&mut extensions)? {
                if identifier == NUMBER {
                    let mut value = Reader::new(value);
                    number = Some(value.integer()?);
                    value.finish()?;
                } else if identifier == DELTA || identifier == SCOPE {
                    return Err(ListFault::Partial);
                }
            }
        }
        signed.finish()?;
        Ok(Self { number: number.ok_or(ListFault::NoNumber)?, entries })
    }

    /// The octets of the serial numbers of those that are revoked.
    pub fn serials(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut entries = self.entries;
        // Each was read before without error, so the end of the bytes is the only reason to stop.
        core::iter::from_fn(move || if entries.is_empty() { None } else { next_serial(&mut entries).ok() })
    }
}

fn next_serial<'a>(entries: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let mut entry = entries.open(tag::SEQUENCE)?;
    let serial = serial_number(&mut entry)?;
    match entry.peek() {
        Some(time @ (UTC_TIME | tag::TIME)) => entry.open(time)?,
        _ => return Err(entry.error(crate::der::Reason::Tag)),
    };
    if entry.peek() == Some(tag::SEQUENCE) {
        entry.open(tag::SEQUENCE)?;
    }
    entry.finish()?;
    Ok(serial)
}
