//! What `--check` finds: whether a start would find what it needs. It changes nothing, and looks at everything before it ends.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{AccessFlags, access};

use crate::log::{self, Target};
use crate::{error, warning};

/// Bytes of a path that a socket can be bound to, with what it is called before it is ready.
const SOCKET_PATH_BYTES_MAX: usize = 107 - ".new".len();

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
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            let most = SOCKET_PATH_BYTES_MAX;
            self.wrong(format_args!(
                "{}: {bytes} bytes are too long for a socket's path, {most} are not",
                path.display()
            ));
        }
        if path.symlink_metadata().is_ok_and(|found| !found.file_type().is_socket()) {
            self.wrong(format_args!("{}: there is something that is no socket: move it away", path.display()));
        }
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
