//! Why the lists of revoked certificates cannot be used, and why one is not taken in.

use std::path::PathBuf;
use std::{fmt, io};

use fulmar_core::certificate::revocation::ListFault;
use fulmar_core::limits::{REVOCATION_BYTES_MAX, REVOCATION_BYTES_PER_DOMAIN_MAX, REVOCATION_LISTS_PER_DOMAIN_MAX};

/// Why the lists cannot be used.
#[derive(Debug)]
pub(crate) enum RevokedError {
    /// The folder cannot be used.
    Folder(PathBuf, io::Error),
    /// The folder was removed since it was opened.
    Gone(PathBuf),
    /// A file in it cannot be read.
    File(PathBuf, io::Error),
    /// A file in it is no list.
    List(PathBuf, ListFault),
    /// A file in it is not the list that was taken in.
    Changed(PathBuf),
    /// A file in it has a name that none was given.
    Name(PathBuf),
}

impl fmt::Display for RevokedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(path) => write!(
                f,
                "the folder of revoked certificates {} is gone: bring it back with what was in it and start vmmd_tls anew",
                path.display()
            ),
            Self::Folder(path, error) => write!(
                f,
                "the folder of revoked certificates {}: {error}: it must be there for the user of vmmd_tls, or the folder above it",
                path.display()
            ),
            Self::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::List(path, fault) => write!(f, "{}: {fault}; {REMEDY}", path.display()),
            Self::Changed(path) => write!(f, "{}: its bytes or its name have changed; {REMEDY}", path.display()),
            Self::Name(path) => write!(
                f,
                "{}: no list of revoked certificates was given this name; if it is one, {REMEDY}; if not, move it away",
                path.display()
            ),
        }
    }
}

/// What is to be done about a list that cannot be believed.
const REMEDY: &str = "without it revoked certificates would be valid again: bring it back from a copy, or remove it and have whoever \
                      has signed it send it again";

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
    /// It could not be written to this folder.
    Disk(PathBuf, io::Error),
    /// Those that are there cannot be read.
    Unread,
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
            Self::Disk(folder, error) => write!(
                f,
                "the list could not be stored in {} on the host ({error}): whoever runs it must make room there, or bring the \
                 folder back and start vmmd_tls anew",
                folder.display()
            ),
            Self::Unread => f.write_str(UNREAD),
        }
    }
}

/// What clients are told while the lists cannot be read.
pub(crate) const UNREAD: &str = "the host cannot read its lists of revoked certificates and lets nobody in: whoever runs it finds why in \
                                 the log of vmmd_tls";
