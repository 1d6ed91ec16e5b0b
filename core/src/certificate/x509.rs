//! A certificate as X.509 has it (RFC 5280 section 4.1), as far as it is read here: its serial number, its key, one name, two extensions.

use core::fmt;

use super::OBJECT_IDENTIFIER;
use crate::der::{Malformed, Reader, Reason, tag};

/// The identifier octets that X.509 uses beside those of the wire.
pub(super) mod x509_tag {
    /// BIT STRING.
    pub(in super::super) const BITS: u8 = 0x03;
    /// OBJECT IDENTIFIER.
    pub(in super::super) const OBJECT: u8 = 0x06;
    /// PrintableString.
    pub(in super::super) const PRINTABLE: u8 = 0x13;
    /// IA5String.
    pub(in super::super) const IA5: u8 = 0x16;
}

use self::x509_tag::{BITS, IA5, OBJECT, PRINTABLE};

/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// id-ce-keyUsage, 2.5.29.15.
const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x0f];

/// The first octet of a key usage: digitalSignature is its bit 0, keyCertSign its bit 5, counted from the highest.
const DIGITAL_SIGNATURE: u8 = 0x80;
const KEY_CERT_SIGN: u8 = 0x04;

/// What is read of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Certificate<'a> {
    /// The octets of its serial number.
    pub serial: &'a [u8],
    /// Its public key with the algorithm: the whole SubjectPublicKeyInfo.
    pub key: &'a [u8],
    /// The common name of its subject. Any octets that the types of text allow.
    pub common_name: Option<&'a [u8]>,
    /// The value of our extension.
    pub extension: Option<&'a [u8]>,
    /// The first octet of its key usage.
    usage: Option<u8>,
}

/// Why a certificate is of no use here, although it may be signed well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// It is no certificate in DER.
    Malformed(Malformed),
    /// Its subject has two common names.
    CommonNames,
    /// An extension that is read here is there twice.
    Extensions,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => write!(f, "it cannot be read, byte {}: {}", malformed.at, malformed.reason),
            Self::CommonNames => f.write_str("its subject has two common names"),
            Self::Extensions => f.write_str("it has an extension twice"),
        }
    }
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<'a> Certificate<'a> {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`Unreadable`], as it says.
    pub fn read(der: &'a [u8]) -> Result<Self, Unreadable> {
        let mut whole = Reader::new(der);
        let mut certificate = whole.open(tag::SEQUENCE)?;
        whole.finish()?;
        let mut signed = certificate.open(tag::SEQUENCE)?;
        certificate.open(tag::SEQUENCE)?;
        certificate.open(BITS)?;
        certificate.finish()?;

        if signed.peek() == Some(tag::context(0)) {
            signed.open(tag::context(0))?;
        }
        let serial = serial_number(&mut signed)?;
        signed.open(tag::SEQUENCE)?; // the algorithm of the signature
        signed.open(tag::SEQUENCE)?; // the issuer
        signed.open(tag::SEQUENCE)?; // validity
        let common_name = common_name(signed.open(tag::SEQUENCE)?)?;
        let key = signed.element(tag::SEQUENCE)?;
        let mut read = Self { serial, key, common_name, extension: None, usage: None };
        // Unique identifiers of the issuer and the subject, [1] and [2] IMPLICIT, which nobody uses.
        for identifier in [0x81, 0x82] {
            if signed.peek() == Some(identifier) {
                signed.open(identifier)?;
            }
        }
        if signed.peek() == Some(tag::context(3)) {
            let mut field = signed.open(tag::context(3))?;
            let extensions = field.open(tag::SEQUENCE)?;
            field.finish()?;
            read.read_extensions(extensions)?;
        }
        signed.finish()?;
        Ok(read)
    }

    fn read_extensions(&mut self, mut extensions: Reader<'a>) -> Result<(), Unreadable> {
        while let Some((identifier, value)) = next_extension(&mut extensions)? {
            if identifier == OBJECT_IDENTIFIER {
                if self.extension.replace(value).is_some() {
                    return Err(Unreadable::Extensions);
                }
            } else if identifier == KEY_USAGE {
                let mut value = Reader::new(value);
                let mut bits = value.open(BITS)?.rest().iter().copied();
                value.finish()?;
                // The first octet counts unused bits.
                let first = bits.nth(1).unwrap_or(0);
                if self.usage.replace(first).is_some() {
                    return Err(Unreadable::Extensions);
                }
            }
        }
        Ok(())
    }

    /// Whether it does not say that its key is not for signing certificates (RFC 5280 section 4.2.1.3).
    #[must_use]
    pub fn may_sign_certificates(&self) -> bool {
        self.usage.is_none_or(|usage| usage & KEY_CERT_SIGN != 0)
    }

    /// Whether it does not say that its key is not for signing a handshake.
    #[must_use]
    pub fn may_sign_handshakes(&self) -> bool {
        self.usage.is_none_or(|usage| usage & DIGITAL_SIGNATURE != 0)
    }
}

/// The octets of a serial number. Each number has one form in DER, so that a list cannot name a certificate and miss it.
pub(super) fn serial_number<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let start = *reader;
    let octets = reader.open(tag::INTEGER)?.rest();
    match octets {
        [] | [0x00, 0x00..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(start.error(Reason::Integer)),
        _ => Ok(octets),
    }
}

/// An extension: its identifier and its value.
pub(super) type Extension<'a> = (&'a [u8], &'a [u8]);

/// The next extension.
pub(super) fn next_extension<'a>(extensions: &mut Reader<'a>) -> Result<Option<Extension<'a>>, Malformed> {
    if extensions.is_empty() {
        return Ok(None);
    }
    extensions.within(tag::SEQUENCE, |extension| {
        let identifier = extension.open(OBJECT)?.rest();
        if extension.peek() == Some(tag::BOOLEAN) {
            extension.boolean()?;
        }
        Ok(Some((identifier, extension.held_octets()?)))
    })
}

/// The common name of a subject.
fn common_name<'a>(mut subject: Reader<'a>) -> Result<Option<&'a [u8]>, Unreadable> {
    let mut found = None;
    while !subject.is_empty() {
        let mut set = subject.open(tag::SET)?;
        while !set.is_empty() {
            let mut attribute = set.open(tag::SEQUENCE)?;
            if attribute.open(OBJECT)?.rest() != COMMON_NAME {
                continue;
            }
            let start = attribute;
            let value = match attribute.peek() {
                Some(kind @ (tag::UTF8 | PRINTABLE | IA5)) => attribute.open(kind)?.rest(),
                _ => return Err(start.error(Reason::Tag).into()),
            };
            attribute.finish()?;
            if found.replace(value).is_some() {
                return Err(Unreadable::CommonNames);
            }
        }
    }
    Ok(found)
}
