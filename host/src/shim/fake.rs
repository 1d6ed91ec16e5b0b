//! A host without a kernel: a process is a number in a table. It runs everywhere without privilege, starts thousands of
//! "unikernels" in no time, and can fail at any call. For tests and benchmarks only; it is not in a default build.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use fulmar_core::halves::{Abilities, Attempt, OsError, Signal, Status, Texts, Unit};
use fulmar_core::policy::CpuSet;

use super::{Capacity, Exit, Found, Process, Shim, Start, Tap};
use crate::traffic::{BlockTraffic, TrafficLine};

/// The first process id: beyond what a real system gives, so that none is hit by mistake.
const FIRST_PID: u32 = 0x4000_0000;

/// What a fake host has, and what has been done to it.
#[derive(Debug)]
pub struct FakeShim {
    /// The bridges; others are refused.
    pub bridges: Vec<String>,
    /// CPUs, memory and abilities.
    pub capacity: Capacity,
    /// What each process has read and written, where that is told.
    pub traffic: Option<BlockTraffic>,
    /// Names of all taps that were made.
    pub taps_made: Vec<String>,
    running: BTreeMap<Unit, Process>,
    ended: VecDeque<Exit>,
    calls_until_failure: Option<u32>,
    started: u32,
    ready: UnixStream,
    readiness: UnixStream,
}

impl FakeShim {
    /// A host with 4 CPUs, 64 GiB and the bridges `service` and `br0`.
    ///
    /// # Errors
    /// Where no socket pair can be made.
    pub fn new() -> std::io::Result<Self> {
        let (ready, readiness) = UnixStream::pair()?;
        ready.set_nonblocking(true)?;
        readiness.set_nonblocking(true)?;
        let abilities = Abilities {
            accounts: true,
            taps: true,
            kvm: true,
            tender: true,
            solo5: false,
            memory_cgroup: true,
            pids_cgroup: true,
            bhyve: None,
        };
        Ok(Self {
            bridges: vec!["service".to_owned(), "br0".to_owned()],
            capacity: Capacity { cpus: CpuSet::first(4), memory_mb: 64 * 1024, abilities },
            traffic: None,
            taps_made: Vec::new(),
            running: BTreeMap::new(),
            ended: VecDeque::new(),
            calls_until_failure: None,
            started: 0,
            ready,
            readiness,
        })
    }

    /// Lets the call after the next `calls` calls fail, once.
    pub fn fail_after(&mut self, calls: u32) {
        self.calls_until_failure = Some(calls);
    }

    /// Whether the failure that was asked for has come to pass.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.calls_until_failure.is_none()
    }

    /// How many processes run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Ends a unit as if by itself.
    pub fn end(&mut self, unit: Unit, status: Status) {
        if self.running.remove(&unit).is_some() {
            self.ended.push_back(Exit { unit, status });
            // Full means readable, which is all that is wanted.
            let _ = self.readiness.write(&[1]);
        }
    }

    /// Declares that a process of a predecessor still runs.
    pub fn survivor(&mut self, unit: Unit) -> Process {
        let process = self.next_process();
        self.running.insert(unit, process);
        process
    }

    fn next_process(&mut self) -> Process {
        self.started = self.started.wrapping_add(1);
        Process { pid: FIRST_PID.wrapping_add(self.started), started: u64::from(self.started) }
    }

    fn call(&mut self, attempt: Attempt) -> Result<(), OsError> {
        match self.calls_until_failure {
            Some(0) => {
                self.calls_until_failure = None;
                Err(OsError { attempt, errno: nix::errno::Errno::EIO as i32 })
            }
            Some(calls) => {
                self.calls_until_failure = Some(calls.saturating_sub(1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Shim for FakeShim {
    fn capacity(&mut self) -> Result<Capacity, OsError> {
        self.call(Attempt::ReadCapacity)?;
        Ok(self.capacity)
    }

    fn bridges(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), OsError> {
        self.call(Attempt::ListBridges)?;
        self.bridges.iter().for_each(|bridge| each(bridge.as_bytes()));
        Ok(())
    }

    fn create_tap(&mut self, bridge: &[u8]) -> Result<Tap, OsError> {
        self.call(Attempt::CreateTap)?;
        if !self.bridges.iter().any(|known| known.as_bytes() == bridge) {
            return Err(OsError { attempt: Attempt::FindBridge, errno: nix::errno::Errno::ENODEV as i32 });
        }
        let name = format!("vmmtap{}", self.taps_made.len());
        self.taps_made.push(name.clone());
        let refused = |error: std::io::Error| OsError {
            attempt: Attempt::CreateTap,
            errno: error.raw_os_error().unwrap_or_default(),
        };
        Ok(Tap { name, fd: OwnedFd::from(UnixStream::pair().map_err(refused)?.0) })
    }

    fn release_taps(&mut self, taps: Vec<Tap>) {
        drop(taps);
    }

    fn end_strays(&mut self, _: &[u32]) -> Result<u32, OsError> {
        Ok(0)
    }

    fn sweep(&mut self) -> Result<u32, OsError> {
        self.call(Attempt::ListTaps)?;
        Ok(0)
    }

    fn spawn(
        &mut self,
        start: &Start<'_>,
        record: &mut dyn FnMut(Process) -> Result<(), OsError>,
    ) -> Result<Process, OsError> {
        self.call(Attempt::Fork)?;
        let process = self.next_process();
        record(process)?;
        self.call(Attempt::Execute)?;
        if let Ok(console) = start.console.try_clone_to_owned() {
            // As a guest that greets; nobody may be listening.
            let _ = std::fs::File::from(console).write(b"a fake unikernel greets\n");
        }
        self.running.insert(start.plan.unit, process);
        Ok(process)
    }

    fn signal(&mut self, unit: Unit, signal: Signal) -> Result<bool, OsError> {
        self.call(Attempt::SendSignal)?;
        let found = self.running.contains_key(&unit);
        let number = match signal {
            Signal::Terminate => nix::libc::SIGTERM,
            Signal::Kill => nix::libc::SIGKILL,
        };
        self.end(unit, u8::try_from(number).map_or(Status::Unknown, Status::Signal));
        Ok(found)
    }

    fn adopt(&mut self, unit: Unit, process: Process, _: Texts<'_>) -> Result<Found, OsError> {
        self.call(Attempt::WatchProcess)?;
        Ok(match self.running.get(&unit) {
            Some(running) if *running == process => Found::Running,
            _ => Found::Gone(Status::Unknown),
        })
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    fn next_exit(&mut self) -> Option<Exit> {
        let exit = self.ended.pop_front();
        if self.ended.is_empty() {
            while matches!(self.ready.read(&mut [0; 64]), Ok(64)) {}
        }
        exit
    }

    fn block_traffic(&mut self, each: &mut dyn FnMut(TrafficLine)) -> bool {
        let Some(traffic) = self.traffic else { return false };
        self.running.values().for_each(|process| each(TrafficLine(*process, traffic)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_told_once_and_makes_the_fd_readable() {
        let mut shim = FakeShim::new().unwrap();
        shim.survivor(Unit(1));
        assert_eq!(shim.next_exit(), None);
        assert_eq!(shim.signal(Unit(1), Signal::Kill), Ok(true));
        assert_eq!(shim.next_exit(), Some(Exit { unit: Unit(1), status: Status::Signal(9) }));
        assert_eq!(shim.next_exit(), None);
        assert_eq!(shim.signal(Unit(1), Signal::Kill), Ok(false));
    }

    #[test]
    fn it_fails_at_the_call_that_was_asked_for() {
        let mut shim = FakeShim::new().unwrap();
        shim.fail_after(1);
        assert!(shim.capacity().is_ok());
        assert!(shim.create_tap(b"service").is_err());
        assert!(shim.has_failed());
        assert!(shim.create_tap(b"service").is_ok());
    }
}
