//! Which process is which: what the kernel tells of one, in one answer, and when it was started, in a form that a later process
//! of the same id cannot have.

use fulmar_host::shim::Process;
use nix::errno::Errno;

use crate::abi::{
    CTL_KERN, KERN_BOOTTIME, KERN_PROC, KERN_PROC_PID, KI_PID, KI_START, KI_STAT, KI_STRUCTSIZE, KINFO_PROC_SIZE,
    SZOMB, TIMEVAL_SIZE, TV_SEC, TV_USEC,
};
use crate::kernel::Kernel;

/// How often to look again when the clock on the wall was set meanwhile.
const TRIES: u32 = 8;

/// What the kernel tells of a process.
pub(crate) type Info = [u8; KINFO_PROC_SIZE];

/// What the kernel tells of the process of this id. `ESRCH` when it has ended.
pub(crate) fn info(kernel: &impl Kernel, pid: i32) -> Result<Box<Info>, Errno> {
    let mut info = Box::new([0; KINFO_PROC_SIZE]);
    let length = kernel.value(&[CTL_KERN, KERN_PROC, KERN_PROC_PID, pid], info.as_mut_slice())?;
    if length == 0 {
        return Err(Errno::ESRCH);
    }
    let whole = KI_STRUCTSIZE.number(info.as_slice()) == KINFO_PROC_SIZE as u64 && length == KINFO_PROC_SIZE;
    if !whole || KI_PID.number(info.as_slice()) != u64::from(pid.cast_unsigned()) {
        return Err(Errno::EPROTO);
    }
    if KI_STAT.number(info.as_slice()) == SZOMB { Err(Errno::ESRCH) } else { Ok(info) }
}

/// Tells processes apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identities {
    /// Differs after every boot, so that process 812 of yesterday is not taken for that of today.
    boot: u64,
}

impl Identities {
    /// Of this boot.
    pub(crate) fn new(kernel: &impl Kernel) -> Result<Self, Errno> {
        let mut id = [0; 16];
        kernel.value_named(c"kern.boot_id", &mut id)?;
        let (low, high) = id.split_at(8);
        let half = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Ok(Self { boot: half(low) ^ half(high) })
    }

    /// The process of this id, as something that can be told from a later one, and what the kernel tells of it. `ESRCH` when
    /// it has ended.
    pub(crate) fn look_at(&self, kernel: &impl Kernel, pid: i32) -> Result<(Process, Box<Info>), Errno> {
        let mut booted = booted(kernel)?;
        for _ in 0..TRIES {
            let info = info(kernel, pid)?;
            let again = self::booted(kernel)?;
            // The kernel tells both by the clock on the wall. Who sets that moves both, so their difference stays.
            if again == booted {
                let since_boot = microseconds(KI_START.bytes(info.as_slice())).wrapping_sub(booted);
                return Ok((Process { pid: pid.cast_unsigned(), started: self.boot ^ since_boot }, info));
            }
            booted = again;
        }
        Err(Errno::EAGAIN)
    }

    /// The same, without the rest.
    pub(crate) fn identify(&self, kernel: &impl Kernel, pid: i32) -> Result<Process, Errno> {
        self.look_at(kernel, pid).map(|(process, _)| process)
    }
}

fn booted(kernel: &impl Kernel) -> Result<u64, Errno> {
    let mut time = [0; TIMEVAL_SIZE];
    kernel.value(&[CTL_KERN, KERN_BOOTTIME], &mut time)?;
    Ok(microseconds(&time))
}

fn microseconds(time: &[u8]) -> u64 {
    TV_SEC.number(time).wrapping_mul(1_000_000).wrapping_add(TV_USEC.number(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeKernel;

    #[test]
    fn a_process_keeps_its_start_when_the_clock_is_set() {
        let kernel = FakeKernel::new();
        let pid = kernel.live();
        let identities = Identities::new(&kernel).unwrap();
        let before = identities.identify(&kernel, pid).unwrap();
        kernel.set_clock(86_400_000_000);
        assert_eq!(identities.identify(&kernel, pid), Ok(before));
        assert_ne!(identities.identify(&kernel, kernel.live()).unwrap().started, before.started);
    }

    #[test]
    fn who_has_ended_is_nobody_though_the_kernel_still_has_it() {
        let kernel = FakeKernel::new();
        let identities = Identities::new(&kernel).unwrap();
        let pid = kernel.live();
        kernel.end(pid, 0);
        assert_eq!(identities.identify(&kernel, pid), Err(Errno::ESRCH), "a zombie");
        assert_eq!(identities.identify(&kernel, 4242), Err(Errno::ESRCH));
    }

    #[test]
    fn after_a_boot_it_is_another() {
        let kernel = FakeKernel::new();
        let pid = kernel.live();
        let before = Identities::new(&kernel).unwrap().identify(&kernel, pid).unwrap();
        kernel.reboot();
        let after = Identities::new(&kernel).unwrap().identify(&kernel, pid).unwrap();
        assert_eq!(before.pid, after.pid);
        assert_ne!(before, after);
    }

    #[test]
    fn an_answer_of_another_form_is_not_read() {
        let kernel = FakeKernel::new();
        let pid = kernel.live();
        kernel.cut_info(KINFO_PROC_SIZE - 8);
        assert_eq!(info(&kernel, pid), Err(Errno::EPROTO));
    }
}
