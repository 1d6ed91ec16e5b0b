//! Why a policy, the host's above all, does not allow what was asked for. The texts begin as the peer's.

use core::fmt;

use crate::limits::TAPS_MAX;
use crate::name::Name;
use crate::policy::{Bridge, Exceeds};

/// A refusal, and whose policy it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct NotAdmitted {
    /// Why.
    pub refused: Refused,
    /// How many labels the path of that policy lies above the path of what was asked for; the root is above all.
    pub above: u8,
}

impl NotAdmitted {
    /// The reason in words, with the path of the policy, to whoever asked for `name`.
    pub(super) fn to_whom(self, name: &Name) -> impl fmt::Display + use<> {
        let path = name.ancestors().nth(self.above.into()).unwrap_or(Name::ROOT);
        Explained { refused: self.refused, path }
    }
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refused.fmt(f)
    }
}

struct Explained {
    refused: Refused,
    path: Name,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refused.fmt(f)?;
        match self.refused {
            // They say already whose they are.
            Refused::HostCpu(_) | Refused::HostBridge(_) | Refused::HostTaps { .. } => Ok(()),
            _ if self.path.is_root() => f.write_str(" (policy of the host)"),
            _ => write!(f, " (policy of {})", self.path),
        }
    }
}

/// Why a unikernel may not run where it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Refused {
    /// The number of unikernels is reached.
    Unikernels {
        /// What the policy allows.
        allowed: u64,
    },
    /// The memory would be exceeded.
    Memory {
        /// What the policy allows, MiB.
        allowed_mb: u64,
        /// What is used already, MiB.
        used_mb: u64,
        /// What was asked for, MiB.
        asked_mb: u64,
    },
    /// A CPU is not allowed.
    Cpu(i64),
    /// A bridge is not allowed.
    Bridge(Bridge),
    /// No block storage is allowed.
    NoBlocks,
    /// The block storage would be exceeded.
    Blocks {
        /// What the policy allows, MiB.
        allowed_mb: u64,
        /// What is used already, MiB.
        used_mb: u64,
        /// What was asked for, MiB.
        asked_mb: u64,
    },
    /// The root policy has no such CPU, so nobody has.
    HostCpu(i64),
    /// The root policy has no such bridge, so nobody has.
    HostBridge(Bridge),
    /// The host has no room for as many taps.
    HostTaps {
        /// What there are already.
        used: u64,
        /// What was asked for.
        asked: u64,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unikernels { allowed } => {
                write!(f, "maximum amount of unikernels ({allowed}) reached: destroy one or allow more")
            }
            Self::Memory { allowed_mb, used_mb, asked_mb } => write!(
                f,
                "maximum allowed memory ({allowed_mb}, used {used_mb}) would be exceeded (requesting {asked_mb}): ask \
                 for less or allow more"
            ),
            Self::Cpu(cpu) => write!(f, "CPUid {cpu} is not allowed by policy: name another or allow it"),
            Self::Bridge(bridge) => write!(f, "bridges {bridge} not allowed by policy: name another or allow it"),
            Self::NoBlocks => f.write_str("no block devices are allowed by policy"),
            Self::Blocks { allowed_mb, used_mb, asked_mb } => write!(
                f,
                "block device policy limit of {allowed_mb} MB (used {used_mb} MB) would be exceeded by the request \
                 ({asked_mb} MB)"
            ),
            Self::HostCpu(cpu) => write!(f, "the host has no CPU {cpu}: name another"),
            Self::HostBridge(bridge) => {
                write!(f, "the host has no bridge {bridge}: make it first, it is seen within seconds")
            }
            Self::HostTaps { used, asked } => write!(
                f,
                "the host has room for {TAPS_MAX} networks of unikernels, {used} are used and {asked} more are asked for: \
                 destroy a unikernel that has some"
            ),
        }
    }
}

/// Why a policy may not stand where it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum PolicyRefused {
    /// A policy above does not contain it.
    Above(Exceeds),
    /// A policy below is not contained in it.
    Below(Exceeds),
    /// More unikernels run than it allows.
    RunningUnikernels {
        /// Those that run.
        running: u64,
        /// Those allowed.
        allowed: u64,
    },
    /// What runs has more memory than it allows.
    RunningMemory {
        /// What is used, MiB.
        used_mb: u64,
        /// What is allowed, MiB.
        allowed_mb: u64,
    },
    /// A unikernel runs on a CPU that it does not allow.
    RunningCpu(i64),
    /// A unikernel uses a bridge that it does not allow.
    RunningBridge(Bridge),
    /// There are more block devices than it allows.
    RunningBlocks {
        /// What they take, MiB.
        used_mb: u64,
        /// What is allowed, MiB.
        allowed_mb: Option<u64>,
    },
    /// The root policy is what the host has.
    Root,
    /// There is no room for another policy.
    Full,
    /// A change of this policy is being made durable.
    Busy,
    /// There is none at this path.
    Unknown,
}

impl fmt::Display for PolicyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(exceeds) => write!(f, "policy above {exceeds}"),
            Self::Below(exceeds) => write!(
                f,
                "policy {exceeds}, which a policy below allows: make that one smaller first, 'policy' lists them"
            ),
            Self::RunningUnikernels { running, allowed } => {
                write!(f, "policy allows {allowed} unikernels, but {running} run already")
            }
            Self::RunningMemory { used_mb, allowed_mb } => {
                write!(f, "policy allows {allowed_mb} MB memory, but {used_mb} MB are used already")
            }
            Self::RunningCpu(cpu) => write!(f, "policy does not allow CPUid {cpu}, which a running unikernel uses"),
            Self::RunningBridge(bridge) => {
                write!(f, "policy does not allow bridge {bridge}, which a running unikernel uses")
            }
            Self::RunningBlocks { used_mb, allowed_mb: Some(allowed_mb) } => {
                write!(f, "policy allows {allowed_mb} MB block storage, but {used_mb} MB are used already")
            }
            Self::RunningBlocks { used_mb, allowed_mb: None } => {
                write!(f, "policy allows no block storage, but {used_mb} MB are used already")
            }
            Self::Root => f.write_str("the root policy is what the host has and can be neither set nor removed"),
            Self::Full => f.write_str("no room for another policy on this host: remove one that nobody needs"),
            Self::Busy => f.write_str("this policy is being changed, try again"),
            Self::Unknown => f.write_str("unknown policy"),
        }
    }
}
