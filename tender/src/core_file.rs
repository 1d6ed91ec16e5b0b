//! A core file of a guest, for gdb: its memory and the registers of its processor, in the form of a Linux process's. Only
//! pages that have been touched take room. Everything here also runs in a signal handler within an spt guest's process.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use fulmar_core::solo5::PAGE_BYTES;

use crate::memory::Memory;
use crate::raw;
use crate::refusal::Refusal;
use crate::report::{self, Registers};
use crate::seccomp::{Argument, Row};
use crate::sys::Errno;

/// Where the memory begins in the file.
const MEMORY_OFFSET: u64 = PAGE_BYTES;
const NOTE_OFFSET: u64 = HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
/// `struct elf_prstatus` of x86_64, and where the registers stand in it.
const STATUS_BYTES: usize = 336;
const REGISTERS_AT: usize = 112;
const NOTE_BYTES: usize = 12 + 8 + STATUS_BYTES;
const HEAD_BYTES: usize = NOTE_OFFSET as usize + NOTE_BYTES;
/// Pages that are asked about at once.
const PAGES: usize = 1024;

const _: () = assert!(HEAD_BYTES as u64 <= MEMORY_OFFSET);

/// A file that a core can go to.
#[derive(Debug)]
pub(crate) struct CoreFile {
    file: File,
    path: String,
}

impl CoreFile {
    /// Makes the file, empty: `core.PROGRAM.PID`. It must not be there yet.
    pub(crate) fn create(folder: &OsStr, program: &str) -> Result<CoreFile, Refusal> {
        let path = Path::new(folder).join(format!("core.{program}.{}", std::process::id()));
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let path = path.to_string_lossy().into_owned();
        match made {
            Ok(file) => Ok(CoreFile { file, path }),
            Err(error) => Err(Refusal::Core { path, errno: error.into() }),
        }
    }

    /// Its descriptor.
    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// What a filter must let through for a dump.
    pub(crate) fn rows(&self, memory: &Memory) -> [Row; 2] {
        let within = [Argument::Is(0, self.fd() as u64), Argument::AtMost(3, Self::offset_max(memory))];
        let here = [Argument::AtMost(0, memory.host_address() + (memory.end() - memory.start()))];
        [
            Row::new(libc::SYS_pwrite64, &within, "writing a core"),
            Row::new(libc::SYS_mincore, &here, "leaving out of a core what was never touched"),
        ]
    }

    /// The largest offset that is written to.
    fn offset_max(memory: &Memory) -> u64 {
        MEMORY_OFFSET + (memory.end() - memory.start())
    }

    /// Writes the core, over one that was written before.
    pub(crate) fn dump(&self, memory: &Memory, registers: &Registers) {
        report::say(format_args!("dumpcore: dumping guest core to: {}", self.path));
        let pages = (memory.end() - memory.start()) / PAGE_BYTES;
        let written = raw::pwrite(self.fd(), &head(memory, registers), 0)
            .and_then(|_| self.dump_memory(memory))
            // The file is as long as its headers say.
            .and_then(|written| raw::pwrite(self.fd(), &[0], Self::offset_max(memory)).map(|_| written));
        match written {
            Ok(written) => report::say(format_args!("dumpcore: dumped {written} pages of total {pages} pages")),
            Err(Errno(errno)) => report::say(format_args!("dumpcore: failed: error {errno}: free some of the disk")),
        }
    }

    /// Writes every page that has been touched, and says how many.
    fn dump_memory(&self, memory: &Memory) -> Result<u64, Errno> {
        let mut written = 0;
        let mut resident = [0u8; PAGES];
        let mut address = memory.start();
        while address < memory.end() {
            let bytes = (memory.end() - address).min(PAGES as u64 * PAGE_BYTES);
            let outside = |_| Errno(libc::EFAULT);
            raw::resident(memory.pages(address, bytes).map_err(outside)?, &mut resident)?;
            for (page, state) in (address..address + bytes).step_by(PAGE_BYTES as usize).zip(&resident) {
                if state & 1 == 0 {
                    continue;
                }
                let offset = MEMORY_OFFSET + (page - memory.start());
                match raw::pwrite_guest(self.fd(), memory.pages(page, PAGE_BYTES).map_err(outside)?, offset) {
                    Ok(_) => written += 1,
                    // A page that even the guest cannot read.
                    Err(Errno(libc::EFAULT)) => {}
                    Err(errno) => return Err(errno),
                }
            }
            address += bytes;
        }
        Ok(written)
    }
}

/// The ELF header, the two program headers and the note of the registers.
fn head(memory: &Memory, registers: &Registers) -> [u8; HEAD_BYTES] {
    let mut head = Head { bytes: [0; HEAD_BYTES], at: 0 };
    head.put(b"\x7fELF\x02\x01\x01");
    head.at = 16;
    // A core file for x86_64, its program headers behind this header.
    head.put(&4u16.to_le_bytes());
    head.put(&62u16.to_le_bytes());
    head.put(&1u32.to_le_bytes());
    head.put(&0u64.to_le_bytes());
    head.put(&HEADER_BYTES.to_le_bytes());
    head.put(&0u64.to_le_bytes());
    head.put(&0u32.to_le_bytes());
    for half in [HEADER_BYTES as u16, PROGRAM_HEADER_BYTES as u16, 2, 0, 0, 0] {
        head.put(&half.to_le_bytes());
    }
    let memory_bytes = memory.end() - memory.start();
    // PT_NOTE, then PT_LOAD, which may be read, written and executed.
    head.put_program_header(4, 0, NOTE_OFFSET, 0, NOTE_BYTES as u64, 0);
    head.put_program_header(1, 7, MEMORY_OFFSET, memory.start(), memory_bytes, PAGE_BYTES);
    for word in [5, STATUS_BYTES as u32, 1] {
        head.put(&word.to_le_bytes());
    }
    head.put(b"CORE\0\0\0\0");
    head.at += REGISTERS_AT;
    for register in registers.in_core_order() {
        head.put(&register.to_le_bytes());
    }
    head.bytes
}

struct Head {
    bytes: [u8; HEAD_BYTES],
    at: usize,
}

impl Head {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn put_program_header(&mut self, kind: u32, flags: u32, offset: u64, address: u64, bytes: u64, align: u64) {
        self.put(&kind.to_le_bytes());
        self.put(&flags.to_le_bytes());
        for word in [offset, address, address, bytes, bytes, align] {
            self.put(&word.to_le_bytes());
        }
    }
}
