//! The files of the CA and of the server, read at the start and again when a signal asks for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use fulmar_core::certificate::x509::{Certificate, Unreadable};
use fulmar_host::reread::{self, Reread};
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

/// The files, to be read now and later.
#[derive(Debug)]
pub(crate) struct Files {
    ca: Reread,
    certificate: Reread,
    key: Reread,
}

/// What is in them.
const CA: &str = "certificate of the CA";
const CERTIFICATE: &str = "certificate of the server";
const KEY: &str = "private key";

impl Files {
    /// Those of these paths.
    pub(crate) fn of(paths: &Paths) -> Result<Self, KeysError> {
        let file = |path: &Path, what| Reread::new(path).map_err(|error| KeysError::Read(path.to_owned(), what, error));
        Ok(Self {
            ca: file(&paths.ca, CA)?,
            certificate: file(&paths.certificate, CERTIFICATE)?,
            key: file(&paths.key, KEY)?,
        })
    }

    /// Where they are read again.
    #[cfg(target_os = "linux")]
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        [&self.ca, &self.certificate, &self.key].into_iter().flat_map(Reread::folders).collect()
    }

    /// What will not be read again, in words.
    pub(crate) fn doubts(&self) -> impl Iterator<Item = String> {
        let lost = [&self.ca, &self.certificate, &self.key].into_iter().filter(|file| file.will_be_lost());
        lost.map(|file| {
            format!(
                "{} is a link out of its folder: after SIGHUP it could not be followed in capability mode; when it has \
                 changed, start vmmd_tls anew, or name the file itself",
                file.path().display()
            )
        })
    }
}

/// Why the files cannot be used.
#[derive(Debug)]
pub(crate) enum KeysError {
    /// It cannot be read.
    Read(PathBuf, &'static str, io::Error),
    /// It is no PEM of what it is for.
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

impl KeysError {
    /// What to do about it where the files were read before, in words.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Read(_, _, error) if cfg!(target_os = "linux") && error.kind() == io::ErrorKind::PermissionDenied => {
                "; where it has come to lie in another folder than at the start, start vmmd_tls anew"
            }
            _ => "",
        }
    }
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, what, error) if reread::leads_out(error) => write!(
                f,
                "{what} {} is a link out of its folder, which cannot be followed in capability mode: start vmmd_tls anew \
                 to have it read, or name the file itself",
                path.display()
            ),
            Self::Read(path, what, error) => write!(f, "cannot read {what} {}: {error}", path.display()),
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
    pub(crate) fn read(files: &Files) -> Result<Self, KeysError> {
        let mut authorities = certificates(&files.ca, CA)?;
        let count = authorities.len();
        let path = |file: &Reread| file.path().to_owned();
        let (Some(ca), 1) = (authorities.pop(), count) else {
            return Err(KeysError::CaCount(path(&files.ca), count));
        };
        let read = Certificate::read(&ca).map_err(|error| KeysError::Ca(path(&files.ca), error))?;
        let key = KeyId::of(read.key);
        let anchor = webpki::anchor_from_trusted_cert(&ca);
        let anchor = anchor.map_err(|error| KeysError::Anchor(path(&files.ca), error))?.to_owned();
        let hints = [DistinguishedName::in_sequence(&anchor.subject)];

        let chain = certificates(&files.certificate, CERTIFICATE)?;
        if chain.is_empty() {
            return Err(KeysError::NoCertificate(path(&files.certificate)));
        }
        let private = PrivateKeyDer::from_pem_slice(&read_file(&files.key, KEY)?);
        let private = private.map_err(|error| KeysError::Pem(path(&files.key), KEY, error))?;
        let provider = Arc::new(ring::default_provider());
        let certified = sign::CertifiedKey::from_der(chain, private, &provider);
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => KeysError::Mismatch(path(&files.key), path(&files.certificate)),
            error => KeysError::Key(path(&files.key), error),
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

fn certificates(file: &Reread, what: &'static str) -> Result<Vec<CertificateDer<'static>>, KeysError> {
    let bytes = read_file(file, what)?;
    let found: Result<_, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    found.map_err(|error| KeysError::Pem(file.path().to_owned(), what, error))
}

fn read_file(file: &Reread, what: &'static str) -> Result<Vec<u8>, KeysError> {
    file.read().map_err(|error| KeysError::Read(file.path().to_owned(), what, error))
}
