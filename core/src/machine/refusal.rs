//! Why a lawful request is not granted: the one table from a reason to the text that the client is told.

use core::fmt;

use super::arguments::ArgumentsFault;
use super::block::BlockRefused;
use super::outcome::{JournalError, StoreError};
use super::refused::{NotAdmitted, PolicyRefused};
use crate::halves::{LaunchError, Tender};
use crate::name::Name;

/// Why a request is refused. The texts are the peer's where it has one (`docs/wire.md`, replies).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// Not a command, or not one for this daemon.
    UnknownCommand,
    /// The host belongs to nobody's path but the root.
    HostPath,
    /// A path was given where a unikernel is needed.
    Path,
    /// There is one of this name.
    Exists,
    /// There is nothing of this name to destroy.
    DestroyNotFound,
    /// There is nothing of this name to tell about.
    InfoNotFound,
    /// There is nothing of this name to get.
    GetNotFound,
    /// There is nothing of this name to start anew.
    RestartNotFound,
    /// It was to be started anew and was destroyed instead.
    Destroyed,
    /// It is still being created, replaced or started anew, or its failed creation is still being undone.
    Busy,
    /// No room for another unikernel on this host.
    UnikernelsFull,
    /// No room for its arguments on this host.
    ArgumentsFull,
    /// A policy does not allow it.
    Admission(NotAdmitted),
    /// The policy may not stand there.
    Policy(PolicyRefused),
    /// The policies of a chain do not belong to the paths down to the one that is named, each below the one before it.
    Chain,
    /// Its arguments make no sense.
    Arguments(ArgumentsFault),
    /// A block device is not as it must be.
    Block(BlockRefused),
    /// The create came without an image.
    NoImage,
    /// The image could not be stored.
    Store(StoreError),
    /// No tender here runs such an image.
    NoTender(Tender),
    /// The image does not fit the memory.
    MemoryForImage {
        /// What it needs at least, MiB.
        needed_mb: u64,
        /// What is given, MiB.
        given_mb: u64,
    },
    /// It could not be launched.
    Launch(LaunchError),
    /// It could not be made durable.
    Journal(JournalError),
}

impl Refusal {
    /// The reason in words, with whose policy it comes from, to whoever asked for `name`.
    pub fn to_whom<'a>(&'a self, name: &'a Name) -> impl fmt::Display + 'a {
        ToWhom { refusal: self, name }
    }
}

struct ToWhom<'a> {
    refusal: &'a Refusal,
    name: &'a Name,
}

impl fmt::Display for ToWhom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.refusal {
            Refusal::Admission(refused) => refused.to_whom(self.name).fmt(f),
            refusal => refusal.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCommand => f.write_str("unknown command"),
            Self::HostPath => f.write_str("the host can be asked about at the root path ':' only"),
            Self::Path => f.write_str("the name of a unikernel is needed, a path was given (it ends with ':')"),
            Self::Exists => f.write_str("Unikernel with same name is already running"),
            Self::DestroyNotFound => f.write_str("destroy: not found"),
            Self::InfoNotFound => f.write_str("info: not found"),
            Self::GetNotFound => f.write_str("get: no unikernel found"),
            Self::RestartNotFound => f.write_str("restart: not found"),
            Self::Destroyed => f.write_str("this unikernel was destroyed meanwhile"),
            Self::Busy => f.write_str("this unikernel is still being created or replaced, try again"),
            Self::UnikernelsFull => f.write_str("no room for another unikernel on this host: destroy one"),
            Self::ArgumentsFull => {
                f.write_str("no room for the arguments of another unikernel on this host: give shorter ones, or destroy one")
            },
            Self::Admission(refused) => refused.fmt(f),
            Self::Policy(refused) => refused.fmt(f),
            Self::Chain => f.write_str(
                "the policies of a chain are those of all paths down to the one that is named, each below the one before",
            ),
            Self::Arguments(fault) => fault.fmt(f),
            Self::Block(refused) => refused.fmt(f),
            Self::NoImage => f.write_str("the image is empty"),
            Self::Store(error) => error.fmt(f),
            Self::NoTender(Tender::Hvt) => f.write_str(
                "hvt images cannot run here, /dev/kvm (on FreeBSD: vmm) cannot be used: build the unikernel for spt",
            ),
            Self::NoTender(Tender::Spt) => f.write_str("spt images cannot run here: build the unikernel for hvt"),
            Self::NoTender(Tender::Bhyve) => ArgumentsFault::Bhyve.fmt(f),
            Self::MemoryForImage { needed_mb, given_mb } => {
                write!(f, "the image needs at least {needed_mb} MB of memory, {given_mb} MB are given")
            }
            Self::Launch(error) => write!(f, "could not create unikernel: {error}"),
            Self::Journal(error) => error.fmt(f),
        }
    }
}
