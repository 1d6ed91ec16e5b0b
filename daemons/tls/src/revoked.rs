//! The lists of revoked certificates: which key has revoked what. Each list is a file as it came, so that whoever looks can read it
//! with other tools; all are held in memory, and read again when another process of the TLS end has taken one in.
//!
//! A list belongs to the key that has signed it, never to a name: who calls its CA as somebody else's is called gains nothing.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fulmar_core::certificate::revocation::{ListFault, Revocations};
use fulmar_core::certificate::x509::Certificate;
use fulmar_core::limits::{
    REVOCATION_BYTES_MAX, REVOCATION_BYTES_PER_DOMAIN_MAX, REVOCATION_LIST_BYTES_MAX, REVOCATION_LISTS_PER_DOMAIN_MAX,
};
use fulmar_host::error;
use fulmar_host::folder::Folder;
use nix::fcntl::OFlag;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::keys::Ca;

/// What the files of lists end in.
const SUFFIX: &str = ".crl";

/// The domain of lists that come from the CA itself; no label begins so.
const ROOT: &str = "-";

/// The file that a list is written to first.
const NEW: &str = "new";

/// Within this time two changes of a folder may have the same time.
const SAME_TIME: Duration = Duration::from_secs(2);

/// A public key: the SHA-256 of its SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct KeyId([u8; 32]);

impl KeyId {
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn hex(self) -> String {
        hex(&self.0)
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// A number, or a digest, as people and file names have it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate as a list names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    /// The key that has signed it.
    pub(crate) issuer: KeyId,
    /// Its serial number.
    pub(crate) serial: Box<[u8]>,
}

/// A list in memory.
#[derive(Debug)]
struct List {
    number: i64,
    bytes: u64,
    serials: HashSet<Box<[u8]>>,
}

/// Whose list it is: of a domain, which it counts for, and of a key.
type Owner = (String, KeyId);

/// All lists.
#[derive(Debug)]
pub(crate) struct Revoked {
    folder: Folder,
    lists: HashMap<Owner, List>,
    /// When the folder was last changed before it was read; nothing where it is to be read again in any case.
    read_at: Option<SystemTime>,
}

/// Why the lists cannot be used.
#[derive(Debug)]
pub(crate) enum RevokedError {
    /// The folder cannot be used.
    Folder(PathBuf, io::Error),
    /// A file in it cannot be read.
    File(PathBuf, io::Error),
    /// A file in it is no list.
    List(PathBuf, ListFault),
}

impl fmt::Display for RevokedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path, error) => write!(f, "the folder of revoked certificates {}: {error}", path.display()),
            Self::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::List(path, fault) => {
                write!(
                    f,
                    "{}: {fault}; without it revoked certificates would be valid again: bring it back",
                    path.display()
                )
            }
        }
    }
}

/// Why a list is not taken in; the client is told.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// It cannot be read, or is no complete list.
    Fault(ListFault),
    /// It is not signed by the key that has signed the client's certificate, or is none for other reasons.
    Signature(webpki::Error),
    /// It names the certificate that it came with.
    Itself,
    /// There is a later one, of this number.
    Older(i64),
    /// There is another one of this number.
    Same(i64),
    /// There are too many of this domain, or too many bytes of them.
    Domain,
    /// There are too many in all.
    Full,
    /// It could not be written.
    Disk(io::Error),
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Signature(
                webpki::Error::UnknownRevocationStatus | webpki::Error::InvalidCrlSignatureForPublicKey,
            ) => f.write_str("the list is not signed by the key that has signed this certificate"),
            Self::Signature(webpki::Error::IssuerNotCrlSigner) => {
                f.write_str("the certificate of the list's signer does not allow it to sign lists (key usage cRLSign)")
            }
            Self::Signature(error) => write!(f, "the list is refused: {error}"),
            Self::Itself => f.write_str("the list names the certificate that it came with"),
            Self::Older(number) => {
                write!(f, "there is a newer list, number {number}: a list must have a higher number")
            }
            Self::Same(number) => {
                write!(f, "there is another list with the number {number}: a changed list must have a higher number")
            }
            Self::Domain => write!(
                f,
                "this domain has {REVOCATION_LISTS_PER_DOMAIN_MAX} lists or {} MB of them already",
                REVOCATION_BYTES_PER_DOMAIN_MAX >> 20
            ),
            Self::Full => write!(f, "this host has {} MB of lists already", REVOCATION_BYTES_MAX >> 20),
            Self::Disk(error) => write!(f, "the list could not be stored: {error}"),
        }
    }
}

/// A list that was taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) number: i64,
    pub(crate) count: usize,
}

impl Revoked {
    /// Reads the lists of a folder, which is made where it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, RevokedError> {
        let made = match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        let folder = made.and_then(|()| Folder::open(path));
        let folder = folder.map_err(|error| RevokedError::Folder(path.to_owned(), error))?;
        let mut revoked = Self { folder, lists: HashMap::new(), read_at: None };
        revoked.read()?;
        Ok(revoked)
    }

    /// Whether a list names this certificate.
    pub(crate) fn names(&self, link: &Link) -> bool {
        let of_key = self.lists.iter().filter(|((_, key), _)| *key == link.issuer);
        of_key.map(|(_, list)| list).any(|list| list.serials.contains(&link.serial))
    }

    /// Reads the lists again where another process may have changed them. Says whether it has read them.
    pub(crate) fn refresh(&mut self) -> bool {
        let changed = changed_at(&self.folder).ok();
        if changed.is_some() && changed == self.read_at {
            return false;
        }
        if let Err(error) = self.read() {
            // What is known stays in force.
            error!("{error}");
        }
        true
    }

    fn read(&mut self) -> Result<(), RevokedError> {
        let folder_error = |error| RevokedError::Folder(self.folder.path().to_owned(), error);
        let changed = changed_at(&self.folder).map_err(folder_error)?;
        let mut lists = HashMap::new();
        for name in self.folder.names().map_err(folder_error)? {
            let Some(owner) = owner_of(&name) else { continue };
            let path = || self.folder.path_of(&name);
            let bytes = self.folder.read(&name).map_err(|error| RevokedError::File(path(), error))?;
            let list = List::of(&bytes).map_err(|fault| RevokedError::List(path(), fault))?;
            lists.insert(owner, list);
        }
        self.lists = lists;
        let is_settled = changed.elapsed().is_ok_and(|elapsed| elapsed > SAME_TIME);
        self.read_at = is_settled.then_some(changed);
        Ok(())
    }

    /// Takes in a list that came with a chain whose path begins with this domain; it is durable then.
    ///
    /// # Errors
    /// [`NotTaken`], and then nothing has changed.
    pub(crate) fn take(
        &mut self,
        der: &[u8],
        domain: Option<&str>,
        ca: &Ca,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
    ) -> Result<Taken, NotTaken> {
        let read = Revocations::read(der).map_err(NotTaken::Fault)?;
        check_signature(der, ca, leaf, above)?;
        let issuer = match above.first() {
            Some(issuer) => Certificate::read(issuer).map(|it| KeyId::of(it.key)),
            None => Ok(ca.key),
        };
        // It was read before, by the judge of the chain.
        let Ok(issuer) = issuer else { return Err(NotTaken::Signature(webpki::Error::BadDer)) };
        let owner = (domain.unwrap_or(ROOT).to_owned(), issuer);
        let new = List::of(der).map_err(NotTaken::Fault)?;
        let taken = Taken { number: read.number, count: new.serials.len() };

        // Two processes compare numbers and write one after the other.
        let lock = self.folder.open_file("lock", OFlag::O_WRONLY | OFlag::O_CREAT, 0o600).map_err(NotTaken::Disk)?;
        lock.lock().map_err(NotTaken::Disk)?;
        self.read_at = None;
        self.refresh();
        let name = file_name(&owner);
        if let Some(old) = self.lists.get(&owner) {
            if old.number > new.number {
                return Err(NotTaken::Older(old.number));
            }
            if old.number == new.number {
                let is_same = self.folder.read(&name).is_ok_and(|bytes| bytes == der);
                return if is_same { Ok(taken) } else { Err(NotTaken::Same(old.number)) };
            }
        }
        self.check_room(&owner, new.bytes)?;
        write_durably(&self.folder, &name, der).map_err(NotTaken::Disk)?;
        self.lists.insert(owner, new);
        Ok(taken)
    }

    /// Whether there is room for a list of so many bytes in the place of the one that is there. The CA has always room.
    fn check_room(&self, owner: &Owner, bytes: u64) -> Result<(), NotTaken> {
        let others = || self.lists.iter().filter(|(other, _)| *other != owner);
        let all: u64 = others().map(|(_, list)| list.bytes).sum();
        if owner.0 == ROOT {
            return Ok(());
        }
        if all + bytes > REVOCATION_BYTES_MAX {
            return Err(NotTaken::Full);
        }
        let own = || others().filter(|((domain, _), _)| *domain == owner.0);
        let own_bytes: u64 = own().map(|(_, list)| list.bytes).sum();
        if own().count() >= REVOCATION_LISTS_PER_DOMAIN_MAX || own_bytes + bytes > REVOCATION_BYTES_PER_DOMAIN_MAX {
            return Err(NotTaken::Domain);
        }
        Ok(())
    }
}

impl List {
    fn of(der: &[u8]) -> Result<Self, ListFault> {
        let read = Revocations::read(der)?;
        let serials = read.serials().map(Box::from).collect();
        Ok(Self { number: read.number, bytes: der.len() as u64, serials })
    }
}

/// Whether the list is signed by the key that has signed the leaf, which it does not name. The library asks it for the leaf and
/// takes only what its issuer has signed; that it has an answer is the proof.
fn check_signature(
    der: &[u8],
    ca: &Ca,
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
) -> Result<(), NotTaken> {
    let list = CertRevocationList::from(BorrowedCertRevocationList::from_der(der).map_err(NotTaken::Signature)?);
    let lists = [&list];
    let Ok(options) = RevocationOptionsBuilder::new(&lists) else {
        return Err(NotTaken::Signature(webpki::Error::BadDer));
    };
    let options = options.with_depth(RevocationCheckDepth::EndEntity).with_status_policy(UnknownStatusPolicy::Deny);
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let anchors = [ca.anchor.clone()];
    let end = EndEntityCert::try_from(leaf).map_err(NotTaken::Signature)?;
    let usage = KeyUsage::client_auth();
    let now = UnixTime::now();
    match end.verify_for_usage(algorithms.all, &anchors, above, now, usage, Some(options.build()), None) {
        Ok(_) => Ok(()),
        Err(webpki::Error::CertRevoked) => Err(NotTaken::Itself),
        Err(error) => Err(NotTaken::Signature(error)),
    }
}

fn changed_at(folder: &Folder) -> io::Result<SystemTime> {
    folder.metadata()?.modified()
}

fn file_name((domain, key): &Owner) -> String {
    format!("{}_{domain}{SUFFIX}", key.hex())
}

fn owner_of(name: &str) -> Option<Owner> {
    let (key, domain) = name.strip_suffix(SUFFIX)?.split_once('_')?;
    Some((domain.to_owned(), KeyId::from_hex(key)?))
}

/// Writes a file under another name first: it is there as a whole, or the one before it.
fn write_durably(folder: &Folder, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = folder.open_file(NEW, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, 0o640)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    folder.rename(NEW, name)?;
    folder.sync()
}

const _: () = assert!(REVOCATION_LIST_BYTES_MAX as u64 <= REVOCATION_BYTES_PER_DOMAIN_MAX);
