//! Signing: certificates below a CA or a delegation, the CA itself, lists of revoked certificates.

use std::path::Path;

use fulmar_core::limits::CHAIN_CERTIFICATES_MAX;

use super::chain::{self, Authority, ChainFault};
use super::encode::{self, Certificate, List, Use};
use super::files;
use super::key::{Key, identifier, serial};
use super::passphrase::PassphraseOption;
use super::read::Cert;
use crate::error::Failure;

/// How far a clock may be behind ours: certificates are valid from this many seconds ago on.
pub const SKEW_S: i64 = 10;

/// Seconds of a day.
pub const DAY_S: i64 = 86_400;

/// Days that a list of revoked certificates says it is good for; nobody holds it to that, but there must be a number.
const LIST_DAYS: i64 = 3650;

/// Who signs.
#[derive(Debug)]
pub struct Issuer {
    /// The holder's certificate, then those who have signed it, without the CA's own unless it is the holder's.
    pub chain: Vec<Cert>,
    /// Its key.
    pub key: Key,
    /// What it is the authority for.
    pub authority: Authority,
}

/// What is to be signed.
#[derive(Debug)]
pub struct Grant<'a> {
    /// The subject, in DER.
    pub subject: &'a [u8],
    /// The public key, a SubjectPublicKeyInfo.
    pub key: &'a [u8],
    /// What it is for.
    pub purpose: Use,
    /// The value of our extension.
    pub carries: Option<&'a [u8]>,
    /// From when on it is valid, in seconds since 1970.
    pub not_before_unix_s: i64,
    /// Until when; never longer than its issuer is.
    pub not_after_unix_s: i64,
}

impl Issuer {
    /// The holder of a certificate, with its chain, and of its key.
    ///
    /// # Errors
    /// [`Failure::Input`], [`Failure::Usage`], [`Failure::Chain`].
    pub fn read(certificate: &Path, key: &Path, passphrase: &PassphraseOption) -> Result<Self, Failure> {
        let chain = chain::without_root(Cert::read_all(certificate)?);
        let Some(own) = chain.first() else { return Err(files::wrong(certificate, "has no certificate")) };
        let key_file = key;
        let key = Key::read(key, passphrase, Some(&own.key))?;
        if own.key != key.public() {
            let text = format!(
                "{}: is not the key of the certificate in {}: give both of the same holder",
                key_file.display(),
                certificate.display()
            );
            return Err(Failure::Usage { text });
        }
        let issuers = chain.iter().skip(1).map(Some).chain([None]);
        for (cert, issuer) in chain.iter().zip(issuers) {
            if !cert.is_authority {
                return Err(ChainFault::NoAuthority { title: cert.title() }.into());
            }
            if let Some(issuer) = issuer
                && (cert.issuer != issuer.subject || !super::read::is_signed_by(&cert.der, &issuer.key))
            {
                return Err(ChainFault::Order { title: cert.title(), next: issuer.title() }.into());
            }
        }
        let authority = chain::authority(&chain)?;
        Ok(Self { chain, key, authority })
    }

    /// The holder's certificate.
    ///
    /// # Errors
    /// Never: a chain has one.
    pub fn own(&self) -> Result<&Cert, Failure> {
        self.chain.first().ok_or(Failure::Chance)
    }

    /// Whether the holder's certificate is the CA's own, which no chain contains.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.chain.first().is_some_and(Cert::is_root)
    }

    /// Checks that this machine's clock is within the time of all certificates of the chain.
    ///
    /// # Errors
    /// [`Failure::Chain`].
    pub fn check_time(&self, now_unix_s: i64) -> Result<(), Failure> {
        Ok(self.chain.iter().try_for_each(|cert| chain::check_time(cert, now_unix_s))?)
    }

    /// Until when a certificate can be valid.
    #[must_use]
    pub fn not_after_unix_s(&self) -> i64 {
        self.chain.iter().map(|cert| cert.not_after_unix_s).min().unwrap_or(i64::MAX)
    }

    /// Signs; the certificate and those above it that are sent with it, in DER.
    ///
    /// # Errors
    /// [`Failure::Chain`] where the chain would be too long, [`Failure::Chance`].
    pub fn sign(&self, grant: &Grant<'_>) -> Result<Vec<Vec<u8>>, Failure> {
        let own = self.own()?;
        let above = if self.is_root() { &[] } else { self.chain.as_slice() };
        if above.len() >= CHAIN_CERTIFICATES_MAX {
            return Err(ChainFault::TooLong.into());
        }
        let (subject_key, issuer_key) = (identifier(grant.key), identifier(&own.key));
        let content = encode::certificate(&Certificate {
            serial: &serial()?,
            algorithm: self.key.algorithm(),
            issuer: &own.subject,
            not_before_unix_s: grant.not_before_unix_s,
            not_after_unix_s: grant.not_after_unix_s.min(self.not_after_unix_s()),
            subject: grant.subject,
            key: grant.key,
            purpose: grant.purpose,
            carries: grant.carries,
            identifiers: Some((&subject_key, &issuer_key)),
        });
        let leaf = encode::signed(&content, self.key.algorithm(), &self.key.sign(&content)?);
        Ok([leaf].into_iter().chain(above.iter().map(|cert| cert.der.clone())).collect())
    }

    /// Signs a list of revoked certificates.
    ///
    /// # Errors
    /// [`Failure::Chance`].
    pub fn sign_list(&self, number: i64, revoked: &[(Vec<u8>, i64)], now_unix_s: i64) -> Result<Vec<u8>, Failure> {
        let own = self.own()?;
        let content = encode::list(&List {
            algorithm: self.key.algorithm(),
            issuer: &own.subject,
            issuer_key: &identifier(&own.key),
            number,
            made_unix_s: now_unix_s,
            next_unix_s: now_unix_s.saturating_add(LIST_DAYS * DAY_S),
            revoked,
        });
        Ok(encode::signed(&content, self.key.algorithm(), &self.key.sign(&content)?))
    }
}

/// The certificate of a new CA, in DER.
///
/// # Errors
/// [`Failure::Chance`].
pub fn root(name: &str, key: &Key, not_before_unix_s: i64, not_after_unix_s: i64) -> Result<Vec<u8>, Failure> {
    let subject = encode::common_name(name);
    let content = encode::certificate(&Certificate {
        serial: &serial()?,
        algorithm: key.algorithm(),
        issuer: &subject,
        not_before_unix_s,
        not_after_unix_s,
        subject: &subject,
        key: key.public(),
        purpose: Use::Authority,
        carries: None,
        identifiers: None,
    });
    Ok(encode::signed(&content, key.algorithm(), &key.sign(&content)?))
}

/// Certificates as they go into a file.
#[must_use]
pub fn pem(chain: &[Vec<u8>]) -> String {
    chain.iter().map(|der| files::pem("CERTIFICATE", der)).collect()
}
