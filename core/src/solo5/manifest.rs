//! The devices that an image declares. All of them must be given when it runs; their handle is their place in the list.

use core::fmt;

use heapless::{String, Vec};

use super::bytes::{array_at, u32_at};
use super::elf::Elf;
use super::error::{ImageError, ManifestFault};
use super::note::{MANIFEST_TYPE, find as find_note};
use super::{ReadAt, fill};
use crate::limits::{DEVICE_NAME_BYTES_MAX, DEVICES_MAX};

/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 104;
/// Bytes before the first entry: version and count.
pub const HEAD_BYTES: usize = 8;
/// Version of the manifest's format.
pub const VERSION: u32 = 1;
/// Kind of the first entry, which is no device.
pub const KIND_RESERVED: u32 = 0x4000_0000;

/// Padding before the manifest, counted in the descriptor of its note.
const PADDING_BYTES: u32 = 4;
/// Longest descriptor of a manifest note: padding, head and 64 entries.
const NOTE_BYTES_MAX: u32 = 4 + 8 + 64 * 104;

const _: () = assert!(DEVICES_MAX == 63 && DEVICE_NAME_BYTES_MAX == 67);

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// A disk.
    Block,
    /// A network interface.
    Net,
}

impl DeviceKind {
    /// The name that people read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DeviceKind::Block => "block",
            DeviceKind::Net => "net",
        }
    }

    /// The number in the manifest.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            DeviceKind::Block => 1,
            DeviceKind::Net => 2,
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One device: letters and digits, unique among those of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name, 1 to [`DEVICE_NAME_BYTES_MAX`] letters and digits.
    pub name: String<DEVICE_NAME_BYTES_MAX>,
    /// What it is.
    pub kind: DeviceKind,
}

/// The devices of an image, in the order of their handles, which begin at 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    devices: Vec<Device, DEVICES_MAX>,
}

impl Manifest {
    /// The devices; the handle of each is its index plus 1.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Handle of the device of this name and kind.
    #[must_use]
    pub fn handle(&self, name: &str, kind: DeviceKind) -> Option<usize> {
        let index = self.devices.iter().position(|device| device.kind == kind && device.name == name)?;
        index.checked_add(1)
    }
}

/// Finds, reads and checks the manifest.
///
/// # Errors
/// [`ImageError::ManifestMissing`], [`ImageError::Manifest`], [`ImageError::Note`].
pub fn find<R: ReadAt + ?Sized>(image: &R, elf: &Elf) -> Result<Manifest, ImageError> {
    let Some(note) = find_note(image, elf, MANIFEST_TYPE, NOTE_BYTES_MAX)? else {
        return Err(ImageError::ManifestMissing);
    };
    let index = note.index;
    let Some(bytes) = note.content_bytes.checked_sub(PADDING_BYTES).filter(|bytes| *bytes > 0) else {
        return Err(ImageError::Note { index });
    };
    let wrong = |fault| ImageError::Manifest { fault };
    let mut at = note.content_offset.checked_add(u64::from(PADDING_BYTES)).ok_or(ImageError::Note { index })?;
    let mut head = [0; HEAD_BYTES];
    if bytes < 8 {
        return Err(wrong(ManifestFault::Size));
    }
    if !fill(image, at, &mut head)? {
        return Err(ImageError::Note { index });
    }
    if u32_at(&head, 0) != VERSION {
        return Err(wrong(ManifestFault::Version));
    }
    let count = u32_at(&head, 4);
    if !(1..=64).contains(&count) || count.saturating_mul(104).saturating_add(8) != bytes {
        return Err(wrong(ManifestFault::Size));
    }
    at = at.saturating_add(8);
    let mut manifest = Manifest::default();
    for handle in 0..count {
        let mut raw = [0; ENTRY_BYTES];
        if !fill(image, at, &mut raw)? {
            return Err(ImageError::Note { index });
        }
        at = at.saturating_add(104);
        manifest.take(handle, &raw).map_err(wrong)?;
    }
    Ok(manifest)
}

impl Manifest {
    /// Takes the next entry.
    fn take(&mut self, handle: u32, raw: &[u8; ENTRY_BYTES]) -> Result<(), ManifestFault> {
        let (name, rest) = raw.split_at(DEVICE_NAME_BYTES_MAX.saturating_add(1));
        let kind = u32_at(rest, 0);
        // What the tender fills in at start must be empty: a preset address or size would not be the operator's.
        let preset = array_at::<32>(rest, 4);
        if preset.iter().any(|byte| *byte != 0) {
            return Err(ManifestFault::Preset { handle });
        }
        if handle == 0 {
            let reserved = kind == KIND_RESERVED && name.iter().all(|byte| *byte == 0);
            return if reserved { Ok(()) } else { Err(ManifestFault::First) };
        }
        let kind = match kind {
            1 => DeviceKind::Block,
            2 => DeviceKind::Net,
            kind => return Err(ManifestFault::Kind { handle, kind }),
        };
        let name = device_name(name).ok_or(ManifestFault::Name { handle })?;
        if self.handle(&name, kind).is_some() {
            return Err(ManifestFault::Twice { handle });
        }
        self.devices.push(Device { name, kind }).map_err(|_| ManifestFault::Size)
    }
}

/// The name in an entry: letters and digits, then only zeros, at least one of each.
fn device_name(raw: &[u8]) -> Option<String<DEVICE_NAME_BYTES_MAX>> {
    let len = raw.iter().position(|byte| *byte == 0)?;
    let (text, zeros) = raw.split_at_checked(len)?;
    if text.is_empty() || !text.iter().all(u8::is_ascii_alphanumeric) || zeros.iter().any(|byte| *byte != 0) {
        return None;
    }
    core::str::from_utf8(text).ok()?.try_into().ok()
}
