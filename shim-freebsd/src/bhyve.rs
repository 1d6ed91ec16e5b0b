//! Virtual machines of bhyve: what loads the kernel, and bhyve itself. Both are programs of the system's, called by command lines that
//! the core makes; their disks are open already, under numbers that the lines name.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fulmar_core::halves::{
    Attempt, BY_FD, DISK_FD_FIRST, MACHINE_LINE_BYTES_MAX, MachineName, OsError, TextsFull, VirtualMachine,
};
use fulmar_core::limits::MACHINE_LOAD_MS;
use fulmar_host::shim::Start;
use nix::errno::Errno;

use crate::failed;
use crate::kernel::{Held, Kernel, OpenFor, Sent};
use crate::spawn::Prepared;

/// Whose kernel is FreeBSD's.
const LOADER: &CStr = c"/usr/sbin/bhyveload";

/// Whose kernel is Linux's; a package of its own.
const GRUB: &CStr = c"/usr/local/sbin/grub-bhyve";

const BHYVE: &CStr = c"/usr/sbin/bhyve";

/// The programs, held open so that an upgrade does not mix versions.
#[derive(Debug)]
pub(crate) struct Programs {
    bhyve: OwnedFd,
    loader: OwnedFd,
    grub: Option<OwnedFd>,
}

impl Programs {
    /// Those of this host, if it has them.
    pub(crate) fn find(kernel: &impl Kernel) -> Option<Self> {
        let open = |path| kernel.open(path, OpenFor::Execute).ok();
        Some(Self { bhyve: open(BHYVE)?, loader: open(LOADER)?, grub: open(GRUB) })
    }
}

/// A virtual machine that is being started.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) null: BorrowedFd<'a>,
    pub(crate) start: &'a Start<'a>,
    pub(crate) machine: &'a VirtualMachine<'a>,
    pub(crate) name: MachineName,
    /// Its disks in their order.
    disks: Vec<BorrowedFd<'a>>,
}

/// Opens what is not open already of the disks of a virtual machine.
pub(crate) fn open_zvols(kernel: &impl Kernel, machine: &VirtualMachine<'_>) -> Result<Vec<OwnedFd>, OsError> {
    let failed = failed(Attempt::OpenZvol);
    let paths = machine.disks.with_nul().zip(machine.disks.iter()).filter(|(_, disk)| *disk != BY_FD);
    paths
        .map(|(path, _)| {
            let path = CStr::from_bytes_with_nul(path).map_err(|_| failed(Errno::EINVAL))?;
            kernel.open(path, OpenFor::Disk).map_err(&failed)
        })
        .collect()
}

impl<'a> Making<'a> {
    /// Of these parts; `zvols` are those of [`open_zvols`].
    pub(crate) fn new(
        programs: &'a Programs,
        null: BorrowedFd<'a>,
        start: &'a Start<'a>,
        machine: &'a VirtualMachine<'a>,
        name: MachineName,
        zvols: &'a [OwnedFd],
    ) -> Result<Self, OsError> {
        let (mut zvols, mut files) = (zvols.iter(), start.blocks.iter());
        let disks = machine.disks.iter().map(|disk| if disk == BY_FD { files.next() } else { zvols.next() });
        let disks: Option<Vec<_>> = disks.map(|disk| disk.map(AsFd::as_fd)).collect();
        let disks = disks.ok_or(failed(Attempt::PrepareProcess)(Errno::EINVAL))?;
        Ok(Self { programs, null, start, machine, name, disks })
    }

    /// Forks what is to become bhyve. Its standard input is a pipe that nobody writes to and that never ends: the console that it
    /// writes to could be read too.
    pub(crate) fn fork(&self, kernel: &impl Kernel) -> Result<Held, OsError> {
        let prepare = failed(Attempt::PrepareProcess);
        let Start { plan, console, tap_names, .. } = *self.start;
        let (silence, held_open) = kernel.pipe().map_err(&prepare)?;
        let taps = tap_names.iter().filter_map(|tap| std::str::from_utf8(tap).ok());
        let mut buffer = [0; MACHINE_LINE_BYTES_MAX];
        let line = self.machine.run(&self.name, plan.memory_mb, taps, &mut buffer);
        let line = line.map_err(|TextsFull| prepare(Errno::E2BIG))?;
        let mut fds = vec![silence.as_fd(), console, console];
        fds.extend(&self.disks);
        fds.push(held_open.as_fd());
        let prepared = Prepared::for_machine(self.programs.bhyve.as_fd(), fds, DISK_FD_FIRST.into(), plan, line);
        kernel.fork(&prepared.map_err(prepare)?).map_err(failed(Attempt::Fork))
    }

    /// Loads its kernel, within a bound.
    pub(crate) fn load(&self, kernel: &impl Kernel) -> Result<(), OsError> {
        let (prepare, loading) = (failed(Attempt::PrepareProcess), failed(Attempt::LoadMachine));
        let Start { plan, console, .. } = *self.start;
        let mut buffer = [0; MACHINE_LINE_BYTES_MAX];
        let line = self.machine.load(&self.name, plan.memory_mb, &mut buffer);
        let line = line.map_err(|TextsFull| prepare(Errno::E2BIG))?;
        let mut fds = vec![self.null, console, console];
        fds.extend(&self.disks);
        let map;
        let program = match self.machine.disk_map() {
            None => &self.programs.loader,
            Some(text) => {
                let (read, write) = kernel.pipe().map_err(&prepare)?;
                // It is shorter than what a pipe takes at once.
                nix::unistd::write(&write, text.as_bytes()).map_err(&prepare)?;
                map = read;
                fds.push(map.as_fd());
                self.programs.grub.as_ref().ok_or(loading(Errno::ENOENT))?
            }
        };
        let prepared = Prepared::for_machine(program.as_fd(), fds, DISK_FD_FIRST.into(), plan, line);
        let held = kernel.fork(&prepared.map_err(prepare)?).map_err(failed(Attempt::Fork))?;
        let loaded = kernel.release(&held).map_err(OsError::from);
        let loaded = loaded.and_then(|()| kernel.wait_within(held.pid, MACHINE_LOAD_MS).map_err(&loading));
        match loaded {
            Ok(Some(true)) => return Ok(()),
            Ok(Some(false)) => return Err(OsError { attempt: Attempt::LoadMachine, errno: 0 }),
            Ok(None) | Err(_) => {}
        }
        // It is our child and has not been waited for, so the id is its own.
        let _ = kernel.signal(held.pid, Sent::Kill);
        let _ = kernel.wait(held.pid);
        Err(loaded.err().unwrap_or(OsError { attempt: Attempt::LoadInTime, errno: 0 }))
    }
}
