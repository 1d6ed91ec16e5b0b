//! One daemon in a folder of its own, which a test has to itself: started, asked nothing, looked at, ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::system::{make_folder, wait_until};

/// A daemon that serves on a socket, or does so no more. Its folder goes with it.
#[derive(Debug)]
pub struct Daemon {
    /// Has `run/util`, `run/fifo` and `state`.
    pub folder: PathBuf,
    program: PathBuf,
    options: Vec<String>,
    socket: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// A new folder for this program, which serves on this socket of `run/util`.
    #[must_use]
    pub fn prepare(program: &str, socket: &str) -> Self {
        let program = PathBuf::from(program);
        let folder = make_folder(&program.file_name().map(OsStr::to_string_lossy).unwrap_or_default()).unwrap();
        for name in ["run/util", "run/fifo", "state"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let socket = folder.join("run/util").join(socket);
        Self { folder, program, options: Vec::new(), socket, child: None }
    }

    /// Whenever it is started from now on, it has these options too.
    pub fn add_options(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(ToString::to_string));
    }

    /// The program with this folder.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--run").arg(self.folder.join("run")).args(&self.options).stdin(Stdio::null());
        command
    }

    /// Starts it, for the first time or anew, and waits until it serves.
    pub fn serve(&mut self) {
        let said = File::options().create(true).append(true).open(self.folder.join("said")).unwrap();
        self.child = Some(self.command().stderr(said).spawn().unwrap());
        assert!(wait_until(|| UnixStream::connect(&self.socket).is_ok()), "{}", self.said());
    }

    /// Ends it by this signal.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
        self.child.take().unwrap().wait().unwrap()
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Where it serves.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// All lines that it has written for people.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.join("said")).unwrap()
    }

    /// Waits until it has said this.
    pub fn expect_said(&self, text: &str) {
        assert!(wait_until(|| self.said().contains(text)), "no '{text}' in\n{}", self.said());
    }

    /// KiB of memory that it has; nothing where the system does not tell this way.
    #[must_use]
    pub fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
