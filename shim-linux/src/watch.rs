//! Watching processes for their end by pidfds in one epoll, whose fd is readable when any has ended.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fulmar_core::halves::{Status, Unit};
use fulmar_host::shim::{Exit, Process};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::sys;

/// The processes of all units.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: Epoll,
    processes: BTreeMap<Unit, (Process, OwnedFd)>,
    /// How long to wait until somebody else's child has been waited for.
    patience: PollTimeout,
    /// Differs after every boot, so that process 812 of yesterday is not taken for that of today.
    boot: u64,
}

impl Watch {
    /// Watches nothing yet.
    pub(crate) fn new() -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, processes: BTreeMap::new(), patience: PATIENCE_MS.into(), boot: boot() })
    }

    /// The fd to wait on.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// The process of this id, as something that can be told from a later one. `ESRCH` when it has ended.
    pub(crate) fn identify(&self, pid: Pid) -> Result<Process, Errno> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).map_err(|_| Errno::ESRCH)?;
        let ticks = started(&stat).ok_or(Errno::ESRCH)?;
        Ok(Process { pid: pid.as_raw().cast_unsigned(), started: self.boot ^ ticks })
    }

    /// Watches a process from now on.
    pub(crate) fn add(&mut self, unit: Unit, process: Process, pidfd: OwnedFd) -> Result<(), Errno> {
        self.epoll.add(&pidfd, EpollEvent::new(EpollFlags::EPOLLIN, unit.0))?;
        self.processes.insert(unit, (process, pidfd));
        Ok(())
    }

    /// Watches a process if it is the one that is meant; whether it is.
    pub(crate) fn adopt(&mut self, unit: Unit, process: Process) -> Result<bool, Errno> {
        let Ok(pid) = i32::try_from(process.pid) else { return Ok(false) };
        let pid = Pid::from_raw(pid);
        let pidfd = match sys::open_pidfd(pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(false),
            Err(errno) => return Err(errno),
        };
        // Identified after the pidfd was opened: the id cannot have gone to another in between.
        if self.identify(pid) != Ok(process) {
            return Ok(false);
        }
        self.add(unit, process, pidfd)?;
        Ok(true)
    }

    /// Sends a signal; whether there was somebody.
    pub(crate) fn signal(&self, unit: Unit, signal: Signal) -> Result<bool, Errno> {
        let Some((_, pidfd)) = self.processes.get(&unit) else { return Ok(false) };
        match sys::signal_pidfd(pidfd.as_fd(), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The processes, each with what hangs up when it has ended.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (Process, BorrowedFd<'_>)> {
        self.processes.values().map(|(process, pidfd)| (*process, pidfd.as_fd()))
    }

    /// One unit that has ended. It is reaped and forgotten.
    pub(crate) fn next_exit(&mut self) -> Option<Exit> {
        let mut events = [EpollEvent::empty()];
        loop {
            match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Ok(0) => return None,
                Err(Errno::EINTR) => continue,
                Err(_) => return None,
                Ok(_) => {}
            }
            let [event] = events;
            let unit = Unit(event.data());
            if let Some((_, pidfd)) = self.processes.remove(&unit) {
                // Closing it would not do while a new process, before its exec, has a copy of it. It is in there.
                let _ = self.epoll.delete(&pidfd);
                return Some(Exit { unit, status: self.reap(pidfd.as_fd()) });
            }
        }
    }

    /// A parent is told the status and nobody else finds anybody to wait for. But where the kernel keeps it with the pidfd (Linux 6.15),
    /// all who have that are told it after the parent, which is somebody else now, such as init.
    fn reap(&mut self, pidfd: BorrowedFd<'_>) -> Status {
        if let Ok(ended) = waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            return ended_as(ended);
        }
        let told = || sys::exit_of_pidfd(pidfd);
        let told = match told() {
            // The pidfd hangs up when its parent has waited for it.
            Ok(None) if self.hangs_up(pidfd) => told(),
            told => told,
        };
        told.ok().flatten().map_or(Status::Unknown, status_of)
    }

    fn hangs_up(&mut self, pidfd: BorrowedFd<'_>) -> bool {
        let mut polled = Err(Errno::EINTR);
        while polled == Err(Errno::EINTR) {
            polled = poll(&mut [PollFd::new(pidfd, PollFlags::empty())], self.patience);
        }
        if polled == Ok(0) {
            // Nobody waits here for those that have lost their parent.
            self.patience = PollTimeout::ZERO;
        }
        polled == Ok(1)
    }
}

/// Whose child a process has become waits for it at once, as a rule.
const PATIENCE_MS: u8 = 100;

/// A number that differs after every boot.
pub(crate) fn boot() -> u64 {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or_default()
}

/// Whether a process has not ended. Its pidfd is readable from then on.
pub(crate) fn lives(pidfd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            polled => return polled.map(|ready| ready == 0),
        }
    }
}

/// How a process ended, of the status that `wait` gives.
fn status_of(status: i32) -> Status {
    match WaitStatus::from_raw(Pid::this(), status) {
        Ok(ended) => ended_as(ended),
        Err(_) => Status::Unknown,
    }
}

fn ended_as(ended: WaitStatus) -> Status {
    match ended {
        WaitStatus::Exited(_, code) => u8::try_from(code & 0xff).map_or(Status::Unknown, Status::Code),
        WaitStatus::Signaled(_, signal, _) => u8::try_from(signal as i32).map_or(Status::Unknown, Status::Signal),
        _ => Status::Unknown,
    }
}

/// The start of a process in clock ticks since boot: field 22 of its `stat`. None for one that has ended.
pub(crate) fn started(stat: &[u8]) -> Option<u64> {
    // The second field is the program's name in parentheses, and may have any character in it.
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(after + 1..)?.split(|byte| *byte == b' ').skip(1);
    let state = fields.next()?;
    if matches!(state, b"Z" | b"X") {
        return None;
    }
    std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let rest = "S 1 2 3 0 -1 4194560 190 0 0 0 0 0 0 0 20 0 1 0 8123456 3000000 5";
        for name in ["a", ") Z 1", "", "a b (c"] {
            assert_eq!(started(format!("77 ({name}) {rest}").as_bytes()), Some(8_123_456));
        }
        assert_eq!(started(format!("77 (a) Z{}", &rest[1..]).as_bytes()), None);
        assert_eq!(started(b"77 (a) S 1"), None);
        assert_eq!(started(b""), None);
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let watch = Watch::new().unwrap();
        let this = watch.identify(Pid::this()).unwrap();
        assert_eq!(watch.identify(Pid::this()), Ok(this));
        assert_ne!(watch.identify(Pid::from_raw(1)), Ok(this));
    }

    #[test]
    fn a_later_process_of_the_same_id_is_not_adopted() {
        let mut watch = Watch::new().unwrap();
        let mut process = watch.identify(Pid::this()).unwrap();
        process.started ^= 1;
        assert_eq!(watch.adopt(Unit(1), process), Ok(false));
        assert_eq!(watch.adopt(Unit(1), Process { pid: u32::MAX, started: 0 }), Ok(false));
        assert_eq!(watch.adopt(Unit(1), Process { pid: 0, started: 0 }), Ok(false));
    }
}
