//! What `--check` finds: whether a start would find what it needs. It changes nothing, and looks at everything before it ends.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::unistd::{AccessFlags, access};

use crate::log::{self, Target};
use crate::{error, warning};

/// Bytes of a path that a socket can be bound to, with what it is called before it is ready.
const SOCKET_PATH_BYTES_MAX: usize = 107 - ".new".len();

/// Why no socket can be made at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoSocket {
    /// Its path is longer than the system takes.
    TooLong(PathBuf),
    /// Something else is there.
    Taken(PathBuf),
}

impl fmt::Display for NoSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(path) => {
                let (bytes, most) = (path.as_os_str().len(), SOCKET_PATH_BYTES_MAX);
                write!(f, "{}: {bytes} bytes are too long for a socket's path, {most} are not", path.display())
            }
            Self::Taken(path) => write!(f, "{}: there is something that is no socket: move it away", path.display()),
        }
    }
}

impl std::error::Error for NoSocket {}

/// Whether a socket can be made there, or takes the place of one.
///
/// # Errors
/// [`NoSocket`].
pub fn check_socket(path: &Path) -> Result<(), NoSocket> {
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(NoSocket::TooLong(path.to_owned()));
    }
    let is_taken = path.symlink_metadata().is_ok_and(|found| !found.file_type().is_socket());
    if is_taken { Err(NoSocket::Taken(path.to_owned())) } else { Ok(()) }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    wrong: usize,
}

impl Findings {
    /// Something that a start would fail at.
    pub fn wrong(&mut self, what: impl fmt::Display) {
        self.wrong += 1;
        error!("{what}");
    }

    /// Something that a start would complain of, and go on.
    pub fn doubt(&mut self, what: impl fmt::Display) {
        warning!("{what}");
    }

    /// As [`Findings::wrong`] for an error.
    pub fn expect<T, E: fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.wrong(error)).ok()
    }

    /// A folder that who we are now must be able to make files in.
    pub fn check_writable(&mut self, folder: &Path) {
        if let Err(errno) = access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
            let user = nix::unistd::geteuid();
            self.wrong(format_args!("user {user} cannot make files in {}: {}", folder.display(), errno.desc()));
        }
    }

    /// A place for a socket. Who serves there already is not in the way of a check.
    pub fn check_socket(&mut self, path: &Path) {
        self.expect(check_socket(path));
    }

    /// Where lines are to go.
    pub fn check_log(&mut self, settings: log::Settings) {
        if settings.target == Target::Syslog && log::find_syslog().is_none() {
            self.doubt("no log daemon listens on /dev/log or /var/run/log: lines are lost until one does");
        }
    }

    /// Says how it went, and how the program is to end.
    #[must_use]
    pub fn conclude(self, program: &str) -> ExitCode {
        if self.wrong > 0 {
            return ExitCode::FAILURE;
        }
        println!("{program}: it is well");
        ExitCode::SUCCESS
    }
}
