//! Virtual machines by their names: what a killed tender leaves behind, and what the hypervisor counts.
//!
//! `solo5-hvt` calls the virtual machine of process 812 `solo5-812` and removes it when it ends. Killed, it cannot: then the
//! guest's memory would stay taken for ever.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use fulmar_core::halves::{Unit, machine_name};
use nix::errno::Errno;

use crate::abi::{
    VM_STAT_DESC, VM_STAT_DESC_INDEX, VM_STAT_DESC_SIZE, VM_STAT_DESC_TEXT, VM_STATS, VM_STATS_BUFFER,
    VM_STATS_ENTRIES, VM_STATS_INDEX, VM_STATS_MAX, VM_STATS_SIZE,
};
use crate::kernel::{Kernel, OpenFor};
use crate::process::info;

const PREFIX: &str = "solo5-";

/// How many numbers a virtual machine counts, at most: it has some 60 of its own, and some for each processor of the guest.
const COUNTERS_MAX: u32 = 1024;

/// The virtual machine of the tender of this id.
pub(crate) fn name_of(pid: i32) -> String {
    format!("{PREFIX}{pid}")
}

/// Removes the virtual machine of a tender that has ended; whether there was one.
pub(crate) fn destroy(kernel: &impl Kernel, pid: i32) -> Result<bool, Errno> {
    destroy_named(kernel, &name_of(pid))
}

/// Removes the virtual machine of this name, as `bhyvectl --destroy` does; whether there was one.
pub(crate) fn destroy_named(kernel: &impl Kernel, name: &str) -> Result<bool, Errno> {
    match kernel.set_value(c"hw.vmm.destroy", name.as_bytes()) {
        Ok(()) => Ok(true),
        // There is none of this name, or no hypervisor.
        Err(Errno::EINVAL | Errno::ENOENT | Errno::ENXIO) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes the virtual machines of tenders that are not there any more, and those of bhyve that this host half, which `tag` tells
/// from others, has made and does not watch. How many.
pub(crate) fn sweep(kernel: &impl Kernel, tag: u32, is_watched: impl Fn(Unit) -> bool) -> Result<u32, Errno> {
    let names = match kernel.names_in(c"/dev/vmm") {
        Err(Errno::ENOENT) => return Ok(0),
        names => names?,
    };
    let mut count = 0;
    for pid in names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.strip_prefix(PREFIX)?.parse().ok()) {
        if info(kernel, pid) == Err(Errno::ESRCH) {
            count += u32::from(destroy(kernel, pid)?);
        }
    }
    let ours = format!("fulmar-{tag:08x}-");
    for name in names.iter().filter_map(|name| std::str::from_utf8(name).ok()) {
        let unit = name.strip_prefix(&ours).and_then(|unit| unit.parse().ok()).map(Unit);
        // Another way to write the number would be somebody else's.
        if unit.is_some_and(|unit| machine_name(tag, unit) == name && !is_watched(unit)) {
            count += u32::from(destroy_named(kernel, name)?);
        }
    }
    Ok(count)
}

/// The counters of a virtual machine.
#[derive(Debug)]
pub(crate) struct Counters {
    machine: OwnedFd,
}

impl Counters {
    /// Of the virtual machine of this name, where this process may look at it.
    pub(crate) fn open(kernel: &impl Kernel, name: &str) -> Option<Self> {
        let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let path = CString::new(format!("/dev/vmm/{name}")).ok().filter(|_| is_plain)?;
        Some(Self { machine: kernel.open(&path, OpenFor::Read).ok()? })
    }

    /// All of them, each with what it is. `names` are those that are known already.
    pub(crate) fn read(&self, kernel: &impl Kernel, names: &mut Vec<String>) -> Result<Vec<(String, i64)>, Errno> {
        let mut counters = Vec::new();
        loop {
            let first = u32::try_from(counters.len()).unwrap_or(u32::MAX);
            let mut stats = [0; VM_STATS_SIZE];
            VM_STATS_INDEX.put(&mut stats, &first.to_le_bytes());
            kernel.ask(self.machine.as_fd(), VM_STATS, &mut stats)?;
            let told = VM_STATS_ENTRIES.number(&stats).min(VM_STATS_MAX);
            let values = VM_STATS_BUFFER.bytes(&stats).as_chunks().0.iter().copied().map(u64::from_le_bytes);
            for (value, _) in values.zip(0..told) {
                let name = self.name(kernel, counters.len(), names)?;
                counters.push((name, i64::try_from(value).unwrap_or(i64::MAX)));
            }
            if told < VM_STATS_MAX || first >= COUNTERS_MAX {
                return Ok(counters);
            }
        }
    }

    fn name(&self, kernel: &impl Kernel, index: usize, names: &mut Vec<String>) -> Result<String, Errno> {
        if let Some(name) = names.get(index) {
            return Ok(name.clone());
        }
        let mut description = [0; VM_STAT_DESC_SIZE];
        VM_STAT_DESC_INDEX.put(&mut description, &u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes());
        kernel.ask(self.machine.as_fd(), VM_STAT_DESC, &mut description)?;
        let name = String::from_utf8_lossy(VM_STAT_DESC_TEXT.text(&description)).into_owned();
        // They are asked for in their order, so this is its place.
        names.push(name.clone());
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeKernel;

    #[test]
    fn what_the_dead_have_left_is_removed_and_nothing_else() {
        let kernel = FakeKernel::new();
        let (alive, dead) = (kernel.live(), kernel.live());
        kernel.make_machine(&name_of(alive));
        kernel.make_machine(&name_of(dead));
        kernel.make_machine("windows");
        kernel.end(dead, 9);
        assert_eq!(sweep(&kernel, 0, |_| false), Ok(1));
        assert_eq!(kernel.machines(), [name_of(alive), "windows".to_owned()]);
        assert_eq!(destroy(&kernel, dead), Ok(false));
    }

    #[test]
    fn a_virtual_machine_that_nobody_watches_is_removed_and_no_other_host_halfs() {
        let kernel = FakeKernel::new();
        let others = ["fulmar-00000002-7", "fulmar-00000001-07", "fulmar-1-7", "fulmar-00000001-"];
        for name in others.into_iter().chain(["fulmar-00000001-7", "fulmar-00000001-8"]) {
            kernel.make_machine(name);
        }
        assert_eq!(sweep(&kernel, 1, |unit| unit == Unit(8)), Ok(1));
        let mut left = others.map(str::to_owned).to_vec();
        left.push("fulmar-00000001-8".to_owned());
        left.sort();
        assert_eq!(kernel.machines(), left);
    }

    #[test]
    fn a_host_without_a_hypervisor_has_none() {
        let kernel = FakeKernel::new();
        kernel.unload("vmm");
        assert_eq!(sweep(&kernel, 0, |_| false), Ok(0));
        assert_eq!(destroy(&kernel, 7), Ok(false));
        assert!(Counters::open(&kernel, "solo5-7").is_none());
    }

    #[test]
    fn counters_come_in_parts_each_with_its_name() {
        for count in [0, 1, 63, 64, 65, 200] {
            let kernel = FakeKernel::new();
            kernel.make_machine("solo5-7");
            kernel.count(count);
            let counters = Counters::open(&kernel, "solo5-7").unwrap();
            let mut names = Vec::new();
            for _ in 0..2 {
                let read = counters.read(&kernel, &mut names).unwrap();
                assert_eq!(read.len(), count);
                for (index, (name, value)) in read.iter().enumerate() {
                    assert_eq!((name.as_str(), *value), (&*format!("counter {index}"), 1000 + index as i64));
                }
            }
        }
    }

    #[test]
    fn no_name_leads_elsewhere() {
        let kernel = FakeKernel::new();
        for name in ["", "../null", "a/b", "started-00"] {
            assert!(Counters::open(&kernel, name).is_none(), "{name}");
        }
    }
}
