//! How a daemon begins that needs no privilege: it becomes the user whose sockets it makes, is the only one of its kind, and listens.
//! What it serves is its own business.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid};

use crate::check::{Findings, NoSocket, check_socket};
use crate::folder::Folder;
use crate::privilege::{self, Identity};
use crate::renounce::{self, NotRenounced};
use crate::service::{self, Door, Service, ServiceError};
use crate::{files, log, signals, socket, warning};

/// Mode of a daemon's socket: its user and its group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Why nothing is served.
#[derive(Debug)]
pub enum BeginError {
    /// A folder that must be there is not; the option that names it.
    NoFolder(PathBuf, &'static str),
    /// Root's privileges cannot be given up.
    Privilege(Identity, Errno),
    /// What this process was started with cannot be given up.
    Renounce(NotRenounced),
    /// The lock file cannot be used.
    Lock(PathBuf, io::Error),
    /// Another one serves this folder.
    Running {
        /// Its name.
        program: &'static str,
        /// The lock that it holds.
        lock: PathBuf,
        /// The option that names the folder.
        option: &'static str,
    },
    /// The socket cannot be made.
    Listen(PathBuf, io::Error),
    /// There is no place for the socket.
    NoSocket(NoSocket),
    /// Who started it asks for what cannot be.
    Service(ServiceError),
    /// The event loop cannot be set up or has failed.
    Loop(io::Error),
    /// The process cannot be confined.
    Confine(Errno),
    /// Confined, it would not reach the log that it was told to write to.
    ConfinedLog,
}

impl fmt::Display for BeginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolder(path, option) => {
                write!(f, "there is no folder {}: make it, or choose another {option}", path.display())
            }
            Self::Privilege(user, error) => {
                write!(f, "cannot become {user}: {error}; see user in the settings, or else who owns the folder util")
            }
            Self::Renounce(error) => error.fmt(f),
            Self::Lock(path, error) => {
                let user = Uid::effective();
                write!(f, "cannot lock {}: {error}; user {user} must be able to write to it", path.display())
            }
            Self::Running { program, lock, option } => write!(
                f,
                "another {program} serves this folder (it holds {}): stop it first, or choose another {option}",
                lock.display()
            ),
            Self::Listen(path, error) => write!(f, "cannot listen on {}: {error}", path.display()),
            Self::NoSocket(error) => error.fmt(f),
            Self::Service(error) => error.fmt(f),
            Self::Loop(error) => write!(f, "the event loop failed: {error}"),
            Self::ConfinedLog => f.write_str(
                "in capability mode there is no way to syslog: take --log stderr, which daemon(8) gives to syslog",
            ),
            Self::Confine(error) => {
                write!(f, "cannot enter capability mode: {error}; build a kernel with CAPABILITY_MODE")
            }
        }
    }
}

impl std::error::Error for BeginError {}

impl From<ServiceError> for BeginError {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

/// What a daemon that serves on a Unix socket is started with.
#[derive(Debug)]
pub struct Start {
    /// Has something to read when it is enough.
    pub signals: UnixStream,
    /// Who started it, and is told how it goes.
    pub service: Service,
    /// Where clients connect, if that was handed over.
    pub handed_over: Option<OwnedFd>,
}

impl Start {
    /// Takes it. From here on a signal ends the daemon in order: whoever sees its socket may send one.
    ///
    /// # Errors
    /// [`BeginError::Loop`] and [`BeginError::Service`].
    pub fn take() -> Result<Self, BeginError> {
        let signals = signals::catch(&signals::ENDS).map_err(BeginError::Loop)?;
        Ok(Self { signals, service: Service::find()?, handed_over: service::handed_over(Door::Unix)? })
    }
}

/// Sees to it that this folder, which `option` names, is there.
///
/// # Errors
/// [`BeginError::NoFolder`].
pub fn expect_folder(folder: &Path, option: &'static str) -> Result<(), BeginError> {
    if folder.is_dir() { Ok(()) } else { Err(BeginError::NoFolder(folder.to_owned(), option)) }
}

/// Who a daemon is to be, on its way down from root.
#[derive(Debug)]
#[must_use]
pub struct Descent {
    user: Identity,
    /// Whether it may change what is in the folder of the sockets, so that it need not do so as root.
    owns_folder: bool,
}

/// Who a daemon becomes that is started by root: the user that its settings name, or the system's user of this name, or else the one that
/// the folder of the sockets belongs to, which is the deciding half of `vmmd`. In a group of its own it could not be reached by that
/// half: the group is that of the folder. From here on files have that group.
///
/// # Errors
/// [`BeginError::NoFolder`], [`BeginError::Privilege`] and [`BeginError::Renounce`].
pub fn descend(util: &Path, named: Option<Identity>, system_user: &str) -> Result<Descent, BeginError> {
    let Ok(found) = util.metadata() else { return Err(BeginError::NoFolder(util.to_owned(), "--run")) };
    let owner = Identity { uid: Uid::from_raw(found.uid()), gid: Gid::from_raw(found.gid()) };
    socket::trust(owner.uid);
    renounce::limit_to_none().map_err(BeginError::Renounce)?;
    let user = match named.or_else(|| Identity::of_user(system_user)) {
        // A folder of root's is one of tests.
        Some(own) if !owner.uid.is_root() => Identity { uid: own.uid, gid: owner.gid },
        _ => owner,
    };
    let can = !user.uid.is_root() && privilege::can_become(user.uid.as_raw(), user.gid.as_raw(), 1);
    let user = if can { user } else { Identity::current() };
    if user.uid.is_root() && privilege::can_become(1, 1, 1) {
        warning!(
            "this runs as root, which it need not: {} is root's. It is given to the user of vmmd when that starts; start it first",
            util.display()
        );
    }
    let owns_folder = user.uid == owner.uid;
    let joined = if can && !owns_folder { privilege::join(user.gid) } else { Ok(()) };
    joined.map_err(|error| BeginError::Privilege(user, error))?;
    let descent = Descent { user, owns_folder };
    if owns_folder {
        descent.assume()?;
    }
    Ok(descent)
}

impl Descent {
    /// Becomes that user for good, and keeps no capability and no environment. Called while there is one thread.
    ///
    /// # Errors
    /// [`BeginError::Privilege`] and [`BeginError::Renounce`].
    pub fn finish(self) -> Result<(), BeginError> {
        self.assume()?;
        renounce::renounce().map_err(BeginError::Renounce)
    }

    /// Whether a socket has to be made now, since the user to become may make none.
    #[must_use]
    pub fn is_last_chance(&self) -> bool {
        !self.owns_folder
    }

    fn assume(&self) -> Result<(), BeginError> {
        if self.user == Identity::current() {
            return Ok(());
        }
        self.user.assume().map_err(|error| BeginError::Privilege(self.user, error))
    }

    /// Takes the lock of `program`, as `lock` does, and gives it to that user. Who hands a socket over sees to it that one serves it:
    /// then there is none where that user may make no file.
    ///
    /// # Errors
    /// [`BeginError::Lock`] and [`BeginError::Running`].
    pub fn lock(
        &self,
        program: &'static str,
        path: &Path,
        option: &'static str,
        handed_over: Option<&OwnedFd>,
    ) -> Result<Option<File>, BeginError> {
        let file = match lock(program, path, option) {
            Err(BeginError::Lock(_, error))
                if handed_over.is_some() && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                return Ok(None);
            }
            taken => taken?,
        };
        if Uid::effective().is_root() && self.user.uid != Uid::effective() {
            let given = fchown(&file, Some(self.user.uid.as_raw()), Some(self.user.gid.as_raw()));
            given.map_err(|error| BeginError::Lock(path.to_owned(), error))?;
        }
        Ok(Some(file))
    }

    /// Makes a folder that nobody but this user looks into.
    ///
    /// # Errors
    /// The operating system's, and `PermissionDenied` where it belongs to somebody else.
    pub fn make_own(&self, folder: &Path) -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let me = Uid::effective();
        if !me.is_root() || self.owns_folder {
            return Ok(());
        }
        // Not by way of a link: the owner of the folder above may have put it there.
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        let opened = File::options().read(true).custom_flags(flags).open(folder)?;
        match opened.metadata()?.uid() {
            uid if uid == self.user.uid.as_raw() => Ok(()),
            // Just made.
            0 => fchown(&opened, Some(self.user.uid.as_raw()), Some(self.user.gid.as_raw())),
            uid => {
                let text = format!("it belongs to user {uid}: give it, with all in it, to user {}", self.user.uid);
                Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
            }
        }
    }
}

/// Takes the lock of `program` in a folder that `option` names. It is held as long as the file is open. The file stays: removing it
/// would let two programs lock two files of one name.
///
/// # Errors
/// [`BeginError::Lock`] and [`BeginError::Running`].
fn lock(program: &'static str, path: &Path, option: &'static str) -> Result<File, BeginError> {
    // Root may do this in a folder of somebody else's, who could put a link there.
    let flags = OFlag::O_NOFOLLOW.bits();
    let opened = File::options().create(true).truncate(false).write(true).mode(0o600).custom_flags(flags).open(path);
    let file = opened.map_err(|error| BeginError::Lock(path.to_owned(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BeginError::Running { program, lock: path.to_owned(), option }),
        Err(TryLockError::Error(error)) => Err(BeginError::Lock(path.to_owned(), error)),
    }
}

/// Raises the limit of open files as far as it goes, and says where that may not be enough.
pub fn raise_files(needed: u64) {
    // Where this fails, what needs another file is refused when the usual limit is reached.
    let _ = files::raise_limit();
    if let Some(text) = files::too_few(needed) {
        warning!("{text}");
    }
}

/// The socket that was made here: it goes with this.
#[derive(Debug)]
pub struct Made(Folder, String);

impl Drop for Made {
    fn drop(&mut self) {
        // Whoever holds the lock made the socket, so it is ours; one that cannot be removed is replaced at the next start.
        let Self(folder, name) = self;
        let _ = folder.remove(name);
    }
}

/// Listens there, or on what was handed over: that belongs to who did so, and stays.
///
/// # Errors
/// [`BeginError::Listen`] and [`BeginError::NoSocket`].
pub fn listen(path: &Path, handed_over: Option<OwnedFd>) -> Result<(UnixListener, Option<Made>), BeginError> {
    if let Some(socket) = handed_over {
        let listener = UnixListener::from(socket);
        service::expect_place(&listener, path);
        return Ok((listener, None));
    }
    check_socket(path).map_err(BeginError::NoSocket)?;
    let failed = |error| BeginError::Listen(path.to_owned(), error);
    let listener = socket::listen(path, SOCKET_MODE).map_err(failed)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    let folder = Folder::open(folder).map_err(failed)?;
    Ok((listener, Some(Made(folder, name.to_owned()))))
}

/// What `--check` looks at for each of these daemons; whether the folder of the sockets can be used, by who this process is afterwards.
pub fn check(
    run: &Path,
    socket: &str,
    (user, system_user): (Option<Identity>, &str),
    files_needed: u64,
    findings: &mut Findings,
) -> bool {
    let util = run.join("util");
    let descent = findings.expect(descend(&util, user, system_user));
    // What is made there is made before the user is changed.
    if descent.is_some() {
        findings.check_writable(&util);
    }
    let could = descent.and_then(|descent| findings.expect(descent.finish())).is_some();
    findings.check_socket(&util.join(socket));
    let _ = files::raise_limit();
    if let Some(text) = files::too_few(files_needed) {
        findings.doubt(text);
    }
    could
}

/// Gives up every way to anything that is not open now. Called when all is, before the first client is heard.
///
/// # Errors
/// [`BeginError::Confine`] and [`BeginError::ConfinedLog`].
pub fn confine() -> Result<(), BeginError> {
    // Its daemon is looked up for each line, by a path.
    if cfg!(target_os = "freebsd") && log::is_to_syslog() {
        return Err(BeginError::ConfinedLog);
    }
    privilege::confine().map_err(BeginError::Confine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_in_a_folder_that_is_there() {
        let folder = std::env::temp_dir().join(format!("fulmar-daemon-{}", std::process::id()));
        let missing = expect_folder(&folder, "--state").unwrap_err().to_string();
        assert!(missing.contains("there is no folder") && missing.ends_with("choose another --state"), "{missing}");
        assert!(matches!(descend(&folder, None, "no user"), Err(BeginError::NoFolder(_, "--run"))));
        std::fs::create_dir(&folder).unwrap();
        expect_folder(&folder, "--state").unwrap();
        let path = folder.join("lock");
        let held = lock("vmmd_test", &path, "--run").unwrap();
        let second = lock("vmmd_test", &path, "--run").unwrap_err().to_string();
        assert!(second.starts_with("another vmmd_test serves this folder (it holds "), "{second}");
        drop(held);
        lock("vmmd_test", &path, "--run").unwrap();
        assert!(matches!(lock("vmmd_test", &folder, "--run"), Err(BeginError::Lock(..))));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
