//! What a host can do, as narrow as the host half needs it: each method is one conversation with the kernel.
//!
//! A shim must never decide: whether something may be done was settled before it was asked. `fulmar-shim-linux` is the
//! real one for Linux, `fake::FakeShim` (feature `fake-shim`) has no kernel behind it.

#[cfg(any(test, feature = "fake-shim"))]
pub mod fake;

use std::os::fd::{BorrowedFd, OwnedFd};

use fulmar_core::halves::{Abilities, LaunchPlan, OsError, Signal, Status, Texts, Unit};
use fulmar_core::policy::CpuSet;

use crate::traffic::TrafficLine;

/// What there is on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// The CPUs that tenders may be pinned to.
    pub cpus: CpuSet,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// What can be had.
    pub abilities: Abilities,
}

/// A network interface. It goes with its last holder, or as soon as the shim sees that it has none.
#[derive(Debug)]
pub struct Tap {
    /// The name of the interface.
    pub name: String,
    /// Its frames.
    pub fd: OwnedFd,
}

/// One process to start: a checked plan and the fds for it.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// What runs.
    pub plan: &'a LaunchPlan<'a>,
    /// Standard output and error.
    pub console: BorrowedFd<'a>,
    /// The image, for [`fulmar_core::halves::IMAGE_FD`]. A virtual machine has none, and what is here is not passed on.
    pub image: BorrowedFd<'a>,
    /// One for each of the plan's networks, from [`fulmar_core::halves::TAP_FD_FIRST`] on. None for a virtual machine: only one can
    /// have a tap open, and that is bhyve, which finds it by its name.
    pub taps: &'a [Tap],
    /// The names of all taps, in the order of the plan's networks.
    pub tap_names: Texts<'a>,
    /// The block devices, behind the taps.
    pub blocks: &'a [OwnedFd],
    /// Where the tender records how its guest fares, behind all others.
    pub status: BorrowedFd<'a>,
}

/// A process that can be told from a later one of the same id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started, in a form that only this host's shim can read; different after every boot.
    pub started: u64,
}

/// The end of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Which.
    pub unit: Unit,
    /// How.
    pub status: Status,
}

/// What has become of a unit's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// It runs.
    Running,
    /// It is gone; how, as far as the kernel still knows.
    Gone(Status),
}

/// The host half's door to its operating system.
pub trait Shim {
    /// CPUs, memory, and what else can be had.
    ///
    /// # Errors
    /// The kernel's.
    fn capacity(&mut self) -> Result<Capacity, OsError>;

    /// Calls `each` with the name of every bridge.
    ///
    /// # Errors
    /// The kernel's.
    fn bridges(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), OsError>;

    /// Makes a tap, up and in this bridge.
    ///
    /// # Errors
    /// [`fulmar_core::halves::Attempt::FindBridge`] where there is no such bridge, and the kernel's; nothing is left then.
    fn create_tap(&mut self, bridge: &[u8]) -> Result<Tap, OsError>;

    /// Closes what this process has of taps. One that no tender has is gone afterwards, or with the next sweep.
    fn release_taps(&mut self, taps: Vec<Tap>);

    /// Ends the tenders of this `vmmd` that still run and are none of these processes, and waits for them as long as that makes sense; how many.
    /// Called when all that is to be adopted is, and before anything is started. Nobody is looked for where the system does not say whose
    /// a tender is.
    ///
    /// # Errors
    /// The kernel's.
    fn end_strays(&mut self, known: &[u32]) -> Result<u32, OsError>;

    /// Removes what predecessors have left and nobody holds, such as taps and cgroups; how many. Called when all that is to be
    /// adopted is.
    ///
    /// # Errors
    /// The kernel's.
    fn sweep(&mut self) -> Result<u32, OsError>;

    /// Starts a tender and watches it. `record` is called while the process exists and before it becomes the tender, so
    /// that no unikernel ever runs unrecorded; where it fails the process ends.
    ///
    /// # Errors
    /// Of `record`, and the kernel's, of whichever step; no process is left then and no exit will be told.
    fn spawn(
        &mut self,
        start: &Start<'_>,
        record: &mut dyn FnMut(Process) -> Result<(), OsError>,
    ) -> Result<Process, OsError>;

    /// Sends a signal; whether there was a process to send it to.
    ///
    /// # Errors
    /// The kernel's.
    fn signal(&mut self, unit: Unit, signal: Signal) -> Result<bool, OsError>;

    /// Watches a unit's process that a predecessor started with these taps, if it is still there.
    ///
    /// # Errors
    /// The kernel's.
    fn adopt(&mut self, unit: Unit, process: Process, taps: Texts<'_>) -> Result<Found, OsError>;

    /// Readable when [`Shim::next_exit`] has something to tell.
    fn exit_fd(&self) -> BorrowedFd<'_>;

    /// One unit that has ended; it is reaped and forgotten.
    fn next_exit(&mut self) -> Option<Exit>;

    /// Calls `each` with what each unit's process has read from and written to storage, of those that live. `false` where this system
    /// does not tell it, or tells it to the statistics daemon too: nothing is said then, and never will be.
    fn block_traffic(&mut self, each: &mut dyn FnMut(TrafficLine)) -> bool;
}
