//! Devices that the image has declared with [`unikernel!`](crate::unikernel) and the tender has attached. Nothing here
//! blocks except a disk that is slow: to wait for a frame, call [`wait_until`](crate::wait_until).
#![allow(unsafe_code, reason = "the tender's manifest lies at an address that only the ABI gives")]

use crate::start::Guest;
use crate::tender;

/// An entry of the manifest as the tender has filled it in.
#[repr(C)]
pub(crate) struct Entry {
    name: [u8; 68],
    kind: u32,
    filled_in: [u8; 16],
    /// The host's descriptor; of use to spt alone.
    pub(crate) fd: i32,
    _spare: [u8; 12],
}

/// Bytes before the first entry: the version and the number of entries.
const HEAD_BYTES: u64 = 8;
const BLOCK: u32 = 1;
const NET: u32 = 2;

/// The entry of this name and kind, and its handle.
fn find(guest: &Guest, name: &str, kind: u32) -> Option<(u64, &'static Entry)> {
    let manifest = guest.manifest();
    // SAFETY: the tender puts a manifest at this address, which nobody writes.
    let [_version, count] = unsafe { (manifest as *const [u32; 2]).read() };
    // SAFETY: it has as many entries as it says.
    let entries = unsafe { core::slice::from_raw_parts((manifest + HEAD_BYTES) as *const Entry, count as usize) };
    let named = |entry: &&Entry| {
        let text = entry.name.split(|byte| *byte == 0).next();
        entry.kind == kind && text == Some(name.as_bytes())
    };
    (0..).zip(entries).find(|(_, entry)| named(entry))
}

/// A network.
#[derive(Clone, Copy)]
pub struct Net {
    handle: u64,
    entry: &'static Entry,
}

impl Net {
    /// The network that was declared by this name.
    #[must_use]
    pub fn find(guest: &Guest, name: &str) -> Option<Net> {
        find(guest, name, NET).map(|(handle, entry)| Net { handle, entry })
    }

    /// Its place in the set of [`wait_until`](crate::wait_until): bit `handle` is set when a frame has come.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.handle
    }

    /// Its hardware address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.entry.filled_in;
        [a, b, c, d, e, f]
    }

    /// Bytes of a frame's payload, at most; the header has 14 more.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        let [_, _, _, _, _, _, low, high, ..] = self.entry.filled_in;
        u16::from_le_bytes([low, high])
    }

    /// Takes a frame that has come into `frame`, which must have room for [`mtu`](Net::mtu) + 14 bytes, and says how long
    /// it is; `None` if none has come.
    #[must_use]
    pub fn read(&self, frame: &mut [u8]) -> Option<usize> {
        tender::net_read(self.handle, self.entry, frame)
    }

    /// Sends a frame; `false` if the host has no room for it.
    pub fn write(&self, frame: &[u8]) -> bool {
        tender::net_write(self.handle, self.entry, frame)
    }
}

/// A disk.
#[derive(Clone, Copy)]
pub struct Block {
    handle: u64,
    entry: &'static Entry,
}

impl Block {
    /// The disk that was declared by this name.
    #[must_use]
    pub fn find(guest: &Guest, name: &str) -> Option<Block> {
        find(guest, name, BLOCK).map(|(handle, entry)| Block { handle, entry })
    }

    /// Its bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.entry.filled_in;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Bytes of a sector, the only amount that it reads and writes.
    #[must_use]
    pub fn sector_bytes(&self) -> u16 {
        let [_, _, _, _, _, _, _, _, low, high, ..] = self.entry.filled_in;
        u16::from_le_bytes([low, high])
    }

    /// Reads the sector at `offset`; `false` if there is none or the buffer is not of its size.
    #[must_use]
    pub fn read(&self, offset: u64, sector: &mut [u8]) -> bool {
        self.is_sector(offset, sector.len()) && tender::block_read(self.handle, self.entry, offset, sector)
    }

    /// Writes the sector at `offset`; `false` if there is none or the buffer is not of its size.
    #[must_use]
    pub fn write(&self, offset: u64, sector: &[u8]) -> bool {
        self.is_sector(offset, sector.len()) && tender::block_write(self.handle, self.entry, offset, sector)
    }

    /// A tender may end whoever asks for anything else.
    fn is_sector(&self, offset: u64, len: usize) -> bool {
        let bytes = u64::from(self.sector_bytes());
        let last = self.capacity_bytes().checked_sub(bytes);
        len as u64 == bytes && offset & bytes.wrapping_sub(1) == 0 && last.is_some_and(|last| offset <= last)
    }
}

const _: () = assert!(size_of::<Entry>() == 104 && align_of::<Entry>() <= 8);
