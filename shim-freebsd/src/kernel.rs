//! The conversations with the kernel that this shim needs, and no other. `sys` has them with FreeBSD; the tests have them with a
//! kernel that answers as FreeBSD's manual says and can fail at any of them.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use fulmar_core::policy::CpuSet;
use nix::errno::Errno;

use crate::abi::{PointingRequest, Request};
use crate::spawn::{Failed, Pointers, Prepared};

/// What a file is opened for. It is closed by exec, whatever it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpenFor {
    /// Reading and writing, neither of which waits.
    Frames,
    /// Reading.
    Read,
    /// Being executed.
    Execute,
    /// Being the disk of a virtual machine.
    Disk,
}

/// A signal that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// `SIGTERM`.
    Terminate,
    /// `SIGKILL`.
    Kill,
}

/// A process that has ended, and its status as wait(2) tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    /// Its id.
    pub(crate) pid: i32,
    /// How it ended.
    pub(crate) status: i32,
}

/// A new process that waits for the word to become the tender.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its id. Nobody has waited for it, so the id is its own.
    pub(crate) pid: i32,
    /// Over this it hears the word, and says which step failed.
    pub(crate) line: OwnedFd,
}

/// The host's operating system.
pub(crate) trait Kernel: fmt::Debug {
    /// Opens a file or a device.
    fn open(&self, path: &CStr, purpose: OpenFor) -> Result<OwnedFd, Errno>;

    /// A socket to talk about interfaces with.
    fn socket(&self) -> Result<OwnedFd, Errno>;

    /// A request about as many bytes as it says. `EINVAL` for another number of them.
    fn ask(&self, fd: BorrowedFd<'_>, request: Request, data: &mut [u8]) -> Result<(), Errno>;

    /// A request whose bytes are told where others are, and how many.
    fn ask_pointing(
        &self,
        fd: BorrowedFd<'_>,
        request: PointingRequest,
        data: &mut [u8],
        pointed: &mut [u8],
    ) -> Result<(), Errno>;

    /// Reads a value of the kernel's into `value`; how many bytes it has. `ENOMEM` where it has more than fit.
    fn value(&self, path: &[i32], value: &mut [u8]) -> Result<usize, Errno>;

    /// The same, by the name of the value.
    fn value_named(&self, name: &CStr, value: &mut [u8]) -> Result<usize, Errno>;

    /// Sets a value by its name.
    fn set_value(&self, name: &CStr, value: &[u8]) -> Result<(), Errno>;

    /// Whether the kernel has a module of this name.
    fn has_module(&self, name: &CStr) -> bool;

    /// The CPUs that this process may run on.
    fn cpus(&self) -> Result<CpuSet, Errno>;

    /// The names in a folder.
    fn names_in(&self, folder: &CStr) -> Result<Vec<Vec<u8>>, Errno>;

    /// Forks. The new process takes `prepared`'s steps, of which the last but one waits for [`Kernel::release`].
    fn fork(&self, prepared: &Prepared<'_>) -> Result<Held, Errno>;

    /// Gives the word, and waits until the process has become the tender or has said why it could not.
    fn release(&self, held: &Held) -> Result<(), Failed>;

    /// Tells of the end of this process from now on. `ESRCH` where there is none.
    fn watch(&self, pid: i32) -> Result<(), Errno>;

    /// One watched process that has ended; it is watched no more.
    fn next_ended(&self) -> Option<Ended>;

    /// Readable when [`Kernel::next_ended`] has something to tell.
    fn ended_fd(&self) -> BorrowedFd<'_>;

    /// Sends a signal. `ESRCH` where there is no such process.
    fn signal(&self, pid: i32, signal: Sent) -> Result<(), Errno>;

    /// Waits for a child that has ended or is ending. `ECHILD` where it is somebody else's.
    fn wait(&self, pid: i32) -> Result<(), Errno>;

    /// Waits so long for a child; whether it ended with status 0, nothing where it has not ended.
    fn wait_within(&self, pid: i32, milliseconds: u64) -> Result<Option<bool>, Errno>;

    /// A pipe: where it is read and where it is written, both closed by exec.
    fn pipe(&self) -> Result<(OwnedFd, OwnedFd), Errno>;
}

/// What exec does with a fd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtExec {
    /// The program has it.
    Stays,
    /// The program does not.
    Closes,
}

/// The steps of a new process. Nothing here may allocate, lock or panic: its memory is a copy of one thread's view of a program
/// that may have others.
pub(crate) trait Steps {
    /// Leaves the session, the folder and the handling of signals that it was born with.
    fn begin_anew(&self) -> Result<(), Errno>;

    /// Duplicates a fd to a number of at least `least`, closed by exec.
    fn duplicate_above(&self, fd: BorrowedFd<'_>, least: RawFd) -> Result<RawFd, Errno>;

    /// Puts the fd `from` also at `to`, another number; what was there is closed.
    fn place(&self, from: RawFd, to: RawFd, at_exec: AtExec) -> Result<(), Errno>;

    /// Closes all fds from `first` on.
    fn close_from(&self, first: RawFd) -> Result<(), Errno>;

    /// Pins itself to these CPUs.
    fn pin(&self, cpus: &[u8]) -> Result<(), Errno>;

    /// Bounds what it may use, for good.
    fn limit(&self, resource: i32, value: u64) -> Result<(), Errno>;

    /// Gains no privileges by executing, ever.
    fn forbid_privileges(&self) -> Result<(), Errno>;

    /// Waits for the word. `ECANCELED` where nobody is there to give it.
    fn wait_for_word(&self, line: RawFd) -> Result<(), Errno>;

    /// Becomes the program behind `program`. Returns only when that fails.
    fn execute(&self, program: RawFd, arguments: &Pointers<'_>, environment: &Pointers<'_>) -> Errno;
}
