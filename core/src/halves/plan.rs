//! What is to be executed for one unikernel, complete: the host half adds nothing but the fds it makes.

use serde::{Deserialize, Serialize};

use super::{LaunchError, Texts, Unit, VirtualMachine};
use crate::limits::{ACCOUNTS_MAX, ARGV_BYTES_MAX, DEVICES_MAX, INTERFACE_BYTES_MAX};
use crate::policy::{Bridge, CpuSet};

/// The fd under which a tender finds the image: the operand `@3`. 0 is empty, 1 and 2 are the console.
pub const IMAGE_FD: u16 = 3;

/// The fd of the first tap, in the order of [`LaunchPlan::networks`]; the others follow, and then the block devices. Behind
/// them stand `/dev/kvm` for hvt, a socket that knows the taps where there are any, and last the file into which the tender
/// records how its guest fares. The argument vector speaks of each by its number.
pub const TAP_FD_FIRST: u16 = 4;

/// Which way a tender runs its image.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Tender {
    /// On the CPU's virtualization, by `/dev/kvm` or FreeBSD's `vmm`.
    Hvt,
    /// As a process in a system call sandbox.
    Spt,
    /// It has no image: a virtual machine of FreeBSD's bhyve, which boots from its first disk.
    Bhyve,
}

/// One tender process: what runs, as whom, where, and with which fds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaunchPlan<'a> {
    /// Which incarnation this is.
    pub unit: Unit,
    /// The account, below [`ACCOUNTS_MAX`]: added to the base of the host half it is the user id of the tender.
    pub account: u16,
    /// Which tender.
    pub tender: Tender,
    /// The CPUs it may run on, at least one.
    pub cpus: CpuSet,
    /// Memory of the guest in MiB, at least 1; the limits of the process follow from it.
    pub memory_mb: u32,
    /// The bridge of each network device, in the order of the taps' fds; at most [`DEVICES_MAX`].
    #[serde(borrow)]
    pub networks: Texts<'a>,
    /// How many block devices travel with the plan as fds, behind the console and the image, where there is one; with the networks at most
    /// [`DEVICES_MAX`].
    pub blocks: u8,
    /// The argument vector from `argv[0]` on, complete; at most [`ARGV_BYTES_MAX`] bytes. None for a virtual machine.
    #[serde(borrow)]
    pub argv: Texts<'a>,
    /// What there is to say of a virtual machine, for [`Tender::Bhyve`] and for nothing else.
    #[serde(borrow)]
    pub machine: Option<VirtualMachine<'a>>,
}

impl LaunchPlan<'_> {
    /// Checks every bound. The control half does so by construction, the host half because it must not trust.
    ///
    /// # Errors
    /// [`LaunchError`], the first that is wrong.
    pub fn check(&self) -> Result<(), LaunchError> {
        if self.account >= ACCOUNTS_MAX {
            return Err(LaunchError::NoSuchAccount(self.account));
        }
        if self.cpus.is_empty() {
            return Err(LaunchError::NoCpu);
        }
        if self.memory_mb == 0 {
            return Err(LaunchError::NoMemory);
        }
        if self.networks.iter().count().saturating_add(usize::from(self.blocks)) > DEVICES_MAX {
            return Err(LaunchError::TooManyDevices);
        }
        if self.networks.iter().any(|bridge| Bridge::new(bridge).is_err()) {
            return Err(LaunchError::BridgeName);
        }
        match (self.tender, &self.machine) {
            (Tender::Bhyve, Some(machine)) if self.argv.is_empty() => machine.check(&self.networks, self.blocks),
            (Tender::Bhyve, _) | (_, Some(_)) => Err(LaunchError::Machine),
            _ if self.argv.is_empty() || self.argv.as_bytes().len() > ARGV_BYTES_MAX => Err(LaunchError::Arguments),
            _ => Ok(()),
        }
    }
}

/// Bytes of the names of all taps of one unit, with their NULs.
pub const TAPS_BYTES_MAX: usize = DEVICES_MAX * (INTERFACE_BYTES_MAX + 1);
