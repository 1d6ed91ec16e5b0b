//! Certificates and lists of revoked ones, made by hand so that a test decides about every byte of them.
//!
//! An [`Issuer`] makes certificates as they should be; each is a [`Draft`] before it is signed, and a test changes of it what it likes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fulmar_core::certificate::{self, OBJECT_IDENTIFIER};
use fulmar_core::time;
use fulmar_core::wire::{Command, Policy, PolicyCommand};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// A common name, 2.5.4.3.
pub const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Other attributes of a subject that hold a name: organisation, organisational unit, serial number, user id.
pub const OTHER_NAMES: [&[u8]; 4] = [
    &[0x55, 0x04, 0x0a],
    &[0x55, 0x04, 0x0b],
    &[0x55, 0x04, 0x05],
    &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01],
];
/// The types of text of a common name.
pub const UTF8: u8 = 0x0c;
/// PrintableString.
pub const PRINTABLE: u8 = 0x13;
/// BMPString, two bytes a character.
pub const BMP: u8 = 0x1e;

/// keyUsage's first octet: what a key is for.
pub const DIGITAL_SIGNATURE: u8 = 0x80;
/// To agree on keys.
pub const KEY_AGREEMENT: u8 = 0x08;
/// To sign certificates.
pub const CERT_SIGN: u8 = 0x04;
/// To sign lists of revoked certificates.
pub const CRL_SIGN: u8 = 0x02;

/// id-kp-clientAuth.
pub const CLIENT: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
/// id-kp-serverAuth.
pub const SERVER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const EXTENDED_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const LIST_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// Makes a list one of changes, 2.5.29.27.
pub const DELTA: &[u8] = &[0x55, 0x1d, 0x1b];
/// Makes a list one of some certificates, 2.5.29.28.
pub const SCOPE: &[u8] = &[0x55, 0x1d, 0x1c];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// A day, seconds.
pub const DAY: i64 = 24 * 60 * 60;

/// One element in DER.
#[must_use]
pub fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(u8::try_from(short).unwrap()),
        long => {
            let octets: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(octets.len()).unwrap());
            out.extend(octets);
        }
    }
    out.extend(content);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, parts)
}

/// The same SEQUENCE with its length in more octets than it needs, which is BER and not DER.
#[must_use]
pub fn with_long_length(sequence: &[u8]) -> Vec<u8> {
    let (head, long) = match sequence[1] {
        short @ 0..=0x7f => (2, vec![0x81, short]),
        0x81 => (3, vec![0x82, 0, sequence[2]]),
        _ => (4, vec![0x83, 0, sequence[2], sequence[3]]),
    };
    [&sequence[..1], &long, &sequence[head..]].concat()
}

/// An Ed25519 key.
#[derive(Clone, Debug)]
pub struct Key {
    /// As PKCS #8 has it.
    pub pkcs8: Vec<u8>,
}

impl Key {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self { pkcs8: Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec() }
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.pkcs8).unwrap()
    }

    /// The public key with its algorithm.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        sequence(&[&algorithm(), &bits(self.pair().public_key().as_ref())])
    }

    /// What stands below: this, the algorithm and the signature.
    #[must_use]
    pub fn sign(&self, signed: &[u8]) -> Vec<u8> {
        sequence(&[signed, &algorithm(), &bits(self.pair().sign(signed).as_ref())])
    }
}

fn algorithm() -> Vec<u8> {
    sequence(&[&element(0x06, &[ED25519])])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    element(0x03, &[&[0], bytes])
}

/// A subject of these attributes: each by its identifier, type of text and octets.
#[must_use]
pub fn subject(attributes: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
    let set = |(oid, kind, text): &(&[u8], u8, &[u8])| {
        element(0x31, &[&sequence(&[&element(0x06, &[oid]), &element(*kind, &[text])])])
    };
    sequence(&[&attributes.iter().flat_map(set).collect::<Vec<u8>>()])
}

/// A subject of one common name.
#[must_use]
pub fn named(label: &str) -> Vec<u8> {
    subject(&[(COMMON_NAME, UTF8, label.as_bytes())])
}

/// An extension.
#[must_use]
pub fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    sequence(&[&element(0x06, &[oid]), critical, &element(0x04, &[value])])
}

/// Basic constraints: whether it is a CA.
#[must_use]
pub fn basic_constraints(is_ca: bool) -> Vec<u8> {
    let value = if is_ca { sequence(&[&[0x01, 0x01, 0xff]]) } else { sequence(&[]) };
    extension(BASIC_CONSTRAINTS, true, &value)
}

/// What the key is for.
#[must_use]
pub fn key_usage(octet: u8) -> Vec<u8> {
    let unused = u8::try_from(octet.trailing_zeros()).unwrap();
    extension(KEY_USAGE, true, &element(0x03, &[&[unused, octet]]))
}

/// What the certificate is for.
#[must_use]
pub fn extended_usage(purpose: &[u8]) -> Vec<u8> {
    extension(EXTENDED_USAGE, true, &sequence(&[&element(0x06, &[purpose])]))
}

/// Our extension with these octets.
#[must_use]
pub fn carries_octets(octets: &[u8]) -> Vec<u8> {
    extension(&OBJECT_IDENTIFIER, false, octets)
}

/// Our extension with this command.
#[must_use]
pub fn carries(command: &Command<'_>) -> Vec<u8> {
    carries_octets(certificate::encode(command, &mut vec![0; 1 << 16]).unwrap())
}

/// A certificate before it is signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The octets of its serial number.
    pub serial: Vec<u8>,
    /// The issuer's name.
    pub issuer: Vec<u8>,
    /// From when until when it is valid, seconds since 1970.
    pub valid: [i64; 2],
    /// The subject's name.
    pub subject: Vec<u8>,
    /// The public key.
    pub key: Vec<u8>,
    /// The extensions in their order.
    pub extensions: Vec<Vec<u8>>,
}

impl Draft {
    /// What is to be signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let [from, until] = self.valid.map(utc_time);
        let extensions = sequence(&[&self.extensions.concat()]);
        sequence(&[
            &element(0xa0, &[&[0x02, 0x01, 0x02]]),
            &element(0x02, &[&self.serial]),
            &algorithm(),
            &self.issuer,
            &sequence(&[&from, &until]),
            &self.subject,
            &self.key,
            &element(0xa3, &[&extensions]),
        ])
    }
}

/// Seconds since 1970 now.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn utc_time(seconds: i64) -> Vec<u8> {
    let mut text = [0; time::TEXT_BYTES_MAX];
    // Without the century.
    element(0x17, &[&time::format(seconds * 1000, &mut text)[2..]])
}

/// A serial number that nothing else of this process has.
fn next_serial() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 56);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec()
}

/// Somebody who issues certificates.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Its key.
    pub key: Key,
    /// Its name.
    pub subject: Vec<u8>,
    /// Its certificate.
    pub der: Vec<u8>,
    /// What is sent above a leaf of it: its own certificate and those above, without the highest.
    pub chain: Vec<Vec<u8>>,
    /// The number of its certificate.
    pub serial: Vec<u8>,
}

/// A client: a key and the chain of its certificates, the leaf first.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The key of the leaf.
    pub key: Key,
    /// What is sent.
    pub chain: Vec<Vec<u8>>,
    /// The number of the leaf.
    pub serial: Vec<u8>,
}

impl Issuer {
    /// A CA that nobody stands above.
    #[must_use]
    pub fn root(name: &str) -> Self {
        let key = Key::generate();
        let mut draft = draft(&named(name), &named(name), &key);
        draft.extensions = vec![basic_constraints(true), key_usage(CERT_SIGN | CRL_SIGN | DIGITAL_SIGNATURE)];
        let der = key.sign(&draft.encode());
        Self { key, subject: draft.subject, der, chain: Vec::new(), serial: draft.serial }
    }

    /// A CA below this one, which may do what the policy says at one more label.
    #[must_use]
    pub fn delegate(&self, label: &str, policy: Policy<'_>) -> Self {
        let policy = carries(&Command::Policy(PolicyCommand::Add(policy)));
        self.issuer_by(label, |draft| draft.extensions.push(policy))
    }

    /// A CA below this one that carries nothing, after `change`.
    #[must_use]
    pub fn issuer_by(&self, label: &str, change: impl FnOnce(&mut Draft)) -> Self {
        let key = Key::generate();
        let mut draft = draft(&self.subject, &named(label), &key);
        draft.extensions = vec![basic_constraints(true), key_usage(CERT_SIGN | CRL_SIGN | DIGITAL_SIGNATURE)];
        change(&mut draft);
        let der = self.key.sign(&draft.encode());
        let chain = [std::slice::from_ref(&der), &self.chain].concat();
        Self { key, subject: draft.subject, der, chain, serial: draft.serial }
    }

    /// A client with one command.
    #[must_use]
    pub fn leaf(&self, label: &str, command: Command<'_>) -> Identity {
        self.leaf_by(label, command, |_| {})
    }

    /// The same, after `change`.
    #[must_use]
    pub fn leaf_by(&self, label: &str, command: Command<'_>, change: impl FnOnce(&mut Draft)) -> Identity {
        let key = Key::generate();
        let mut draft = draft(&self.subject, &named(label), &key);
        draft.extensions =
            vec![basic_constraints(false), key_usage(DIGITAL_SIGNATURE), extended_usage(CLIENT), carries(&command)];
        change(&mut draft);
        self.identity(key, &draft.serial, self.key.sign(&draft.encode()))
    }

    /// A client with this certificate.
    #[must_use]
    pub fn identity(&self, key: Key, serial: &[u8], leaf: Vec<u8>) -> Identity {
        Identity { key, chain: [&[leaf], &self.chain[..]].concat(), serial: serial.to_vec() }
    }

    /// The certificate of a server.
    #[must_use]
    pub fn server(&self) -> Identity {
        self.server_by(|_| {})
    }

    /// The same, of a host that is called so.
    #[must_use]
    pub fn server_of(&self, host: &str) -> Identity {
        let names = sequence(&[&element(0x82, &[host.as_bytes()])]);
        self.server_by(|draft| draft.extensions.push(extension(ALTERNATIVE_NAME, false, &names)))
    }

    fn server_by(&self, change: impl FnOnce(&mut Draft)) -> Identity {
        let key = Key::generate();
        let mut draft = draft(&self.subject, &named("server"), &key);
        draft.extensions = vec![basic_constraints(false), key_usage(DIGITAL_SIGNATURE), extended_usage(SERVER)];
        change(&mut draft);
        self.identity(key, &draft.serial, self.key.sign(&draft.encode()))
    }

    /// A list of revoked certificates with these extensions.
    #[must_use]
    pub fn list_of(&self, serials: &[&[u8]], extensions: &[Vec<u8>]) -> Vec<u8> {
        let revoked_at = utc_time(now());
        let entry = |serial: &&[u8]| sequence(&[&element(0x02, &[serial]), &revoked_at]);
        let entries: Vec<u8> = serials.iter().flat_map(entry).collect();
        // A list that names nobody has no field for them.
        let entries = if entries.is_empty() { Vec::new() } else { sequence(&[&entries]) };
        let extensions = element(0xa0, &[&sequence(&[&extensions.concat()])]);
        let next = utc_time(now() + 30 * DAY);
        let signed =
            sequence(&[&[0x02, 0x01, 0x01], &algorithm(), &self.subject, &revoked_at, &next, &entries, &extensions]);
        self.key.sign(&signed)
    }

    /// A complete list of this number.
    #[must_use]
    pub fn list(&self, number: u8, serials: &[&[u8]]) -> Vec<u8> {
        self.list_of(serials, &[list_number(number)])
    }
}

/// The number of a list, below 128.
#[must_use]
pub fn list_number(number: u8) -> Vec<u8> {
    extension(LIST_NUMBER, false, &element(0x02, &[&[number]]))
}

fn draft(issuer: &[u8], subject: &[u8], key: &Key) -> Draft {
    let valid = [now() - DAY, now() + DAY];
    let (issuer, subject) = (issuer.to_vec(), subject.to_vec());
    Draft { serial: next_serial(), issuer, valid, subject, key: key.public(), extensions: Vec::new() }
}

/// The PEM form of these.
#[must_use]
pub fn pem(kind: &str, ders: &[&[u8]]) -> String {
    let mut text = String::new();
    for der in ders {
        let _ = writeln!(text, "-----BEGIN {kind}-----");
        for line in base64(der).as_bytes().chunks(64) {
            let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
        }
        let _ = writeln!(text, "-----END {kind}-----");
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let number = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
