//! Solo5's notes: where a tender finds them, and the one that says which tender the image is for.
//!
//! A tender looks only at the first note of each note segment, so each note of Solo5 has a segment of its own.

use core::fmt;

use super::bytes::{array_at, u32_at};
use super::elf::{Elf, PT_NOTE};
use super::error::ImageError;
use super::{ABI_VERSION, ReadAt, fill};

/// `n_type` of the ABI note, "ABI1".
pub(super) const ABI_TYPE: u32 = 0x3149_4241;
/// `n_type` of the manifest note, "MFT1".
pub(super) const MANIFEST_TYPE: u32 = 0x3154_464d;
/// Bytes of a note's header and name, which every note of Solo5 shares.
pub(super) const NOTE_HEAD_BYTES: usize = 20;
/// Longest descriptor of an ABI note.
const ABI_BYTES_MAX: u32 = 32;

/// The tender that an image is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Hardware virtualisation (KVM here).
    Hvt,
    /// A process confined by seccomp.
    Spt,
    /// A virtio hypervisor.
    Virtio,
    /// The Muen separation kernel.
    Muen,
    /// The Genode framework.
    Genode,
    /// Xen.
    Xen,
    /// A number that Solo5 had not given out when this was written.
    Other(u32),
}

impl Target {
    fn from_number(number: u32) -> Target {
        match number {
            1 => Target::Hvt,
            2 => Target::Spt,
            3 => Target::Virtio,
            4 => Target::Muen,
            5 => Target::Genode,
            6 => Target::Xen,
            other => Target::Other(other),
        }
    }

    /// The name that Solo5 uses; `other` for a number it has not given out.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Target::Hvt => "hvt",
            Target::Spt => "spt",
            Target::Virtio => "virtio",
            Target::Muen => "muen",
            Target::Genode => "genode",
            Target::Xen => "xen",
            Target::Other(_) => "other",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Other(number) => write!(f, "target {number}"),
            known => f.write_str(known.name()),
        }
    }
}

/// The content of the ABI note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abi {
    /// The tender it is made for.
    pub target: Target,
    /// The version of that tender's interface.
    pub version: u32,
}

impl Abi {
    /// Checks that it is made for this tender.
    ///
    /// # Errors
    /// [`ImageError::TargetOther`], or [`ImageError::TargetForeign`] if no tender of ours could run it.
    pub fn check_target(&self, wanted: Target) -> Result<(), ImageError> {
        match self.target {
            Target::Hvt | Target::Spt if self.target == wanted => Ok(()),
            Target::Hvt | Target::Spt => Err(ImageError::TargetOther { target: self.target, wanted }),
            target => Err(ImageError::TargetForeign { target }),
        }
    }

    /// Checks that the version is the one that we speak.
    ///
    /// # Errors
    /// [`ImageError::AbiVersion`].
    pub fn check_version(&self) -> Result<(), ImageError> {
        match self.version {
            ABI_VERSION => Ok(()),
            version => Err(ImageError::AbiVersion { version }),
        }
    }
}

/// Finds and reads the ABI note.
///
/// # Errors
/// [`ImageError::AbiMissing`] if there is none, others if it is damaged.
pub fn find_abi<R: ReadAt + ?Sized>(image: &R, elf: &Elf) -> Result<Abi, ImageError> {
    let Some(note) = find(image, elf, ABI_TYPE, ABI_BYTES_MAX)? else { return Err(ImageError::AbiMissing) };
    let mut raw = [0; 8];
    if note.content_bytes < 8 || !fill(image, note.content_offset, &mut raw)? {
        return Err(ImageError::Note { index: note.index });
    }
    Ok(Abi { target: Target::from_number(u32_at(&raw, 0)), version: u32_at(&raw, 4) })
}

/// A note that was found: where its descriptor stands.
pub(super) struct Note {
    /// Its place among the program headers, for messages.
    pub(super) index: u16,
    /// File offset of the descriptor.
    pub(super) content_offset: u64,
    /// Bytes of the descriptor: 1 to the maximum asked for.
    pub(super) content_bytes: u32,
}

/// The first note segment that begins with Solo5's note of this type.
pub(super) fn find<R: ReadAt + ?Sized>(
    image: &R,
    elf: &Elf,
    note_type: u32,
    bytes_max: u32,
) -> Result<Option<Note>, ImageError> {
    for index in 0..elf.count {
        let header = elf.program_header(image, index)?;
        if header.kind != PT_NOTE {
            continue;
        }
        let fault = ImageError::Note { index };
        if header.file_bytes < 12 {
            return Err(fault);
        }
        if header.file_bytes < 20 {
            continue;
        }
        let mut head = [0; NOTE_HEAD_BYTES];
        if !fill(image, header.offset, &mut head)? {
            return Err(fault);
        }
        if !is_solo5(&head, note_type) {
            continue;
        }
        let content_bytes = u32_at(&head, 4);
        let end = u64::from(content_bytes).saturating_add(20);
        if content_bytes == 0 || content_bytes > bytes_max || header.file_bytes < end {
            return Err(fault);
        }
        let content_offset = header.offset.checked_add(20).ok_or(fault)?;
        return Ok(Some(Note { index, content_offset, content_bytes }));
    }
    Ok(None)
}

/// Whether a note's head is Solo5's and of this type.
pub(super) fn is_solo5(head: &[u8; NOTE_HEAD_BYTES], note_type: u32) -> bool {
    u32_at(head, 0) == 6 && array_at(head, 12) == *b"Solo5\0" && u32_at(head, 8) == note_type
}
