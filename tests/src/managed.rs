//! Daemons as a service manager has them: started one by one in folders that are there, with what it tells them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};

use crate::siege::{self, pid_of};
use crate::system::{self, wait_until};

/// The daemons that serve on a Unix socket, and what that is called.
pub const DAEMONS: [(&str, &str); 4] =
    [("vmmd", "vmmd.sock"), ("vmmd_console", "console.sock"), ("vmmd_stats", "stat.sock"), ("vmmd_log", "log.sock")];

/// Folders as an installation has them, and the programs.
#[derive(Debug)]
pub struct Place {
    /// All is in here.
    pub folder: PathBuf,
    /// Where the programs are.
    pub programs: PathBuf,
}

impl Place {
    /// Makes the folders. Nothing, said aloud, where the programs are missing.
    #[must_use]
    pub fn begin(test: &str) -> Option<Self> {
        let programs = siege::programs(test)?;
        let folder = system::make_folder("service").unwrap();
        for made in ["run", "run/util", "run/fifo", "state"] {
            fs::create_dir(folder.join(made)).unwrap();
            fs::set_permissions(folder.join(made), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self { folder, programs })
    }

    /// The path of a socket.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.join("run/util").join(name)
    }

    /// A program with the folders that it takes.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.command_by(Command::new(self.programs.join(program)), program)
    }

    fn command_by(&self, mut command: Command, program: &str) -> Command {
        if program == "vmmd_influx" {
            let config = self.folder.join("influx.toml");
            let text = format!("run = {:?}\n[metrics]\nlisten = \"127.0.0.1:9\"\n", self.folder.join("run"));
            fs::write(&config, text).unwrap();
            command.arg("--config").arg(config);
        } else {
            command.arg("--run").arg(self.folder.join("run"));
        }
        if program == "vmmd" || program == "vmmd_log" {
            command.arg("--state").arg(self.folder.join("state"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A program that is handed this, as descriptor 3: by a shell that becomes it.
    #[must_use]
    pub fn handed(&self, program: &str, what: OwnedFd, count: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg("LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 0</dev/null").arg(self.programs.join(program));
        let mut command = self.command_by(shell, program);
        command.env("LISTEN_FDS", count).env("LISTEN_FDNAMES", "door:other").stdin(what);
        command
    }

    /// Starts it with its lines in a file.
    #[must_use]
    pub fn start(&self, mut command: Command) -> Running {
        let log = self.folder.join("lines");
        let lines = File::create(&log).unwrap();
        Running { child: command.stderr(lines).spawn().unwrap(), log }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A daemon that ends with its test.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub child: Child,
    /// Where its lines go.
    pub log: PathBuf,
}

impl Running {
    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it by SIGTERM.
    pub fn end(&mut self) -> ExitStatus {
        kill(pid_of(self.child.id()), Signal::SIGTERM).unwrap();
        assert!(wait_until(|| self.child.try_wait().unwrap().is_some()), "{}", self.log());
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket that everybody may write to, as those of the system are.
#[must_use]
pub fn listen_at(path: &Path) -> UnixDatagram {
    let _ = fs::remove_file(path);
    let socket = UnixDatagram::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    socket
}

/// The next that is said there.
///
/// # Errors
/// Nothing came.
pub fn hear(manager: &UnixDatagram) -> io::Result<String> {
    let mut bytes = [0; 1024];
    loop {
        match manager.recv(&mut bytes) {
            // A child of another test has ended.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => return Ok(String::from_utf8(bytes[..received?].to_vec()).unwrap()),
        }
    }
}
