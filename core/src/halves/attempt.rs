//! What the host half could not do. The operating system's refusals are an attempt and a number; the texts say what to do.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{ACCOUNTS_MAX, ARGV_BYTES_MAX, DEVICES_MAX, INTERFACE_BYTES_MAX, TAPS_MAX, UNITS_MAX};
use crate::policy::Bridge;

/// One conversation with the kernel, or one step of the new process before it becomes the tender.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Attempt {
    /// Count CPUs and memory.
    ReadCapacity,
    /// List the bridges.
    ListBridges,
    /// Find a bridge by its name.
    FindBridge,
    /// Make a tap.
    CreateTap,
    /// Set a tap up and put it into its bridge.
    AttachTap,
    /// List the taps.
    ListTaps,
    /// Remove a tap that nobody holds.
    RemoveTap,
    /// Open the tender program.
    OpenTender,
    /// Make what the new process needs before it exists.
    PrepareProcess,
    /// Fork.
    Fork,
    /// Watch a process for its end.
    WatchProcess,
    /// Write down which process runs a unit.
    RecordProcess,
    /// Send a signal.
    SendSignal,
    /// In the new process: leave the session of `vmmd`.
    NewSession,
    /// In the new process: put the fds in their places.
    PlaceFds,
    /// In the new process: leave the host's network for an empty one.
    LeaveNetwork,
    /// In the new process: pin it to its CPUs.
    PinCpus,
    /// In the new process: set its limits.
    SetLimits,
    /// In the new process: become its own user.
    ChangeUser,
    /// In the new process: give up gaining privileges.
    NoNewPrivileges,
    /// In the new process: execute the tender.
    Execute,
    /// Give the new process a cgroup of its own.
    EnterCgroup,
    /// Remove the virtual machine of a tender that is gone.
    RemoveMachine,
    /// Open a zvol that is a disk.
    OpenZvol,
    /// Load the kernel of a virtual machine.
    LoadMachine,
    /// Load it within [`crate::limits::MACHINE_LOAD_MS`].
    LoadInTime,
}

impl Attempt {
    /// What was attempted, to follow "could not".
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::ReadCapacity => "count the host's CPUs and memory",
            Self::ListBridges => "list the host's bridges",
            Self::FindBridge => "find the bridge",
            Self::CreateTap => "create tap",
            Self::AttachTap => "put the tap into its bridge",
            Self::ListTaps => "list the host's taps",
            Self::RemoveTap => "remove a tap that nobody holds",
            Self::OpenTender => "open the tender program",
            Self::PrepareProcess => "prepare the tender's process",
            Self::Fork => "fork",
            Self::WatchProcess => "watch the tender's process",
            Self::RecordProcess => "record the tender's process in the run folder",
            Self::SendSignal => "signal the tender's process",
            Self::NewSession => "give the tender a session of its own",
            Self::PlaceFds => "pass the tender its file descriptors",
            Self::LeaveNetwork => "leave the host's network",
            Self::PinCpus => "pin the tender to its CPUs",
            Self::SetLimits => "limit the tender's process",
            Self::ChangeUser => "give the tender a user of its own",
            Self::NoNewPrivileges => "forbid the tender new privileges",
            Self::Execute => "execute the tender program",
            Self::EnterCgroup => "give the tender a cgroup of its own",
            Self::RemoveMachine => "remove the virtual machine of a tender that is gone",
            Self::OpenZvol => "open a zvol",
            Self::LoadMachine => "load the kernel of the virtual machine from its disk 0, its console says why",
            Self::LoadInTime => "load the kernel of the virtual machine within a second: have its boot loader not wait",
        }
    }
}

/// The operating system said no.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct OsError {
    /// What was attempted.
    pub attempt: Attempt,
    /// The error number of the operating system; 0 where it was not the one that said no.
    pub errno: i32,
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            0 => write!(f, "could not {}", self.attempt.text()),
            errno => write!(f, "could not {}: {}", self.attempt.text(), Errno(errno)),
        }
    }
}

impl core::error::Error for OsError {}

/// An error number in words, the number itself behind them. Only numbers that mean the same on Linux and on FreeBSD have words.
pub(crate) struct Errno(pub(crate) i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            1 => "not permitted, vmmd needs root or a namespace of its own for this",
            2 => "it does not exist",
            5 => "input or output failed",
            8 => "it is not a program for this machine",
            12 => "the host is out of memory",
            13 => "access denied, check its owner and mode",
            16 => "it is in use",
            17 => "it exists already",
            19 => "the device does not exist",
            22 => "the kernel does not accept it",
            23 => "the host is out of file descriptors",
            24 => "vmmd is out of file descriptors, raise its limit",
            28 => "no space is left",
            30 => "the file system is read-only",
            _ => return write!(f, "error {} of the operating system", self.0),
        };
        write!(f, "{words} (error {})", self.0)
    }
}

/// Why a plan was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum LaunchError {
    /// The plan did not come with exactly a console, an image and its block devices.
    Fds,
    /// An account out of range.
    NoSuchAccount(u16),
    /// No CPU, or one that this host lacks.
    NoCpu,
    /// No memory.
    NoMemory,
    /// More than [`DEVICES_MAX`] networks and block devices.
    TooManyDevices,
    /// A name that no bridge can have.
    BridgeName,
    /// No interface of this name, or it is not a bridge.
    NoSuchBridge(Bridge),
    /// No argument, or more than [`ARGV_BYTES_MAX`] bytes of them.
    Arguments,
    /// This unit runs already.
    UnitInUse,
    /// [`UNITS_MAX`] tenders run.
    HostFull,
    /// More memory than the host has, which is so many MiB.
    HostMemory(u64),
    /// The host would have more than [`TAPS_MAX`] taps.
    HostTaps,
    /// The host has no `/dev/kvm` that can be opened, or no module `vmm`.
    NoKvm,
    /// The tender program was not found at start.
    NoTender,
    /// The file of a block device is gone or has another size than recorded.
    BlockFile,
    /// A process that is still ending has a block device open.
    BlockBusy,
    /// The kernel refused.
    Os(OsError),
    /// The host half may open no more files than this, too few to watch another unit.
    TooFewFiles(u64),
    /// Not what a virtual machine can have.
    Machine,
    /// Virtual machines of bhyve do not run on this host.
    NoBhyve,
    /// Nobody was allowed to name zvols.
    NoZvols,
}

impl From<OsError> for LaunchError {
    fn from(error: OsError) -> Self {
        Self::Os(error)
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fds => f.write_str("a launch needs a console, an image and its block devices"),
            Self::NoSuchAccount(account) => write!(f, "account {account} is not below {ACCOUNTS_MAX}"),
            Self::NoCpu => f.write_str("a CPU is named that this host lacks, or none: name others"),
            Self::NoMemory => f.write_str("a unikernel needs at least 1 MB of memory"),
            Self::TooManyDevices => write!(f, "more than {DEVICES_MAX} networks and block devices"),
            Self::BridgeName => {
                write!(f, "a bridge's name has 1 to {INTERFACE_BYTES_MAX} printable characters without '/' or ','")
            }
            Self::NoSuchBridge(name) => write!(f, "the host has no bridge {name}, make it first"),
            Self::Arguments => write!(f, "the arguments have more than {ARGV_BYTES_MAX} bytes"),
            Self::UnitInUse => f.write_str("this incarnation runs already"),
            Self::HostFull => write!(f, "{UNITS_MAX} unikernels run already, destroy one first"),
            Self::HostMemory(host_mb) => write!(
                f,
                "what runs and this one together need more than the {host_mb} MB of memory that the host has: destroy one first"
            ),
            Self::HostTaps => write!(f, "the host would have more than {TAPS_MAX} taps: destroy a unikernel with networks first"),
            Self::NoKvm => f.write_str(
                "the host has no usable /dev/kvm (on FreeBSD: no module vmm): enable virtualization or build for spt",
            ),
            Self::NoTender => {
                f.write_str("the tender program is missing: install fulmar-tender beside vmmd (on FreeBSD: solo5-hvt)")
            }
            Self::BlockFile => {
                f.write_str("the file of a block device is gone or has another size than recorded: restore it")
            }
            Self::BlockBusy => f.write_str("a process that is still ending has a block device open: try again"),
            Self::Os(error) => error.fmt(f),
            Self::TooFewFiles(limit) => write!(
                f,
                "vmmd may open {limit} files, too few for another unikernel: destroy one, or raise the limit (LimitNOFILE=) \
                 and start vmmd again"
            ),
            Self::Machine => f.write_str("a virtual machine has 1 disk or more, and what its bus has room for"),
            Self::NoBhyve => f.write_str(
                "bhyve virtual machines do not run on this host: it needs FreeBSD with the module vmm, /usr/sbin/bhyve and \
                 /usr/sbin/bhyveload",
            ),
            Self::NoZvols => f.write_str("no path may name zvols here: start vmmd with --allow-zvol-for PATH"),
        }
    }
}

impl core::error::Error for LaunchError {}
