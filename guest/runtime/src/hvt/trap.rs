//! Exceptions of the processor under hvt: each is said on the console and ends the unikernel with status 255. Without this a
//! fault would find no handler and end the tender with nothing but a number.
#![allow(unsafe_code, reason = "descriptor tables are addresses, and exceptions arrive in assembler")]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Alone;
use crate::say;
use crate::text::Hex;

const NAMES: [&str; 21] = [
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS", "#GP", "#PF", "#15",
    "#MF", "#AC", "#MC", "#XM", "#VE",
];
const PAGE_FAULT: usize = 14;

/// Descriptors of flat code and data, as the tender's own table has them: no segment register need be loaded again.
const CODE: u64 = 0x00af_9900_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const CODE_SELECTOR: u64 = 8;
const TASK_SELECTOR: u16 = 24;
/// A task state segment that is present and not in use, of 104 bytes.
const TASK: u64 = 0x0000_8900_0000_0067;
/// An interrupt gate that is present and takes the first stack of the task state.
const GATE: u64 = (0x8e << 40) | (1 << 32) | (CODE_SELECTOR << 16);
/// The word of the task state that says where that first stack ends.
const STACK_WORD: usize = 9;

const STACK_BYTES: usize = 4096;
/// What must be memory behind the cookie of a halt.
const COOKIE_BYTES: usize = 512;
/// Distance of the entries below.
const ENTRY_BYTES: u64 = 16;

#[repr(C, align(16))]
struct Tables {
    segments: [u64; 5],
    task: [u32; 26],
    gates: [[u64; 2]; NAMES.len()],
}

static TABLES: Alone<Tables> =
    Alone(UnsafeCell::new(Tables { segments: [0; 5], task: [0; 26], gates: [[0; 2]; NAMES.len()] }));

/// What exceptions run on: the stack that they interrupt may be what is wrong.
#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "only its address matters")] [u8; STACK_BYTES + COOKIE_BYTES]);
static STACK: Alone<Stack> = Alone(UnsafeCell::new(Stack([0; STACK_BYTES + COOKIE_BYTES])));

// One entry for each exception, which leaves on the stack what the processor put there, an error code where it did not put
// one, and the number. The number gives way to the address of a page fault: that is then the layout that a halt wants.
global_asm!(
    ".pushsection .text.fulmar_guest_traps, \"ax\"",
    ".balign 16",
    "fulmar_guest_traps:",
    ".irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20",
    ".balign 16",
    // Exceptions 8, 10 to 14 and 17 come with an error code.
    ".if ((0x27d00 >> \\vector) & 1) == 0",
    "push 0",
    ".endif",
    "push \\vector",
    "jmp 2f",
    ".endr",
    "2:",
    "mov rdi, [rsp]",
    "mov rax, cr2",
    "mov [rsp], rax",
    "mov rsi, rsp",
    "and rsp, -16",
    "cld",
    "call {trapped}",
    "ud2",
    ".popsection",
    trapped = sym trapped,
);

unsafe extern "C" {
    static fulmar_guest_traps: u8;
}

#[repr(C)]
struct Frame {
    address: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Makes exceptions come to us. Some 200 instructions: a KVM that interprets takes a millisecond for them.
pub(super) fn begin() {
    // SAFETY: this runs once, before anything else can look at the tables.
    let tables = unsafe { &mut *TABLES.0.get() };
    let task = (&raw const tables.task).addr() as u64;
    tables.segments = [0, CODE, DATA, TASK | (task & 0xff_ffff) << 16 | (task >> 24) << 56, 0];
    // All addresses are below 4 GiB, so the upper words stay 0.
    tables.task[STACK_WORD] = STACK.0.get().addr() as u32 + STACK_BYTES as u32;
    let mut entry = (&raw const fulmar_guest_traps).addr() as u64;
    for gate in &mut tables.gates {
        gate[0] = GATE | entry & 0xffff | (entry >> 16) << 48;
        entry += ENTRY_BYTES;
    }
    let segments = pointer(&raw const tables.segments);
    let gates = pointer(&raw const tables.gates);
    // SAFETY: both tables are complete and stay where they are; the segments are those that are loaded already.
    unsafe {
        asm!("lgdt [{}]", "lidt [{}]", "ltr {:x}", in(reg) &raw const segments, in(reg) &raw const gates,
            in(reg) TASK_SELECTOR, options(nostack, preserves_flags));
    }
}

fn pointer<T>(table: *const T) -> TablePointer {
    TablePointer { limit: size_of::<T>() as u16 - 1, base: table.addr() as u64 }
}

extern "C" fn trapped(vector: usize, frame: &Frame) -> ! {
    static BEFORE: AtomicBool = AtomicBool::new(false);
    // One that comes while another is being said is not said as well: that could go on for ever.
    if !BEFORE.swap(true, Relaxed) {
        let name = NAMES.get(vector).copied().unwrap_or_default();
        let [error, rip, rsp, rflags] = [frame.error, frame.rip, frame.rsp, frame.rflags].map(Hex);
        say!("trap: type=", name, " ec=", error, " rip=", rip, " rsp=", rsp, " rflags=", rflags);
        if vector == PAGE_FAULT {
            say!("trap: cr2=", Hex(frame.address));
        }
    }
    super::halt((&raw const *frame).expose_provenance() as u64, 255)
}

const _: () = assert!(size_of::<Frame>() == 7 * 8 && size_of::<TablePointer>() == 10);
