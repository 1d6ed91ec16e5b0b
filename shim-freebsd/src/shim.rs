//! This host as the host half knows it.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fulmar_core::halves::{Abilities, Attempt, OsError, Signal, Status, Texts, Unit, VirtualMachine, machine_name};
use fulmar_host::shim::{Capacity, Exit, Found, Process, Shim, Start, Tap};
use fulmar_host::traffic::TrafficLine;
use nix::errno::Errno;

use crate::bhyve::{self, Making, Programs};
use crate::failed;
use crate::kernel::{Held, Kernel, OpenFor, Sent};
use crate::spawn::Prepared;
use crate::tap::Interfaces;
use crate::vmm;
use crate::watch::{Left, Parent, Watch, pid_of};

/// Why no unikernel can be run here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShimError {
    /// The tender finds image and disks by their fds, and `/dev/fd` has only the first three.
    NoFdescfs,
    /// The kernel's.
    Os(Errno),
}

impl fmt::Display for ShimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFdescfs => f.write_str(
                "/dev/fd has only the first three file descriptors: mount it with 'mount -t fdescfs fdescfs /dev/fd', and \
                 write that into /etc/fstab",
            ),
            Self::Os(errno) => f.write_str(errno.desc()),
        }
    }
}

impl std::error::Error for ShimError {}

impl From<Errno> for ShimError {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

/// This host.
#[derive(Debug)]
pub(crate) struct HostShim<K> {
    kernel: K,
    watch: Watch,
    socket: OwnedFd,
    null: OwnedFd,
    /// Held open, so that an upgrade does not mix versions.
    tender: Option<OwnedFd>,
    programs: Option<Programs>,
    /// What tells the names of our virtual machines from those of another host half.
    tag: u32,
}

impl<K: Kernel> HostShim<K> {
    /// Prepares to start `tender` processes. One that is not there is told by [`Shim::capacity`]. `tag` differs from that of any other
    /// host half here.
    pub(crate) fn new(kernel: K, tender: Option<&Path>, tag: u32) -> Result<Self, ShimError> {
        let tender = tender.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
        let tender = tender.and_then(|path| kernel.open(&path, OpenFor::Execute).ok());
        let (socket, null) = (kernel.socket()?, kernel.open(c"/dev/null", OpenFor::Read)?);
        let by_number = CString::new(format!("/dev/fd/{}", null.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
        match kernel.open(&by_number, OpenFor::Read) {
            Ok(_) => {}
            Err(Errno::ENOENT) => return Err(ShimError::NoFdescfs),
            Err(errno) => return Err(errno.into()),
        }
        let watch = Watch::new(&kernel)?;
        let programs = Programs::find(&kernel);
        Ok(Self { kernel, watch, socket, null, tender, programs, tag })
    }

    fn interfaces(&self) -> Interfaces<'_, K> {
        Interfaces { kernel: &self.kernel, socket: self.socket.as_fd() }
    }

    /// Removes what a tender that has ended leaves behind. What cannot be removed now is, by the next sweep.
    fn clear_away(&self, pid: i32, taps: Texts<'_>) {
        let _ = vmm::destroy(&self.kernel, pid);
        self.clear_taps(taps);
    }

    /// Removes the virtual machine of bhyve that a unit which has ended may have had; its name is nobody else's.
    fn clear_machine(&self, unit: Unit) {
        let _ = vmm::destroy_named(&self.kernel, &machine_name(self.tag, unit));
    }

    fn clear_taps(&self, taps: Texts<'_>) {
        for tap in taps.iter().filter_map(|tap| std::str::from_utf8(tap).ok()) {
            let _ = self.interfaces().destroy_unheld(tap);
        }
    }

    /// Ends a process that shall not become a tender, without a trace.
    fn discard(&self, pid: i32) {
        // It is our child and has not been waited for, so the id is its own.
        let _ = self.kernel.signal(pid, Sent::Kill);
        let _ = self.kernel.wait(pid);
    }

    /// Starts bhyve: its process is recorded before there is a virtual machine, and has the word when the kernel is loaded.
    fn spawn_machine(
        &mut self,
        start: &Start<'_>,
        machine: &VirtualMachine<'_>,
        record: &mut dyn FnMut(Process) -> Result<(), OsError>,
    ) -> Result<Process, OsError> {
        let name = machine_name(self.tag, start.plan.unit);
        let Some(programs) = self.programs.take() else { return Err(failed(Attempt::OpenTender)(Errno::ENOENT)) };
        let null = self.null.try_clone().map_err(|_| failed(Attempt::PrepareProcess)(Errno::EMFILE));
        let result = null.and_then(|null| {
            // One of this name was not removed when the unit ended last.
            vmm::destroy_named(&self.kernel, &name).map_err(failed(Attempt::RemoveMachine))?;
            let zvols = bhyve::open_zvols(&self.kernel, machine)?;
            let making = Making::new(&programs, null.as_fd(), start, machine, name.clone(), &zvols)?;
            let held = making.fork(&self.kernel)?;
            let begun = self.begin(start, &held, record, |kernel| making.load(kernel));
            if begun.is_err() {
                self.discard(held.pid);
            }
            begun
        });
        self.programs = Some(programs);
        if result.is_err() {
            // What cannot be removed now is, by the next launch or the next sweep.
            let _ = vmm::destroy_named(&self.kernel, &name);
            self.clear_taps(start.tap_names);
        }
        result
    }

    fn begin(
        &mut self,
        start: &Start<'_>,
        held: &Held,
        record: &mut dyn FnMut(Process) -> Result<(), OsError>,
        ready: impl FnOnce(&K) -> Result<(), OsError>,
    ) -> Result<Process, OsError> {
        let watching = failed(Attempt::WatchProcess);
        // A process that failed already is no reason to give up here: its report says more.
        let process = match self.watch.identify(&self.kernel, held.pid) {
            Err(Errno::ESRCH) => Process { pid: held.pid.cast_unsigned(), started: 0 },
            result => result.map_err(&watching)?,
        };
        record(process)?;
        ready(&self.kernel)?;
        self.kernel.release(held)?;
        let taps = start.tap_names.as_bytes().to_vec();
        self.watch.add(&self.kernel, start.plan.unit, process, taps).map_err(watching)?;
        Ok(process)
    }
}

impl<K: Kernel> Shim for HostShim<K> {
    fn capacity(&mut self) -> Result<Capacity, OsError> {
        let failed = failed(Attempt::ReadCapacity);
        let cpus = self.kernel.cpus().map_err(&failed)?;
        let mut bytes = [0; 8];
        self.kernel.value_named(c"hw.physmem", &mut bytes).map_err(failed)?;
        let abilities = Abilities {
            // Only root may make a virtual machine, so that is who runs it.
            accounts: false,
            taps: self.interfaces().is_possible(),
            kvm: self.kernel.has_module(c"vmm"),
            tender: self.tender.is_some(),
            solo5: true,
            memory_cgroup: false,
            pids_cgroup: false,
            bhyve: self.programs.as_ref().filter(|_| self.kernel.has_module(c"vmm")).map(|_| self.tag),
        };
        Ok(Capacity { cpus, memory_mb: u64::from_le_bytes(bytes) / (1024 * 1024), abilities })
    }

    fn bridges(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), OsError> {
        let bridges = self.interfaces().bridges().map_err(failed(Attempt::ListBridges))?;
        bridges.iter().for_each(|bridge| each(bridge));
        Ok(())
    }

    fn create_tap(&mut self, bridge: &[u8]) -> Result<Tap, OsError> {
        self.interfaces().create(bridge)
    }

    fn release_taps(&mut self, taps: Vec<Tap>) {
        for tap in taps {
            // One that stays although nobody has it is found by the next sweep.
            let _ = self.interfaces().release(tap);
        }
    }

    fn end_strays(&mut self, _: &[u32]) -> Result<u32, OsError> {
        Ok(0)
    }

    fn sweep(&mut self) -> Result<u32, OsError> {
        let machines =
            vmm::sweep(&self.kernel, self.tag, |unit| self.watch.has(unit)).map_err(failed(Attempt::RemoveMachine))?;
        Ok(machines + self.interfaces().sweep()?)
    }

    fn spawn(
        &mut self,
        start: &Start<'_>,
        record: &mut dyn FnMut(Process) -> Result<(), OsError>,
    ) -> Result<Process, OsError> {
        if let Some(machine) = &start.plan.machine {
            return self.spawn_machine(start, machine, record);
        }
        let program = self.tender.as_ref().ok_or(failed(Attempt::OpenTender)(Errno::ENOENT))?;
        let prepared = Prepared::new(program.as_fd(), self.null.as_fd(), start);
        let prepared = prepared.map_err(failed(Attempt::PrepareProcess))?;
        let held = self.kernel.fork(&prepared).map_err(failed(Attempt::Fork))?;
        let result = self.begin(start, &held, record, |_| Ok(()));
        if result.is_err() {
            self.discard(held.pid);
            let _ = vmm::destroy(&self.kernel, held.pid);
        }
        result
    }

    fn signal(&mut self, unit: Unit, signal: Signal) -> Result<bool, OsError> {
        let signal = match signal {
            Signal::Terminate => Sent::Terminate,
            Signal::Kill => Sent::Kill,
        };
        self.watch.signal(&self.kernel, unit, signal).map_err(failed(Attempt::SendSignal))
    }

    fn adopt(&mut self, unit: Unit, process: Process, taps: Texts<'_>) -> Result<Found, OsError> {
        if self.watch.adopt(&self.kernel, unit, process, taps).map_err(failed(Attempt::WatchProcess))? {
            return Ok(Found::Running);
        }
        self.clear_machine(unit);
        // Its id may be another tender's by now, whose machine has the same name.
        if let Some(pid) = pid_of(process)
            && self.watch.identify(&self.kernel, pid) == Err(Errno::ESRCH)
        {
            self.clear_away(pid, taps);
        }
        Ok(Found::Gone(Status::Unknown))
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.kernel.ended_fd()
    }

    fn next_exit(&mut self) -> Option<Exit> {
        let Left { exit, pid, parent, taps } = self.watch.next_exit(&self.kernel)?;
        let taps = Texts::new(&taps).unwrap_or_default();
        self.clear_machine(exit.unit);
        match parent {
            // While nobody has waited for it the id is its own, and so is the name of its machine.
            Parent::Us => {
                self.clear_away(pid, taps);
                let _ = self.kernel.wait(pid);
            }
            Parent::Other if self.watch.identify(&self.kernel, pid) == Err(Errno::ESRCH) => {
                self.clear_away(pid, taps);
            }
            Parent::Other => {}
        }
        Some(exit)
    }

    /// The statistics daemon is told it as the other numbers of a process.
    fn block_traffic(&mut self, _: &mut dyn FnMut(TrafficLine)) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
