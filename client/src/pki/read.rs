//! What is in certificates, requests and lists of revoked certificates that somebody hands us, and whether they are signed well.

use std::path::Path;

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use fulmar_core::certificate::revocation::Revocations;
use fulmar_core::certificate::{self, x509};
use fulmar_core::wire::{Command, PolicyCommand};
use rustls::pki_types::pem::SectionKind;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::BasicConstraints;

use super::files;
use super::key::spki_bits;
use crate::error::Failure;

/// extensionRequest of PKCS #9.
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
/// id-at-commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// id-ce-basicConstraints.
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");

/// A certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cert {
    /// All of it, in DER.
    pub der: Vec<u8>,
    /// The octets of its serial number.
    pub serial: Vec<u8>,
    /// Who has signed it, in DER.
    pub issuer: Vec<u8>,
    /// Whose it is, in DER.
    pub subject: Vec<u8>,
    /// The common name of whose it is.
    pub common_name: Option<String>,
    /// Its public key, a SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    /// From when on it is valid, in seconds since 1970.
    pub not_before_unix_s: i64,
    /// Until when.
    pub not_after_unix_s: i64,
    /// Whether its key may sign certificates.
    pub is_authority: bool,
    /// The value of our extension.
    pub carries: Option<Vec<u8>>,
}

impl Cert {
    /// Reads a certificate; nothing where it is none, or one that nobody here would take.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let ours = x509::Certificate::read(der).ok()?;
        let whole = x509_cert::Certificate::from_der(der).ok()?;
        let tbs = whole.tbs_certificate();
        let constraints = tbs.extensions().into_iter().flatten().find(|it| it.extn_id == BASIC_CONSTRAINTS);
        let is_authority = constraints
            .and_then(|it| BasicConstraints::from_der(it.extn_value.as_bytes()).ok())
            .is_some_and(|constraints| constraints.ca);
        let seconds =
            |time: &x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
        Some(Self {
            der: der.to_vec(),
            serial: ours.serial.to_vec(),
            issuer: tbs.issuer().to_der().ok()?,
            subject: tbs.subject().to_der().ok()?,
            common_name: ours.common_name.map(|name| String::from_utf8_lossy(name).into_owned()),
            key: ours.key.to_vec(),
            not_before_unix_s: seconds(&tbs.validity().not_before),
            not_after_unix_s: seconds(&tbs.validity().not_after),
            is_authority: is_authority && ours.may_sign_certificates(),
            carries: ours.extension.map(<[u8]>::to_vec),
        })
    }

    /// The certificates of a file, in its order.
    ///
    /// # Errors
    /// [`Failure::Input`], [`Failure::Usage`].
    pub fn read_all(file: &Path) -> Result<Vec<Self>, Failure> {
        let blocks = files::of_kind(file, SectionKind::Certificate, "certificate")?;
        let certs = blocks.iter().map(|der| Self::parse(der)).collect::<Option<Vec<_>>>();
        certs.ok_or_else(|| files::wrong(file, "has a certificate that cannot be read"))
    }

    /// What it allows; nothing where it carries nothing or nothing that can be read.
    #[must_use]
    pub fn command(&self) -> Option<Command<'_>> {
        certificate::decode(self.carries.as_deref()?).ok()
    }

    /// The policy that it carries.
    #[must_use]
    pub fn policy(&self) -> Option<fulmar_core::wire::Policy<'_>> {
        match self.command()? {
            Command::Policy(PolicyCommand::Add(policy)) => Some(policy),
            _ => None,
        }
    }

    /// Whether it is signed with its own key.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.subject == self.issuer && is_signed_by(&self.der, &self.key)
    }

    /// What people call it.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.common_name {
            Some(name) => format!("'{}'", crate::output::text::plain(name.as_bytes())),
            None => "without a name".to_owned(),
        }
    }
}

/// A request for a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The label that it asks for; nothing for none.
    pub common_name: Option<String>,
    /// The public key, a SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    /// What it asks for: the value of our extension.
    pub carries: Vec<u8>,
}

impl Request {
    /// Reads a request, signed with the key that it is about.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, &'static str> {
        let request = x509_cert::request::CertReq::from_der(der).map_err(|_| "is no request that can be read")?;
        let key = request.info.public_key.to_der().map_err(|_| "has a key that cannot be read")?;
        if !is_signed_by(der, &key) {
            return Err("is not signed with its own key, or with one of a kind that is not known");
        }
        let mut names = Vec::new();
        for attribute in request.info.subject.iter() {
            if attribute.oid != COMMON_NAME {
                return Err("has a subject with more than a common name");
            }
            names.push(String::from_utf8(attribute.value.value().to_vec()).map_err(|_| "has a name that is no text")?);
        }
        if names.len() > 1 {
            return Err("has two common names");
        }
        let wanted = ObjectIdentifier::from_bytes(&certificate::OBJECT_IDENTIFIER);
        let wanted = wanted.map_err(|_| "cannot be compared")?;
        let mut carries = Vec::new();
        for attribute in request.info.attributes.iter().filter(|attribute| attribute.oid == EXTENSION_REQUEST) {
            for value in attribute.values.iter() {
                let extensions =
                    value.decode_as::<Vec<Extension>>().map_err(|_| "has extensions that cannot be read")?;
                carries.extend(extensions.into_iter().filter(|it| it.extn_id == wanted));
            }
        }
        match carries.as_slice() {
            [] => Err("asks for nothing: it does not carry a command"),
            [one] => {
                let carries = one.extn_value.as_bytes().to_vec();
                certificate::decode(&carries).map_err(|_| "carries a command that cannot be read")?;
                Ok(Self { common_name: names.pop(), key, carries })
            }
            _ => Err("carries two commands"),
        }
    }

    /// The request of a file.
    ///
    /// # Errors
    /// [`Failure::Input`], [`Failure::Usage`].
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let blocks = files::of_kind(file, SectionKind::Csr, "request")?;
        let [der] = blocks.as_slice() else { return Err(files::wrong(file, "has more than one request")) };
        Self::parse(der).map_err(|what| files::wrong(file, what))
    }

    /// What it asks for.
    #[must_use]
    pub fn command(&self) -> Option<Command<'_>> {
        certificate::decode(&self.carries).ok()
    }
}

/// A list of revoked certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevokedList {
    /// All of it, in DER.
    pub der: Vec<u8>,
    /// Its number.
    pub number: i64,
    /// Who has signed it, in DER.
    pub issuer: Vec<u8>,
    /// The octets of serial numbers, and when each was revoked, in seconds since 1970.
    pub revoked: Vec<(Vec<u8>, i64)>,
}

impl RevokedList {
    /// Reads a list.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let ours = Revocations::read(der).map_err(|fault| fault.to_string())?;
        let whole = x509_cert::crl::CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der)
            .map_err(|_| "cannot be read".to_owned())?;
        let times = whole.tbs_cert_list.revoked_certificates.into_iter().flatten();
        let times = times.map(|it| i64::try_from(it.revocation_date.to_unix_duration().as_secs()).unwrap_or(i64::MAX));
        let issuer = whole.tbs_cert_list.issuer.to_der().map_err(|_| "has an issuer that cannot be read".to_owned())?;
        let revoked = ours.serials().map(<[u8]>::to_vec).zip(times).collect();
        Ok(Self { der: der.to_vec(), number: ours.number, issuer, revoked })
    }

    /// The list of a file.
    ///
    /// # Errors
    /// [`Failure::Input`], [`Failure::Usage`].
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let blocks = files::of_kind(file, SectionKind::Crl, "list of revoked certificates")?;
        let [der] = blocks.as_slice() else { return Err(files::wrong(file, "has more than one list")) };
        Self::parse(der).map_err(|what| files::wrong(file, &what))
    }
}

/// Whether this certificate, request or list is signed with this key.
#[must_use]
pub fn is_signed_by(der: &[u8], public: &[u8]) -> bool {
    verify(der, public).is_some()
}

fn verify(der: &[u8], public: &[u8]) -> Option<()> {
    let outer = AnyRef::from_der(der).ok().filter(|outer| outer.tag() == Tag::Sequence)?;
    let mut inner = SliceReader::new(outer.value()).ok()?;
    let content = inner.tlv_bytes().ok()?;
    let algorithm = AnyRef::decode(&mut inner).ok().filter(|algorithm| algorithm.tag() == Tag::Sequence)?;
    let signature = BitStringRef::decode(&mut inner).ok()?;
    inner.finish().ok()?;
    let info = AnyRef::from_der(public).ok()?;
    let mut info = SliceReader::new(info.value()).ok()?;
    let kind = AnyRef::decode(&mut info).ok()?;
    let bits = spki_bits(public)?;
    // Some algorithms of signatures go with several kinds of keys.
    let fits = webpki::ALL_VERIFICATION_ALGS.iter().filter(|it| {
        it.signature_alg_id().as_ref() == algorithm.value() && it.public_key_alg_id().as_ref() == kind.value()
    });
    let signature = signature.as_bytes()?;
    fits.map(|it| it.verify_signature(&bits, content, signature)).find(Result::is_ok)?.ok()
}
