//! The files of the CA and of the server, read at the start and again when a signal asks for it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fulmar_core::certificate::x509::{Certificate, Unreadable};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{DistinguishedName, ServerConfig, sign};

use crate::revoked::KeyId;
use crate::verdict::Verifier;

/// Where the files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Paths {
    /// The certificate of the CA.
    pub(crate) ca: PathBuf,
    /// The chain of the server, its own certificate first.
    pub(crate) certificate: PathBuf,
    /// The server's key.
    pub(crate) key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug)]
pub(crate) enum KeysError {
    /// It cannot be read, or is no PEM of what it is for.
    Pem(PathBuf, &'static str, pem::Error),
    /// There is not exactly one certificate of a CA.
    CaCount(PathBuf, usize),
    /// The certificate of the CA is none.
    Ca(PathBuf, Unreadable),
    /// The certificate of the CA cannot be trusted.
    Anchor(PathBuf, webpki::Error),
    /// There is no certificate of the server.
    NoCertificate(PathBuf),
    /// The key is of a kind that is not known.
    Key(PathBuf, rustls::Error),
    /// The key is not that of the certificate.
    Mismatch(PathBuf, PathBuf),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(path, what, pem::Error::Io(error)) => write!(f, "cannot read {what} {}: {error}", path.display()),
            Self::Pem(path, what, error) => write!(f, "{}: no {what} in PEM: {error:?}", path.display()),
            Self::CaCount(path, count) => {
                write!(f, "{}: exactly one certificate of a CA is needed, there are {count}", path.display())
            }
            Self::Ca(path, error) => write!(f, "{}: no certificate of a CA: {error}", path.display()),
            Self::Anchor(path, error) => write!(f, "{}: no certificate of a CA: {error}", path.display()),
            Self::NoCertificate(path) => write!(f, "{}: there is no certificate of the server", path.display()),
            Self::Key(path, error) => write!(f, "{}: this key cannot be used: {error}", path.display()),
            Self::Mismatch(key, certificate) => {
                write!(f, "{} is not the key of the certificate {}", key.display(), certificate.display())
            }
        }
    }
}

impl std::error::Error for KeysError {}

/// The CA that clients' certificates come from.
#[derive(Debug)]
pub(crate) struct Ca {
    /// What chains end in.
    pub(crate) anchor: TrustAnchor<'static>,
    /// Its key.
    pub(crate) key: KeyId,
    /// Its name, of which clients are told.
    pub(crate) hints: [DistinguishedName; 1],
}

/// Everything that was in the files.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) ca: Arc<Ca>,
    provider: Arc<CryptoProvider>,
    server: Arc<sign::SingleCertAndKey>,
}

impl Keys {
    /// Reads the files.
    pub(crate) fn read(paths: &Paths) -> Result<Self, KeysError> {
        let mut authorities = certificates(&paths.ca, "certificate of the CA")?;
        let count = authorities.len();
        let (Some(ca), 1) = (authorities.pop(), count) else { return Err(KeysError::CaCount(paths.ca.clone(), count)) };
        let read = Certificate::read(&ca).map_err(|error| KeysError::Ca(paths.ca.clone(), error))?;
        let key = KeyId::of(read.key);
        let anchor = webpki::anchor_from_trusted_cert(&ca);
        let anchor = anchor.map_err(|error| KeysError::Anchor(paths.ca.clone(), error))?.to_owned();
        let hints = [DistinguishedName::in_sequence(&anchor.subject)];

        let chain = certificates(&paths.certificate, "certificate of the server")?;
        if chain.is_empty() {
            return Err(KeysError::NoCertificate(paths.certificate.clone()));
        }
        let private = PrivateKeyDer::from_pem_file(&paths.key);
        let private = private.map_err(|error| KeysError::Pem(paths.key.clone(), "private key", error))?;
        let provider = Arc::new(ring::default_provider());
        let certified = sign::CertifiedKey::from_der(chain, private, &provider);
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => KeysError::Mismatch(paths.key.clone(), paths.certificate.clone()),
            error => KeysError::Key(paths.key.clone(), error),
        })?;
        let server = Arc::new(sign::SingleCertAndKey::from(certified));
        Ok(Self { ca: Arc::new(Ca { anchor, key, hints }), provider, server })
    }

    /// How one connection is served: TLS 1.3 alone, no resumption, no early data. The verifier is that of this connection.
    pub(crate) fn config(&self, verifier: Arc<Verifier>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_protocol_versions(&[&TLS13])?.with_client_cert_verifier(verifier);
        let mut config = builder.with_cert_resolver(Arc::<sign::SingleCertAndKey>::clone(&self.server));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, KeysError> {
    let refused = |error| KeysError::Pem(path.to_owned(), what, error);
    CertificateDer::pem_file_iter(path).map_err(refused)?.collect::<Result<_, _>>().map_err(refused)
}
