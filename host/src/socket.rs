//! Listening Unix sockets and who is on the other side. A socket appears under its name only when it is ready and has its
//! mode, and takes the place of one that nobody serves any more.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::OnceLock;

use fulmar_core::limits::DAEMON_CONNECTIONS_PER_USER_MAX;
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, geteuid};

use crate::privilege::Identity;

/// Listens at `path` with this mode, non-blocking, with the longest queue that the system allows.
///
/// # Errors
/// `AddrInUse` when somebody serves that socket, `AlreadyExists` when something else is there, or what the system says.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if is_served(path) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    match std::fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Not afterwards, by its name: root may do this in a folder of somebody else's, who could have put a link there meanwhile.
    let usual = umask(Mode::from_bits_truncate((0o777 & !mode) as _));
    let bound = UnixListener::bind(new);
    umask(usual);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    std::fs::rename(new, path)?;
    Ok(listener)
}

/// Connects without waiting; a peer whose queue is full is `WouldBlock`.
///
/// # Errors
/// What the system says: `NotFound` and `ConnectionRefused` when nobody serves it.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    connect_with(path, |socket, address| nix::sys::socket::connect(socket.as_raw_fd(), address))
}

/// The same, where something else than `connect` connects.
pub(crate) fn connect_with(
    path: &Path,
    connect: impl FnOnce(BorrowedFd<'_>, &UnixAddr) -> nix::Result<()>,
) -> io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let kind = SockType::Stream;
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    connect(fd.as_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

fn is_served(path: &Path) -> bool {
    match connect(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// The user of `vmmd_tls` where it has one of its own.
pub const TLS_USER: &str = "fulmar-tls";

/// The user of `vmmd_stats` where it has one of its own.
pub const STATS_USER: &str = "fulmar-stats";

/// Who else than root and ourselves may do what others may not. Found out once, at the start.
#[derive(Debug)]
struct Known {
    /// The user of the deciding half of `vmmd`, to whom the folder of the sockets belongs.
    vmmd: Uid,
    tls: Option<Uid>,
    stats: Option<Uid>,
}

static KNOWN: OnceLock<Known> = OnceLock::new();

/// From now on the user of `vmmd` is this one, and the other daemons are the system's users of their names, where there are any.
pub fn trust(vmmd: Uid) {
    let of = |name| Identity::of_user(name).map(|user| user.uid);
    // A second time is a test's.
    let _ = KNOWN.set(Known { vmmd, tls: of(TLS_USER), stats: of(STATS_USER) });
}

/// Who is on the other side of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its user id; one that nobody has where the system does not tell.
    pub uid: u32,
    /// Whether it is root or `vmmd`: it may say what is so.
    pub is_trusted: bool,
    /// Whether it is one of these or the TLS end, which comes for many: nothing is kept from it for the sake of others.
    pub is_for_many: bool,
    /// Whether it may measure: root, `vmmd` or the statistics daemon.
    pub may_measure: bool,
}

impl Peer {
    /// That of this connection.
    #[must_use]
    pub fn of(stream: &impl AsFd) -> Self {
        match peer_uid(stream) {
            Ok(uid) => Self::with(uid),
            Err(_) => Self { uid: u32::MAX, is_trusted: false, is_for_many: false, may_measure: false },
        }
    }

    /// The one with this user id.
    #[must_use]
    pub fn with(uid: u32) -> Self {
        let known = KNOWN.get();
        let is = |user: Option<Uid>| user.is_some_and(|user| user.as_raw() == uid);
        let vmmd = known.map_or_else(geteuid, |known| known.vmmd);
        let is_trusted = uid == 0 || is(Some(vmmd));
        Self {
            uid,
            is_trusted,
            is_for_many: is_trusted || is(known.and_then(|known| known.tls)),
            may_measure: is_trusted || is(known.and_then(|known| known.stats)),
        }
    }
}

/// Why a connection is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crowded {
    /// There are so many.
    All(usize),
    /// This user has so many.
    User(u32, usize),
}

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(count) => write!(f, "there are {count}"),
            Self::User(uid, count) => write!(f, "user {uid} has {count} already"),
        }
    }
}

impl Peer {
    /// Whether one more connection is taken, from this peer, beside these: at most `max`, and of one user who does not come for many at most
    /// [`DAEMON_CONNECTIONS_PER_USER_MAX`].
    ///
    /// # Errors
    /// [`Crowded`], as it says.
    pub fn admit(self, others: impl Iterator<Item = Self>, max: usize) -> Result<(), Crowded> {
        let (mut all, mut own) = (0_usize, 0_usize);
        for other in others {
            all += 1;
            own += usize::from(other == self);
        }
        if all >= max {
            return Err(Crowded::All(max));
        }
        if !self.is_for_many && own >= DAEMON_CONNECTIONS_PER_USER_MAX {
            return Err(Crowded::User(self.uid, own));
        }
        Ok(())
    }
}

/// The user id of the process that connected.
///
/// # Errors
/// What the system says.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn peer_uid(stream: &impl AsFd) -> io::Result<u32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

/// The user id of the process that connected.
///
/// # Errors
/// What the system says.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn peer_uid(stream: &impl AsFd) -> io::Result<u32> {
    let (uid, _) = nix::unistd::getpeereid(stream)?;
    Ok(uid.as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_user_does_not_take_all_connections() {
        let peer = |uid, is_trusted| Peer { uid, is_trusted, is_for_many: is_trusted, may_measure: is_trusted };
        let of = |uid, count| std::iter::repeat_n(peer(uid, false), count);
        let many = DAEMON_CONNECTIONS_PER_USER_MAX;
        assert_eq!(peer(7, false).admit(of(7, many - 1).chain(of(8, many)), 512), Ok(()));
        let refused = peer(7, false).admit(of(7, many), 512).unwrap_err();
        assert_eq!(refused.to_string(), format!("user 7 has {many} already"));
        assert_eq!(peer(0, true).admit(std::iter::repeat_n(peer(0, true), many), 512), Ok(()));
        assert_eq!(peer(0, true).admit(of(7, 512), 512).unwrap_err().to_string(), "there are 512");
    }

    #[test]
    fn a_socket_replaces_a_dead_one_and_never_a_live_one_or_a_file() {
        let folder = std::env::temp_dir().join(format!("fulmar-socket-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("a.sock");
        let first = listen(&path, 0o660).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(listen(&path, 0o660).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let client = connect(&path).unwrap();
        assert_eq!(peer_uid(&client).unwrap(), nix::unistd::geteuid().as_raw());
        assert!(Peer::of(&client).is_trusted && !Peer::of(&std::fs::File::open("/dev/null").unwrap()).is_trusted);
        drop(first);
        let _second = listen(&path, 0o600).unwrap();
        connect(&path).unwrap();
        let file = folder.join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(listen(&file, 0o660).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_is_reached_by_its_name_where_it_is() {
        let path = std::env::temp_dir().join(format!("fulmar-socket-in-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let folder = crate::folder::Folder::open(&path).unwrap();
        let connect = |name| folder.connect(name).map_err(|error| error.kind());
        assert_eq!(connect("a.sock").unwrap_err(), io::ErrorKind::NotFound);
        let listener = listen(&path.join("a.sock"), 0o600).unwrap();
        connect("a.sock").unwrap();
        listener.accept().unwrap();
        drop(listener);
        assert_eq!(connect("a.sock").unwrap_err(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect("../a.sock").unwrap_err(), io::ErrorKind::InvalidInput);
        std::fs::remove_dir_all(path).unwrap();
    }
}
