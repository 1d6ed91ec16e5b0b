//! The loader: an image's segments into the guest's memory, each protected as it says, and the map of what lies where that
//! reports of faults are read by.

use std::fmt;
use std::ops::Range;

use fulmar_core::solo5::{Elf, ImageError, LOAD_ADDRESS_MIN, Loads, ReadAt, Segment};

use crate::memory::{Access, Memory, Protection};
use crate::sys::Errno;

/// Why an image could not be loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The image is wrong.
    Image(ImageError),
    /// A segment's pages could not be given their protection.
    Protect(Errno),
}

impl From<ImageError> for LoadError {
    fn from(error: ImageError) -> LoadError {
        LoadError::Image(error)
    }
}

/// What lies where in a guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    segments: Vec<(Range<u64>, Access)>,
    memory: Range<u64>,
    /// Guest address at which the image ends.
    pub(crate) image_end: u64,
}

/// Loads an image and protects its pages.
pub(crate) fn load<R: ReadAt + ?Sized>(
    memory: &mut Memory,
    image: &R,
    elf: &Elf,
    protection: Protection,
) -> Result<Layout, LoadError> {
    elf.check_entry(memory.end())?;
    let mut loads = Loads::new(elf, memory.end());
    let mut segments = Vec::new();
    while let Some(segment) = loads.next(image)? {
        load_segment(memory, image, &segment)?;
        let Segment { start, end, readable, writable, executable, .. } = segment;
        let access = Access { readable, writable, executable };
        memory.protect(start..end, access, protection).map_err(LoadError::Protect)?;
        segments.push((start..end, access));
    }
    Ok(Layout { segments, memory: memory.start()..memory.end(), image_end: loads.image_end() })
}

fn load_segment<R: ReadAt + ?Sized>(memory: &mut Memory, image: &R, segment: &Segment) -> Result<(), ImageError> {
    let cut = ImageError::SegmentCut { index: segment.index };
    let to = memory.bytes_mut(segment.vaddr, segment.file_bytes).map_err(|_| cut)?;
    fulmar_core::solo5::fill(image, segment.file_offset, to)?.then_some(()).ok_or(cut)
}

/// What a guest address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A segment of the image.
    Segment { access: Access },
    /// The guest's own: what is neither image nor below it.
    Heap,
    /// What the tender has laid out below the image.
    Low,
    /// Not the guest's memory.
    Outside,
}

impl Layout {
    /// What lies at an address.
    pub(crate) fn place(&self, address: u64) -> Place {
        if let Some((_, access)) = self.segments.iter().find(|(range, _)| range.contains(&address)) {
            return Place::Segment { access: *access };
        }
        match () {
            () if !self.memory.contains(&address) => Place::Outside,
            () if address < LOAD_ADDRESS_MIN => Place::Low,
            () => Place::Heap,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Segment { access: Access { executable: true, .. } } => "code",
            Place::Segment { access: Access { writable: true, .. } } => "data",
            Place::Segment { .. } => "read-only data",
            Place::Heap => "heap or stack",
            Place::Low => "below the image",
            Place::Outside => "outside of memory",
        })
    }
}
