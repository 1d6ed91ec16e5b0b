//! spt: the guest is this very process. Its memory is mapped at its own addresses, the filter lets through what it needs,
//! and then the tender jumps into it and is no more.
#![allow(unsafe_code, reason = "the jump into the guest")]

use std::arch::asm;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use fulmar_core::solo5::Elf;

use crate::arguments::RunArguments;
use crate::boot;
use crate::device::{Attachment, Devices};
use crate::image::ImageFile;
use crate::memory::{Memory, Protection};
use crate::refusal::{OptionFault, Refusal};
use crate::report;
use crate::seccomp::{Argument, Filter, Row};
use crate::sys::{self, TIMER};

/// The first address that is mapped; below it, a null pointer of the guest meets nothing.
const MEMORY_START: u64 = 0x1_0000;
const BOOT_INFO: u64 = 0x1_1000;
const BOOT_INFO_BYTES: usize = 40;
/// More than any address at which the kernel puts a position-independent tender.
const MEMORY_BYTES_MAX: u64 = 1 << 46;

/// All is open, the image is in place.
pub(crate) struct Prepared {
    guest: Guest,
    filter: Filter,
}

/// No system call is left but the guest's.
pub(crate) struct Confined {
    guest: Guest,
}

/// The guest, about to take over.
pub(crate) struct Running {
    guest: Guest,
}

/// What the guest runs on. It is never dropped: the process ends with the guest.
struct Guest {
    memory: Memory,
    devices: Devices,
    epoll: OwnedFd,
    timer: OwnedFd,
    entry: u64,
}

impl Prepared {
    /// Maps and fills the guest's memory, and makes what it waits with.
    pub(crate) fn new(
        arguments: &RunArguments,
        image: &ImageFile,
        elf: &Elf,
        devices: Devices,
    ) -> Result<Prepared, Refusal> {
        if sys::reads_imply_exec() {
            let what = "Cannot run with personality READ_IMPLIES_EXEC: start it without `setarch -X`".into();
            return Err(Refusal::Host { what });
        }
        if arguments.kvm.is_some() {
            return Err(Refusal::Option { option: "--kvm".into(), fault: OptionFault::HvtOnly });
        }
        if arguments.memory_bytes > MEMORY_BYTES_MAX {
            return Err(Refusal::MemoryLarge { bytes: arguments.memory_bytes, bytes_max: MEMORY_BYTES_MAX });
        }
        if arguments.exec_heap {
            report::say(format_args!("WARNING: --x-exec-heap: the guest's heap and stack can be executed"));
        }
        let mut memory = Memory::identical(MEMORY_START, arguments.memory_bytes, arguments.exec_heap)?;
        let step = |what| move |errno| Refusal::Step { what, errno, remedy: "raise the limit of open files" };
        let epoll = sys::epoll_create().map_err(step("Could not make an epoll set"))?;
        let timer = sys::timer_create().map_err(step("Could not make a timer"))?;
        sys::epoll_add(epoll.as_fd(), timer.as_raw_fd(), TIMER).map_err(step("Could not wait for the timer"))?;
        for (handle, fd) in devices.nets() {
            sys::epoll_add(epoll.as_fd(), fd, handle).map_err(step("Could not wait for a network"))?;
        }
        let image_end = memory.load(image, elf, Protection::Exact)?;

        let placed = boot::place(BOOT_INFO, BOOT_INFO_BYTES as u64, &devices);
        let mut info = Vec::with_capacity(BOOT_INFO_BYTES);
        for number in [memory.end(), image_end, placed.command_line, placed.manifest] {
            info.extend(number.to_le_bytes());
        }
        info.extend(epoll.as_raw_fd().to_le_bytes());
        info.extend(timer.as_raw_fd().to_le_bytes());
        boot::write(&mut memory, BOOT_INFO, &info, placed, &devices, &arguments.command_line)
            .map_err(|_| Refusal::Host { what: "No room for the boot information: give it more memory".into() })?;

        let guest = Guest { memory, devices, epoll, timer, entry: elf.entry };
        let filter = Filter::compile(&rows(&guest));
        Ok(Prepared { guest, filter })
    }

    /// Gives up every system call that the guest does not need. From here on nothing is allocated or dropped.
    pub(crate) fn confine(self) -> Result<Confined, Refusal> {
        let Prepared { guest, filter } = self;
        // The filter's memory cannot be given back under the filter.
        let filter = std::mem::ManuallyDrop::new(filter);
        filter.install().map_err(|errno| Refusal::Step {
            what: "Could not confine the guest by seccomp",
            errno,
            remedy: "run a kernel of 4.14 or newer with CONFIG_SECCOMP_FILTER",
        })?;
        Ok(Confined { guest })
    }
}

impl Confined {
    /// Hands the process to the guest.
    pub(crate) fn run(self) -> Running {
        Running { guest: self.guest }
    }
}

impl Running {
    /// Jumps into the guest. The process ends with the guest's own exit status.
    pub(crate) fn enter(self) -> ! {
        let guest = std::mem::ManuallyDrop::new(self.guest);
        let stack = guest.memory.end() - 8;
        // SAFETY: the loader has checked that the entry lies in the guest's memory, and the stack is its last 8 bytes, as
        // after a call. What runs from here on is the guest, under its filter; registers tell it nothing of the tender.
        unsafe {
            asm!(
                "mov rsp, {stack}",
                "xor eax, eax", "xor ebx, ebx", "xor ecx, ecx", "xor edx, edx", "xor ebp, ebp",
                "xor r8d, r8d", "xor r9d, r9d", "xor r10d, r10d",
                "xor r12d, r12d", "xor r13d, r13d", "xor r14d, r14d", "xor r15d, r15d",
                "cld",
                "jmp r11",
                stack = in(reg) stack, in("r11") guest.entry, in("rdi") BOOT_INFO, in("rsi") 0u64, options(noreturn)
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
        Row::on_fd(libc::SYS_epoll_pwait, guest.epoll.as_raw_fd(), "waiting for networks and for the timer"),
        Row::on_fd(libc::SYS_timerfd_settime, guest.timer.as_raw_fd(), "waiting no longer than until a deadline"),
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
    rows.push(Row::new(libc::SYS_exit_group, &[], "the end"));
    rows
}
