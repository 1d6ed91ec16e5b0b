//! The system calls of a daemon, seen while it works: whether its table has a row that it does not need.
#![allow(clippy::unwrap_used, reason = "for tests, which panic to fail")]

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A process that is being looked at.
#[derive(Debug)]
pub struct Trace(JoinHandle<BTreeSet<i64>>);

impl Trace {
    /// Looks at this process, with all of its threads, from now until its end. Nobody else of this program may wait for it meanwhile:
    /// whoever waits for a child takes the stops of which its tracer is to hear.
    ///
    /// # Panics
    /// Where it cannot be looked at.
    #[must_use]
    pub fn begin(pid: Pid) -> Self {
        let (begun, looks) = mpsc::channel();
        // Who begins to look is who is told: one thread of its own.
        let tracer = std::thread::spawn(move || calls(pid, &begun));
        looks.recv().unwrap();
        Self(tracer)
    }

    /// Waits for its end: the numbers of all calls that it made meanwhile.
    ///
    /// # Panics
    /// Where it could not be looked at.
    #[must_use]
    pub fn end(self) -> BTreeSet<i64> {
        self.0.join().unwrap()
    }
}

fn threads(pid: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    entries.map(|entry| Pid::from_raw(entry.unwrap().file_name().to_str().unwrap().parse().unwrap())).collect()
}

fn calls(pid: Pid, begun: &mpsc::Sender<()>) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    for thread in threads(pid) {
        ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE).unwrap();
        ptrace::interrupt(thread).unwrap();
        assert!(matches!(waitpid(thread, Some(WaitPidFlag::__WALL)), Ok(WaitStatus::PtraceEvent(..))));
        ptrace::syscall(thread, None).unwrap();
    }
    begun.send(()).unwrap();
    loop {
        // Only this thread's own: others of this program wait for theirs.
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::ECHILD) => return seen,
            status => status.unwrap(),
        };
        let Some(thread) = status.pid() else { continue };
        let signal = match status {
            WaitStatus::PtraceSyscall(_) => {
                // Seen at its begin and at its end. It may have been killed meanwhile.
                if let Ok(registers) = ptrace::getregs(thread) {
                    seen.insert(registers.orig_rax.cast_signed());
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::PtraceEvent(..) => None,
            WaitStatus::Signaled(_, signal, _) => {
                assert_eq!(signal, Signal::SIGKILL, "process {pid} was ended by {signal}");
                continue;
            }
            _ => continue,
        };
        // A group stop and the first stop of a new thread are no signals to hand on.
        let signal = signal.filter(|signal| !matches!(signal, Signal::SIGTRAP | Signal::SIGSTOP));
        let _ = ptrace::syscall(thread, signal);
    }
}
