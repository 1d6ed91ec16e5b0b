//! What lies in a guest's memory for it to read at the start: the boot information of its kind, then the manifest with what
//! the tender has attached, then the command line.

use fulmar_core::solo5::manifest::{ENTRY_BYTES, HEAD_BYTES, KIND_RESERVED, VERSION};

use crate::device::{Attachment, Devices};
use crate::memory::{Memory, Outside};

/// Bytes reserved for the command line and its NUL.
const COMMAND_LINE_BYTES: usize = 8192;

/// Where what the boot information points to has been put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) manifest: u64,
    pub(crate) command_line: u64,
}

/// Where the manifest and the command line go, for boot information of `info_bytes` at `info`.
pub(crate) fn place(info: u64, info_bytes: u64, devices: &Devices) -> Placed {
    let manifest = info + info_bytes;
    let manifest_bytes = HEAD_BYTES + ENTRY_BYTES * (devices.list().len() + 1);
    Placed { manifest, command_line: manifest + manifest_bytes as u64 }
}

/// Writes boot information, manifest and command line.
pub(crate) fn write(
    memory: &mut Memory,
    info_address: u64,
    info: &[u8],
    placed: Placed,
    devices: &Devices,
    command_line: &[u8],
) -> Result<(), Outside> {
    put(memory, info_address, info)?;
    put(memory, placed.manifest, &manifest(devices))?;
    // The memory is zero: the NUL is there already.
    debug_assert!(command_line.len() < COMMAND_LINE_BYTES);
    put(memory, placed.command_line, command_line)
}

fn put(memory: &mut Memory, address: u64, bytes: &[u8]) -> Result<(), Outside> {
    memory.bytes_mut(address, bytes.len() as u64)?.copy_from_slice(bytes);
    Ok(())
}

/// The manifest as the guest sees it: what the image declares, filled in.
fn manifest(devices: &Devices) -> Vec<u8> {
    let count = devices.list().len() + 1;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + ENTRY_BYTES * count);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((count as u32).to_le_bytes());
    bytes.extend(entry("", KIND_RESERVED, None));
    for device in devices.list() {
        bytes.extend(entry(&device.name, device.attachment.kind().number(), Some(&device.attachment)));
    }
    bytes
}

fn entry(name: &str, kind: u32, attachment: Option<&Attachment>) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..name.len()].copy_from_slice(name.as_bytes());
    entry[68..72].copy_from_slice(&kind.to_le_bytes());
    match attachment {
        Some(Attachment::Block { capacity_bytes, sector_bytes, .. }) => {
            entry[72..80].copy_from_slice(&capacity_bytes.to_le_bytes());
            entry[80..82].copy_from_slice(&sector_bytes.to_le_bytes());
        }
        Some(Attachment::Net { mac, mtu, .. }) => {
            entry[72..78].copy_from_slice(mac);
            entry[78..80].copy_from_slice(&mtu.to_le_bytes());
        }
        None => {}
    }
    if let Some(attachment) = attachment {
        entry[88..92].copy_from_slice(&attachment.fd().to_le_bytes());
        entry[96] = 1;
    }
    entry
}
