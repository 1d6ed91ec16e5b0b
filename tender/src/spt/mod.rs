//! spt: the guest is this very process. Its memory is mapped at its own addresses, the filter lets through what it needs,
//! and then the tender jumps into it and is no more.
#![allow(unsafe_code, reason = "the jump into the guest")]

mod faults;

use std::arch::asm;

use crate::boot;
use crate::core_file::CoreFile;
use crate::device::{Attachment, Devices};
use crate::load::{Layout, load};
use crate::memory::{Memory, Protection};
use crate::opened::{Given, Image};
use crate::raw::{self, OWN_EXIT};
use crate::refusal::{OptionFault, Refusal};
use crate::report::{self, LINE_BYTES_MAX};
use crate::seccomp::{Argument, Row};
use crate::stages::Prepared;
use crate::status;
use crate::sys;
use crate::waiting::Waiting;
use faults::Scene;

/// The first address that is mapped; below it, a null pointer of the guest meets nothing.
const MEMORY_START: u64 = 0x1_0000;
const BOOT_INFO: u64 = 0x1_1000;
const BOOT_INFO_BYTES: usize = 40;
/// `epoll_pwait` without a mask of signals: a guest may not choose which of them reach it.
const NO_MASK: Argument = Argument::Is(4, 0);
/// What the tender's own stack may grow to; it needs some pages.
const STACK_BYTES_MAX: u64 = 256 * 1024;
/// More than any address at which the kernel puts a position-independent tender.
const MEMORY_BYTES_MAX: u64 = 1 << 46;

/// What the guest runs on. It is never dropped: the process ends with the guest.
pub(crate) struct Guest {
    scene: &'static Scene,
    devices: Devices,
    waiting: Waiting,
    entry: u64,
}

/// Maps and fills the guest's memory, and makes what it waits with.
pub(crate) fn prepare(given: Given, devices: Devices, image: &Image) -> Result<Prepared<Guest>, Refusal> {
    let Given { memory_bytes, exec_heap, kvm, net_ring, command_line, core, gdb } = given;
    for (hvt_only, option) in
        [(kvm.is_some_and(|kvm| kvm.is_asked_for), "--kvm"), (!net_ring, "--no-net-ring"), (gdb.is_some(), "--gdb")]
    {
        if hvt_only {
            return Err(Refusal::Option { option: option.into(), fault: OptionFault::HvtOnly });
        }
    }
    if memory_bytes > MEMORY_BYTES_MAX {
        return Err(Refusal::MemoryLarge { bytes: memory_bytes, bytes_max: MEMORY_BYTES_MAX });
    }
    if exec_heap {
        report::say(format_args!("WARNING: --x-exec-heap: the guest's heap and stack can be executed"));
    }
    let mut memory = Memory::identical(MEMORY_START, memory_bytes, exec_heap)?;
    let waiting = Waiting::new(&devices)?;
    let layout = load(&mut memory, &image.file, &image.elf, Protection::Exact).map_err(image.wrong())?;
    lay_out(&mut memory, &layout, &devices, &waiting, &command_line)
        .map_err(|_| Refusal::Host { what: "No room for the boot information: give it more memory".into() })?;
    sys::limit_stack(STACK_BYTES_MAX).map_err(|errno| Refusal::Step {
        what: "Could not limit the tender's stack",
        errno,
        remedy: "give it a larger limit (ulimit -s)",
    })?;
    let scene = faults::watch(Scene { memory, layout, core })?;
    let guest = Guest { scene, devices, waiting, entry: image.elf.entry };
    let rows = rows(&guest);
    Ok(Prepared::new(guest, rows))
}

/// Writes what the guest is told at the start.
fn lay_out(
    memory: &mut Memory,
    layout: &Layout,
    devices: &Devices,
    waiting: &Waiting,
    command_line: &[u8],
) -> Result<(), crate::memory::Outside> {
    let placed = boot::place(BOOT_INFO, BOOT_INFO_BYTES as u64, devices);
    let mut info = Vec::with_capacity(BOOT_INFO_BYTES);
    for number in [memory.end(), layout.image_end, placed.command_line, placed.manifest] {
        info.extend(number.to_le_bytes());
    }
    info.extend(waiting.epoll().to_le_bytes());
    info.extend(waiting.timer().to_le_bytes());
    boot::write(memory, BOOT_INFO, &info, placed, devices, command_line)
}

/// What `xrstor` and `fxrstor` read to put every register of the x87 and vector units to where a process begins.
#[repr(C, align(64))]
struct Extended([u32; 144]);

static FRESH: Extended = {
    let mut words = [0; 144];
    // The x87 control word, and MXCSR: all exceptions masked.
    words[0] = 0x37f;
    words[6] = 0x1f80;
    Extended(words)
};

impl crate::stages::Guest for Guest {
    /// Jumps into the guest. The process ends with the guest's own exit status.
    fn run(self) -> ! {
        let guest = std::mem::ManuallyDrop::new(self);
        let stack = guest.scene.memory.end() - 8;
        let has_xsave = u64::from(is_x86_feature_detected!("xsave"));
        raw::forget_thread_storage();
        // SAFETY: the loader has checked that the entry lies in the guest's memory, and the stack is its last 8 bytes, as
        // after a call. What runs from here on is the guest, under its filter; registers tell it nothing of the tender.
        unsafe {
            asm!(
                "mov rsp, {stack}",
                "xor eax, eax", "xor ebx, ebx", "xor ecx, ecx", "xor edx, edx", "xor ebp, ebp",
                "xor r8d, r8d", "xor r9d, r9d",
                "xor r12d, r12d", "xor r13d, r13d", "xor r14d, r14d", "xor r15d, r15d",
                // Vector registers may hold whatever was last copied: all go to where they begin.
                "test rsi, rsi",
                "jz 2f",
                "mov eax, -1",
                "mov edx, -1",
                "xrstor64 [r10]",
                "xor eax, eax",
                "xor edx, edx",
                "jmp 3f",
                "2:",
                "fxrstor64 [r10]",
                "3:",
                "xor esi, esi",
                "xor r10d, r10d",
                "cld",
                "jmp r11",
                stack = in(reg) stack, in("r10") &raw const FRESH, in("r11") guest.entry, in("rdi") BOOT_INFO, in("rsi") has_xsave, options(noreturn)
            )
        }
    }
}

/// What the guest may ask of the kernel. The most frequent first.
fn rows(guest: &Guest) -> Vec<Row> {
    let mut rows = vec![
        Row::on_fd(libc::SYS_write, 1, "the console"),
        Row::new(libc::SYS_clock_gettime, &[Argument::Is(0, libc::CLOCK_MONOTONIC as u64)], "the monotonic clock"),
        Row::new(libc::SYS_clock_gettime, &[Argument::Is(0, libc::CLOCK_REALTIME as u64)], "the wall clock"),
        Row::new(
            libc::SYS_epoll_pwait,
            &[Argument::Is(0, guest.waiting.epoll() as u64), NO_MASK],
            "waiting for networks and for the timer",
        ),
        Row::on_fd(libc::SYS_timerfd_settime, guest.waiting.timer(), "waiting no longer than until a deadline"),
    ];
    for device in guest.devices.list() {
        let fd = device.attachment.fd();
        match &device.attachment {
            Attachment::Net { .. } => {
                rows.push(Row::on_fd(libc::SYS_read, fd, "a frame from a network"));
                rows.push(Row::on_fd(libc::SYS_write, fd, "a frame to a network"));
            }
            Attachment::Block { capacity_bytes, sector_bytes, .. } => {
                let bytes = u64::from(*sector_bytes);
                let within =
                    [Argument::Is(0, fd as u64), Argument::Is(2, bytes), Argument::AtMost(3, capacity_bytes - bytes)];
                rows.push(Row::new(libc::SYS_pread64, &within, "a sector from a disk, within its bounds"));
                rows.push(Row::new(libc::SYS_pwrite64, &within, "a sector to a disk, within its bounds"));
            }
        }
    }
    let set_fs = [Argument::Is(0, 0x1002)];
    rows.push(Row::new(libc::SYS_arch_prctl, &set_fs, "the base of thread-local storage (ARCH_SET_FS)"));
    let line = [Argument::Is(0, 2), Argument::AtMost(2, LINE_BYTES_MAX as u64)];
    rows.push(Row::new(libc::SYS_write, &line, "saying how the guest faulted"));
    rows.push(raw::is_writable_row());
    match faults::end_is_watched(guest.scene.core.as_ref()) {
        false => rows.push(Row::new(libc::SYS_exit_group, &[], "the end")),
        true => {
            rows.push(Row::new(libc::SYS_exit_group, &[Argument::Is(1, OWN_EXIT)], "the end, once it is recorded"));
            rows.push(Row::signal(libc::SYS_exit_group, "the end, to be recorded"));
        }
    }
    rows.extend(status::rows());
    if let Some(core) = &guest.scene.core {
        rows.extend(CoreFile::rows(core, &guest.scene.memory));
        rows.push(Row::new(libc::SYS_rt_sigreturn, &[], "going on after a core that was asked for"));
    }
    rows
}
