//! A copy of this machine's root that is booted: namespaces in which systemd is the first process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fulmar_tests::system::wait_until;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};

use crate::copy::Copy;
use crate::{pid_of, said};

/// Where systemd is.
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// What a boot loader and a kernel do: the last line becomes systemd. `$1` is the root, `$2` the cgroup that all of it lives in, `$3` systemd.
const BOOT: &str = r#"
set -e
echo 0 >"$2/cgroup.procs"
exec unshare --cgroup --net --mount --uts --ipc --pid --fork --kill-child sh -c '
set -e
cd "$1"
umount mnt
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p .old
pivot_root . .old
umount -l .old
ip link set lo up
exec env -i container=fulmar-test PATH=/usr/sbin:/usr/bin:/sbin:/bin "$2" --system --log-target=journal
' sh "$1" "$3"
"#;

/// One that runs.
pub(crate) struct Machine<'a> {
    copy: &'a Copy,
    /// The parent of systemd.
    process: Child,
    /// systemd.
    init: u32,
    cgroup: PathBuf,
}

impl<'a> Machine<'a> {
    /// Boots it, or says why that cannot be here. The services that this machine starts by itself are not started there.
    pub(crate) fn boot(copy: &'a Copy) -> Result<Self, String> {
        if !Path::new(SYSTEMD).exists() {
            return Err("systemd is not installed".into());
        }
        for folder in ["multi-user.target.wants", "graphical.target.wants", "timers.target.wants"] {
            let wanted = fs::read_dir(copy.root.join("etc/systemd/system").join(folder));
            let theirs = |name: &str| !name.starts_with("vmmd");
            for entry in wanted.into_iter().flatten().map(Result::unwrap) {
                if entry.file_name().to_str().is_some_and(theirs) {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        let cgroup =
            new_cgroup(&copy.root.join("mnt")).map_err(|error| format!("no cgroup can be had here: {error}"))?;
        let log = fs::File::create(copy.root.join("var/log/boot")).unwrap();
        let mut boot = Command::new("sh");
        boot.args(["-c", BOOT, "sh"]).arg(&copy.root).arg(&cgroup).arg(SYSTEMD).stdin(Stdio::null());
        let process = boot.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut machine = Self { copy, process, init: 0, cgroup };
        let init = || {
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", machine.process.id())).ok()?.trim().parse().ok()
        };
        let is_systemd =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "systemd\n");
        let mut found = None;
        assert!(
            wait_until(|| {
                found = init().filter(is_systemd);
                found.is_some()
            }),
            "{}",
            machine.said()
        );
        machine.init = found.unwrap();
        let state = || said(&machine.command(&["systemctl", "is-system-running"]).output().unwrap());
        assert!(wait_until(|| ["running\n", "degraded\n"].contains(&state().as_str())), "{}", machine.said());
        Ok(machine)
    }

    /// What systemd said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.copy.root.join("var/log/boot")).unwrap_or_default()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command
            .args(["--pid", "--net", "--mount", "--uts", "--ipc", "--cgroup", "--", "timeout", "60"])
            .args(words)
            .stdin(Stdio::null());
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("SUDO_USER", "nobody");
        command
    }

    /// Runs it, and it must go well; what it said.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}\n{}", said(&output), self.journal());
        said(&output)
    }

    /// Runs a line of the shell in root's home; it must go well.
    pub(crate) fn sh(&self, line: &str) -> String {
        self.run(&["sh", "-c", &format!("cd /root; {line}")])
    }

    /// This line of the shell says this, sooner or later.
    pub(crate) fn expect(&self, line: &str, text: &str) {
        let mut last = String::new();
        let found = wait_until(|| {
            last = said(&self.command(&["sh", "-c", &format!("cd /root; {line}")]).output().unwrap());
            last.contains(text)
        });
        assert!(found, "`{line}` does not say '{text}': {last}\n{}", self.journal());
    }

    /// A property of a unit.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", property, unit]).trim().to_owned()
    }

    fn journal(&self) -> String {
        said(&self.command(&["journalctl", "--no-pager", "--lines=80"]).output().unwrap())
    }

    /// Shuts it down as its users do.
    pub(crate) fn power_off(mut self) {
        let _ = self.command(&["systemctl", "--no-block", "poweroff"]).output();
        assert!(wait_until(|| self.process.try_wait().unwrap().is_some()), "it does not end: {}", self.said());
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if self.init != 0 {
            let _ = kill(pid_of(self.init), Signal::SIGKILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        wait_until(|| remove_cgroup(&self.cgroup).is_ok());
        let _ = umount(&self.copy.root.join("mnt"));
    }
}

/// A cgroup of version 2 for this test, by way of a mount at `at`.
fn new_cgroup(at: &Path) -> io::Result<PathBuf> {
    mount(Some("cgroup2"), at, Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
    let cgroup = at.join(format!("fulmar-test-{}", std::process::id()));
    match fs::create_dir(&cgroup) {
        Ok(()) => Ok(cgroup),
        Err(error) => umount(at).map_err(io::Error::from).and(Err(error)),
    }
}

/// Removes it, and what is below it. Files of cgroups go with their folders.
fn remove_cgroup(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
