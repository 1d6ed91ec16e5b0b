//! hvt: the guest is a virtual machine of one processor, and the tender answers its hypercalls. No device is emulated, no
//! interrupt is ever raised.
//!
//! | room | what is in it |
//! |---|---|
//! | `kvm` | the requests of `/dev/kvm` and their structures |
//! | `cpu` | the state in which the processor begins |
//! | `calls` | the hypercalls |
//! | `ring` | frames without hypercalls, by a thread |
//! | `requests` | signals that want something of a running guest |
//! | `end` | what is said and left when it ends |
//! | `debugger` | gdb |
//! | `fuzzing` | the doors for fuzzers |

mod calls;
mod cpu;
mod debugger;
mod end;
pub(crate) mod fuzzing;
mod kvm;
mod requests;
mod ring;

use std::os::fd::AsRawFd;

use fulmar_core::solo5::DeviceKind;

use crate::boot;
use crate::core_file::CoreFile;
use crate::device::{Attachment, Devices};
use crate::load::{Layout, load};
use crate::memory::{Memory, Protection};
use crate::opened::{Given, Image};
use crate::refusal::{OptionFault, Refusal};
use crate::report;
use crate::seccomp::{Argument, Row};
use crate::stages::Prepared;
use crate::status;
use crate::sys::Errno;
use crate::waiting::Waiting;
use calls::{Answer, Death, Host};
use debugger::Debugger;
use kvm::{Exit, Machine, Vcpu};
use ring::Ring;

const BOOT_INFO: u64 = 0x1_0000;
const BOOT_INFO_BYTES: usize = 56;
/// The guest's page tables map its memory in pages of this size.
const GRANULE_BYTES: u64 = 2 << 20;
/// What four page directories cover, and what a 32-bit hypercall argument reaches.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// `HVT_FEATURE_RING_IO`.
const FEATURE_RING: u64 = 1;

/// What the guest runs on. It is never dropped: the process ends with the guest.
pub(crate) struct Guest {
    memory: &'static Memory,
    layout: Layout,
    devices: &'static Devices,
    vcpu: Vcpu,
    waiting: Waiting,
    /// Address of the hypercall by which the guest waits, if it does.
    waits: Option<u64>,
    ring: Option<&'static Ring<'static>>,
    core: Option<CoreFile>,
    debugger: Option<Debugger>,
    /// Holds the machine, of which the processor is part.
    _machine: Machine,
}

/// What happened to the guest.
enum Event {
    /// Nothing that anybody must know of.
    Nothing,
    /// It ended by itself.
    Halt { status: i32, cookie: u64 },
    /// What a debugger waits for.
    Debug,
}

/// Makes the machine and fills its memory.
pub(crate) fn prepare(given: Given, devices: Devices, image: &Image) -> Result<Prepared<Guest>, Refusal> {
    let Given { memory_bytes, exec_heap, net_ring, kvm, command_line, core, gdb } = given;
    if exec_heap {
        return Err(Refusal::Option { option: "--x-exec-heap".into(), fault: OptionFault::SptOnly });
    }
    let kvm = kvm.ok_or_else(|| kvm_step("Could not open: /dev/kvm")(Errno(libc::ENODEV)))?;
    let machine = Machine::new(kvm)?;
    let wants_ring = net_ring && devices.has(DeviceKind::Net) && machine.has_port_events();
    let Size { mapped, guest: end } = size(memory_bytes, wants_ring)?;
    let mut memory = Memory::anywhere(mapped, end)?;
    machine.set_memory(&memory)?;
    let protection = if gdb.is_some() { Protection::Open } else { Protection::NeverExecutable };
    let layout = load(&mut memory, &image.file, &image.elf, protection).map_err(image.wrong())?;
    let no_room = |_| Refusal::Host { what: "No room for the boot information: give it more memory".into() };
    cpu::write_tables(&mut memory).map_err(no_room)?;
    let (vcpu, tsc_hz) = machine.vcpu(&cpu::system_registers(), &cpu::registers(image.elf.entry, end))?;
    let waiting = Waiting::new(&devices)?;

    let placed = boot::place(BOOT_INFO, BOOT_INFO_BYTES as u64, &devices);
    let ring_address = if wants_ring { end } else { 0 };
    let features = if wants_ring { FEATURE_RING } else { 0 };
    let mut info = Vec::with_capacity(BOOT_INFO_BYTES);
    for number in [end, layout.image_end, tsc_hz, placed.command_line, placed.manifest, features, ring_address] {
        info.extend(number.to_le_bytes());
    }
    boot::write(&mut memory, BOOT_INFO, &info, placed, &devices, &command_line).map_err(no_room)?;

    requests::watch(core.is_some(), gdb.is_some())?;
    let (memory, devices): (&'static _, &'static _) = (Box::leak(Box::new(memory)), Box::leak(Box::new(devices)));
    let ring = wants_ring.then(|| start_ring(&machine, memory, devices)).transpose()?;
    let debugger = gdb.as_ref().map(Debugger::wait_for).transpose()?;
    let guest = Guest { memory, layout, devices, vcpu, waiting, waits: None, ring, core, debugger, _machine: machine };
    let rows = rows(&guest);
    Ok(Prepared::new(guest, rows))
}

fn start_ring(
    machine: &Machine,
    memory: &'static Memory,
    devices: &'static Devices,
) -> Result<&'static Ring<'static>, Refusal> {
    let step =
        |errno| Refusal::Step { what: "Could not make the ring for frames", errno, remedy: "give --no-net-ring" };
    let ring: &'static Ring<'static> = Box::leak(Box::new(Ring::new(memory, devices).map_err(step)?));
    machine.count_port(ring::DOORBELL, ring.kick_fd()).map_err(step)?;
    ring.start()?;
    Ok(ring)
}

impl crate::stages::Guest for Guest {
    fn run(mut self) -> ! {
        let outcome = match self.debugger.take() {
            Some(debugger) => debugger.serve(&mut self),
            None => self.run_on(),
        };
        match outcome {
            Ok((status, cookie)) => self.halted(status, cookie),
            Err(death) => self.died(death),
        }
    }
}

impl Guest {
    /// Runs to the end: a status, and the address of what the guest wants to be known.
    fn run_on(&mut self) -> Result<(i32, u64), Death> {
        loop {
            match self.step()? {
                Event::Halt { status, cookie } => return Ok((status, cookie)),
                Event::Nothing | Event::Debug => self.serve_requests(),
            }
        }
    }

    /// Runs to the next exit and handles it, or goes on waiting.
    fn step(&mut self) -> Result<Event, Death> {
        if let Some(at) = self.waits {
            if self.host().wait(at, requests::patience_ms())? {
                self.waits = None;
            }
            return Ok(Event::Nothing);
        }
        match self.vcpu.run(self.memory.end()) {
            Exit::Again => Ok(Event::Nothing),
            Exit::Debug => Ok(Event::Debug),
            Exit::PortOut { port, argument } => match self.host().call(port, argument)? {
                Answer::Done => Ok(Event::Nothing),
                Answer::Halt { status, cookie } => Ok(Event::Halt { status, cookie }),
                Answer::Wait { at } => {
                    self.waits = Some(at);
                    Ok(Event::Nothing)
                }
            },
            Exit::PortOther { port } => Err(Death::Port { port }),
            Exit::Translation => Err(Death::Translation { rip: self.vcpu.general().rip }),
            Exit::Entry { reason } => Err(Death::Entry { reason }),
            Exit::Internal { suberror } => Err(Death::Internal { suberror, rip: self.vcpu.general().rip }),
            Exit::Other { reason } => Err(Death::Unhandled { reason, rip: self.vcpu.general().rip }),
            Exit::Failed { errno } => Err(Death::Run { errno }),
        }
    }

    fn host(&self) -> Host<'_> {
        Host { memory: self.memory, devices: self.devices, waiting: &self.waiting }
    }

    /// Does what signals have asked for meanwhile.
    fn serve_requests(&self) {
        if requests::take_core()
            && let Some(core) = &self.core
        {
            core.dump(self.memory, &self.vcpu.stand().0);
        }
    }
}

/// How much memory there is.
struct Size {
    /// What is mapped: the guest's own, and the ring's behind it.
    mapped: u64,
    /// What is the guest's own.
    guest: u64,
}

/// Whole granules, at least one; the ring's come on top, as far as there is room.
fn size(wanted: u64, with_ring: bool) -> Result<Size, Refusal> {
    let bytes = (wanted & !(GRANULE_BYTES - 1)).max(GRANULE_BYTES);
    if bytes > MEMORY_BYTES_MAX {
        return Err(Refusal::MemoryLarge { bytes, bytes_max: MEMORY_BYTES_MAX });
    }
    if bytes != wanted {
        report::say(format_args!("adjusting memory to {bytes} bytes"));
    }
    if !with_ring {
        return Ok(Size { mapped: bytes, guest: bytes });
    }
    let mapped = (bytes + ring::BYTES).min(MEMORY_BYTES_MAX);
    Ok(Size { mapped, guest: mapped - ring::BYTES })
}

/// What the tender may ask of the kernel while the guest runs. The most frequent first.
fn rows(guest: &Guest) -> Vec<Row> {
    let vcpu = guest.vcpu.as_raw_fd() as u64;
    let on_vcpu = |request: u64| [Argument::Is(0, vcpu), Argument::Is(1, request)];
    let wall_clock = [Argument::Is(0, libc::CLOCK_REALTIME as u64)];
    let mut rows = vec![
        Row::new(libc::SYS_ioctl, &on_vcpu(kvm::RUN), "running the guest"),
        Row::on_fd(libc::SYS_write, 1, "hypercall puts"),
        Row::new(
            libc::SYS_epoll_pwait,
            &[Argument::Is(0, guest.waiting.epoll() as u64), Argument::Is(4, 0)],
            "hypercall poll",
        ),
        Row::on_fd(libc::SYS_timerfd_settime, guest.waiting.timer(), "hypercall poll: its timeout"),
        Row::new(libc::SYS_clock_gettime, &wall_clock, "hypercall walltime"),
    ];
    for device in guest.devices.list() {
        let fd = device.attachment.fd();
        match &device.attachment {
            Attachment::Net { .. } => {
                rows.push(Row::on_fd(libc::SYS_read, fd, "hypercall net read, and the ring"));
                rows.push(Row::on_fd(libc::SYS_write, fd, "hypercall net write, and the ring"));
            }
            Attachment::Block { capacity_bytes, .. } => {
                let within = [Argument::Is(0, fd as u64), Argument::AtMost(3, *capacity_bytes)];
                rows.push(Row::new(libc::SYS_pread64, &within, "hypercall block read"));
                rows.push(Row::new(libc::SYS_pwrite64, &within, "hypercall block write"));
            }
        }
    }
    rows.extend(guest.ring.into_iter().flat_map(|ring| ring.rows()));
    rows.push(Row::new(libc::SYS_ioctl, &on_vcpu(kvm::GET_REGS), "saying where a guest died"));
    rows.push(Row::new(libc::SYS_ioctl, &on_vcpu(kvm::GET_SREGS), "saying where a guest died: its last page fault"));
    rows.push(Row::on_fd(libc::SYS_write, 2, "saying why a guest died"));
    rows.push(crate::raw::is_writable_row());
    rows.push(Row::new(libc::SYS_exit_group, &[], "the end"));
    rows.extend(status::rows());
    rows.extend(guest.core.iter().flat_map(|core| core.rows(guest.memory)));
    rows.extend(guest.debugger.iter().flat_map(|debugger| debugger.rows(vcpu)));
    if guest.core.is_some() || guest.debugger.is_some() {
        rows.push(Row::new(libc::SYS_rt_sigreturn, &[], "going on after a signal that asks for something"));
    }
    rows
}

/// What a failed step of KVM's set-up is called, with the usual reason.
fn kvm_step(what: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| Refusal::Step { what, errno, remedy: "check that /dev/kvm is there, that you may use it, or use spt" }
}
