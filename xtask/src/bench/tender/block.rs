//! Disks: sectors a second, in order and at random, as the guest `block` measures them on what is in the host's memory: a file
//! on the disk of temporary files, a file that is nowhere but in memory, and a loop device over that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use fulmar_tests::namespace;
use fulmar_tests::skips::skip;

use super::figures::{Figures, Unit};
use super::network::apart;
use super::stage::{Stage, number};
use crate::steps::{Done, Failure};

const PAIRS: usize = 7;
const DISK_BYTES: usize = 32 << 20;
const SECTOR_BYTES: [u32; 2] = [512, 4096];

pub(super) fn run(stage: &Stage, figures: &mut Figures) -> Done {
    measure(stage, figures, "file", &make(&stage.folder)?)?;
    let title = format!("bench tender ({} block, in memory)", stage.kind.name());
    apart(&title, || {
        let folder = stage.folder.join("memory");
        let mounted = namespace::Disk::mount(&folder, 2 * DISK_BYTES, nix::mount::MsFlags::empty());
        let disk = make(&folder)?;
        measure(stage, figures, "memory", &disk)?;
        match Loop::attach(&disk) {
            Ok(device) => measure(stage, figures, "loop", &device.path)?,
            Err(error) => skip(&title, &format!("no loop device: {error}")),
        }
        drop(mounted);
        Ok(())
    })
}

/// A disk full of sectors that are there.
fn make(folder: &Path) -> Done<PathBuf> {
    let path = folder.join("disk");
    fs::write(&path, vec![7; DISK_BYTES])
        .and_then(|()| File::open(&path)?.sync_all())
        .map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    Ok(path)
}

fn measure(stage: &Stage, figures: &mut Figures, backing: &str, disk: &Path) -> Done {
    for bytes in SECTOR_BYTES {
        let all = stage.pairs(PAIRS, |side| {
            let mut command = stage.command(side);
            command.arg(format!("--block:storage={}", disk.display()));
            command.arg(format!("--block-sector-size:storage={bytes}")).arg(stage.image("block")).arg("--bench");
            let said = stage.said(&mut command)?;
            let rate = |did, how| {
                number(&said, &format!("block: {did} "), &format!(" sectors a second {how}")).map(|rate| rate as f64)
            };
            Ok([
                rate("read", "in order")?,
                rate("wrote", "in order")?,
                rate("read", "at random")?,
                rate("wrote", "at random")?,
            ])
        })?;
        for (what, samples) in ["read", "write", "random read", "random write"].into_iter().zip(all) {
            let what = format!("{} block on {backing}: {what}, {bytes} bytes", stage.kind.name());
            figures.add(&what, Unit::Sectors(bytes), samples);
        }
    }
    Ok(())
}

/// A loop device that nobody but we hold any more: it goes when this does, however this process ends.
struct Loop {
    path: PathBuf,
    _held: File,
}

impl Loop {
    fn attach(file: &Path) -> Result<Loop, String> {
        let losetup = |arguments: &[&Path]| {
            let output = Command::new("losetup").args(arguments).output();
            let output = output.map_err(|error| format!("cannot run `losetup`: {error}"))?;
            let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
        };
        let path = PathBuf::from(losetup(&["--find".as_ref(), "--show".as_ref(), file])?);
        let held = File::open(&path).map_err(|error| format!("{}: {error}", path.display()));
        losetup(&["--detach".as_ref(), &path])?;
        Ok(Loop { path, _held: held? })
    }
}
