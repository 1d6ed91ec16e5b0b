//! `/dev/kvm`: the few requests that a machine of one processor needs, and their structures. Nothing here knows Solo5.
#![allow(unsafe_code, reason = "ioctls with structures, and the area that the kernel shares with us")]

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::kvm_step;
use crate::memory::Memory;
use crate::refusal::Refusal;
use crate::sys::{self, Errno};

const API_VERSION: i32 = 12;
const GET_API_VERSION: u64 = 0xAE00;
const CREATE_VM: u64 = 0xAE01;
const CHECK_EXTENSION: u64 = 0xAE03;
const GET_VCPU_MMAP_SIZE: u64 = 0xAE04;
const GET_SUPPORTED_CPUID: u64 = 0xC008_AE05;
const CREATE_VCPU: u64 = 0xAE41;
const SET_USER_MEMORY_REGION: u64 = 0x4020_AE46;
/// Lets the guest run.
pub(super) const RUN: u64 = 0xAE80;
/// Reads the general registers.
pub(super) const GET_REGS: u64 = 0x8090_AE81;
const SET_REGS: u64 = 0x4090_AE82;
const SET_SREGS: u64 = 0x4138_AE84;
const SET_CPUID2: u64 = 0x4008_AE90;
const GET_TSC_KHZ: u64 = 0xAEA3;

const CAP_USER_MEMORY: u64 = 3;
const CAP_GET_TSC_KHZ: u64 = 61;

/// CPUID leaves that are passed on, at most. Today's hosts have some 50.
const CPUID_ENTRIES_MAX: usize = 256;

const EXIT_IO: u32 = 2;
const EXIT_MMIO: u32 = 6;
const EXIT_FAIL_ENTRY: u32 = 9;
const EXIT_INTERNAL_ERROR: u32 = 17;
const DIRECTION_OUT: u8 = 1;

/// The kernel's `struct kvm_regs`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Registers {
    pub(super) rax_to_rsi: [u64; 5],
    pub(super) rdi: u64,
    pub(super) rsp: u64,
    pub(super) rbp_to_r15: [u64; 9],
    pub(super) rip: u64,
    pub(super) rflags: u64,
}

/// The kernel's `struct kvm_segment`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) limit: u32,
    pub(super) selector: u16,
    pub(super) kind: u8,
    pub(super) present: u8,
    pub(super) dpl: u8,
    pub(super) db: u8,
    pub(super) s: u8,
    pub(super) l: u8,
    pub(super) g: u8,
    pub(super) avl: u8,
    pub(super) unusable: u8,
    pub(super) padding: u8,
}

/// The kernel's `struct kvm_dtable`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Table {
    pub(super) base: u64,
    pub(super) limit: u16,
    pub(super) padding: [u16; 3],
}

/// The kernel's `struct kvm_sregs`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SystemRegisters {
    pub(super) cs: Segment,
    pub(super) ds: Segment,
    pub(super) es: Segment,
    pub(super) fs: Segment,
    pub(super) gs: Segment,
    pub(super) ss: Segment,
    pub(super) tr: Segment,
    pub(super) ldt: Segment,
    pub(super) gdt: Table,
    pub(super) idt: Table,
    pub(super) cr0: u64,
    pub(super) cr2: u64,
    pub(super) cr3: u64,
    pub(super) cr4: u64,
    pub(super) cr8: u64,
    pub(super) efer: u64,
    pub(super) apic_base: u64,
    pub(super) interrupts: [u64; 4],
}

/// The kernel's `struct kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_address: u64,
    bytes: u64,
    host_address: u64,
}

/// The kernel's `struct kvm_cpuid2` with room for all that a host has.
#[repr(C)]
struct Cpuid {
    count: u32,
    padding: u32,
    entries: [[u32; 10]; CPUID_ENTRIES_MAX],
}

const _: () = assert!(size_of::<Registers>() == 144 && size_of::<SystemRegisters>() == 312);
const _: () = assert!(size_of::<MemoryRegion>() == 32 && size_of::<Cpuid>() == 8 + 40 * CPUID_ENTRIES_MAX);

/// A virtual machine, its memory set.
pub(super) struct Machine {
    kvm: OwnedFd,
    vm: OwnedFd,
}

/// Its one processor.
pub(super) struct Vcpu {
    fd: OwnedFd,
    /// What the kernel tells us about each exit, `struct kvm_run`.
    area: *const u8,
    area_bytes: usize,
}

/// Why the guest stopped running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// A signal came; run on.
    Again,
    /// A 32-bit `out`.
    PortOut { port: u16, argument: u32 },
    /// Any other access to a port.
    PortOther { port: u16 },
    /// An access to memory that the host forbids: the guest wrote what is read-only.
    Translation,
    /// The processor refused the guest's state.
    Entry { reason: u64 },
    /// KVM gave up, for example on an instruction that it cannot interpret.
    Internal { suberror: u32 },
    /// Anything else, as a halt, a triple fault or an access outside of memory.
    Other { reason: u32 },
    /// KVM_RUN itself failed.
    Failed { errno: Errno },
}

impl Machine {
    /// Makes a machine with this memory at address 0, by `given` where `/dev/kvm` is open already.
    pub(super) fn new(memory: &Memory, given: Option<RawFd>) -> Result<Machine, Refusal> {
        let kvm = match given {
            Some(number) => sys::take_fd(number).map_err(kvm_step("Could not use the fd of --kvm"))?,
            None => {
                let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
                OwnedFd::from(opened.map_err(|error| kvm_step("Could not open: /dev/kvm")(error.into()))?)
            }
        };
        let version =
            sys::ioctl(kvm.as_raw_fd(), GET_API_VERSION, 0).map_err(kvm_step("KVM: ioctl (GET_API_VERSION) failed"))?;
        if version != API_VERSION {
            let what = format!(
                "KVM: API version is {version}, version {API_VERSION} is needed: run another kernel, or use spt"
            );
            return Err(Refusal::Host { what });
        }
        for (extension, name) in [(CAP_USER_MEMORY, "USER_MEMORY"), (CAP_GET_TSC_KHZ, "GET_TSC_KHZ")] {
            let has = sys::ioctl(kvm.as_raw_fd(), CHECK_EXTENSION, extension).unwrap_or(0);
            if has < 1 {
                let what = format!("KVM: this host does not support {name}: run another kernel, or use spt");
                return Err(Refusal::Host { what });
            }
        }
        let vm = own(sys::ioctl(kvm.as_raw_fd(), CREATE_VM, 0)).map_err(kvm_step("KVM: ioctl (CREATE_VM) failed"))?;
        let bytes = memory.end();
        let mut region =
            MemoryRegion { slot: 0, flags: 0, guest_address: 0, bytes, host_address: memory.host_address() };
        // SAFETY: the request takes this structure, and the memory stays mapped as long as the process lives.
        let set = unsafe { sys::ioctl_with(vm.as_raw_fd(), SET_USER_MEMORY_REGION, &mut region) };
        set.map_err(kvm_step("KVM: ioctl (SET_USER_MEMORY_REGION) failed"))?;
        Ok(Machine { kvm, vm })
    }

    /// Makes its processor, set up to begin; also says how often a second its time stamp counter ticks.
    pub(super) fn vcpu(&self, system: &SystemRegisters, general: &Registers) -> Result<(Vcpu, u64), Refusal> {
        let fd = own(sys::ioctl(self.vm.as_raw_fd(), CREATE_VCPU, 0))
            .map_err(kvm_step("KVM: ioctl (CREATE_VCPU) failed"))?;
        let vcpu = fd.as_raw_fd();
        let mut cpuid =
            Box::new(Cpuid { count: CPUID_ENTRIES_MAX as u32, padding: 0, entries: [[0; 10]; CPUID_ENTRIES_MAX] });
        // SAFETY: the request takes this structure, which says itself how much room it has.
        let got = unsafe { sys::ioctl_with(self.kvm.as_raw_fd(), GET_SUPPORTED_CPUID, &mut *cpuid) };
        got.map_err(kvm_step("KVM: ioctl (GET_SUPPORTED_CPUID) failed"))?;
        // SAFETY: as above.
        let set = unsafe { sys::ioctl_with(vcpu, SET_CPUID2, &mut *cpuid) };
        set.map_err(kvm_step("KVM: ioctl (SET_CPUID2) failed"))?;
        // SAFETY: the request takes this structure.
        let set = unsafe { sys::ioctl_with(vcpu, SET_SREGS, &mut { *system }) };
        set.map_err(kvm_step("KVM: ioctl (SET_SREGS) failed"))?;
        // SAFETY: the request takes this structure.
        let set = unsafe { sys::ioctl_with(vcpu, SET_REGS, &mut { *general }) };
        set.map_err(kvm_step("KVM: ioctl (SET_REGS) failed"))?;
        let khz = sys::ioctl(vcpu, GET_TSC_KHZ, 0).map_err(kvm_step("KVM: host TSC is unstable, cannot continue"))?;

        let area_bytes = sys::ioctl(self.kvm.as_raw_fd(), GET_VCPU_MMAP_SIZE, 0)
            .map_err(kvm_step("KVM: ioctl (GET_VCPU_MMAP_SIZE) failed"))? as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of the size that the kernel asked for, kept as long as the process lives.
        let area = unsafe { libc::mmap(std::ptr::null_mut(), area_bytes, protection, libc::MAP_SHARED, vcpu, 0) };
        if area == libc::MAP_FAILED {
            return Err(kvm_step("KVM: mmap of the processor's area failed")(Errno::last()));
        }
        Ok((Vcpu { fd, area: area.cast(), area_bytes }, u64::from(khz.unsigned_abs()) * 1000))
    }
}

impl Vcpu {
    /// Runs the guest to its next exit. It changes the guest's memory, so nobody else may hold a piece of that.
    pub(super) fn run(&mut self, memory: &mut Memory) -> Exit {
        match sys::ioctl(self.fd.as_raw_fd(), RUN, 0) {
            Ok(_) => self.exit(memory.end()),
            Err(Errno(libc::EINTR)) => Exit::Again,
            Err(Errno(libc::EFAULT)) => Exit::Translation,
            Err(errno) => Exit::Failed { errno },
        }
    }

    fn exit(&self, memory_end: u64) -> Exit {
        match u32::from_le_bytes(self.area_at(8)) {
            EXIT_IO => {
                let [direction, size] = self.area_at(32);
                let port = u16::from_le_bytes(self.area_at(34));
                if direction != DIRECTION_OUT || size != 4 {
                    return Exit::PortOther { port };
                }
                let at = u64::from_le_bytes(self.area_at(40));
                Exit::PortOut { port, argument: u32::from_le_bytes(self.area_at(at as usize)) }
            }
            // Some hosts say so where others fail with EFAULT.
            EXIT_MMIO if u64::from_le_bytes(self.area_at(32)) < memory_end => Exit::Translation,
            EXIT_FAIL_ENTRY => Exit::Entry { reason: u64::from_le_bytes(self.area_at(32)) },
            EXIT_INTERNAL_ERROR => Exit::Internal { suberror: u32::from_le_bytes(self.area_at(32)) },
            reason => Exit::Other { reason },
        }
    }

    /// Bytes of the shared area; zeros beyond its end.
    fn area_at<const N: usize>(&self, at: usize) -> [u8; N] {
        if at.checked_add(N).is_none_or(|end| end > self.area_bytes) {
            return [0; N];
        }
        let place = self.area.wrapping_add(at).cast::<[u8; N]>();
        // SAFETY: within the mapping; the kernel writes it only while the guest runs, which it does not now.
        unsafe { place.read_volatile() }
    }

    /// Where the guest stands; 0 if the kernel does not say.
    pub(super) fn rip(&self) -> u64 {
        let mut registers = Registers::default();
        // SAFETY: the request takes this structure.
        let got = unsafe { sys::ioctl_with(self.fd.as_raw_fd(), GET_REGS, &mut registers) };
        if got.is_ok() { registers.rip } else { 0 }
    }
}

impl AsRawFd for Vcpu {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn own(fd: Result<i32, Errno>) -> Result<OwnedFd, Errno> {
    let fd = fd?;
    // SAFETY: the kernel just gave it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
