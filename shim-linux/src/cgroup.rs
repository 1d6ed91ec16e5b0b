//! A cgroup (v2) for each tender: its memory, what the kernel holds for it included, and its processes are bounded by what its
//! plan says. The kernel then says too whether it was killed for want of memory.
//!
//! It works within what was delegated to us, and touches nothing else:
//!
//! ```text
//! <delegated>/                marked by systemd (Delegate=yes), or the root of a hierarchy of our own
//!   vmmd/                     both halves of vmmd, where they would be in the way otherwise: DelegateSubgroup=vmmd does the same
//!   tenders-run-albatross/    of the vmmd with this run folder
//!     unit-7/                 one tender
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use fulmar_core::halves::{LaunchPlan, Unit};
use fulmar_core::limits::{TENDER_MEMORY_MB, TENDER_TABLES_DIVISOR};
use nix::unistd::Pid;

use crate::limit::THREADS_MAX;
use crate::sys;

/// What the names of the tenders' cgroups begin with.
const UNIT_PREFIX: &str = "unit-";

/// The cgroup of `vmmd` itself.
const OWN: &str = "vmmd";

/// What the name of the cgroup that has all of them begins with.
const ALL: &str = "tenders";

/// Extended attributes by which systemd says that a cgroup is delegated; the first may be read by anybody.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Bytes of the page cache that stay with a tender, MiB: what a guest reads and writes of its disks is counted as its own, and the
/// kernel takes it back before it kills anybody.
const CACHE_MB: u64 = 8;

/// A file name has no more bytes.
const NAME_BYTES_MAX: usize = 255;

/// Why tenders get no cgroups.
#[derive(Debug)]
pub enum NoCgroups {
    /// There is no hierarchy of version 2.
    NoHierarchy,
    /// Whoever started us keeps its cgroups to itself.
    NotDelegated(String),
    /// There are neither of the controllers.
    NoController(PathBuf),
    /// What was delegated cannot be used.
    Refused(PathBuf, io::Error),
}

impl fmt::Display for NoCgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHierarchy => f.write_str("this system has no cgroups of version 2"),
            Self::NotDelegated(own) => {
                write!(f, "the cgroup {own} is not delegated: Delegate=yes in the unit of systemd does that")
            }
            Self::NoController(path) => write!(f, "{} has neither the memory nor the pids controller", path.display()),
            Self::Refused(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for NoCgroups {}

/// The cgroups of the tenders of one `vmmd`.
#[derive(Debug)]
pub struct Cgroups {
    folder: PathBuf,
    memory: bool,
    pids: bool,
    /// Of units that have ended, and still being emptied by the kernel.
    leftover: Vec<Unit>,
}

impl Cgroups {
    /// Finds what was delegated to this process, and prepares it for the `vmmd` of this run folder.
    ///
    /// # Errors
    /// [`NoCgroups`]: tenders must do without.
    pub fn find(run: &Path) -> Result<Self, NoCgroups> {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let own = text("/proc/self/cgroup");
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or(NoCgroups::NoHierarchy)?;
        let mount = mount_of(&text("/proc/self/mountinfo")).ok_or(NoCgroups::NoHierarchy)?;
        let is_delegated = |path: &Path| DELEGATED.iter().any(|name| sys::has_attribute(path, name));
        Self::find_in(&mount, own, run, &is_delegated)
    }

    /// As [`Cgroups::find`], with the hierarchy mounted at `mount`, in which this process is in the cgroup `own`.
    ///
    /// # Errors
    /// As [`Cgroups::find`].
    pub fn find_in(
        mount: &Path,
        own: &str,
        run: &Path,
        is_delegated: &dyn Fn(&Path) -> bool,
    ) -> Result<Self, NoCgroups> {
        let not_delegated = || NoCgroups::NotDelegated(own.to_owned());
        let inside = Path::new(own.trim_start_matches('/'));
        // Of one outside of our namespace only `..` is seen.
        if inside.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(not_delegated());
        }
        let own_path = mount.join(inside);
        let above = own_path.parent().filter(|above| above.starts_with(mount) && inside.file_name().is_some());
        let delegated = if inside.as_os_str().is_empty() || is_delegated(&own_path) {
            own_path.clone()
        } else {
            above.filter(|above| is_delegated(above)).map(Path::to_owned).ok_or_else(not_delegated)?
        };
        let controllers = read(&delegated, "cgroup.controllers")?;
        let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
        if !has("memory") && !has("pids") {
            return Err(NoCgroups::NoController(delegated));
        }
        // One that has processes has no controllers for what is below it; only the root of all has both.
        if delegated == own_path && delegated != *mount {
            let leaf = delegated.join(OWN);
            make(&leaf)?;
            write(&leaf, "cgroup.procs", "0")?;
        }
        let folder = delegated.join(name_of(run).ok_or_else(not_delegated)?);
        make(&folder)?;
        let enable = |name: &str| -> Result<bool, NoCgroups> {
            if has(name) {
                write(&delegated, "cgroup.subtree_control", &format!("+{name}"))?;
                write(&folder, "cgroup.subtree_control", &format!("+{name}"))?;
            }
            Ok(has(name))
        };
        Ok(Self { memory: enable("memory")?, pids: enable("pids")?, folder, leftover: Vec::new() })
    }

    /// Cgroups that bound nothing, in this folder of a hierarchy.
    ///
    /// # Errors
    /// [`NoCgroups::Refused`].
    pub fn unbounded(folder: &Path) -> Result<Self, NoCgroups> {
        make(folder)?;
        Ok(Self { folder: folder.to_owned(), memory: false, pids: false, leftover: Vec::new() })
    }

    /// The cgroup that they are in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether they bound memory.
    #[must_use]
    pub fn bound_memory(&self) -> bool {
        self.memory
    }

    /// Whether they bound the number of processes.
    #[must_use]
    pub fn bound_processes(&self) -> bool {
        self.pids
    }

    /// Puts a process, which must be no tender yet, into a new cgroup.
    pub(crate) fn enter(&mut self, plan: &LaunchPlan<'_>, pid: Pid) -> io::Result<()> {
        let path = self.path(plan.unit);
        self.leftover.retain(|unit| *unit != plan.unit);
        match fs::create_dir(&path) {
            // Of its last run: it is empty.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let entered = self.bound(&path, plan).and_then(|()| fs::write(path.join("cgroup.procs"), pid.to_string()));
        if entered.is_err() {
            // What is left is swept at the next start.
            let _ = fs::remove_dir(&path);
        }
        entered
    }

    fn bound(&self, path: &Path, plan: &LaunchPlan<'_>) -> io::Result<()> {
        if self.memory {
            fs::write(path.join("memory.max"), memory_bytes(plan.memory_mb).to_string())?;
            // A guest's secrets do not go to the disk, and nobody waits for them to come back. Where the kernel has no account of
            // swap there is no such file.
            match fs::write(path.join("memory.swap.max"), "0") {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                written => written?,
            }
        }
        if self.pids {
            fs::write(path.join("pids.max"), THREADS_MAX.to_string())?;
        }
        Ok(())
    }

    /// Whether the kernel has killed something of this unit for want of memory.
    pub(crate) fn is_out_of_memory(&self, unit: Unit) -> bool {
        let events = fs::read_to_string(self.path(unit).join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|kills| kills.trim() != "0")
    }

    /// Removes the cgroup of a unit that has ended.
    pub(crate) fn remove(&mut self, unit: Unit) {
        self.leftover.push(unit);
        let mut leftover = std::mem::take(&mut self.leftover);
        leftover.retain(|unit| {
            let removed = fs::remove_dir(self.path(*unit));
            removed.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
        });
        self.leftover = leftover;
    }

    /// Removes those that nobody is in. How many.
    pub(crate) fn sweep(&self) -> io::Result<u32> {
        let mut count = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(UNIT_PREFIX));
            // Whoever is in there keeps it.
            if is_ours && fs::remove_dir(entry.path()).is_ok() {
                count += 1;
            }
        }
        Ok(count)
    }

    fn path(&self, unit: Unit) -> PathBuf {
        self.folder.join(format!("{UNIT_PREFIX}{}", unit.0))
    }
}

/// What a tender may take in all: its guest's memory, its own, the tables for both, and some cache.
fn memory_bytes(guest_mb: u32) -> u64 {
    let guest_mb = u64::from(guest_mb);
    (guest_mb + TENDER_MEMORY_MB + guest_mb.div_ceil(TENDER_TABLES_DIVISOR) + CACHE_MB) << 20
}

/// Where the hierarchy of version 2 is mounted, if it is, by a text of `mountinfo` (proc(5)).
fn mount_of(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| PathBuf::from(mount.split(' ').nth(4).unwrap_or_default()))
    })
}

/// A cgroup's name for the `vmmd` of this run folder: its path, as systemd escapes one.
fn name_of(run: &Path) -> Option<String> {
    let run = fs::canonicalize(run).ok()?;
    let mut name = ALL.to_owned();
    for part in run.components().filter(|part| matches!(part, Component::Normal(_))) {
        name.push('-');
        for byte in part.as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => name.push(char::from(*byte)),
                byte => name.push_str(&format!("\\x{byte:02x}")),
            }
        }
    }
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

fn make(path: &Path) -> Result<(), NoCgroups> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(NoCgroups::Refused(path.to_owned(), error)),
        _ => Ok(()),
    }
}

fn read(folder: &Path, file: &str) -> Result<String, NoCgroups> {
    let path = folder.join(file);
    fs::read_to_string(&path).map_err(|error| NoCgroups::Refused(path, error))
}

fn write(folder: &Path, file: &str, text: &str) -> Result<(), NoCgroups> {
    let path = folder.join(file);
    fs::write(&path, text).map_err(|error| NoCgroups::Refused(path, error))
}

#[cfg(test)]
mod tests;
