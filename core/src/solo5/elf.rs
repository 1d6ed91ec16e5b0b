//! The ELF header and the program headers of an image, and the rules for its loadable segments. One header is read at a
//! time: nothing here grows with the image.

use super::bytes::{array_at, u16_at, u32_at, u64_at};
use super::error::{HeaderField, ImageError, SegmentFault};
use super::{LOAD_ADDRESS_MIN, PAGE_BYTES, ReadAt, fill};

/// Program headers of an image, at most. Solo5's linker scripts make ten.
pub const PROGRAM_HEADERS_MAX: u16 = 128;

/// `p_type` of a loadable segment.
pub(super) const PT_LOAD: u32 = 1;
/// `p_type` of a segment of notes.
pub(super) const PT_NOTE: u32 = 4;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const EXECUTE: u32 = 1;
const WRITE: u32 = 2;
const READ: u32 = 4;

/// The header of an image, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elf {
    /// Guest address of the first instruction. Not yet checked: see [`Elf::check_entry`].
    pub entry: u64,
    /// File offset of the program headers.
    table_offset: u64,
    /// How many there are: 1 to [`PROGRAM_HEADERS_MAX`].
    pub(super) count: u16,
}

/// One program header as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProgramHeader {
    pub(super) kind: u32,
    flags: u32,
    pub(super) offset: u64,
    vaddr: u64,
    pub(super) file_bytes: u64,
    memory_bytes: u64,
    align: u64,
}

impl Elf {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`ImageError`] if this is not an x86_64 executable of fixed address.
    pub fn read<R: ReadAt + ?Sized>(image: &R) -> Result<Elf, ImageError> {
        let mut head = [0; HEADER_BYTES];
        let whole = fill(image, 0, &mut head)?;
        if array_at(&head, 0) != *b"\x7fELF" {
            return Err(ImageError::NotElf);
        }
        let wrong = |field| Err(ImageError::Header { field });
        match () {
            () if !whole => wrong(HeaderField::Truncated),
            () if array_at(&head, 4) != [2u8] => wrong(HeaderField::Class),
            () if array_at(&head, 5) != [1u8] => wrong(HeaderField::ByteOrder),
            () if u16_at(&head, 16) != 2 => wrong(HeaderField::Type),
            () if u16_at(&head, 18) != 62 => wrong(HeaderField::Machine),
            () if u32_at(&head, 20) != 1 => wrong(HeaderField::Version),
            () if usize::from(u16_at(&head, 52)) != HEADER_BYTES => wrong(HeaderField::HeaderSize),
            () if usize::from(u16_at(&head, 54)) != PROGRAM_HEADER_BYTES => wrong(HeaderField::ProgramHeaderSize),
            () if u16_at(&head, 56) == 0 => wrong(HeaderField::ProgramHeaderCount),
            () if u16_at(&head, 56) > PROGRAM_HEADERS_MAX => wrong(HeaderField::ProgramHeaderCount),
            () => Ok(Elf { entry: u64_at(&head, 24), table_offset: u64_at(&head, 32), count: u16_at(&head, 56) }),
        }
    }

    /// Checks that the first instruction lies in a guest's memory of `memory_bytes`.
    ///
    /// # Errors
    /// [`ImageError::Entry`].
    pub fn check_entry(&self, memory_bytes: u64) -> Result<(), ImageError> {
        let entry = self.entry;
        match (LOAD_ADDRESS_MIN..memory_bytes).contains(&entry) {
            true => Ok(()),
            false => Err(ImageError::Entry { entry, memory_bytes }),
        }
    }

    pub(super) fn program_header<R: ReadAt + ?Sized>(
        &self,
        image: &R,
        index: u16,
    ) -> Result<ProgramHeader, ImageError> {
        let mut raw = [0; PROGRAM_HEADER_BYTES];
        let step = u64::from(index).saturating_mul(56);
        let offset = self.table_offset.saturating_add(step);
        if !fill(image, offset, &mut raw)? {
            return Err(ImageError::Header { field: HeaderField::ProgramHeaders });
        }
        Ok(ProgramHeader {
            kind: u32_at(&raw, 0),
            flags: u32_at(&raw, 4),
            offset: u64_at(&raw, 8),
            vaddr: u64_at(&raw, 16),
            file_bytes: u64_at(&raw, 32),
            memory_bytes: u64_at(&raw, 40),
            align: u64_at(&raw, 48),
        })
    }
}

/// A loadable segment that keeps every rule: whole pages, within the memory, above the segment before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its place among the program headers, for messages.
    pub index: u16,
    /// Guest address of its first byte.
    pub vaddr: u64,
    /// File offset of its bytes.
    pub file_offset: u64,
    /// Bytes to read from the file; never 0.
    pub file_bytes: u64,
    /// Bytes in memory, the rest being zero; at least `file_bytes`.
    pub memory_bytes: u64,
    /// Guest address of its first page.
    pub start: u64,
    /// Guest address after its last page.
    pub end: u64,
    /// May be read.
    pub readable: bool,
    /// May be written; then not executed.
    pub writable: bool,
    /// May be executed; then not written.
    pub executable: bool,
}

/// Walks the loadable segments of an image in order and checks each against those before it.
#[derive(Debug, Clone)]
pub struct Loads {
    elf: Elf,
    memory_bytes: u64,
    next: u16,
    previous_vaddr: u64,
    end: u64,
    zeroed_end: u64,
}

impl Loads {
    /// Begins the walk for a guest with `memory_bytes` of memory.
    #[must_use]
    pub fn new(elf: &Elf, memory_bytes: u64) -> Loads {
        Loads { elf: *elf, memory_bytes, next: 0, previous_vaddr: 0, end: 0, zeroed_end: 0 }
    }

    /// The next segment, or `None` after the last.
    ///
    /// Segments without bytes in the file (a BSS of its own) are passed over as the original tenders do: fresh memory is
    /// zero, and the guest looks itself whether it has enough.
    ///
    /// # Errors
    /// [`ImageError`] naming the segment and the rule it breaks.
    pub fn next<R: ReadAt + ?Sized>(&mut self, image: &R) -> Result<Option<Segment>, ImageError> {
        while self.next < self.elf.count {
            let index = self.next;
            self.next = self.next.saturating_add(1);
            let header = self.elf.program_header(image, index)?;
            if header.kind != PT_LOAD {
                continue;
            }
            if header.file_bytes == 0 {
                self.pass_over(&header);
                continue;
            }
            let segment = self.check(index, &header).map_err(|fault| ImageError::Segment { index, fault })?;
            return Ok(Some(segment));
        }
        Ok(None)
    }

    /// Guest address at which the segments so far end, those without bytes in the file left out.
    #[must_use]
    pub fn image_end(&self) -> u64 {
        self.end
    }

    /// Guest address at which the segments so far end, those without bytes in the file included.
    #[must_use]
    pub fn memory_end(&self) -> u64 {
        self.end.max(self.zeroed_end)
    }

    fn pass_over(&mut self, header: &ProgramHeader) {
        if header.memory_bytes > 0 {
            let end = header.vaddr.saturating_add(header.memory_bytes);
            let end = end.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
            self.zeroed_end = self.zeroed_end.max(end);
        }
    }

    fn check(&mut self, index: u16, header: &ProgramHeader) -> Result<Segment, SegmentFault> {
        let ProgramHeader { flags, offset, vaddr, file_bytes, memory_bytes, align, .. } = *header;
        if vaddr < LOAD_ADDRESS_MIN {
            return Err(SegmentFault::Low { vaddr });
        }
        if vaddr < self.previous_vaddr {
            return Err(SegmentFault::Order { vaddr });
        }
        if !align.is_power_of_two() {
            return Err(SegmentFault::Align { align });
        }
        let start = vaddr & !align.wrapping_sub(1);
        if start < LOAD_ADDRESS_MIN {
            return Err(SegmentFault::StartLow { start });
        }
        if start < self.end {
            return Err(SegmentFault::Overlap { start });
        }
        let within = |end: Option<u64>| end.filter(|end| *end <= self.memory_bytes);
        if vaddr >= self.memory_bytes || within(vaddr.checked_add(file_bytes)).is_none() {
            return Err(SegmentFault::FileBytes { vaddr, bytes: file_bytes, memory_bytes: self.memory_bytes });
        }
        let end = vaddr.checked_add(memory_bytes).and_then(|end| end.checked_next_multiple_of(align));
        let Some(end) = within(end).filter(|_| memory_bytes >= file_bytes) else {
            return Err(SegmentFault::MemoryBytes { vaddr, bytes: memory_bytes, memory_bytes: self.memory_bytes });
        };
        if !start.is_multiple_of(PAGE_BYTES) || !end.is_multiple_of(PAGE_BYTES) {
            return Err(SegmentFault::Page { start, end });
        }
        let has = |flag| flags & flag != 0;
        if has(WRITE) && has(EXECUTE) {
            return Err(SegmentFault::WriteAndExecute);
        }
        self.previous_vaddr = vaddr;
        self.end = end;
        Ok(Segment {
            index,
            vaddr,
            file_offset: offset,
            file_bytes,
            memory_bytes,
            start,
            end,
            readable: has(READ),
            writable: has(WRITE),
            executable: has(EXECUTE),
        })
    }
}
