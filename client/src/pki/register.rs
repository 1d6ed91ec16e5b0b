//! The file `db` of a holder: what was issued, and what was revoked, a line each. Lines are only added.
//!
//! A line begins as the peer's tools write it, with the serial number and the common name; lines of theirs have nothing more.
//! Ours go on with the time of its end and the identifier of the key that signed, or with `revoked`, the time and that identifier.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::files;
use crate::error::Failure;
use crate::options::since;
use crate::output::text::{hex, timestamp};

/// What stands in the place of a common name where there is none.
const NAMELESS: &str = ".";

/// A certificate that was issued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issued {
    /// The octets of its serial number.
    pub serial: Vec<u8>,
    /// Its common name.
    pub name: String,
    /// Until when it is valid, in seconds since 1970; not known of the peer's.
    pub not_after_unix_s: Option<i64>,
    /// The identifier of the key that has signed it; not known of the peer's.
    pub issuer_key: Option<String>,
    /// When it was revoked.
    pub revoked_unix_s: Option<i64>,
}

/// The file.
#[derive(Debug)]
pub struct Register {
    path: PathBuf,
    /// What was issued, in its order.
    pub issued: Vec<Issued>,
}

impl Register {
    /// The file `db` in this folder; an empty one where there is none.
    ///
    /// # Errors
    /// [`Failure::Input`], [`Failure::Usage`].
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("db");
        let text = match files::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(Failure::Input { error, .. }) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(failure) => return Err(failure),
        };
        let mut register = Self { path, issued: Vec::new() };
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            if register.take(line).is_none() {
                let (file, line) = (register.path.display(), index + 1);
                let text =
                    format!("{file}: line {line} cannot be read: bring the file back from a copy, or mend that line");
                return Err(Failure::Usage { text });
            }
        }
        Ok(register)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_ascii_whitespace();
        let (serial, name) = (unhex(words.next()?)?, words.next()?);
        let seconds = |word: &str| since(word).ok().map(|unix_ms| unix_ms / 1000);
        let (third, fourth) = (words.next(), words.next());
        if third == Some("revoked") {
            let time = seconds(fourth?)?;
            match self.issued.iter_mut().find(|it| it.serial == serial) {
                Some(known) => known.revoked_unix_s = Some(time),
                None => self.issued.push(Issued {
                    serial,
                    name: name.to_owned(),
                    not_after_unix_s: None,
                    issuer_key: words.next().map(str::to_owned),
                    revoked_unix_s: Some(time),
                }),
            }
            return Some(());
        }
        let not_after_unix_s = third.map(|word| seconds(word).ok_or(())).transpose().ok()?;
        let issuer_key = fourth.map(str::to_owned);
        self.issued.push(Issued { serial, name: name.to_owned(), not_after_unix_s, issuer_key, revoked_unix_s: None });
        Some(())
    }

    /// Adds a certificate that is about to be handed out; durable when this returns.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn add(
        &self,
        serial: &[u8],
        name: Option<&str>,
        not_after_unix_s: i64,
        issuer_key: &[u8],
    ) -> Result<(), Failure> {
        let end = timestamp(not_after_unix_s.saturating_mul(1000));
        self.append(&format!("{} {} {end} {}\n", hex(serial), name.unwrap_or(NAMELESS), hex(issuer_key)))
    }

    /// Adds a revocation; durable when this returns.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn revoke(&self, serial: &[u8], name: &str, now_unix_s: i64, issuer_key: &[u8]) -> Result<(), Failure> {
        let time = timestamp(now_unix_s.saturating_mul(1000));
        self.append(&format!("{} {name} revoked {time} {}\n", hex(serial), hex(issuer_key)))
    }

    fn append(&self, line: &str) -> Result<(), Failure> {
        let failure = |error| Failure::Output { file: self.path.clone(), error };
        let mut file: File = OpenOptions::new().append(true).create(true).open(&self.path).map_err(failure)?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failure)?;
        files::sync_folder(&self.path).map_err(failure)
    }
}

/// The octets that these hexadecimal digits stand for.
#[must_use]
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2 && !text.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    };
    pairs.map(byte).collect::<Option<Vec<_>>>().filter(|octets| !octets.is_empty())
}
