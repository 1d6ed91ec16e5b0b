//! Everything that can be wrong with an image. Each text says what is wrong and what to do; the words before the remedy are
//! those that users of the original tenders know. The caller puts the image's name before it.

use core::fmt;

use super::note::Target;
use super::{ABI_VERSION, LOAD_ADDRESS_MIN};

/// Why an image cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageError {
    /// The host could not read it.
    Unreadable {
        /// The operating system's error number, 0 if there is none.
        errno: i32,
    },
    /// It does not begin as an ELF file does.
    NotElf,
    /// A field of the header is not what a Solo5 image has.
    Header {
        /// Which.
        field: HeaderField,
    },
    /// The first instruction lies outside of the guest's memory.
    Entry {
        /// Guest address of the first instruction.
        entry: u64,
        /// Bytes of the guest's memory.
        memory_bytes: u64,
    },
    /// A loadable segment breaks a rule.
    Segment {
        /// Its place among the program headers.
        index: u16,
        /// The rule.
        fault: SegmentFault,
    },
    /// The file ends within a loadable segment.
    SegmentCut {
        /// Its place among the program headers.
        index: u16,
    },
    /// A note segment's sizes contradict each other or the file.
    Note {
        /// Its place among the program headers.
        index: u16,
    },
    /// There is no ABI note.
    AbiMissing,
    /// There is no manifest note.
    ManifestMissing,
    /// The manifest breaks a rule.
    Manifest {
        /// The rule.
        fault: ManifestFault,
    },
    /// Made for a tender that is not ours.
    TargetForeign {
        /// What it is made for.
        target: Target,
    },
    /// Made for the other one of our tenders.
    TargetOther {
        /// What it is made for.
        target: Target,
        /// The tender that was asked to run it.
        wanted: Target,
    },
    /// Made for another version of the interface.
    AbiVersion {
        /// The version it wants.
        version: u32,
    },
}

/// A field of the ELF header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderField {
    /// The file ends within it.
    Truncated,
    /// Not 64 bits.
    Class,
    /// Not little-endian.
    ByteOrder,
    /// Not an executable of fixed address.
    Type,
    /// Not x86_64.
    Machine,
    /// Not version 1.
    Version,
    /// Not 64.
    HeaderSize,
    /// Not 56.
    ProgramHeaderSize,
    /// None, or more than any image needs.
    ProgramHeaderCount,
    /// The file ends within them.
    ProgramHeaders,
}

/// A rule for loadable segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are the numbers that the text of each rule prints")]
pub enum SegmentFault {
    /// It begins below the lowest address.
    Low { vaddr: u64 },
    /// It begins below the segment before it.
    Order { vaddr: u64 },
    /// The alignment is no power of two.
    Align { align: u64 },
    /// Its first page begins below the lowest address.
    StartLow { start: u64 },
    /// Its first page belongs to the segment before it.
    Overlap { start: u64 },
    /// Its bytes in the file do not fit in the memory.
    FileBytes { vaddr: u64, bytes: u64, memory_bytes: u64 },
    /// Its bytes in memory do not fit, or are fewer than in the file.
    MemoryBytes { vaddr: u64, bytes: u64, memory_bytes: u64 },
    /// It does not fill whole pages.
    Page { start: u64, end: u64 },
    /// It could be written and executed.
    WriteAndExecute,
}

/// A rule for the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are the handle and the number that the text of each rule prints")]
pub enum ManifestFault {
    /// The number of entries does not fit the size of the note.
    Size,
    /// Not version 1.
    Version,
    /// The first entry is not the reserved one.
    First,
    /// A field that the tender fills in is not empty.
    Preset { handle: u32 },
    /// The name is not 1 to 67 letters and digits.
    Name { handle: u32 },
    /// Neither block nor net.
    Kind { handle: u32, kind: u32 },
    /// Another device of that kind has the name already.
    Twice { handle: u32 },
}

/// What the OCaml tools dislike about an image that runs all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SectionFault {
    /// No section headers, or none for the notes.
    Stripped,
    /// The section headers contradict the file.
    Damaged,
    /// The ELF identification's spare bytes are not zero.
    Identification,
    /// The section of the ABI note is not what they want.
    Abi,
    /// The section of the manifest note is not what they want.
    Manifest,
}

impl core::error::Error for ImageError {}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ImageError::Unreadable { errno } => {
                write!(f, "could not be read (error {errno}): check the file and its disk")
            }
            ImageError::NotElf => f.write_str(
                "invalid or unsupported executable (no ELF file): give the image itself, uncompressed (.hvt or .spt)",
            ),
            ImageError::Header { field } => {
                write!(f, "invalid or unsupported executable ({field}): build it for Solo5 hvt or spt on x86_64")
            }
            ImageError::Entry { entry, memory_bytes } => write!(
                f,
                "invalid executable: e_entry does not fall within the memory allocation range \
                 ({entry} < {LOAD_ADDRESS_MIN} || {entry} >= {memory_bytes}): give it more memory"
            ),
            ImageError::Segment { index, fault } => write!(f, "invalid executable: phdr[{index}]{fault}"),
            ImageError::SegmentCut { index } => {
                write!(f, "phdr[{index}] host file segment mismatched: the file is cut short; copy or build it again")
            }
            ImageError::Note { index } => write!(
                f,
                "invalid executable: phdr[{index}] note does not fall within valid size: build the image again"
            ),
            ImageError::AbiMissing => f.write_str(
                "No Solo5 ABI information found in executable: this is no unikernel; link it with Solo5's bindings",
            ),
            ImageError::ManifestMissing => f.write_str(
                "No Solo5 manifest found in executable: link it with the manifest that declares its devices",
            ),
            ImageError::Manifest { fault } => write!(f, "Solo5 manifest is invalid: {fault}"),
            ImageError::TargetForeign { target } => {
                write!(f, "Executable is not for a target that runs here but for {target}: build it for hvt or spt")
            }
            ImageError::TargetOther { target, wanted } => write!(
                f,
                "Executable is not for the solo5-{wanted} target: it is for {target}; run it as solo5-{target} or \
                 build it for {wanted}"
            ),
            ImageError::AbiVersion { version } => write!(
                f,
                "Executable requests unsupported ABI version {version}: version {ABI_VERSION} is spoken here; build it \
                 with a Solo5 of that version"
            ),
        }
    }
}

impl fmt::Display for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderField::Truncated => "the file ends within the elf header",
            HeaderField::Class => "not 64 bits",
            HeaderField::ByteOrder => "not little-endian",
            HeaderField::Type => "not an executable of fixed address; link with -no-pie",
            HeaderField::Machine => "not for x86_64",
            HeaderField::Version => "unknown version of the elf header",
            HeaderField::HeaderSize => "size of the elf header",
            HeaderField::ProgramHeaderSize => "size of a program header",
            HeaderField::ProgramHeaderCount => "number of program headers",
            HeaderField::ProgramHeaders => "the file ends within the program headers",
        })
    }
}

impl fmt::Display for SegmentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SegmentFault::Low { vaddr } => {
                write!(f, ".p_vaddr outside of valid memory range ({vaddr:#x} < {LOAD_ADDRESS_MIN:#x}): link it higher")
            }
            SegmentFault::Order { vaddr } => {
                write!(f, ".p_vaddr is not in ascending order ({vaddr:#x}): sort the segments in the linker script")
            }
            SegmentFault::Align { align } => {
                write!(f, ".p_vaddr is outside of memory range (align_down with {align}): align segments to 4096")
            }
            SegmentFault::StartLow { start } => {
                write!(f, ".p_vaddr_start is outside of memory range ({start:#x} < p_min_loadaddr): link it higher")
            }
            SegmentFault::Overlap { start } => {
                write!(
                    f,
                    ".p_vaddr_start is outside of memory range ({start:#x} < e_end): segments must not share pages"
                )
            }
            SegmentFault::FileBytes { vaddr, bytes, memory_bytes } => write!(
                f,
                " program file segment falls outside of valid range ({vaddr:#x} + {bytes} > {memory_bytes}): give it \
                 more memory"
            ),
            SegmentFault::MemoryBytes { vaddr, bytes, memory_bytes } => write!(
                f,
                " program memory segment falls outside of valid range ({vaddr:#x} + {bytes} > {memory_bytes}): give it \
                 more memory"
            ),
            SegmentFault::Page { start, end } => write!(
                f,
                " p_vaddr_start/p_vaddr_end not aligned with architectural page size ({start:#x}, {end:#x}): link with \
                 -z max-page-size=0x1000"
            ),
            SegmentFault::WriteAndExecute => {
                f.write_str(" requests WRITE and EXEC permissions: separate code from data in the linker script")
            }
        }
    }
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestFault::Size => f.write_str("its size is not that of its entries, 1 to 64")?,
            ManifestFault::Version => f.write_str("its version is not 1")?,
            ManifestFault::First => f.write_str("its first entry is not the reserved one")?,
            ManifestFault::Preset { handle } => write!(f, "device {handle} has fields set that the tender fills in")?,
            ManifestFault::Name { handle } => {
                write!(f, "the name of device {handle} is not 1 to 67 letters and digits")?
            }
            ManifestFault::Kind { handle, kind } => write!(f, "device {handle} is of unknown type {kind}")?,
            ManifestFault::Twice { handle } => write!(f, "the name of device {handle} is taken by one before it")?,
        }
        f.write_str("; make it with solo5-elftool or the guest library")
    }
}

impl fmt::Display for SectionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SectionFault::Stripped => "section headers of the notes are missing: do not strip sections",
            SectionFault::Damaged => "section headers contradict the file: link it again",
            SectionFault::Identification => "spare bytes of the ELF identification are not zero",
            SectionFault::Abi => "section .note.solo5.abi is not of the exact size with its spare words zero",
            SectionFault::Manifest => "section .note.solo5.manifest is not of the exact size of its entries",
        })
    }
}
