//! The files of block devices: what is found of them at the start, and opening them for a tender. The tenant's name of one is
//! turned into a file here, in the half without privileges; the other half is given an open file.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::Arc;

use fulmar_core::halves::{Attempt, LaunchError, OsError};
use fulmar_core::limits::DEVICES_MAX;
use fulmar_core::machine::{Block, BlockStage, Change, Input};
use fulmar_core::name::Name;
use fulmar_host::blocks::{BlockError, Blocks};
use fulmar_host::disk::{Content, HostFolder};
use fulmar_host::{error, info, warning};

use super::Control;
use super::worker::errno;

impl Control<'_> {
    /// Puts the folder of block devices in order, and tells the machine what there is of their files.
    pub(super) fn find_blocks(&mut self) -> Result<(), BlockError> {
        let swept = self.blocks.sweep(|name| self.machine.find_block(name).is_some())?;
        for (old, new) in &swept.moved {
            warning!(
                "block/{old} in the state folder: no record names it, and there is something in it. It is block/{new} now: put what is \
                 wanted into a block device with set-block, or back into its place where the journal is restored, and remove the rest"
            );
        }
        if swept.unclaimed > 0 {
            warning!(
                "{} files of the block folder that no record names are kept since an earlier start",
                swept.unclaimed
            );
        }
        if swept.removed > 0 {
            info!("removed {} files of the block folder that no record names and nobody needs", swept.removed);
        }
        if swept.foreign > 0 {
            warning!("{} files of the block folder are no block devices of ours and are left alone", swept.foreign);
        }
        let recorded = |(slot, block): (u16, &Block)| (slot, *block.name(), block.bytes());
        let recorded: Vec<(u16, Name, u64)> = self.machine.blocks().map(recorded).collect();
        for (slot, name, expected) in recorded {
            let bytes = self.blocks.bytes(&name).unwrap_or_else(|error| {
                error!(name = name; "block device {name}: {error}");
                None
            });
            match bytes {
                Some(bytes) if bytes == expected => {}
                Some(bytes) => {
                    error!(name = name; "block device {name}: its file has {bytes} bytes instead of {expected}: restore it")
                }
                None => error!(name = name; "block device {name}: its file is gone: restore it"),
            }
            self.handle(Input::BlockFile { slot, bytes });
        }
        Ok(())
    }

    /// What is being removed has another name from before its record goes until its file does, so that a start knows it.
    pub(super) fn retire_block(&self, change: Change) {
        self.rename_dropped(change, Blocks::retire);
    }

    /// Its record stays.
    pub(super) fn reinstate_block(&self, change: Change) {
        self.rename_dropped(change, Blocks::reinstate);
    }

    fn rename_dropped(
        &self,
        change: Change,
        rename: impl Fn(&Blocks<Arc<HostFolder>>, &Name) -> Result<(), BlockError>,
    ) {
        let Change::BlockGone(slot) = change else { return };
        // One that is undone was never used.
        let Some(block) = self.machine.block(slot).filter(|block| block.stage() == BlockStage::Dropping) else {
            return;
        };
        if let Err(error) = rename(&self.blocks, block.name()) {
            warning!(name = block.name(); "{}: {error}", block.name());
        }
    }

    /// Opens what the devices of the unikernel in this slot are, in their order.
    pub(super) fn open_blocks(&self, slot: u16) -> Result<heapless::Vec<File, DEVICES_MAX>, LaunchError> {
        let mut files = heapless::Vec::new();
        let Some(unikernel) = self.machine.unikernel(slot) else { return Ok(files) };
        for device in self.machine.blocks_of_plan(slot) {
            let Some((_, block)) = self.machine.block_of(unikernel.name(), &device) else {
                error!(name = unikernel.name(); "{}: there is no block device {}", unikernel.name(), device.host());
                return Err(LaunchError::BlockFile);
            };
            // As many as the plan has.
            let _ = files.push(self.open_block(block)?);
        }
        Ok(files)
    }

    fn open_block(&self, block: &Block) -> Result<File, LaunchError> {
        let failed = |error: &io::Error| {
            error!(name = block.name(); "block device {}: could not open its file: {error}", block.name());
            match error.kind() {
                io::ErrorKind::NotFound => LaunchError::BlockFile,
                _ => LaunchError::Os(OsError { attempt: Attempt::PrepareProcess, errno: errno(error) }),
            }
        };
        let file = self.blocks.open(block.name()).map_err(|error| failed(&error.error))?;
        let bytes = Content::bytes(&file).map_err(|error| failed(&error))?;
        if bytes != block.bytes() {
            error!(name = block.name(); "block device {}: its file has {bytes} bytes instead of {}", block.name(), block.bytes());
            return Err(LaunchError::BlockFile);
        }
        // The lock goes with the open file to the tender, and ends with it. So the tender of a unikernel that nobody
        // recorded, killed at the start and perhaps not gone yet, never shares it with the next one.
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(LaunchError::BlockBusy),
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }
}
