//! hvt: the guest is a virtual machine of one processor, and the tender answers its hypercalls. No device is emulated, no
//! interrupt is ever raised.

mod calls;
mod cpu;
mod kvm;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use fulmar_core::solo5::Elf;

use crate::arguments::RunArguments;
use crate::boot;
use crate::device::{Attachment, Devices};
use crate::image::ImageFile;
use crate::memory::{Memory, Protection};
use crate::refusal::{OptionFault, Refusal};
use crate::seccomp::{Argument, Filter, Row};
use crate::sys::{self, TIMER};
use crate::{report, sys::Errno};
use calls::{Answer, Death};
use kvm::{Exit, Machine, Vcpu};

const BOOT_INFO: u64 = 0x1_0000;
const BOOT_INFO_BYTES: usize = 56;
/// The guest's page tables map its memory in pages of this size.
const GRANULE_BYTES: u64 = 2 << 20;
/// What four page directories cover, and what a 32-bit hypercall argument reaches.
const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// All is open, the image is in place, the processor is set up.
pub(crate) struct Prepared {
    guest: Guest,
    filter: Filter,
}

/// No system call is left but those that hypercalls need.
pub(crate) struct Confined {
    guest: Guest,
}

/// The guest, about to run.
pub(crate) struct Running {
    guest: Guest,
}

/// What the guest runs on. It is never dropped: the process ends with the guest.
struct Guest {
    memory: Memory,
    devices: Devices,
    vcpu: Vcpu,
    epoll: OwnedFd,
    timer: OwnedFd,
    /// Holds the machine, of which the processor is part.
    _machine: Machine,
}

impl Prepared {
    /// Makes the machine and fills its memory.
    pub(crate) fn new(
        arguments: &RunArguments,
        image: &ImageFile,
        elf: &Elf,
        devices: Devices,
    ) -> Result<Prepared, Refusal> {
        if arguments.exec_heap {
            return Err(Refusal::Option { option: "--x-exec-heap".into(), fault: OptionFault::SptOnly });
        }
        if sys::reads_imply_exec() {
            let what = "Cannot run with personality READ_IMPLIES_EXEC: start it without `setarch -X`".into();
            return Err(Refusal::Host { what });
        }
        let step = |what| move |errno| Refusal::Step { what, errno, remedy: "see `ulimit -a` for what is exhausted" };
        sys::on_termination(terminate).map_err(step("Could not handle signals"))?;
        let mut memory = Memory::anywhere(memory_bytes(arguments.memory_bytes)?)?;
        let machine = Machine::new(&memory, arguments.kvm)?;
        let image_end = memory.load(image, elf, Protection::NeverExecutable)?;
        let no_room = |_| Refusal::Host { what: "No room for the boot information: give it more memory".into() };
        cpu::write_tables(&mut memory).map_err(no_room)?;
        let (vcpu, tsc_hz) = machine.vcpu(&cpu::system_registers(), &cpu::registers(elf.entry, memory.end()))?;

        let epoll = sys::epoll_create().map_err(step("Could not make an epoll set"))?;
        let timer = sys::timer_create().map_err(step("Could not make a timer"))?;
        sys::epoll_add(epoll.as_fd(), timer.as_raw_fd(), TIMER).map_err(step("Could not wait for the timer"))?;
        for (handle, fd) in devices.nets() {
            sys::epoll_add(epoll.as_fd(), fd, handle).map_err(step("Could not wait for a network"))?;
        }

        let placed = boot::place(BOOT_INFO, BOOT_INFO_BYTES as u64, &devices);
        let mut info = Vec::with_capacity(BOOT_INFO_BYTES);
        // The last two: no features are offered, so there is no ring.
        for number in [memory.end(), image_end, tsc_hz, placed.command_line, placed.manifest, 0, 0] {
            info.extend(number.to_le_bytes());
        }
        boot::write(&mut memory, BOOT_INFO, &info, placed, &devices, &arguments.command_line).map_err(no_room)?;
        let guest = Guest { memory, devices, vcpu, epoll, timer, _machine: machine };
        let filter = Filter::compile(&rows(&guest));
        Ok(Prepared { guest, filter })
    }

    /// Gives up every system call that hypercalls do not need. From here on nothing is allocated or dropped.
    pub(crate) fn confine(self) -> Result<Confined, Refusal> {
        let Prepared { guest, filter } = self;
        // The filter's memory cannot be given back under the filter.
        let filter = std::mem::ManuallyDrop::new(filter);
        filter.install().map_err(|errno| Refusal::Step {
            what: "Could not confine the tender by seccomp",
            errno,
            remedy: "run a kernel of 4.14 or newer with CONFIG_SECCOMP_FILTER",
        })?;
        Ok(Confined { guest })
    }
}

impl Confined {
    /// Ready to let the guest run.
    pub(crate) fn run(self) -> Running {
        Running { guest: self.guest }
    }
}

impl Running {
    /// Runs the guest to its end, which is this process's end.
    pub(crate) fn until_end(self) -> ! {
        let mut guest = self.guest;
        let status = loop {
            match guest.step() {
                Ok(None) => {}
                Ok(Some(status)) => break status,
                Err(death) => {
                    report::say(format_args!("{death}"));
                    break 1;
                }
            }
        };
        sys::exit_now(status)
    }
}

impl Guest {
    /// Runs to the next exit and handles it; a status if the guest has ended.
    fn step(&mut self) -> Result<Option<i32>, Death> {
        let Guest { memory, devices, vcpu, epoll, timer, .. } = self;
        match vcpu.run(memory) {
            Exit::Again => Ok(None),
            Exit::PortOut { port, argument } => {
                let mut host = calls::Host { memory, devices, epoll: epoll.as_fd(), timer: timer.as_fd() };
                match host.call(port, argument)? {
                    Answer::Done => Ok(None),
                    Answer::Halt { status } => Ok(Some(status)),
                }
            }
            Exit::PortOther { port } => Err(Death::Port { port }),
            Exit::Translation => Err(Death::Translation { rip: vcpu.rip() }),
            Exit::Entry { reason } => Err(Death::Entry { reason }),
            Exit::Internal { suberror } => Err(Death::Internal { suberror, rip: vcpu.rip() }),
            Exit::Other { reason } => Err(Death::Unhandled { reason, rip: vcpu.rip() }),
            Exit::Failed { errno } => Err(Death::Run { errno }),
        }
    }
}

/// What the guest gets: whole granules, at least one.
fn memory_bytes(wanted: u64) -> Result<u64, Refusal> {
    let bytes = (wanted & !(GRANULE_BYTES - 1)).max(GRANULE_BYTES);
    if bytes > MEMORY_BYTES_MAX {
        return Err(Refusal::MemoryLarge { bytes, bytes_max: MEMORY_BYTES_MAX });
    }
    if bytes != wanted {
        report::say(format_args!("adjusting memory to {bytes} bytes"));
    }
    Ok(bytes)
}

/// SIGTERM and SIGINT end the guest; the exit code says that it did not end by itself.
extern "C" fn terminate(signal: i32) {
    report::say(format_args!("Exiting on signal {signal}"));
    sys::exit_now(1)
}

/// What the tender may ask of the kernel while the guest runs. The most frequent first.
fn rows(guest: &Guest) -> Vec<Row> {
    let vcpu = guest.vcpu.as_raw_fd() as u64;
    let on_vcpu = |request: u64| [Argument::Is(0, vcpu), Argument::Is(1, request)];
    let mut rows = vec![
        Row::new(libc::SYS_ioctl, &on_vcpu(kvm::RUN), "running the guest"),
        Row::on_fd(libc::SYS_write, 1, "hypercall puts"),
        Row::on_fd(libc::SYS_epoll_pwait, guest.epoll.as_raw_fd(), "hypercall poll"),
        Row::on_fd(libc::SYS_timerfd_settime, guest.timer.as_raw_fd(), "hypercall poll: its timeout"),
        Row::new(
            libc::SYS_clock_gettime,
            &[Argument::Is(0, libc::CLOCK_REALTIME as u64)],
            "hypercall walltime, where the clock cannot be read without the kernel",
        ),
    ];
    for device in guest.devices.list() {
        let fd = device.attachment.fd();
        match &device.attachment {
            Attachment::Net { .. } => {
                rows.push(Row::on_fd(libc::SYS_read, fd, "hypercall net read"));
                rows.push(Row::on_fd(libc::SYS_write, fd, "hypercall net write"));
            }
            Attachment::Block { capacity_bytes, .. } => {
                let within = [Argument::Is(0, fd as u64), Argument::AtMost(3, *capacity_bytes)];
                rows.push(Row::new(libc::SYS_pread64, &within, "hypercall block read"));
                rows.push(Row::new(libc::SYS_pwrite64, &within, "hypercall block write"));
            }
        }
    }
    rows.push(Row::new(libc::SYS_ioctl, &on_vcpu(kvm::GET_REGS), "saying where a guest died"));
    rows.push(Row::on_fd(libc::SYS_write, 2, "saying why a guest died"));
    rows.push(Row::new(libc::SYS_exit_group, &[], "the end"));
    rows
}

/// What a failed step of KVM's set-up is called, with the usual reason.
fn kvm_step(what: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| Refusal::Step { what, errno, remedy: "check that /dev/kvm is there, that you may use it, or use spt" }
}
