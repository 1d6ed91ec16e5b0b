//! A folder in memory that forgets what a real one may forget. Content written and not synced survives a crash in any
//! subset of its sectors; names changed and not synced survive up to any point. Every operation can be made to fail or to be the last.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Content, Folder, Space};

const SECTOR_BYTES: usize = 32;

/// What happens at an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It fails with `StorageFull`; a write leaves half of its bytes.
    Full,
    /// It fails with another error; a write leaves half of its bytes, a sync or rename may have happened or not (it has).
    Broken,
    /// The power goes before it.
    CrashBefore,
    /// The power goes after it, before anybody learns of it.
    CrashAfter,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    live: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    durable_names: BTreeMap<String, usize>,
    /// States of the names since the last sync, the last one the live one.
    names: Vec<BTreeMap<String, usize>>,
    operations: usize,
    /// Bytes that others have taken of the disk, which has [`DISK_BYTES`].
    taken: u64,
    faults: Vec<(usize, Fault)>,
    off: bool,
}

/// The folder; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedFolder(Arc<Mutex<State>>);

/// An open file of a [`SimulatedFolder`].
#[derive(Debug)]
pub(crate) struct SimulatedFile {
    folder: SimulatedFolder,
    inode: usize,
}

/// Bytes of the disk.
pub(crate) const DISK_BYTES: u64 = 1 << 30;

impl SimulatedFolder {
    /// Lets others leave so many bytes of the empty disk.
    pub(crate) fn leave(&self, bytes: u64) {
        self.state().taken = DISK_BYTES - bytes;
    }

    /// Lets the operation of this number (from 0, counted since the folder was made or last crashed) go wrong.
    pub(crate) fn fault_at(&self, operation: usize, fault: Fault) {
        self.state().faults.push((operation, fault));
    }

    /// Operations since the folder was made or last crashed.
    pub(crate) fn operations(&self) -> usize {
        self.state().operations
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.state().faults.clear();
    }

    /// Lets the power come back. `choose` decides, at each place where there is a choice, whether the newer state survived.
    pub(crate) fn crash(&self, mut choose: impl FnMut() -> bool) {
        let mut state = self.state();
        for inode in &mut state.inodes {
            let (old, new) = (std::mem::take(&mut inode.durable), std::mem::take(&mut inode.live));
            let mut kept = Vec::new();
            for at in (0..old.len().max(new.len())).step_by(SECTOR_BYTES) {
                let sector =
                    |content: &[u8]| content.get(at..content.len().min(at + SECTOR_BYTES)).unwrap_or(&[]).to_vec();
                let survivor = if choose() { sector(&new) } else { sector(&old) };
                // A sector that is lost within a file that grew reads as zeros.
                kept.resize(if survivor.is_empty() { kept.len() } else { at }, 0);
                kept.extend(survivor);
            }
            *inode = Inode { durable: kept.clone(), live: kept };
        }
        let mut names = std::mem::take(&mut state.durable_names);
        for newer in std::mem::take(&mut state.names) {
            if !choose() {
                break;
            }
            names = newer;
        }
        state.durable_names = names;
        (state.operations, state.off) = (0, false);
        state.faults.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts an operation. The fault that it meets is for its own code to act out.
    fn begin(&self) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.state();
        let number = state.operations;
        state.operations += 1;
        let fault = state.faults.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
        if state.off || fault == Some(Fault::CrashBefore) {
            state.off = true;
            return Err(io::Error::other("no power"));
        }
        Ok((state, fault))
    }

    fn change_names(&self, change: impl FnOnce(&mut BTreeMap<String, usize>) -> io::Result<()>) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        if fault == Some(Fault::Full) {
            return finish(&mut state, fault);
        }
        let mut names = live_names(&state).clone();
        change(&mut names)?;
        state.names.push(names);
        finish(&mut state, fault)
    }
}

fn live_names(state: &State) -> &BTreeMap<String, usize> {
    state.names.last().unwrap_or(&state.durable_names)
}

fn finish(state: &mut State, fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::CrashAfter) => {
            state.off = true;
            Err(io::Error::other("no power"))
        }
        Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
        Some(Fault::Broken) => Err(io::Error::other("broken disk")),
        Some(Fault::CrashBefore) | None => Ok(()),
    }
}

impl Folder for SimulatedFolder {
    type File = SimulatedFile;

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        let inode = live_names(&self.state()).get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(SimulatedFile { folder: self.clone(), inode })
    }

    fn open_read_only(&self, name: &str) -> io::Result<SimulatedFile> {
        self.open(name)
    }

    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        let inode = self.state().inodes.len();
        self.change_names(|names| match names.insert(name.to_owned(), inode) {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(()),
        })?;
        self.state().inodes.push(Inode::default());
        Ok(SimulatedFile { folder: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change_names(|names| {
            let inode = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            names.insert(to.to_owned(), inode);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change_names(|names| names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        if let Some(names) = state.names.pop() {
            state.durable_names = names;
        }
        state.names.clear();
        finish(&mut state, fault)
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state();
        let held: usize = state.inodes.iter().map(|inode| inode.live.len()).sum();
        let free_bytes = DISK_BYTES.saturating_sub(state.taken).saturating_sub(held as u64);
        Ok(Space { bytes: DISK_BYTES, free_bytes })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(live_names(&self.state()).keys().cloned().collect())
    }
}

impl Content for SimulatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, fault) = self.folder.begin()?;
        let written = if fault.is_none() { bytes } else { &bytes[..bytes.len() / 2] };
        let offset = usize::try_from(offset).unwrap();
        let live = &mut state.inodes[self.inode].live;
        live.resize(live.len().max(offset + written.len()), 0);
        live[offset..offset + written.len()].copy_from_slice(written);
        finish(&mut state, fault)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.folder.state();
        let rest = state.inodes[self.inode].live.get(usize::try_from(offset).unwrap()..).unwrap_or(&[]);
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let (mut state, fault) = self.folder.begin()?;
        state.inodes[self.inode].live.resize(usize::try_from(bytes).unwrap(), 0);
        finish(&mut state, fault)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.folder.state().inodes[self.inode].live.len() as u64)
    }

    fn is_blank(&self) -> io::Result<bool> {
        Ok(self.folder.state().inodes[self.inode].live.iter().all(|byte| *byte == 0))
    }

    fn is_removed(&self) -> io::Result<bool> {
        Ok(!live_names(&self.folder.state()).values().any(|inode| *inode == self.inode))
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fault) = self.folder.begin()?;
        // A sync that fails has done half of its work.
        if fault != Some(Fault::Full) {
            let inode = &mut state.inodes[self.inode];
            inode.durable = inode.live.clone();
        }
        finish(&mut state, fault)
    }
}
