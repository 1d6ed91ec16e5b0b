//! The guest's memory: mapped once, reached through one checked door, filled by the loader. No other module makes a pointer
//! into it (except the jump into an spt guest, which never comes back).
#![allow(unsafe_code, reason = "mappings, and the slices into them")]

use std::ops::Range;

use fulmar_core::solo5::{Elf, ImageError, LOAD_ADDRESS_MIN, Loads, Segment};

use crate::image::ImageFile;
use crate::refusal::Refusal;
use crate::sys::Errno;

/// Guest memory from address `start` to `end`. Bytes that nobody has touched are zero.
pub(crate) struct Memory {
    /// Host address of guest address `start`.
    host: *mut u8,
    start: u64,
    end: u64,
    /// What the loader has made read-only, in ascending order.
    read_only: Vec<Range<u64>>,
}

/// An address of the guest that is not its own to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
}

/// How the loader protects a segment's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// As the segment says: the guest runs in these very mappings.
    Exact,
    /// What may be executed is readable instead: the guest runs behind page tables of its own.
    NeverExecutable,
}

impl Memory {
    /// Maps a guest's memory wherever there is room.
    pub(crate) fn anywhere(bytes: u64) -> Result<Memory, Refusal> {
        Memory::map(None, 0, bytes, false)
    }

    /// Maps `start..end` at these very addresses of our own address space; fails if anything is there already.
    pub(crate) fn identical(start: u64, end: u64, executable: bool) -> Result<Memory, Refusal> {
        Memory::map(Some(start), start, end, executable)
    }

    fn map(at: Option<u64>, start: u64, end: u64, executable: bool) -> Result<Memory, Refusal> {
        let bytes = end - start;
        let exec = if executable { libc::PROT_EXEC } else { 0 };
        let fixed = if at.is_some() { libc::MAP_FIXED_NOREPLACE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
        let wanted = std::ptr::without_provenance_mut(at.unwrap_or(0) as usize);
        let protection = libc::PROT_READ | libc::PROT_WRITE | exec;
        // SAFETY: a new mapping that replaces none.
        let host = unsafe { libc::mmap(wanted, bytes as usize, protection, flags, -1, 0) };
        if host == libc::MAP_FAILED {
            return Err(Refusal::Memory { bytes, errno: Errno::last() });
        }
        // Kernels before 4.17 take the address for a hint.
        if at.is_some() && host != wanted {
            return Err(Refusal::Memory { bytes, errno: Errno(libc::EEXIST) });
        }
        Ok(Memory { host: host.cast(), start, end, read_only: Vec::new() })
    }

    /// Guest address behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Host address of the first byte, for the kernel.
    pub(crate) fn host_address(&self) -> u64 {
        self.host.addr() as u64
    }

    /// Bytes of the guest, to read.
    pub(crate) fn bytes(&self, address: u64, bytes: u64) -> Result<&[u8], Outside> {
        let host = self.host(address, bytes)?;
        // SAFETY: within the mapping, all of which can be read while the tender runs; the guest stands still while the
        // slice lives, because whatever lets it run takes the memory by `&mut`.
        Ok(unsafe { std::slice::from_raw_parts(host, bytes as usize) })
    }

    /// Bytes of the guest, to write: never what is read-only, never what lies below the image.
    pub(crate) fn bytes_mut(&mut self, address: u64, bytes: u64) -> Result<&mut [u8], Outside> {
        let overlaps =
            |range: &Range<u64>| bytes > 0 && range.start < address.saturating_add(bytes) && address < range.end;
        if address < LOAD_ADDRESS_MIN || self.read_only.iter().any(overlaps) {
            return Err(Outside { address, bytes });
        }
        self.any_bytes_mut(address, bytes)
    }

    /// As [`bytes_mut`](Memory::bytes_mut), the area below the image included: for what the tender lays out at the start.
    pub(crate) fn any_bytes_mut(&mut self, address: u64, bytes: u64) -> Result<&mut [u8], Outside> {
        let host = self.host(address, bytes)?;
        // SAFETY: within the mapping and writable, as `bytes_mut` has checked or because the loader has not come that far;
        // the only slice, since it borrows the memory mutably.
        Ok(unsafe { std::slice::from_raw_parts_mut(host, bytes as usize) })
    }

    /// Host address of bytes that have been checked to be the guest's.
    fn host(&self, address: u64, bytes: u64) -> Result<*mut u8, Outside> {
        let end = address.checked_add(bytes).filter(|end| *end <= self.end);
        match (address.checked_sub(self.start), end) {
            (Some(offset), Some(_)) => Ok(self.host.wrapping_add(offset as usize)),
            _ => Err(Outside { address, bytes }),
        }
    }

    /// Loads an image, protects its pages and returns the address at which it ends.
    pub(crate) fn load(&mut self, image: &ImageFile, elf: &Elf, protection: Protection) -> Result<u64, Refusal> {
        let wrong = |error| Refusal::Image { name: image.name().to_owned(), error };
        elf.check_entry(self.end).map_err(wrong)?;
        let mut loads = Loads::new(elf, self.end);
        while let Some(segment) = loads.next(image).map_err(wrong)? {
            self.load_segment(image, &segment).map_err(wrong)?;
            self.protect(&segment, protection)
                .map_err(|errno| Refusal::Protect { name: image.name().to_owned(), errno })?;
        }
        Ok(loads.image_end())
    }

    fn load_segment(&mut self, image: &ImageFile, segment: &Segment) -> Result<(), ImageError> {
        let cut = ImageError::SegmentCut { index: segment.index };
        let to = self.bytes_mut(segment.vaddr, segment.file_bytes).map_err(|_| cut)?;
        fulmar_core::solo5::fill(image, segment.file_offset, to)?.then_some(()).ok_or(cut)
    }

    fn protect(&mut self, segment: &Segment, protection: Protection) -> Result<(), Errno> {
        let exact = protection == Protection::Exact;
        let readable = segment.readable || (segment.executable && !exact);
        let mut flags = 0;
        for (has, flag) in [
            (readable, libc::PROT_READ),
            (segment.writable, libc::PROT_WRITE),
            (segment.executable && exact, libc::PROT_EXEC),
        ] {
            flags |= if has { flag } else { 0 };
        }
        let bytes = segment.end - segment.start;
        let outside = |_| Errno(libc::EFAULT);
        let host = self.host(segment.start, bytes).map_err(outside)?;
        // SAFETY: whole pages within the mapping; the slices into them are gone.
        let result = unsafe { libc::mprotect(host.cast(), bytes as usize, flags) };
        if result != 0 {
            return Err(Errno::last());
        }
        if !segment.writable {
            self.read_only.push(segment.start..segment.end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! The door opens for what is the guest's, and for nothing else.
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn addresses_beyond_memory_are_outside() {
        let memory = Memory::anywhere(4 * MIB).unwrap();
        for (address, bytes) in [
            (4 * MIB, 1),
            (4 * MIB - 8, 9),
            (0, 4 * MIB + 1),
            (8, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX - 7, 8),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(memory.bytes(address, bytes), Err(Outside { address, bytes }));
        }
        assert_eq!(memory.bytes(4 * MIB - 8, 8).unwrap(), [0; 8]);
        assert_eq!(memory.bytes(4 * MIB, 0).unwrap(), [0; 0]);
    }

    #[test]
    fn nobody_writes_below_the_image_or_what_is_read_only() {
        let mut memory = Memory::anywhere(4 * MIB).unwrap();
        memory.read_only.push(2 * MIB..2 * MIB + 4096);
        for (address, bytes) in
            [(0, 1), (MIB - 1, 8), (2 * MIB, 1), (2 * MIB - 1, 2), (2 * MIB + 4095, 1), (MIB, 3 * MIB), (MIB, u64::MAX)]
        {
            assert!(memory.bytes_mut(address, bytes).is_err(), "{address:#x} {bytes:#x}");
        }
        memory.bytes_mut(2 * MIB + 4096, 2).unwrap().copy_from_slice(b"ok");
        assert_eq!(memory.bytes(2 * MIB + 4096, 2).unwrap(), b"ok");
        assert!(memory.bytes_mut(2 * MIB - 2, 2).is_ok());
    }

    #[test]
    fn memory_at_its_own_addresses_replaces_nothing() {
        let (start, end) = (0x6000_0000, 0x6000_0000 + 16 * 4096);
        let memory = Memory::identical(start, end, false).unwrap();
        assert_eq!(memory.host_address(), start);
        assert!(memory.bytes(start - 1, 1).is_err());
        assert!(matches!(
            Memory::identical(start, end, false),
            Err(Refusal::Memory { errno: Errno(libc::EEXIST), .. })
        ));
    }
}
