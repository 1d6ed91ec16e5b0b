//! DER of what is signed: certificates, requests, lists of revoked certificates. What goes in is DER already, or a number or a text.

use fulmar_core::certificate::OBJECT_IDENTIFIER;
use fulmar_core::time;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

const TRUE: [u8; 3] = [0x01, 0x01, 0xff];

/// 1 January 2050: from then on years have four digits (RFC 5280 section 4.1.2.5).
const YEAR_2050_UNIX_S: i64 = 2_524_608_000;

/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// id-ce, 2.5.29: what the standard extensions begin with.
const CE: [u8; 2] = [0x55, 0x1d];
/// id-kp-serverAuth and id-kp-clientAuth, without their last octet.
const PURPOSE: [u8; 7] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03];
/// extensionRequest of PKCS #9, 1.2.840.113549.1.9.14.
const EXTENSION_REQUEST: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// To sign others and lists.
    Authority,
    /// To be the client of a handshake.
    Client,
    /// To be its server.
    Server,
}

/// What goes into a certificate.
#[derive(Debug)]
pub struct Certificate<'a> {
    /// Its number, at least one byte, the highest bit not set.
    pub serial: &'a [u8],
    /// The signature's algorithm.
    pub algorithm: &'a [u8],
    /// Who signs it.
    pub issuer: &'a [u8],
    /// From when on it is valid, in seconds since 1970.
    pub not_before_unix_s: i64,
    /// Until when.
    pub not_after_unix_s: i64,
    /// Whose it is.
    pub subject: &'a [u8],
    /// The key that it is about: a SubjectPublicKeyInfo.
    pub key: &'a [u8],
    /// What it is for.
    pub purpose: Use,
    /// The value of our extension.
    pub carries: Option<&'a [u8]>,
    /// The identifier of its own key, and of the key that signs it; neither in a CA's own.
    pub identifiers: Option<(&'a [u8], &'a [u8])>,
}

/// An element with this content.
fn element(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let len: usize = content.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => der.push(short),
        _ => {
            let digits: Vec<u8> = len.to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
            // A usize has 8 bytes at most.
            der.push(0x80 | u8::try_from(digits.len()).unwrap_or(0));
            der.extend(digits);
        }
    }
    content.iter().for_each(|part| der.extend(*part));
    der
}

fn integer(value: i64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let spare = |pair: &[u8]| {
        matches!(pair, [0, next, ..] if *next < 0x80) || matches!(pair, [0xff, next, ..] if *next >= 0x80)
    };
    let mut rest: &[u8] = &bytes;
    while let Some(shorter) = rest.get(1..).filter(|_| spare(rest)) {
        rest = shorter;
    }
    element(INTEGER, &[rest])
}

/// A time as X.509 has it.
fn moment(unix_s: i64) -> Vec<u8> {
    let mut buffer = [0; time::TEXT_BYTES_MAX];
    let text = time::format(unix_s.saturating_mul(1000), &mut buffer);
    if (0..YEAR_2050_UNIX_S).contains(&unix_s) {
        return element(UTC_TIME, &[text.get(2..).unwrap_or_default()]);
    }
    element(GENERALIZED_TIME, &[text])
}

/// An algorithm, given without its header.
#[must_use]
pub fn algorithm(content: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[content])
}

/// A subject of one common name.
#[must_use]
pub fn common_name(text: &str) -> Vec<u8> {
    let attribute = element(SEQUENCE, &[&element(OID, &[&COMMON_NAME]), &element(UTF8_STRING, &[text.as_bytes()])]);
    element(SEQUENCE, &[&element(SET, &[&attribute])])
}

/// What is signed, with its signature.
#[must_use]
pub fn signed(content: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[content, algorithm, &element(BIT_STRING, &[&[0], signature])])
}

fn extension(identifier: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &TRUE } else { &[] };
    element(SEQUENCE, &[&element(OID, &[identifier]), critical, &element(OCTET_STRING, &[value])])
}

/// One of the standard extensions.
fn standard(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    extension(&[CE.as_slice(), &[number]].concat(), critical, value)
}

fn key_usage(bits: u8, spare: u8) -> Vec<u8> {
    standard(15, true, &element(BIT_STRING, &[&[spare, bits]]))
}

fn issuer_key(identifier: &[u8]) -> Vec<u8> {
    standard(35, false, &element(SEQUENCE, &[&element(0x80, &[identifier])]))
}

/// The part of a certificate that is signed. The order of the extensions is that of the peer's tools.
#[must_use]
pub fn certificate(it: &Certificate<'_>) -> Vec<u8> {
    let mut extensions = Vec::new();
    extensions.extend(it.carries.map(|value| extension(&OBJECT_IDENTIFIER, false, value)));
    extensions.extend(it.identifiers.map(|(own, _)| standard(14, false, &element(OCTET_STRING, &[own]))));
    // digitalSignature, nonRepudiation, keyCertSign, cRLSign; or digitalSignature, keyEncipherment.
    let authority = it.purpose == Use::Authority;
    extensions.push(if authority { key_usage(0b1100_0110, 1) } else { key_usage(0b1010_0000, 5) });
    let constraints: &[u8] = if authority { &TRUE } else { &[] };
    extensions.push(standard(19, true, &element(SEQUENCE, &[constraints])));
    extensions.extend(it.identifiers.map(|(_, issuer)| issuer_key(issuer)));
    let purpose = match it.purpose {
        Use::Authority => None,
        Use::Server => Some(1),
        Use::Client => Some(2),
    };
    extensions
        .extend(purpose.map(|last| standard(37, true, &element(SEQUENCE, &[&element(OID, &[&PURPOSE, &[last]])]))));
    let validity = element(SEQUENCE, &[&moment(it.not_before_unix_s), &moment(it.not_after_unix_s)]);
    element(
        SEQUENCE,
        &[
            &element(0xa0, &[&integer(2)]),
            &element(INTEGER, &[it.serial]),
            it.algorithm,
            it.issuer,
            &validity,
            it.subject,
            it.key,
            &element(0xa3, &[&element(SEQUENCE, &[&extensions.concat()])]),
        ],
    )
}

/// The part of a request that is signed.
#[must_use]
pub fn request(subject: &[u8], key: &[u8], carries: &[u8]) -> Vec<u8> {
    let extensions = element(SEQUENCE, &[&extension(&OBJECT_IDENTIFIER, false, carries)]);
    let attribute = element(SEQUENCE, &[&element(OID, &[&EXTENSION_REQUEST]), &element(SET, &[&extensions])]);
    element(SEQUENCE, &[&integer(0), subject, key, &element(0xa0, &[&attribute])])
}

/// What goes into a list of revoked certificates.
#[derive(Debug)]
pub struct List<'a> {
    /// The signature's algorithm.
    pub algorithm: &'a [u8],
    /// Who signs it.
    pub issuer: &'a [u8],
    /// The identifier of the key that signs it.
    pub issuer_key: &'a [u8],
    /// Its number.
    pub number: i64,
    /// When it is made, in seconds since 1970.
    pub made_unix_s: i64,
    /// When the next one is made at the latest.
    pub next_unix_s: i64,
    /// The numbers of the certificates, and when each was revoked.
    pub revoked: &'a [(Vec<u8>, i64)],
}

/// The part of a list that is signed.
#[must_use]
pub fn list(it: &List<'_>) -> Vec<u8> {
    let entry =
        |(serial, unix_s): &(Vec<u8>, i64)| element(SEQUENCE, &[&element(INTEGER, &[serial]), &moment(*unix_s)]);
    let entries = it.revoked.iter().map(entry).collect::<Vec<_>>().concat();
    // An empty list is no list (RFC 5280 section 5.1.2.6).
    let entries = if entries.is_empty() { entries } else { element(SEQUENCE, &[&entries]) };
    let extensions = [issuer_key(it.issuer_key), standard(20, false, &integer(it.number))].concat();
    element(
        SEQUENCE,
        &[
            &integer(1),
            it.algorithm,
            it.issuer,
            &moment(it.made_unix_s),
            &moment(it.next_unix_s),
            &entries,
            &element(0xa0, &[&element(SEQUENCE, &[&extensions])]),
        ],
    )
}

/// A private key of Ed25519 in PKCS #8, in the form without the public key: everybody reads that one.
#[must_use]
pub fn ed25519_private_key(seed: &[u8; 32]) -> Vec<u8> {
    let algorithm = element(SEQUENCE, &[&element(OID, &[&[0x2b, 0x65, 0x70]])]);
    element(SEQUENCE, &[&integer(0), &algorithm, &element(OCTET_STRING, &[&element(OCTET_STRING, &[seed])])])
}

/// A private key of an elliptic curve in PKCS #8, with its public half.
#[must_use]
pub fn ec_private_key(algorithm: &[u8], scalar: &[u8], public: &[u8]) -> Vec<u8> {
    let public = element(0xa1, &[&element(BIT_STRING, &[&[0], public])]);
    let key = element(SEQUENCE, &[&integer(1), &element(OCTET_STRING, &[scalar]), &public]);
    element(SEQUENCE, &[&integer(0), algorithm, &element(OCTET_STRING, &[&key])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_as_short_as_they_can_be() {
        for (value, content) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[0, 128]),
            (-1, &[0xff]),
            (-129, &[0xff, 0x7f]),
            (1 << 40, &[1, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(integer(value).get(2..), Some(content), "{value}");
        }
    }

    #[test]
    fn years_have_two_digits_until_2049() {
        assert_eq!(moment(YEAR_2050_UNIX_S - 1), b"\x17\x0d491231235959Z");
        assert_eq!(moment(YEAR_2050_UNIX_S), b"\x18\x0f20500101000000Z");
        assert_eq!(moment(-1), b"\x18\x0f19691231235959Z");
    }

    #[test]
    fn lengths_have_their_shortest_form() {
        for (len, header) in [(127, &[4, 127][..]), (128, &[4, 0x81, 128]), (65_536, &[4, 0x83, 1, 0, 0])] {
            assert!(element(OCTET_STRING, &[&vec![7; len]]).starts_with(header), "{len}");
        }
    }
}
