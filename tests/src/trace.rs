//! The system calls of a daemon, seen while it works: whether its table has a row that it does not need.
#![allow(clippy::unwrap_used, reason = "for tests, which panic to fail")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::system::wait_until;

/// Calls of which a table may allow one argument alone.
const LOOKED_INTO: [i64; 4] = [libc::SYS_socket, libc::SYS_prctl, libc::SYS_ioctl, libc::SYS_prlimit64];

/// The calls that a process made, once it was confined.
#[derive(Clone, Default, Debug)]
pub struct Calls(BTreeSet<(i64, [u64; 3])>);

impl Calls {
    /// Whether it made this call, with this value in this place, if there is one.
    #[must_use]
    pub fn have(&self, call: i64, argument: Option<(u8, u64)>) -> bool {
        let fits = |given: &[u64; 3]| {
            argument.is_none_or(|(place, value)| given[usize::from(place)] & u64::from(u32::MAX) == value)
        };
        self.0.iter().any(|(made, given)| *made == call && fits(given))
    }

    /// The numbers of all of them. What a process is in when it is stopped for the first time has none.
    pub fn numbers(&self) -> impl Iterator<Item = i64> {
        self.0.iter().map(|(call, _)| *call).filter(|call| *call >= 0)
    }

    /// Those of another run, too.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// A process that is being looked at.
#[derive(Debug)]
pub struct Trace(JoinHandle<Calls>);

/// A program that is looked at from its start on, and what it says.
#[derive(Debug)]
pub struct Traced {
    /// Its process.
    pub pid: Pid,
    trace: Trace,
    log: PathBuf,
}

impl Traced {
    /// Starts it, by a shell that stands still until it is looked at; what it says goes there.
    ///
    /// # Panics
    /// Where it cannot be started or looked at.
    #[must_use]
    pub fn start(program: &Command, log: PathBuf) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg("kill -STOP $$; exec \"$0\" \"$@\"").arg(program.get_program()).args(program.get_args());
        shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        #[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
        let child = shell.spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(wait_until(|| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ")));
        Self { pid, trace: Trace::begin(pid), log }
    }

    /// What it has said.
    ///
    /// # Panics
    /// Where that cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// It says this, some time.
    ///
    /// # Panics
    /// Where it does not.
    pub fn expect(&self, text: &str) {
        assert!(wait_until(|| self.log().contains(text)), "no '{text}' in: {}", self.log());
    }

    /// Stops it and has it go on.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn stop_once(&self) {
        kill(self.pid, Signal::SIGSTOP).unwrap();
        kill(self.pid, Signal::SIGCONT).unwrap();
    }

    /// Ends it: all that it did since it was confined.
    ///
    /// # Panics
    /// Where it could not be looked at.
    #[must_use]
    pub fn end(self) -> Calls {
        kill(self.pid, Signal::SIGTERM).unwrap();
        self.trace.end()
    }
}

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

    /// Waits for its end: all calls that it made meanwhile, or since it was confined, if that was meanwhile.
    ///
    /// # Panics
    /// Where it could not be looked at.
    #[must_use]
    pub fn end(self) -> Calls {
        self.0.join().unwrap()
    }
}

fn threads(pid: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    entries.map(|entry| Pid::from_raw(entry.unwrap().file_name().to_str().unwrap().parse().unwrap())).collect()
}

fn calls(pid: Pid, begun: &mpsc::Sender<()>) -> Calls {
    let mut seen = Calls::default();
    for thread in threads(pid) {
        ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE).unwrap();
        ptrace::interrupt(thread).unwrap();
        assert!(matches!(waitpid(thread, Some(WaitPidFlag::__WALL)), Ok(WaitStatus::PtraceEvent(..))));
        ptrace::syscall(thread, None).unwrap();
    }
    begun.send(()).unwrap();
    let mut last = (-1, [0; 3]);
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
                    let call = registers.orig_rax.cast_signed();
                    let arguments = [registers.rdi, registers.rsi, registers.rdx];
                    last = (call, arguments);
                    match call {
                        // From here on it is confined.
                        libc::SYS_seccomp => seen.0.clear(),
                        call if LOOKED_INTO.contains(&call) => drop(seen.0.insert((call, arguments))),
                        call => drop(seen.0.insert((call, [0; 3]))),
                    }
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::PtraceEvent(..) => None,
            WaitStatus::Signaled(_, signal, _) => {
                assert_eq!(signal, Signal::SIGKILL, "process {pid} was ended by {signal}, after call {last:x?}");
                continue;
            }
            _ => continue,
        };
        // The stop of a whole process is one of each thread, too, which goes on at once: what it waited for is begun anew.
        let signal = signal.filter(|signal| *signal != Signal::SIGTRAP);
        let _ = ptrace::syscall(thread, signal);
    }
}
