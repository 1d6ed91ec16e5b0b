//! The guest's memory: mapped once, reached through one checked door. While a guest runs nothing of the tender has a
//! reference into it: the door gives [`Readable`] and [`Writable`], addresses that only the kernel and whole numbers go
//! through, because the guest may change a byte at any moment.
#![allow(unsafe_code, reason = "mappings, and what goes in and out of them")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::AtomicU32;

use fulmar_core::solo5::{LOAD_ADDRESS_MIN, PAGE_BYTES};

use crate::refusal::Refusal;
use crate::sys::Errno;

/// Guest memory from address `start` to `end`. Bytes that nobody has touched are zero. Once a guest runs it is never
/// unmapped: the process ends with its guest.
pub(crate) struct Memory {
    /// Host address of guest address `start`.
    host: *mut u8,
    start: u64,
    end: u64,
    /// Bytes of the mapping from `start` on.
    mapped_bytes: u64,
    /// Whether there is a page before it and one behind it that nobody may touch.
    is_guarded: bool,
    /// What the loader has made read-only, in ascending order.
    read_only: Vec<Range<u64>>,
    /// What the loader has taken away even from us.
    unreadable: Vec<Range<u64>>,
}

// SAFETY: the pointer is to a mapping that lives as long as the process; through a shared reference it is reached only by
// the kernel, by volatile words and by atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// An address of the guest that is not its own to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
}

/// Bytes of the guest that may be read.
#[derive(Clone, Copy)]
pub(crate) struct Readable<'m> {
    host: *const u8,
    bytes: u64,
    memory: PhantomData<&'m Memory>,
}

/// Bytes of the guest that may be written: none of them is read-only or lies below the image.
#[derive(Clone, Copy)]
pub(crate) struct Writable<'m> {
    host: *mut u8,
    bytes: u64,
    memory: PhantomData<&'m Memory>,
}

/// How the loader protects a segment's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// As the segment says: the guest runs in these very mappings.
    Exact,
    /// What may be executed is readable instead: the guest runs behind page tables of its own.
    NeverExecutable,
    /// None at all, so that a debugger can put its breakpoints into code.
    Open,
}

/// What a segment allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
}

impl Memory {
    /// Maps `bytes` of memory, whole pages, wherever there is room, between two pages that nobody may touch. The guest's
    /// own ends at `end`; what lies behind it is reached by [`Memory::beyond`] alone.
    pub(crate) fn anywhere(bytes: u64, end: u64) -> Result<Memory, Refusal> {
        let room = bytes.saturating_add(2 * PAGE_BYTES);
        let around = map(None, room, libc::PROT_NONE)?;
        let host = around.wrapping_add(PAGE_BYTES as usize);
        let memory = Memory {
            host,
            start: 0,
            end: end.min(bytes),
            mapped_bytes: bytes,
            is_guarded: true,
            read_only: Vec::new(),
            unreadable: Vec::new(),
        };
        // SAFETY: pages of the mapping that was just made.
        let opened = unsafe { libc::mprotect(host.cast(), bytes as usize, libc::PROT_READ | libc::PROT_WRITE) };
        if opened == 0 { Ok(memory) } else { Err(Refusal::Memory { bytes, errno: Errno::last() }) }
    }

    /// Maps `start..end` at these very addresses of our own address space; fails if anything is there already.
    pub(crate) fn identical(start: u64, end: u64, executable: bool) -> Result<Memory, Refusal> {
        let bytes = end.saturating_sub(start);
        let exec = if executable { libc::PROT_EXEC } else { 0 };
        let host = map(Some(start), bytes, libc::PROT_READ | libc::PROT_WRITE | exec)?;
        Ok(Memory {
            host,
            start,
            end,
            mapped_bytes: bytes,
            is_guarded: false,
            read_only: Vec::new(),
            unreadable: Vec::new(),
        })
    }

    /// Guest address behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Guest address of the first byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Bytes of the mapping, what lies behind the guest's own included.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.mapped_bytes
    }

    /// Host address of the first byte, for the kernel.
    pub(crate) fn host_address(&self) -> u64 {
        self.host.expose_provenance() as u64
    }

    /// Bytes of the guest, to read.
    pub(crate) fn readable(&self, address: u64, bytes: u64) -> Result<Readable<'_>, Outside> {
        if self.unreadable.iter().any(overlaps(address, bytes)) {
            return Err(Outside { address, bytes });
        }
        let host = self.host(address, bytes)?;
        Ok(Readable { host, bytes, memory: PhantomData })
    }

    /// Bytes of the guest for the kernel alone, which minds by itself whether they can be read.
    pub(crate) fn pages(&self, address: u64, bytes: u64) -> Result<Readable<'_>, Outside> {
        let host = self.host(address, bytes)?;
        Ok(Readable { host, bytes, memory: PhantomData })
    }

    /// Bytes of the guest, to write: never what is read-only, never what lies below the image.
    pub(crate) fn writable(&self, address: u64, bytes: u64) -> Result<Writable<'_>, Outside> {
        if address < LOAD_ADDRESS_MIN || self.read_only.iter().any(overlaps(address, bytes)) {
            return Err(Outside { address, bytes });
        }
        let host = self.host(address, bytes)?;
        Ok(Writable { host, bytes, memory: PhantomData })
    }

    /// A number of the guest's.
    pub(crate) fn u64_at(&self, address: u64) -> Result<u64, Outside> {
        let Readable { host, .. } = self.readable(address, 8)?;
        // SAFETY: eight bytes of the guest, which may change but not go away.
        Ok(u64::from_le_bytes(unsafe { host.cast::<[u8; 8]>().read_volatile() }))
    }

    /// A smaller number of the guest's.
    pub(crate) fn u32_at(&self, address: u64) -> Result<u32, Outside> {
        let Readable { host, .. } = self.readable(address, 4)?;
        // SAFETY: four bytes of the guest, which may change but not go away.
        Ok(u32::from_le_bytes(unsafe { host.cast::<[u8; 4]>().read_volatile() }))
    }

    /// Tells the guest a number.
    pub(crate) fn put_u64(&self, address: u64, value: u64) -> Result<(), Outside> {
        let Writable { host, .. } = self.writable(address, 8)?;
        // SAFETY: eight bytes of the guest that may be written, and to which nobody has a reference.
        unsafe { host.cast::<[u8; 8]>().write_volatile(value.to_le_bytes()) };
        Ok(())
    }

    /// Tells the guest a smaller number.
    pub(crate) fn put_u32(&self, address: u64, value: u32) -> Result<(), Outside> {
        let Writable { host, .. } = self.writable(address, 4)?;
        // SAFETY: four bytes of the guest that may be written, and to which nobody has a reference.
        unsafe { host.cast::<[u8; 4]>().write_volatile(value.to_le_bytes()) };
        Ok(())
    }

    /// Copies bytes out, for a dump or a debugger.
    pub(crate) fn copy_out(&self, address: u64, to: &mut [u8]) -> Result<(), Outside> {
        let Readable { host, .. } = self.readable(address, to.len() as u64)?;
        for (index, byte) in to.iter_mut().enumerate() {
            // SAFETY: within what has just been checked.
            *byte = unsafe { host.wrapping_add(index).read_volatile() };
        }
        Ok(())
    }

    /// Copies bytes in for a debugger, which also writes code: there is no read-only memory under [`Protection::Open`].
    pub(crate) fn copy_in(&self, address: u64, from: &[u8]) -> Result<(), Outside> {
        let Writable { host, .. } = self.writable(address, from.len() as u64)?;
        for (index, byte) in from.iter().enumerate() {
            // SAFETY: within what has just been checked.
            unsafe { host.wrapping_add(index).write_volatile(*byte) };
        }
        Ok(())
    }

    /// A number that guest and tender share, `offset` bytes behind the guest's own memory, a multiple of 4 and within the
    /// mapping: what it is asked for are constants.
    pub(crate) fn beyond(&self, offset: u64) -> &AtomicU32 {
        let at = self.end - self.start + offset;
        assert!(at.is_multiple_of(4) && at + 4 <= self.mapped_bytes, "what is shared is mapped");
        // SAFETY: aligned and within the mapping, which lives as long as the process; it is never reached but by this.
        unsafe { AtomicU32::from_ptr(self.host.wrapping_add(at as usize).cast()) }
    }

    /// Bytes to fill before the guest runs, the area below the image included; also for the loader.
    pub(crate) fn bytes_mut(&mut self, address: u64, bytes: u64) -> Result<&mut [u8], Outside> {
        let host = self.host(address, bytes)?;
        // SAFETY: within the mapping; whoever writes does so before the bytes are protected. It is the only slice, since it
        // borrows the memory mutably, and no guest runs while somebody can.
        Ok(unsafe { std::slice::from_raw_parts_mut(host, bytes as usize) })
    }

    /// Protects whole pages.
    pub(crate) fn protect(&mut self, pages: Range<u64>, access: Access, protection: Protection) -> Result<(), Errno> {
        if protection == Protection::Open {
            return Ok(());
        }
        let exact = protection == Protection::Exact;
        let mut flags = 0;
        for (has, flag) in [
            (access.readable || (access.executable && !exact), libc::PROT_READ),
            (access.writable, libc::PROT_WRITE),
            (access.executable && exact, libc::PROT_EXEC),
        ] {
            flags |= if has { flag } else { 0 };
        }
        let bytes = pages.end.saturating_sub(pages.start);
        let host = self.host(pages.start, bytes).map_err(|_| Errno(libc::EFAULT))?;
        // SAFETY: whole pages within the mapping; the slices into them are gone.
        if unsafe { libc::mprotect(host.cast(), bytes as usize, flags) } != 0 {
            return Err(Errno::last());
        }
        // A processor may have a way to execute what cannot be read.
        if flags & (libc::PROT_READ | libc::PROT_WRITE) == 0 {
            self.unreadable.push(pages.clone());
        }
        if !access.writable {
            self.read_only.push(pages);
        }
        Ok(())
    }

    /// Host address of bytes that have been checked to be the guest's.
    fn host(&self, address: u64, bytes: u64) -> Result<*mut u8, Outside> {
        let end = address.checked_add(bytes).filter(|end| *end <= self.end);
        match (address.checked_sub(self.start), end) {
            (Some(offset), Some(_)) => Ok(self.host.wrapping_add(offset as usize)),
            _ => Err(Outside { address, bytes }),
        }
    }
}

impl Readable<'_> {
    /// Host address, for the kernel.
    pub(crate) fn address(self) -> u64 {
        self.host.expose_provenance() as u64
    }

    /// How many.
    pub(crate) fn bytes(self) -> u64 {
        self.bytes
    }
}

impl Writable<'_> {
    /// Host address, for the kernel.
    pub(crate) fn address(self) -> u64 {
        self.host.expose_provenance() as u64
    }

    /// How many.
    pub(crate) fn bytes(self) -> u64 {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let around = if self.is_guarded { PAGE_BYTES } else { 0 };
        let host = self.host.wrapping_sub(around as usize);
        let bytes = self.mapped_bytes + 2 * around;
        // SAFETY: the whole mapping and nothing else, to which nobody has a reference any more.
        unsafe { libc::munmap(host.cast(), bytes as usize) };
    }
}

/// Whether a range has bytes of these.
fn overlaps(address: u64, bytes: u64) -> impl Fn(&Range<u64>) -> bool {
    move |range| bytes > 0 && range.start < address.saturating_add(bytes) && address < range.end
}

/// Makes a new mapping that replaces none, at an address or anywhere.
fn map(at: Option<u64>, bytes: u64, protection: i32) -> Result<*mut u8, Refusal> {
    let fixed = if at.is_some() { libc::MAP_FIXED_NOREPLACE } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let wanted = std::ptr::without_provenance_mut(at.unwrap_or(0) as usize);
    // SAFETY: a new mapping that replaces none.
    let host = unsafe { libc::mmap(wanted, bytes as usize, protection, flags, -1, 0) };
    if host == libc::MAP_FAILED {
        return Err(Refusal::Memory { bytes, errno: Errno::last() });
    }
    // Kernels before 4.17 take the address for a hint.
    if at.is_some() && host != wanted {
        return Err(Refusal::Memory { bytes, errno: Errno(libc::EEXIST) });
    }
    Ok(host.cast())
}

#[cfg(test)]
mod tests {
    //! The door opens for what is the guest's, and for nothing else.
    use super::*;

    const MIB: u64 = 1 << 20;

    fn four_mib() -> Memory {
        Memory::anywhere(4 * MIB, 4 * MIB).unwrap()
    }

    #[test]
    fn addresses_beyond_memory_are_outside() {
        let memory = four_mib();
        for (address, bytes) in [
            (4 * MIB, 1),
            (4 * MIB - 8, 9),
            (0, 4 * MIB + 1),
            (8, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX - 7, 8),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(memory.readable(address, bytes).map(drop), Err(Outside { address, bytes }));
        }
        assert_eq!(memory.u64_at(4 * MIB - 8), Ok(0));
        assert_eq!(memory.u64_at(4 * MIB - 7), Err(Outside { address: 4 * MIB - 7, bytes: 8 }));
        assert!(memory.readable(4 * MIB, 0).is_ok());
    }

    #[test]
    fn what_is_mapped_behind_a_guest_is_not_its_own() {
        let memory = Memory::anywhere(4 * MIB, 2 * MIB).unwrap();
        assert_eq!(memory.end(), 2 * MIB);
        assert!(memory.readable(2 * MIB - 4, 4).is_ok() && memory.readable(2 * MIB - 4, 5).is_err());
        assert_eq!(memory.beyond(64).swap(7, std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[test]
    fn nobody_writes_below_the_image_or_what_is_read_only() {
        let mut memory = four_mib();
        let readable = Access { readable: true, writable: false, executable: false };
        memory.protect(2 * MIB..2 * MIB + 4096, readable, Protection::Exact).unwrap();
        for (address, bytes) in
            [(0, 1), (MIB - 1, 8), (2 * MIB, 1), (2 * MIB - 1, 2), (2 * MIB + 4095, 1), (MIB, 3 * MIB), (MIB, u64::MAX)]
        {
            assert!(memory.writable(address, bytes).is_err(), "{address:#x} {bytes:#x}");
        }
        memory.put_u32(2 * MIB + 4096, 0x6b6f).unwrap();
        assert_eq!(memory.u32_at(2 * MIB + 4096), Ok(0x6b6f));
        assert!(memory.writable(2 * MIB - 2, 2).is_ok());
        let mut bytes = [0; 2];
        memory.copy_out(2 * MIB + 4096, &mut bytes).unwrap();
        assert_eq!(&bytes, b"ok");
    }

    /// Pages that a segment without any permission has left to nobody: to look at them would end us.
    #[test]
    fn nobody_reads_what_nobody_may() {
        let mut memory = four_mib();
        let nothing = Access { readable: false, writable: false, executable: false };
        memory.protect(2 * MIB..2 * MIB + 4096, nothing, Protection::NeverExecutable).unwrap();
        for address in [2 * MIB - 7, 2 * MIB, 2 * MIB + 4095] {
            assert_eq!(memory.u64_at(address), Err(Outside { address, bytes: 8 }));
            assert!(memory.writable(address, 8).is_err() && memory.copy_out(address, &mut [0; 8]).is_err());
        }
        let code = Access { readable: false, writable: false, executable: true };
        memory.protect(3 * MIB..3 * MIB + 4096, code, Protection::NeverExecutable).unwrap();
        assert_eq!(memory.u64_at(3 * MIB), Ok(0));
    }

    #[test]
    fn memory_at_its_own_addresses_replaces_nothing() {
        let (start, end) = (0x6000_0000, 0x6000_0000 + 16 * 4096);
        let memory = Memory::identical(start, end, false).unwrap();
        assert_eq!(memory.host_address(), start);
        assert!(memory.readable(start - 1, 1).is_err());
        assert!(matches!(
            Memory::identical(start, end, false),
            Err(Refusal::Memory { errno: Errno(libc::EEXIST), .. })
        ));
    }
}
