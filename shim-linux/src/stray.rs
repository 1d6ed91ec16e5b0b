//! Tenders that nobody knows any more: their record is gone, with the run folder say, and they run. Each is called by the state folder of
//! its `vmmd`, and runs under one of the users that tenders get. Another `vmmd` may have the same users, and in a container a folder of the
//! same path: the number of the folder tells them apart.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::sys;

/// How long to wait for those that were killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the tenders of who uses this folder are called by: its path, for people, and its device and number.
pub(crate) fn mark_of(folder: &Path) -> Vec<u8> {
    let mut mark = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()).into_os_string().into_vec();
    if let Ok(found) = fs::metadata(folder) {
        mark.extend_from_slice(format!("/{:x}.{:x}", found.dev(), found.ino()).as_bytes());
    }
    mark
}

/// What a tender is called: by that mark, and its name as it comes in the plan.
pub(crate) fn name_in(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, b"/", name].concat()
}

/// Kills those that are called by this folder, run under these users, and are none of `known`; how many. There are no more processes than
/// the kernel gives ids to.
pub(crate) fn end(folder: &[u8], users: &Range<u32>, known: &[u32]) -> io::Result<u32> {
    let mut ended = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let is_stray = || !known.contains(&pid.cast_unsigned()) && is_called_by(pid, folder) && is_of(pid, users);
        if !is_stray() {
            continue;
        }
        // One that is gone needs nothing.
        let Ok(pidfd) = sys::open_pidfd(Pid::from_raw(pid)) else { continue };
        // Once more, since the id could have gone to another before.
        if is_stray() && sys::signal_pidfd(pidfd.as_fd(), Signal::SIGKILL).is_ok() {
            ended.push(pidfd);
        }
    }
    wait(&ended)?;
    Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX))
}

fn is_called_by(pid: i32, folder: &[u8]) -> bool {
    let wanted = name_in(folder, b"solo5-");
    let mut begin = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline"));
    let read = file.and_then(|file| file.take(wanted.len() as u64).read_to_end(&mut begin));
    read.is_ok() && begin == wanted
}

/// Whether the real user of a process is one of these.
fn is_of(pid: i32, users: &Range<u32>) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let user = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    user.is_some_and(|user| users.contains(&user))
}

fn wait(processes: &[OwnedFd]) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    for process in processes {
        let left = PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::Command;

    use nix::unistd::getuid;

    use super::*;

    /// As in a container: a folder of the same path, the same users, and another `vmmd`.
    #[test]
    fn a_stray_is_that_of_this_very_folder() {
        let place = std::env::temp_dir().join(format!("fulmar-stray-{}", std::process::id()));
        let (folder, aside) = (place.join("state"), place.join("aside"));
        fs::create_dir_all(&folder).unwrap();
        let name = OsString::from_vec(name_in(&mark_of(&folder), b"solo5-spt"));
        assert!(name.to_str().unwrap().contains("/state/"), "{name:?}");
        let mut stray = Command::new("/bin/sleep").arg0(name).arg("60").spawn().unwrap();
        let users = getuid().as_raw()..getuid().as_raw() + 1;
        let end = |known: &[u32]| end(&mark_of(&folder), &users, known).unwrap();
        fs::rename(&folder, &aside).unwrap();
        fs::create_dir(&folder).unwrap();
        assert_eq!(end(&[]), 0);
        fs::remove_dir(&folder).unwrap();
        fs::rename(&aside, &folder).unwrap();
        assert_eq!(end(&[stray.id()]), 0);
        assert!(stray.try_wait().unwrap().is_none());
        assert_eq!(end(&[]), 1);
        assert_eq!(stray.wait().unwrap().signal(), Some(9));
        fs::remove_dir_all(place).unwrap();
    }
}
