//! What a Solo5 image says about itself: target, ABI version, devices, memory. Bounded, without allocation, for bytes that
//! nobody trusts: it must never panic, loop beyond the counts stated here, or believe an offset.
//!
//! | room | what is in it |
//! |---|---|
//! | [`elf`] | the header, the program headers, the rules for loadable segments |
//! | [`note`] | the ABI note, and where notes are found |
//! | [`manifest`] | the devices that the image declares |
//! | [`section`] | whether the section headers name the notes, as the OCaml tools want |
//! | [`ImageError`] | everything that can be wrong with an image |

mod bytes;
pub mod elf;
mod error;
pub mod manifest;
pub mod note;
pub mod section;

pub use elf::{Elf, Loads, Segment};
pub use error::{HeaderField, ImageError, ManifestFault, SectionFault, SegmentFault};
pub use manifest::{Device, DeviceKind, Manifest};
pub use note::{Abi, Target};

/// The one ABI version that the tenders of today speak.
pub const ABI_VERSION: u32 = 2;

/// Guest address below which no segment may lie.
pub const LOAD_ADDRESS_MIN: u64 = 0x10_0000;

/// Bytes of a page of the guest's processor.
pub const PAGE_BYTES: u64 = 0x1000;

/// One more than the highest address of the lower half of the address space: no guest can have more memory than this,
/// so a segment beyond it is wrong whatever the guest will be given.
pub const ADDRESS_END: u64 = 1 << 47;

/// Reading the image failed in the host; an `errno` where there is one, else 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadFailed {
    /// The operating system's error number.
    pub errno: i32,
}

/// Somewhere that an image can be read from: a file, or bytes in memory.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `offset` and says how many; fewer only at the end of the image.
    ///
    /// # Errors
    /// [`ReadFailed`] if the host could not read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadFailed>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadFailed> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }
}

/// What there is to know about an image before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Which tender it is for, and the version of that interface.
    pub abi: Abi,
    /// The devices that it wants, all of which must be given.
    pub manifest: Manifest,
    /// Guest address of its first instruction.
    pub entry: u64,
    /// Guest address, page aligned, at which its highest segment ends, zeroed data included: it needs more memory than this.
    pub memory_end: u64,
    /// What the OCaml tools would dislike about the section headers; `None` if nothing. No hindrance to running it.
    pub section_fault: Option<SectionFault>,
}

impl ImageFacts {
    /// Whether a tender of ours can run this image at all.
    ///
    /// # Errors
    /// [`ImageError::TargetForeign`], [`ImageError::AbiVersion`].
    pub fn check_runnable(&self) -> Result<(), ImageError> {
        self.abi.check_target(self.abi.target)?;
        self.abi.check_version()
    }
}

/// Reads all that there is to know about an image and checks it as a tender with boundless memory would.
///
/// # Errors
/// [`ImageError`]: the first thing that is wrong.
pub fn inspect<R: ReadAt + ?Sized>(image: &R) -> Result<ImageFacts, ImageError> {
    let elf = Elf::read(image)?;
    let abi = note::find_abi(image, &elf)?;
    let manifest = manifest::find(image, &elf)?;
    elf.check_entry(ADDRESS_END)?;
    let mut loads = Loads::new(&elf, ADDRESS_END);
    while let Some(segment) = loads.next(image)? {
        let last = segment.file_offset.checked_add(segment.file_bytes).and_then(|end| end.checked_sub(1));
        let cut = ImageError::SegmentCut { index: segment.index };
        if !fill(image, last.ok_or(cut)?, &mut [0])? {
            return Err(cut);
        }
    }
    Ok(ImageFacts {
        abi,
        manifest,
        entry: elf.entry,
        memory_end: loads.memory_end(),
        section_fault: section::fault(image)?,
    })
}

/// Fills `buf` from `offset`; `false` if the image ends before.
///
/// # Errors
/// [`ImageError::Unreadable`].
pub fn fill<R: ReadAt + ?Sized>(image: &R, offset: u64, buf: &mut [u8]) -> Result<bool, ImageError> {
    let mut done: usize = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let Some(at) = u64::try_from(done).ok().and_then(|done| offset.checked_add(done)) else { return Ok(false) };
        let len = image.read_at(at, rest).map_err(|ReadFailed { errno }| ImageError::Unreadable { errno })?;
        if len == 0 {
            return Ok(false);
        }
        done = done.saturating_add(len);
    }
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests may panic")]
mod tests;
