//! `/dev/kvm`: the few requests that a machine of one processor needs, and their structures. Nothing here knows Solo5.
#![allow(unsafe_code, reason = "ioctls with structures, and the area that the kernel shares with us")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering::Relaxed};

use super::kvm_step;
use crate::memory::Memory;
use crate::opened::Kvm;
use crate::raw;
use crate::refusal::Refusal;
use crate::report;
use crate::sys::Errno;

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
/// Writes the general registers.
pub(super) const SET_REGS: u64 = 0x4090_AE82;
/// Reads the system registers.
pub(super) const GET_SREGS: u64 = 0x8138_AE83;
const SET_SREGS: u64 = 0x4138_AE84;
/// Sets what stops the guest for a debugger.
pub(super) const SET_GUEST_DEBUG: u64 = 0x4048_AE9B;
const IOEVENTFD: u64 = 0x4040_AE79;
const SET_CPUID2: u64 = 0x4008_AE90;
const GET_TSC_KHZ: u64 = 0xAEA3;

const CAP_USER_MEMORY: u64 = 3;
const CAP_GET_TSC_KHZ: u64 = 61;
const CAP_IOEVENTFD: u64 = 36;

/// `KVM_IOEVENTFD_FLAG_PIO`.
const EVENT_OF_PORT: u32 = 2;

/// CPUID leaves that are passed on, at most. Today's hosts have some 50.
const CPUID_ENTRIES_MAX: usize = 256;

/// Where in the shared area a byte says that the guest is not to run on now.
const IMMEDIATE_EXIT_AT: usize = 1;

const EXIT_IO: u32 = 2;
const EXIT_DEBUG: u32 = 4;
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

/// The kernel's `struct kvm_ioeventfd`.
#[repr(C)]
struct PortEvent {
    data: u64,
    address: u64,
    bytes: u32,
    fd: i32,
    flags: u32,
    padding: [u8; 36],
}

/// The kernel's `struct kvm_guest_debug` of x86: `DR7` is the last of the registers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GuestDebug {
    pub(super) control: u32,
    pub(super) padding: u32,
    pub(super) registers: [u64; 8],
}

/// The kernel's `struct kvm_cpuid2` with room for all that a host has.
#[repr(C)]
struct Cpuid {
    count: u32,
    padding: u32,
    entries: [[u32; 10]; CPUID_ENTRIES_MAX],
}

const _: () = assert!(size_of::<Registers>() == 144 && size_of::<SystemRegisters>() == 312);
const _: () = assert!(size_of::<PortEvent>() == 64 && size_of::<GuestDebug>() == 72);
const _: () = assert!(size_of::<MemoryRegion>() == 32 && size_of::<Cpuid>() == 8 + 40 * CPUID_ENTRIES_MAX);

/// Takes from a leaf of CPUID what no Solo5 guest needs and what only gives it more of KVM to attack: virtual machines of its
/// own, performance counters, the hypervisor's own interfaces.
fn withhold(entry: &mut [u32; 10]) {
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    let [leaf, _index, _flags, eax, ebx, ecx, edx, ..] = entry;
    match *leaf {
        1 => *ecx &= !VMX,
        0x8000_0001 => *ecx &= !SVM,
        0xa | 0x8000_000a | 0x4000_0000..=0x4000_00ff => (*eax, *ebx, *ecx, *edx) = (0, 0, 0, 0),
        _ => {}
    }
}

/// A virtual machine, its memory set.
pub(super) struct Machine {
    kvm: OwnedFd,
    vm: OwnedFd,
}

/// Its one processor.
pub(super) struct Vcpu {
    fd: OwnedFd,
    /// What the kernel tells us about each exit, `struct kvm_run`.
    area: *mut u8,
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
    /// What a debugger waits for: a breakpoint or a step.
    Debug,
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
    /// Makes a machine without memory.
    pub(super) fn new(kvm: Kvm) -> Result<Machine, Refusal> {
        let what = if kvm.is_asked_for { "Could not use the fd of --kvm" } else { "Could not open: /dev/kvm" };
        let kvm = kvm.opened.map_err(kvm_step(what))?;
        let version =
            raw::ioctl(kvm.as_raw_fd(), GET_API_VERSION, 0).map_err(kvm_step("KVM: ioctl (GET_API_VERSION) failed"))?;
        if version != API_VERSION {
            let what = format!(
                "KVM: API version is {version}, version {API_VERSION} is needed: run another kernel, or use spt"
            );
            return Err(Refusal::Host { what });
        }
        for (extension, name) in [(CAP_USER_MEMORY, "USER_MEMORY"), (CAP_GET_TSC_KHZ, "GET_TSC_KHZ")] {
            let has = raw::ioctl(kvm.as_raw_fd(), CHECK_EXTENSION, extension).unwrap_or(0);
            if has < 1 {
                let what = format!("KVM: this host does not support {name}: run another kernel, or use spt");
                return Err(Refusal::Host { what });
            }
        }
        let vm = own(raw::ioctl(kvm.as_raw_fd(), CREATE_VM, 0)).map_err(kvm_step("KVM: ioctl (CREATE_VM) failed"))?;
        Ok(Machine { kvm, vm })
    }

    /// Whether a guest's write to a port can be counted without leaving the guest.
    pub(super) fn has_port_events(&self) -> bool {
        raw::ioctl(self.kvm.as_raw_fd(), CHECK_EXTENSION, CAP_IOEVENTFD).is_ok_and(|has| has > 0)
    }

    /// Counts the guest's 32-bit writes to a port.
    pub(super) fn count_port(&self, port: u16, fd: RawFd) -> Result<(), Errno> {
        let (address, flags) = (port.into(), EVENT_OF_PORT);
        let mut event = PortEvent { data: 0, address, bytes: 4, fd, flags, padding: [0; 36] };
        // SAFETY: the request takes this structure.
        unsafe { raw::ioctl_with(self.vm.as_raw_fd(), IOEVENTFD, &mut event) }.map(drop)
    }

    /// Gives the machine its memory, from address 0 on.
    pub(super) fn set_memory(&self, memory: &Memory) -> Result<(), Refusal> {
        let (bytes, host_address) = (memory.mapped_bytes(), memory.host_address());
        let mut region = MemoryRegion { slot: 0, flags: 0, guest_address: 0, bytes, host_address };
        // SAFETY: the request takes this structure, and the memory stays mapped as long as the process lives.
        let set = unsafe { raw::ioctl_with(self.vm.as_raw_fd(), SET_USER_MEMORY_REGION, &mut region) };
        set.map(drop).map_err(kvm_step("KVM: ioctl (SET_USER_MEMORY_REGION) failed"))
    }

    /// Makes its processor, set up to begin; also says how often a second its time stamp counter ticks.
    pub(super) fn vcpu(&self, system: &SystemRegisters, general: &Registers) -> Result<(Vcpu, u64), Refusal> {
        let fd = own(raw::ioctl(self.vm.as_raw_fd(), CREATE_VCPU, 0))
            .map_err(kvm_step("KVM: ioctl (CREATE_VCPU) failed"))?;
        let vcpu = fd.as_raw_fd();
        let mut cpuid =
            Box::new(Cpuid { count: CPUID_ENTRIES_MAX as u32, padding: 0, entries: [[0; 10]; CPUID_ENTRIES_MAX] });
        // SAFETY: the request takes this structure, which says itself how much room it has.
        let got = unsafe { raw::ioctl_with(self.kvm.as_raw_fd(), GET_SUPPORTED_CPUID, &mut *cpuid) };
        got.map_err(kvm_step("KVM: ioctl (GET_SUPPORTED_CPUID) failed"))?;
        let count = usize::try_from(cpuid.count).unwrap_or(0).min(CPUID_ENTRIES_MAX);
        cpuid.entries.iter_mut().take(count).for_each(withhold);
        // SAFETY: as above.
        let set = unsafe { raw::ioctl_with(vcpu, SET_CPUID2, &mut *cpuid) };
        set.map_err(kvm_step("KVM: ioctl (SET_CPUID2) failed"))?;
        // SAFETY: the request takes this structure.
        let set = unsafe { raw::ioctl_with(vcpu, SET_SREGS, &mut { *system }) };
        set.map_err(kvm_step("KVM: ioctl (SET_SREGS) failed"))?;
        // SAFETY: the request takes this structure.
        let set = unsafe { raw::ioctl_with(vcpu, SET_REGS, &mut { *general }) };
        set.map_err(kvm_step("KVM: ioctl (SET_REGS) failed"))?;
        let khz = raw::ioctl(vcpu, GET_TSC_KHZ, 0).map_err(kvm_step("KVM: host TSC is unstable, cannot continue"))?;

        let area_bytes = raw::ioctl(self.kvm.as_raw_fd(), GET_VCPU_MMAP_SIZE, 0)
            .map_err(kvm_step("KVM: ioctl (GET_VCPU_MMAP_SIZE) failed"))? as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of the size that the kernel asked for, kept as long as the process lives.
        let area = unsafe { libc::mmap(std::ptr::null_mut(), area_bytes, protection, libc::MAP_SHARED, vcpu, 0) };
        if area == libc::MAP_FAILED {
            return Err(kvm_step("KVM: mmap of the processor's area failed")(Errno::last()));
        }
        AREA.store(area.cast(), Relaxed);
        Ok((Vcpu { fd, area: area.cast(), area_bytes }, u64::from(khz.unsigned_abs()) * 1000))
    }
}

impl Vcpu {
    /// Runs the guest to its next exit. It may change any byte of its memory.
    pub(super) fn run(&mut self, memory_end: u64) -> Exit {
        match raw::ioctl(self.fd.as_raw_fd(), RUN, 0) {
            Ok(_) => self.exit(memory_end),
            Err(Errno(libc::EINTR)) => {
                set_immediate_exit(0);
                Exit::Again
            }
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
            EXIT_DEBUG => Exit::Debug,
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

    /// The general registers; zeros if the kernel does not say.
    pub(super) fn general(&self) -> Registers {
        let mut registers = Registers::default();
        // SAFETY: the request takes this structure.
        let _ = unsafe { raw::ioctl_with(self.fd.as_raw_fd(), GET_REGS, &mut registers) };
        registers
    }

    /// Sets the general registers.
    pub(super) fn set_general(&self, registers: &Registers) -> Result<(), Errno> {
        // SAFETY: the request takes this structure.
        unsafe { raw::ioctl_with(self.fd.as_raw_fd(), SET_REGS, &mut { *registers }) }.map(drop)
    }

    /// The system registers; zeros if the kernel does not say.
    pub(super) fn system(&self) -> SystemRegisters {
        let mut registers = SystemRegisters::default();
        // SAFETY: the request takes this structure.
        let _ = unsafe { raw::ioctl_with(self.fd.as_raw_fd(), GET_SREGS, &mut registers) };
        registers
    }

    /// Sets what stops the guest.
    pub(super) fn set_debug(&self, debug: &GuestDebug) -> Result<(), Errno> {
        // SAFETY: the request takes this structure.
        unsafe { raw::ioctl_with(self.fd.as_raw_fd(), SET_GUEST_DEBUG, &mut { *debug }) }.map(drop)
    }

    /// Where the guest stands, and the address of its last page fault.
    pub(super) fn stand(&self) -> (report::Registers, u64) {
        let Registers { rax_to_rsi, rdi, rsp, rbp_to_r15, rip, rflags } = self.general();
        let [rax, rbx, rcx, rdx, rsi] = rax_to_rsi;
        let [rbp, numbered @ ..] = rbp_to_r15;
        let SystemRegisters { fs, cr2, .. } = self.system();
        let fs_base = fs.base;
        (report::Registers { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, numbered, rip, rflags, fs_base }, cr2)
    }
}

/// The area that the kernel shares with us, for handlers of signals.
static AREA: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

/// Lets the guest not run on, now or when it is about to. For handlers of signals.
pub(super) fn interrupt() {
    set_immediate_exit(1);
}

fn set_immediate_exit(value: u8) {
    let area = AREA.load(Relaxed);
    if !area.is_null() {
        // SAFETY: the area is mapped as long as the process lives, and this byte of it is ours to write.
        unsafe { AtomicU8::from_ptr(area.wrapping_add(IMMEDIATE_EXIT_AT)) }.store(value, Relaxed);
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

#[cfg(test)]
mod tests {
    //! What a guest is not told of its processor.
    use super::*;

    #[test]
    fn a_guest_sees_no_way_to_make_guests() {
        for (leaf, wanted) in [
            (0, [u32::MAX; 4]),
            (1, [u32::MAX, u32::MAX, !(1 << 5), u32::MAX]),
            (0x8000_0001, [u32::MAX, u32::MAX, !(1 << 2), u32::MAX]),
            (0x8000_000a, [0; 4]),
            (0x4000_0001, [0; 4]),
            (0xa, [0; 4]),
        ] {
            let mut entry = [u32::MAX; 10];
            entry[0] = leaf;
            withhold(&mut entry);
            assert_eq!((entry[0], &entry[3..7]), (leaf, &wanted[..]), "{leaf:#x}");
        }
    }
}
