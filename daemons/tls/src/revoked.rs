//! The lists of revoked certificates: which key has revoked what. Each list is a file as it came, so that whoever looks can read it
//! with other tools; its name has a digest of whose it is and of its bytes, so that no list is believed that is not the one that was
//! taken in. All are held in memory, and read again when another process of the TLS end has taken one in.
//!
//! While they cannot be read nobody is let in: another process may have taken in what would keep somebody out.
//!
//! A list belongs to the key that has signed it, never to a name: who calls its CA as somebody else's is called gains nothing.

mod errors;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use fulmar_core::certificate::revocation::{ListFault, Revocations};
use fulmar_core::certificate::x509::Certificate;
use fulmar_core::limits::{
    REVOCATION_BYTES_MAX, REVOCATION_BYTES_PER_DOMAIN_MAX, REVOCATION_LIST_BYTES_MAX, REVOCATION_LISTS_PER_DOMAIN_MAX,
};
use fulmar_host::folder::Folder;
use fulmar_host::{error, info, warning};
use nix::fcntl::OFlag;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

pub(crate) use self::errors::{NotTaken, RevokedError, UNREAD};
use crate::keys::Ca;

/// What the files of lists end in.
const SUFFIX: &str = ".crl";

/// The domain of lists that come from the CA itself; no label begins so.
const ROOT: &str = "-";

/// The file that a list is written to first.
const NEW: &str = "new";

/// The file that is locked by who replaces a list, and by who reads them.
const LOCK: &str = "lock";

/// Within this time two changes of a folder may have the same time.
const SAME_TIME: Duration = Duration::from_secs(2);

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Digest([u8; 32]);

/// A public key: the digest of its SubjectPublicKeyInfo.
pub(crate) type KeyId = Digest;

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of a list and of whose it is.
    fn of_list((domain, key): &Owner, der: &[u8]) -> Self {
        let whose = format!("{}_{domain}_", key.hex());
        Self(Sha256::new().chain_update(whose).chain_update(der).finalize().into())
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
    digest: Digest,
    /// Whether its file has gone since it was read.
    is_gone: bool,
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
    /// Why they could not be read the last time.
    trouble: Option<String>,
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
        let mut revoked = Self { folder, lists: HashMap::new(), read_at: None, trouble: None };
        revoked.read()?;
        Ok(revoked)
    }

    /// Whether a list names this certificate.
    pub(crate) fn names(&self, link: &Link) -> bool {
        let of_key = self.lists.iter().filter(|((_, key), _)| *key == link.issuer);
        of_key.map(|(_, list)| list).any(|list| list.serials.contains(&link.serial))
    }

    /// Whether they could be read the last time. If not, another process may know of more than is known here.
    pub(crate) fn are_read(&self) -> bool {
        self.trouble.is_none()
    }

    /// Reads the lists again where another process may have changed them. Says whether it has read them.
    pub(crate) fn refresh(&mut self) -> bool {
        let changed = changed_at(&self.folder).ok();
        if changed.is_some() && changed == self.read_at {
            return false;
        }
        // What is known stays in force. It is said once, not at each attempt.
        let trouble = self.read().err().map(|error| error.to_string());
        self.note(trouble);
        true
    }

    fn note(&mut self, trouble: Option<String>) {
        match &trouble {
            Some(error) if trouble != self.trouble => error!("{error}; until then nobody is let in"),
            None if self.trouble.is_some() => info!("the lists of revoked certificates can be read again"),
            _ => {}
        }
        if trouble.is_some() {
            self.read_at = None;
        }
        self.trouble = trouble;
    }

    /// Reads the lists while nobody replaces one: otherwise both the old and the new one could be missed.
    fn read(&mut self) -> Result<(), RevokedError> {
        let error = |error| RevokedError::File(self.folder.path_of(LOCK), error);
        let _lock = match self.folder.open_file(LOCK, OFlag::O_RDONLY, 0) {
            Ok(lock) => lock.lock_shared().map(|()| Some(lock)).map_err(error)?,
            // Nobody has ever taken in one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(other) => return Err(error(other)),
        };
        self.read_locked()
    }

    fn read_locked(&mut self) -> Result<(), RevokedError> {
        let folder_error = |error| RevokedError::Folder(self.folder.path().to_owned(), error);
        let changed = changed_at(&self.folder).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => RevokedError::Gone(self.folder.path().to_owned()),
            _ => folder_error(error),
        })?;
        let mut lists: HashMap<Owner, List> = HashMap::new();
        for name in self.folder.names().map_err(folder_error)? {
            let path = || self.folder.path_of(&name);
            let Some((owner, digest)) = parts_of(&name) else {
                // Both are in the name of every list, and one that was damaged has at least one of them.
                if name.contains('_') || name.ends_with(SUFFIX) {
                    return Err(RevokedError::Name(path()));
                }
                continue;
            };
            let bytes = self.folder.read(&name).map_err(|error| RevokedError::File(path(), error))?;
            if Digest::of_list(&owner, &bytes) != digest {
                return Err(RevokedError::Changed(path()));
            }
            let list = List::of(&bytes, digest).map_err(|fault| RevokedError::List(path(), fault))?;
            keep_newer(&mut lists, owner, list);
        }
        for (owner, mut list) in self.lists.drain() {
            let is_there = lists.get(&owner).is_some_and(|there| there.number >= list.number);
            if !is_there && !list.is_gone {
                let path = self.folder.path_of(&file_name(&owner, list.digest));
                warning!("{} is gone: what it revokes is valid again after the next start", path.display());
            }
            list.is_gone |= !is_there;
            keep_newer(&mut lists, owner, list);
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
        let new = List::of(der, Digest::of_list(&owner, der)).map_err(NotTaken::Fault)?;
        let taken = Taken { number: read.number, count: new.serials.len() };

        let disk = |error| NotTaken::Disk(self.folder.path().to_owned(), error);
        // Two processes compare numbers and write one after the other.
        let lock = self.folder.open_file(LOCK, OFlag::O_WRONLY | OFlag::O_CREAT, 0o600).map_err(disk)?;
        lock.lock().map_err(disk)?;
        let trouble = self.read_locked().err().map(|error| error.to_string());
        self.note(trouble);
        if !self.are_read() {
            return Err(NotTaken::Unread);
        }
        match self.lists.get(&owner) {
            Some(old) if old.number > new.number => return Err(NotTaken::Older(old.number)),
            Some(old) if old.number == new.number && old.digest != new.digest => {
                return Err(NotTaken::Same(old.number));
            }
            Some(old) if old.number == new.number && !old.is_gone => return Ok(taken),
            _ => {}
        }
        self.check_room(&owner, new.bytes)?;
        write_durably(&self.folder, &owner, new.digest, der)
            .map_err(|error| NotTaken::Disk(self.folder.path().to_owned(), error))?;
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
    fn of(der: &[u8], digest: Digest) -> Result<Self, ListFault> {
        let read = Revocations::read(der)?;
        let serials = read.serials().map(Box::from).collect();
        Ok(Self { number: read.number, bytes: der.len() as u64, serials, digest, is_gone: false })
    }
}

/// Of two lists of an owner the newer one counts: the older one may still be there, and what is known is never given up for it.
fn keep_newer(lists: &mut HashMap<Owner, List>, owner: Owner, list: List) {
    if lists.get(&owner).is_none_or(|other| other.number < list.number) {
        lists.insert(owner, list);
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

fn file_name((domain, key): &Owner, digest: Digest) -> String {
    format!("{}_{domain}_{}{SUFFIX}", key.hex(), digest.hex())
}

fn parts_of(name: &str) -> Option<(Owner, Digest)> {
    let (key, rest) = name.strip_suffix(SUFFIX)?.split_once('_')?;
    let (domain, digest) = rest.rsplit_once('_')?;
    Some(((domain.to_owned(), KeyId::from_hex(key)?), Digest::from_hex(digest)?))
}

/// Writes a file under another name first: it is there as a whole. Those that it replaces go when it is durable.
fn write_durably(folder: &Folder, owner: &Owner, digest: Digest, bytes: &[u8]) -> io::Result<()> {
    let mut file = folder.open_file(NEW, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, 0o640)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    folder.rename(NEW, &file_name(owner, digest))?;
    folder.sync()?;
    for name in folder.names()? {
        if parts_of(&name).is_some_and(|(other, old)| other == *owner && old != digest) {
            folder.remove(&name)?;
        }
    }
    Ok(())
}

const _: () = assert!(REVOCATION_LIST_BYTES_MAX as u64 <= REVOCATION_BYTES_PER_DOMAIN_MAX);
