//! Tests that need mounts or a network of their own: in namespaces that vanish with them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::skips::skip;

/// Says to a test that runs again that it is inside.
const INSIDE: &str = "FULMAR_INSIDE";

/// Runs `body` in mount and network namespaces of its own. Root gets them for one thread, an ordinary user as the root of a
/// user namespace, for which the test `name` runs once more. Skipped, aloud, where neither can be had.
pub fn inside(name: &str, body: impl FnOnce() + Send) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if geteuid().is_root() {
        return inside_thread(name, body);
    }
    let enter = ["--user", "--map-root-user", "--mount", "--net"];
    if !Command::new("unshare").args(enter).arg("true").output().is_ok_and(|output| output.status.success()) {
        return skip(name, "no user namespace can be had here: run it as root");
    }
    let mut again = Command::new("unshare");
    again.args(enter).arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let output = again.env(INSIDE, "1").output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn inside_thread(name: &str, body: impl FnOnce() + Send) {
    let run = || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET) {
            return skip(name, &format!("no namespaces can be had here: {}", errno.desc()));
        }
        // What is mounted from here on is seen by nobody else.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        body();
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// A small file system at a path, for as long as this lives.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one of this size, bytes; to be called [`inside`].
    #[must_use]
    pub fn mount(path: &Path, bytes: usize, flags: MsFlags) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={bytes},mode=0755");
        mount(Some("fulmar-test"), path, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        Self(path.to_path_buf())
    }

    /// Leaves about so many bytes free.
    pub fn fill_up_to(&self, bytes: usize) {
        let mut ballast = File::create(self.0.join("ballast")).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        let all = ballast.metadata().unwrap().len();
        ballast.set_len(all.saturating_sub(bytes.try_into().unwrap())).unwrap();
    }

    /// Frees what [`Disk::fill_up_to`] took.
    pub fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A file system in a file on a small disk: once that one is full, this one cannot write what it promised to write.
#[derive(Debug)]
pub struct ThinDisk {
    path: PathBuf,
    file: PathBuf,
    kind: &'static str,
    below: Disk,
}

impl ThinDisk {
    /// Mounts one of this kind (`ext2`, `ext4`) on `path`; to be called [`inside`]. Nothing, said aloud, where that cannot be.
    #[must_use]
    pub fn mount(test: &str, path: &Path, kind: &'static str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let below = Disk::mount(&path.with_extension("below"), 3 << 20, MsFlags::empty());
        let file = below.0.join("disk");
        File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let made = run(Command::new(format!("mkfs.{kind}")).args(["-q", "-F"]).arg(&file));
        let disk = Self { path: path.to_path_buf(), file, kind, below };
        if let Err(error) = made.and_then(|()| disk.mount_again()) {
            skip(test, &format!("no file system can be mounted from a file here: {error}"));
            return None;
        }
        Some(disk)
    }

    /// Mounts it again after [`ThinDisk::unmount`].
    ///
    /// # Errors
    /// What `mount` says.
    pub fn mount_again(&self) -> Result<(), String> {
        // An ext4 that cannot trust itself any more takes no more changes: so most systems have it.
        let options = if self.kind == "ext4" { "loop,errors=remount-ro" } else { "loop" };
        run(Command::new("mount").args(["-t", self.kind, "-o", options]).arg(&self.file).arg(&self.path))
    }

    /// Unmounts it.
    pub fn unmount(&self) {
        umount2(&self.path, MntFlags::empty()).unwrap();
    }

    /// From now on it fails where it needs a place that it has not written to before.
    pub fn break_off(&self) {
        self.below.fill_up_to(0);
    }

    /// The opposite.
    pub fn mend(&self) {
        self.below.make_room();
    }
}

impl Drop for ThinDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let said = || format!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(said()) }
}
