//! The processes of all units: which runs, and which has ended. The kernel tells the end and the status of any process that was
//! asked about, whoever its parent is, so an adopted one's too.

use std::collections::BTreeMap;

use fulmar_core::halves::{Status, Texts, Unit};
use fulmar_host::shim::{Exit, Process};
use nix::errno::Errno;

use crate::kernel::{Ended, Kernel, Sent};
use crate::process::Identities;

/// Whose child a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parent {
    /// Ours: it is there until we wait for it, and so is its id.
    Us,
    /// Nobody's that counts: its id is free as soon as it ends.
    Other,
}

/// A process that is watched.
#[derive(Debug)]
struct Watched {
    process: Process,
    parent: Parent,
    /// Each with a NUL at its end.
    taps: Vec<u8>,
}

/// A unit that has ended, and what is to be cleared away.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Left {
    /// Which, and how.
    pub(crate) exit: Exit,
    /// The process that it was.
    pub(crate) pid: i32,
    /// Whose child.
    pub(crate) parent: Parent,
    /// Its taps, each with a NUL at its end.
    pub(crate) taps: Vec<u8>,
}

/// All that are watched.
#[derive(Debug)]
pub(crate) struct Watch {
    identities: Identities,
    units: BTreeMap<Unit, Watched>,
    pids: BTreeMap<i32, Unit>,
}

impl Watch {
    /// Watches nothing yet.
    pub(crate) fn new(kernel: &impl Kernel) -> Result<Self, Errno> {
        Ok(Self { identities: Identities::new(kernel)?, units: BTreeMap::new(), pids: BTreeMap::new() })
    }

    /// The process of this id. `ESRCH` when it has ended.
    pub(crate) fn identify(&self, kernel: &impl Kernel, pid: i32) -> Result<Process, Errno> {
        self.identities.identify(kernel, pid)
    }

    /// Watches a child, which has not been waited for.
    pub(crate) fn add(
        &mut self,
        kernel: &impl Kernel,
        unit: Unit,
        process: Process,
        taps: Vec<u8>,
    ) -> Result<(), Errno> {
        let pid = pid_of(process).ok_or(Errno::ESRCH)?;
        kernel.watch(pid)?;
        self.insert(unit, pid, Watched { process, parent: Parent::Us, taps });
        Ok(())
    }

    /// Watches a process if it is the one that is meant; whether it is.
    pub(crate) fn adopt(
        &mut self,
        kernel: &impl Kernel,
        unit: Unit,
        process: Process,
        taps: Texts<'_>,
    ) -> Result<bool, Errno> {
        let Some(pid) = pid_of(process) else { return Ok(false) };
        match kernel.watch(pid) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        // Looked at after it is watched: if it is the one that is meant now, it was when the watch began. The end of another
        // one means nothing to us.
        match self.identities.identify(kernel, pid) {
            Ok(found) if found == process => {}
            Ok(_) | Err(Errno::ESRCH) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        self.insert(unit, pid, Watched { process, parent: Parent::Other, taps: taps.as_bytes().to_vec() });
        Ok(true)
    }

    /// Whether a unit is watched.
    pub(crate) fn has(&self, unit: Unit) -> bool {
        self.units.contains_key(&unit)
    }

    /// Sends a signal; whether there was somebody.
    pub(crate) fn signal(&self, kernel: &impl Kernel, unit: Unit, signal: Sent) -> Result<bool, Errno> {
        let Some(Watched { process, parent, .. }) = self.units.get(&unit) else { return Ok(false) };
        let Some(pid) = pid_of(*process) else { return Ok(false) };
        // The id of somebody else's child may have gone to another by now, though we have not heard of its end.
        if *parent == Parent::Other && self.identities.identify(kernel, pid) != Ok(*process) {
            return Ok(false);
        }
        match kernel.signal(pid, signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// One unit that has ended. It is forgotten, and not yet waited for.
    pub(crate) fn next_exit(&mut self, kernel: &impl Kernel) -> Option<Left> {
        loop {
            let Ended { pid, status } = kernel.next_ended()?;
            let Some(unit) = self.pids.remove(&pid) else { continue };
            let Some(Watched { parent, taps, .. }) = self.units.remove(&unit) else { continue };
            return Some(Left { exit: Exit { unit, status: status_of(status) }, pid, parent, taps });
        }
    }

    fn insert(&mut self, unit: Unit, pid: i32, watched: Watched) {
        self.units.insert(unit, watched);
        self.pids.insert(pid, unit);
    }
}

/// The id of a process, where it is one.
pub(crate) fn pid_of(process: Process) -> Option<i32> {
    i32::try_from(process.pid).ok().filter(|pid| *pid > 0)
}

/// What wait(2) says of an end.
fn status_of(status: i32) -> Status {
    match status & 0x7f {
        0 => Status::Code(status.to_le_bytes()[1]),
        // It has been stopped or goes on, which is no end.
        0x7f => Status::Unknown,
        signal => u8::try_from(signal).map_or(Status::Unknown, Status::Signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_the_manual_has_it() {
        for (status, expected) in [
            (0, Status::Code(0)),
            (7 << 8, Status::Code(7)),
            (255 << 8, Status::Code(255)),
            (9, Status::Signal(9)),
            (11 | 0x80, Status::Signal(11)),
            (0x137f, Status::Unknown),
        ] {
            assert_eq!(status_of(status), expected, "{status:#x}");
        }
    }
}
