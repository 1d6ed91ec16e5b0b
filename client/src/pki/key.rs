//! Private keys: Ed25519 is made, P-256, P-384 and RSA are read as well. In PKCS #8, plain or encrypted with a passphrase.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use der::asn1::AnyRef;
use der::{Decode, Encode, SliceReader};
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoOwned, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{AlgorithmIdentifier, PrivateKeyDer, PrivatePkcs8KeyDer, alg_id};
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

use super::encode;
use super::files;
use super::passphrase::PassphraseOption;
use crate::error::Failure;

/// Rounds of PBKDF2 with SHA-256 that make a key of a passphrase.
const ROUNDS: u32 = 600_000;

/// Bytes of a serial number: as random as a key, and within the 20 that there may be.
const SERIAL_BYTES: usize = 16;

/// How the keys that are known sign, and what that is called in a certificate.
const SCHEMES: [(SignatureScheme, AlgorithmIdentifier); 4] = [
    (SignatureScheme::ED25519, alg_id::ED25519),
    (SignatureScheme::ECDSA_NISTP256_SHA256, alg_id::ECDSA_SHA256),
    (SignatureScheme::ECDSA_NISTP384_SHA384, alg_id::ECDSA_SHA384),
    (SignatureScheme::RSA_PKCS1_SHA256, alg_id::RSA_PKCS1_SHA256),
];

/// The curves of keys that are known.
const CURVES: [AlgorithmIdentifier; 2] = [alg_id::ECDSA_P256, alg_id::ECDSA_P384];

/// A private key.
pub struct Key {
    private: PrivateKeyDer<'static>,
    signing: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    algorithm: Vec<u8>,
    public: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl Key {
    /// A new one, of Ed25519.
    ///
    /// # Errors
    /// [`Failure::Chance`].
    pub fn generate() -> Result<Self, Failure> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| Failure::Chance)?;
        let private = PrivatePkcs8KeyDer::from(encode::ed25519_private_key(&seed));
        Self::new(private.into()).ok_or(Failure::Chance)
    }

    /// This one, where its kind is known.
    fn new(private: PrivateKeyDer<'static>) -> Option<Self> {
        let signing = any_supported_type(&private).ok()?;
        let known = |(scheme, _): &&(SignatureScheme, AlgorithmIdentifier)| signing.choose_scheme(&[*scheme]).is_some();
        let (scheme, algorithm) = SCHEMES.iter().find(known)?;
        let public = signing.public_key()?.to_vec();
        Some(Self { scheme: *scheme, algorithm: encode::algorithm(algorithm), public, private, signing })
    }

    /// The key in a file. Where its public half is known that is handed in: the peer's keys of elliptic curves have none.
    ///
    /// # Errors
    /// [`Failure::Input`], [`Failure::Usage`].
    pub fn read(file: &Path, passphrase: &PassphraseOption, public: Option<&[u8]>) -> Result<Self, Failure> {
        let bytes = Zeroizing::new(files::read(file)?);
        let wrong = |what| files::wrong(file, what);
        let private = if let Some(der) = encrypted(&bytes) {
            let encrypted =
                EncryptedPrivateKeyInfoRef::from_der(&der).map_err(|_| wrong("is no key that can be read"))?;
            let text = format!("{}: this is not its passphrase", file.display());
            let plain = encrypted.decrypt(passphrase.of(file)?.as_bytes()).map_err(|_| Failure::Usage { text })?;
            PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into()
        } else if bytes.first() == Some(&0x30) {
            PrivateKeyDer::try_from(bytes.to_vec()).map_err(|_| wrong("has no private key"))?
        } else {
            PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| wrong("has no private key"))?
        };
        if let Some(key) = Self::new(private.clone_key()) {
            return Ok(key);
        }
        match (scalar(private.secret_der()), public) {
            (None, _) => Err(wrong(UNKNOWN)),
            (Some(_), None) => {
                Err(wrong("is an EC key without its public half ('openssl ec -in FILE -out NEW' adds it)"))
            }
            (Some((algorithm, scalar)), Some(public)) => {
                let bits = spki_bits(public).unwrap_or_default();
                let whole = PrivatePkcs8KeyDer::from(encode::ec_private_key(&algorithm, &scalar, &bits));
                Self::new(whole.into()).ok_or(wrong(UNKNOWN))
            }
        }
    }

    /// Writes it to a new file for its owner alone.
    ///
    /// # Errors
    /// [`Failure::Output`], [`Failure::Chance`].
    pub fn write(&self, file: &Path, passphrase: Option<&str>) -> Result<(), Failure> {
        let plain = self.private.secret_der();
        let text = match passphrase {
            None => files::pem("PRIVATE KEY", plain),
            Some(passphrase) => {
                files::pem("ENCRYPTED PRIVATE KEY", &encrypt(plain, passphrase).ok_or(Failure::Chance)?)
            }
        };
        files::write_secret(file, Zeroizing::new(text).as_bytes())
    }

    /// For a handshake.
    #[must_use]
    pub fn private(&self) -> PrivateKeyDer<'static> {
        self.private.clone_key()
    }

    /// Its public half: a SubjectPublicKeyInfo.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The algorithm of its signatures, as a certificate has it.
    #[must_use]
    pub fn algorithm(&self) -> &[u8] {
        &self.algorithm
    }

    /// Signs something.
    ///
    /// # Errors
    /// [`Failure::Chance`].
    pub fn sign(&self, content: &[u8]) -> Result<Vec<u8>, Failure> {
        let signer = self.signing.choose_scheme(&[self.scheme]).ok_or(Failure::Chance)?;
        signer.sign(content).map_err(|_| Failure::Chance)
    }
}

const UNKNOWN: &str = "is a key of a kind that is not known (Ed25519, P-256, P-384 and RSA are)";

/// The algorithm of a key of an elliptic curve that is known, and its scalar.
fn scalar(der: &[u8]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let info = PrivateKeyInfoRef::from_der(der).ok()?;
    let algorithm = info.algorithm.to_der().ok()?;
    let is_known = CURVES.iter().any(|curve| algorithm == encode::algorithm(curve));
    let key = AnyRef::from_der(info.private_key.as_bytes()).ok().filter(|_| is_known)?;
    let mut key = SliceReader::new(key.value()).ok()?;
    let (_version, scalar) = (AnyRef::decode(&mut key).ok()?, AnyRef::decode(&mut key).ok()?);
    Some((algorithm, Zeroizing::new(scalar.value().to_vec())))
}

/// The DER of a key that is encrypted; nothing where it is not.
fn encrypted(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (label, document) =
        der::Document::from_pem(text.get(text.find("-----BEGIN ENCRYPTED PRIVATE KEY-----")?..)?.trim()).ok()?;
    (label == "ENCRYPTED PRIVATE KEY").then(|| document.to_vec())
}

fn encrypt(plain: &[u8], passphrase: &str) -> Option<Vec<u8>> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    let random = SystemRandom::new();
    random.fill(&mut salt).and_then(|()| random.fill(&mut iv)).ok()?;
    let parameters = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ROUNDS, &salt, iv).ok()?;
    let encrypted = parameters.encrypt(passphrase.as_bytes(), plain).ok()?;
    let encrypted_data = der::asn1::OctetString::new(encrypted).ok()?;
    let encryption_algorithm = parameters.into();
    EncryptedPrivateKeyInfoOwned { encryption_algorithm, encrypted_data }.to_der().ok()
}

/// A new serial number.
///
/// # Errors
/// [`Failure::Chance`].
pub fn serial() -> Result<[u8; SERIAL_BYTES], Failure> {
    let mut serial = [0; SERIAL_BYTES];
    SystemRandom::new().fill(&mut serial).map_err(|_| Failure::Chance)?;
    let [first, ..] = &mut serial;
    // Positive, and as long as it is.
    *first = *first & 0x7f | 0x40;
    Ok(serial)
}

/// The identifier of a public key: the SHA-1 of its bits, as RFC 5280 section 4.2.1.2 has it first.
#[must_use]
pub fn identifier(public: &[u8]) -> Vec<u8> {
    let bits = spki_bits(public).unwrap_or_default();
    digest(&SHA1_FOR_LEGACY_USE_ONLY, &bits).as_ref().to_vec()
}

/// The bits of a SubjectPublicKeyInfo.
pub(crate) fn spki_bits(public: &[u8]) -> Option<Vec<u8>> {
    let info = x509_cert::spki::SubjectPublicKeyInfoRef::from_der(public).ok()?;
    Some(info.subject_public_key.raw_bytes().to_vec())
}
