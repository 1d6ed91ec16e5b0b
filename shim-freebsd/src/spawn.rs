//! Starting a tender: one fork, a list of steps in the new process, one exec.
//!
//! Everything is prepared before the fork. The new process takes its steps, waits until it has been recorded, and becomes the
//! tender; a step that fails is told over the line that it waits at. It stays root, since only root may make a virtual machine;
//! `solo5-hvt` goes into capability mode by itself before the guest runs.

use std::ffi::CStr;
use std::ffi::c_char;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use fulmar_core::halves::{Attempt, IMAGE_FD, LaunchPlan, OsError, TAP_FD_FIRST, Texts};
use fulmar_core::limits::{DEVICES_MAX, IMAGE_BYTES_MAX};
use fulmar_core::policy::CpuSet;
use fulmar_host::shim::Start;
use nix::errno::Errno;
use nix::sys::stat::fstat;

use crate::abi::{CPUSET_SIZE, RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_VMEM};
use crate::kernel::{AtExec, Steps};

/// Standard fds, the image, the taps, the block devices.
const FDS_MAX: usize = TAP_FD_FIRST as usize + DEVICES_MAX;

/// The whole environment of a tender.
const ENVIRONMENT: [&[u8]; 1] = [b"PATH=/sbin:/bin:/usr/sbin:/usr/bin\0"];

const MIB: u64 = 1024 * 1024;

/// What a tender needs of its address space beside guest and image: its program, the libraries, what they set aside, stacks.
const OWN_BYTES_MAX: u64 = 256 * MIB;

/// What bhyve needs of its address space beside guest memory: it leaves the hole of 1 GiB below 4 GiB in it, and sets its threads' stacks
/// and what they set aside beside it.
const MACHINE_OWN_BYTES_MAX: u64 = 4096 * MIB;

/// What a tender opens itself: the virtual machine, an event queue, the services of capability mode.
const OWN_FDS_MAX: u64 = 32;

/// The steps of the new process, in the order in which they are taken.
pub(crate) const STEPS: [Attempt; 6] = [
    Attempt::NewSession,
    Attempt::PlaceFds,
    Attempt::PinCpus,
    Attempt::SetLimits,
    Attempt::NoNewPrivileges,
    Attempt::Execute,
];

/// A step that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failed {
    /// Its number in [`STEPS`].
    pub(crate) step: u8,
    /// Why.
    pub(crate) errno: i32,
}

impl Failed {
    /// Bytes of it on the line.
    pub(crate) const SIZE: usize = 5;

    /// As it goes over the line.
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let [a, b, c, d] = self.errno.to_ne_bytes();
        [self.step, a, b, c, d]
    }

    /// As it has come over the line.
    pub(crate) fn from_bytes([step, errno @ ..]: [u8; Self::SIZE]) -> Self {
        Self { step, errno: i32::from_ne_bytes(errno) }
    }
}

impl From<Failed> for OsError {
    fn from(failed: Failed) -> Self {
        let attempt = STEPS.get(usize::from(failed.step)).copied().unwrap_or(Attempt::Execute);
        Self { attempt, errno: failed.errno }
    }
}

/// Pointers to texts, ended by a null, as exec wants them.
#[derive(Debug)]
pub(crate) struct Pointers<'a> {
    pointers: Vec<*const c_char>,
    texts: PhantomData<&'a CStr>,
}

impl<'a> Pointers<'a> {
    /// Of texts that each end with a NUL; others are left out.
    fn new(texts: impl Iterator<Item = &'a [u8]>) -> Self {
        let texts = texts.filter_map(|text| CStr::from_bytes_with_nul(text).ok());
        let pointers = texts.map(CStr::as_ptr).chain([std::ptr::null()]).collect();
        Self { pointers, texts: PhantomData }
    }

    /// The first of them. The last is null, and the others live as long as this.
    pub(crate) fn first(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// All that the new process needs, ready before it exists.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    /// The index is the number that the tender finds it at.
    fds: Vec<BorrowedFd<'a>>,
    cpus: [u8; CPUSET_SIZE],
    limits: [(i32, u64); 4],
    program: BorrowedFd<'a>,
    arguments: Pointers<'a>,
    environment: Pointers<'a>,
    /// The command line, for a kernel in memory.
    #[cfg(test)]
    pub(crate) line: Texts<'a>,
}

impl<'a> Prepared<'a> {
    /// For this start, with what the host gives to every tender: its program, and `/dev/null`.
    pub(crate) fn new(program: BorrowedFd<'a>, null: BorrowedFd<'a>, start: &Start<'a>) -> Result<Self, Errno> {
        let Start { plan, console, image, taps, blocks, .. } = *start;
        let devices = taps.iter().map(|tap| tap.fd.as_fd()).chain(blocks.iter().map(AsFd::as_fd));
        let fds: Vec<_> = [null, console, console, image].into_iter().chain(devices).collect();
        if fds.len() > FDS_MAX {
            return Err(Errno::E2BIG);
        }
        let mut largest_file = 0;
        for block in blocks {
            largest_file = u64::try_from(fstat(block)?.st_size).unwrap_or(0).max(largest_file);
        }
        let limits = limits(plan, IMAGE_BYTES_MAX + OWN_BYTES_MAX, fds.len() as u64, largest_file);
        Ok(Self::of(program, fds, plan, plan.argv, limits))
    }

    /// For a program of a virtual machine, with this command line and these fds, the last of them disks from `disks_at` on.
    pub(crate) fn for_machine(
        program: BorrowedFd<'a>,
        fds: Vec<BorrowedFd<'a>>,
        disks_at: usize,
        plan: &LaunchPlan<'_>,
        line: Texts<'a>,
    ) -> Result<Self, Errno> {
        if fds.len() > FDS_MAX {
            return Err(Errno::E2BIG);
        }
        let mut largest_file = 0;
        for disk in fds.iter().skip(disks_at) {
            largest_file = u64::try_from(fstat(disk)?.st_size).unwrap_or(0).max(largest_file);
        }
        let limits = limits(plan, MACHINE_OWN_BYTES_MAX, fds.len() as u64, largest_file);
        Ok(Self::of(program, fds, plan, line, limits))
    }

    fn of(
        program: BorrowedFd<'a>,
        fds: Vec<BorrowedFd<'a>>,
        plan: &LaunchPlan<'_>,
        line: Texts<'a>,
        limits: [(i32, u64); 4],
    ) -> Self {
        let cpus = cpu_bits(&plan.cpus);
        let (arguments, environment) = (Pointers::new(line.with_nul()), Pointers::new(ENVIRONMENT.into_iter()));
        Self {
            fds,
            cpus,
            limits,
            program,
            arguments,
            environment,
            #[cfg(test)]
            line,
        }
    }

    /// What happens in the new process. `line_at` is where the line is, also when it has moved. Returns only when a step fails.
    /// Nothing here may allocate, lock or panic.
    pub(crate) fn take_steps(&self, steps: &impl Steps, line: BorrowedFd<'_>, line_at: &mut RawFd) -> Failed {
        match self.up_to_the_word(steps, line, line_at) {
            Ok(program) => self.become_tender(steps, *line_at, program),
            Err(failed) => failed,
        }
    }

    /// The steps before the word; returns where the program is.
    fn up_to_the_word(&self, steps: &impl Steps, line: BorrowedFd<'_>, line_at: &mut RawFd) -> Result<RawFd, Failed> {
        let at = |step: u8| move |errno: Errno| Failed { step, errno: errno as i32 };
        // Signals to vmmd's group, such as those of a terminal, are not for unikernels.
        steps.begin_anew().map_err(at(0))?;
        let program = self.place_fds(steps, line, line_at).map_err(at(1))?;
        steps.pin(&self.cpus).map_err(at(2))?;
        for (resource, value) in &self.limits {
            steps.limit(*resource, *value).map_err(at(3))?;
        }
        steps.forbid_privileges().map_err(at(4))?;
        Ok(program)
    }

    /// The word, and what follows it. Returns only when that fails.
    fn become_tender(&self, steps: &impl Steps, line: RawFd, program: RawFd) -> Failed {
        let errno = match steps.wait_for_word(line) {
            Ok(()) => steps.execute(program, &self.arguments, &self.environment),
            Err(errno) => errno,
        };
        Failed { step: 5, errno: errno as i32 }
    }

    /// Puts the fds in their places and closes all others. The line and the program stand behind the tender's until exec
    /// closes them.
    fn place_fds(&self, steps: &impl Steps, line: BorrowedFd<'_>, line_at: &mut RawFd) -> Result<RawFd, Errno> {
        let end = RawFd::try_from(self.fds.len()).map_err(|_| Errno::EINVAL)?;
        let (line_place, program, rest) = (end, end + 1, end + 2);
        // First all out of the way, since one's place may be where another is now.
        let mut moved = [0; FDS_MAX];
        for (moved, fd) in moved.iter_mut().zip(&self.fds) {
            *moved = steps.duplicate_above(*fd, rest)?;
        }
        let line_moved = steps.duplicate_above(line, rest)?;
        let program_moved = steps.duplicate_above(self.program, rest)?;
        *line_at = line_moved;
        for (place, moved) in (0..end).zip(moved) {
            steps.place(moved, place, AtExec::Stays)?;
        }
        steps.place(line_moved, line_place, AtExec::Closes)?;
        steps.place(program_moved, program, AtExec::Closes)?;
        *line_at = line_place;
        steps.close_from(rest)?;
        Ok(program)
    }
}

const _: () = assert!(IMAGE_FD == 3 && TAP_FD_FIRST == 4, "the order in `Prepared::new`");

/// CPUs as the kernel takes them: a bit each.
fn cpu_bits(cpus: &CpuSet) -> [u8; CPUSET_SIZE] {
    let mut bits = [0_u8; CPUSET_SIZE];
    for cpu in cpus.iter().filter_map(|cpu| usize::try_from(cpu).ok()) {
        if let Some(byte) = bits.get_mut(cpu / 8) {
            *byte |= 1 << (cpu % 8);
        }
    }
    bits
}

/// CPUs as the kernel tells them.
pub(crate) fn cpus_of(bits: &[u8]) -> CpuSet {
    let mut cpus = CpuSet::EMPTY;
    for (index, byte) in (0..).zip(bits) {
        for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
            // Beyond the bound it is not used.
            let _ = cpus.insert(index * 8 + bit);
        }
    }
    cpus
}

/// What a tender's process may use beside its CPUs, each with its reason.
fn limits(plan: &LaunchPlan<'_>, own: u64, fds: u64, file_bytes: u64) -> [(i32, u64); 4] {
    let guest = u64::from(plan.memory_mb).saturating_mul(MIB);
    [
        // A core file would hold the guest's secrets, and it would fill the disk.
        (RLIMIT_CORE, 0),
        // No more fds than it was given and needs.
        (RLIMIT_NOFILE, fds.saturating_add(OWN_FDS_MAX)),
        // Guest memory, which is mapped, the image, and itself.
        (RLIMIT_VMEM, guest.saturating_add(own)),
        // A block device is a file, written in place. No file of its grows.
        (RLIMIT_FSIZE, file_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_bits_and_back() {
        let cpus = CpuSet::collect([0, 9, 127].into_iter()).unwrap();
        let bits = cpu_bits(&cpus);
        assert_eq!((bits[0], bits[1], bits[15]), (1, 2, 128));
        assert_eq!(cpus_of(&bits), cpus);
        // The kernel knows of more than can be used here.
        assert_eq!(cpus_of(&[0xff; CPUSET_SIZE]), CpuSet::first(u16::MAX));
    }

    #[test]
    fn a_failure_comes_over_the_line_as_it_went() {
        for (step, attempt) in (0..).zip(STEPS) {
            let failed = Failed { step, errno: -77 };
            assert_eq!(Failed::from_bytes(failed.to_bytes()), failed);
            assert_eq!(OsError::from(failed), OsError { attempt, errno: -77 });
        }
        assert_eq!(OsError::from(Failed { step: 200, errno: 1 }).attempt, Attempt::Execute);
    }
}
