//! The state in which a guest's processor begins: long mode, its memory mapped one to one, segments flat, no interrupts.
//! Pure numbers; the addresses are the ABI's.

use crate::memory::{Memory, Outside};

use super::kvm::{Registers, Segment, SystemRegisters, Table};

const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const DIRECTORIES: u64 = 0x4000;
const FIRST_TABLE: u64 = 0x8000;
/// Below this nothing is mapped: a null pointer of the guest meets a page fault.
const MAPPED_START: u64 = 0x1_0000;
/// Below this, what the tender has written is read-only.
const WRITABLE_START: u64 = 0x10_0000;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const LARGE: u64 = 0x80;
const PAGE_BYTES: u64 = 0x1000;
const LARGE_BYTES: u64 = 2 << 20;

const CODE_DESCRIPTOR: u64 = 0x00af_9900_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;

/// PG, WP, NE, PE.
const CR0: u64 = 0x8001_0021;
/// OSXMMEXCPT, OSFXSR, PAE.
const CR4: u64 = 0x620;
/// LMA, LME.
const EFER: u64 = 0x500;
/// The bit that is always set; interrupts are off.
const RFLAGS: u64 = 2;

/// Writes the descriptor table and the page tables.
pub(super) fn write_tables(memory: &mut Memory) -> Result<(), Outside> {
    for (index, descriptor) in (0..).zip([0, CODE_DESCRIPTOR, DATA_DESCRIPTOR]) {
        put(memory, GDT, index, descriptor)?;
    }
    put(memory, PML4, 0, PDPT | PRESENT | WRITABLE)?;
    for index in 0..4 {
        put(memory, PDPT, index, (DIRECTORIES + index * PAGE_BYTES) | PRESENT | WRITABLE)?;
    }
    put(memory, DIRECTORIES, 0, FIRST_TABLE | PRESENT | WRITABLE)?;
    for address in (MAPPED_START..LARGE_BYTES).step_by(PAGE_BYTES as usize) {
        let flags = if address < WRITABLE_START { PRESENT } else { PRESENT | WRITABLE };
        put(memory, FIRST_TABLE, address / PAGE_BYTES, address | flags)?;
    }
    // The four directories follow each other: one index runs through all of them.
    for address in (LARGE_BYTES..memory.mapped_bytes()).step_by(LARGE_BYTES as usize) {
        put(memory, DIRECTORIES, address / LARGE_BYTES, address | PRESENT | WRITABLE | LARGE)?;
    }
    Ok(())
}

fn put(memory: &mut Memory, table: u64, index: u64, entry: u64) -> Result<(), Outside> {
    memory.bytes_mut(table + 8 * index, 8)?.copy_from_slice(&entry.to_le_bytes());
    Ok(())
}

/// The system registers at the first instruction.
pub(super) fn system_registers() -> SystemRegisters {
    let flat = Segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Segment::default() };
    let code = Segment { selector: CODE_SELECTOR, kind: 9, l: 1, ..flat };
    let data = Segment { selector: DATA_SELECTOR, kind: 3, db: 1, ..flat };
    SystemRegisters {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment { kind: 11, present: 1, ..Segment::default() },
        ldt: Segment { unusable: 1, ..Segment::default() },
        gdt: Table { base: GDT, limit: 23, ..Table::default() },
        cr0: CR0,
        cr3: PML4,
        cr4: CR4,
        efer: EFER,
        ..SystemRegisters::default()
    }
}

/// The general registers at the first instruction: the stack stands as after a call, the argument is the boot information.
pub(super) fn registers(entry: u64, memory_end: u64) -> Registers {
    Registers { rdi: super::BOOT_INFO, rsp: memory_end - 8, rip: entry, rflags: RFLAGS, ..Registers::default() }
}
