//! What the two halves of `vmmd` say to each other: the control half asks, the host half acts and answers.
//!
//! Each message is one packet of at most [`CHANNEL_BYTES_MAX`] bytes in postcard. The host half parses nothing else, so
//! the enums are closed and every variable part is bounded. It must never learn a name, an owner or a policy: a
//! unikernel is a [`Unit`] here, and what it may use has been decided before a [`LaunchPlan`] is sent.
//!
//! The first request is [`Request::Survey`]. It is answered by one [`Answer::Adopted`] for each unikernel that runs
//! since before, one [`Answer::Ended`] for each that has ended since, and then by [`Answer::Host`]. Afterwards each request
//! has exactly one answer, but for [`Request::Forget`] and [`Request::Serving`], which have none. [`Answer::Exited`] comes unasked, once for each unit
//! that was launched or adopted, and nothing of that unit follows it.

mod attempt;
mod ending;
mod machine;
mod plan;
mod texts;

use serde::{Deserialize, Serialize};

pub(crate) use self::attempt::Errno;
pub use self::attempt::{Attempt, LaunchError, OsError};
pub use self::ending::{Status, StatusRecord};
pub use self::machine::{
    BY_FD, DISK_FD_FIRST, MACHINE_LINE_BYTES_MAX, MachineName, VirtualMachine, is_partition, is_zvol, machine_name,
};
pub use self::plan::{IMAGE_FD, LaunchPlan, TAP_FD_FIRST, TAPS_BYTES_MAX, Tender};
pub use self::texts::{Texts, TextsFull, TextsWriter};
use crate::limits::CHANNEL_BYTES_MAX;
use crate::policy::CpuSet;

/// One incarnation of a unikernel: the generation number of its record. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Unit(pub u64);

/// What the control half asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and nothing here allocates")]
pub enum Request<'a> {
    /// What the host has, and which unikernels run since before. Asked once, first.
    Survey,
    /// The bridges that the host has now.
    Bridges,
    /// Start a tender. Fds travel with it: the console (standard output and error), the image unless it is a virtual machine, and
    /// then the block devices.
    #[serde(borrow)]
    Launch(LaunchPlan<'a>),
    /// End a unit, gently or not.
    Signal {
        /// Which.
        unit: Unit,
        /// How.
        signal: Signal,
    },
    /// What follows from the end of this unit is durable, or nothing follows: what the host half keeps of it may go. Until
    /// then the next start is told of it again. Nothing is answered.
    Forget {
        /// Which.
        unit: Unit,
    },
    /// How many files the host half has open.
    Files,
    /// The control half serves clients and its loop goes round: said when it begins, and every
    /// [`SERVING_MS`](crate::limits::SERVING_MS) from then on. Nothing is answered.
    Serving {
        /// Unikernels that run.
        running: u16,
        /// Unikernels that are to run.
        desired: u16,
    },
}

/// How a tender is asked to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Signal {
    /// `SIGTERM`.
    Terminate,
    /// `SIGKILL`.
    Kill,
}

/// What the host half says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// A unikernel that a predecessor launched still runs and is watched from now on.
    Adopted {
        /// Which.
        unit: Unit,
        /// Its process id.
        pid: u32,
        /// When the process started, as only this host's shim can read it: tells it from a later one of the same id.
        started: u64,
        /// The account it runs under: not to be given to another unit.
        account: u16,
        /// When it was launched, unix milliseconds; for people.
        started_ms: i64,
        /// Whether it was told to end, by a predecessor that died over it.
        told: bool,
        /// Its taps, in the order of its networks.
        #[serde(borrow)]
        taps: Texts<'a>,
    },
    /// The end of the answer to a survey.
    #[serde(borrow)]
    Host(Host<'a>),
    /// The bridges that the host has now, at most [`crate::limits::HOST_BRIDGES_MAX`].
    #[serde(borrow)]
    Bridges(Texts<'a>),
    /// A survey or a question for bridges that the kernel did not answer.
    SurveyFailed(OsError),
    /// The tender of a plan has been started.
    Launched {
        /// Which.
        unit: Unit,
        /// Its process id.
        pid: u32,
        /// When the process started, as in [`Answer::Adopted`].
        started: u64,
        /// Its taps, in the order of the plan's networks.
        #[serde(borrow)]
        taps: Texts<'a>,
    },
    /// A plan was not carried out, and nothing of it is left.
    LaunchFailed {
        /// Which.
        unit: Unit,
        /// Why.
        error: LaunchError,
    },
    /// The answer to [`Request::Signal`].
    Signalled {
        /// Which.
        unit: Unit,
        /// What came of it.
        outcome: SignalOutcome,
    },
    /// A unit has ended and has been reaped.
    Exited {
        /// Which.
        unit: Unit,
        /// How, as the kernel has it.
        status: Status,
        /// How, as the tender has it.
        #[serde(borrow)]
        record: StatusRecord<'a>,
    },
    /// A unit that a predecessor launched has ended since. Only in the answer to a survey.
    Ended {
        /// Which.
        unit: Unit,
        /// How, as the tender has it, or as the host half had it from the kernel.
        #[serde(borrow)]
        record: StatusRecord<'a>,
    },
    /// The answer to [`Request::Files`].
    Files {
        /// How many it has open.
        open: u64,
        /// How many it may have.
        limit: u64,
    },
}

/// What came of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SignalOutcome {
    /// Sent; [`Answer::Exited`] follows when it works.
    Sent,
    /// No such unit runs: its [`Answer::Exited`] has been sent.
    Gone,
    /// The kernel refused.
    Failed(OsError),
}

/// What the host has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Host<'a> {
    /// The CPUs that tenders may be pinned to.
    pub cpus: CpuSet,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// The bridges, at most [`crate::limits::HOST_BRIDGES_MAX`].
    #[serde(borrow)]
    pub bridges: Texts<'a>,
    /// What can be had here.
    pub abilities: Abilities,
}

/// What can be had on this host. A `false` is said to people once at start, and asking for it is refused with the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Abilities {
    /// Each tender runs under a user id of its own.
    pub accounts: bool,
    /// Taps can be made and put into bridges.
    pub taps: bool,
    /// `/dev/kvm` can be opened, or FreeBSD has its `vmm`, so hvt images run.
    pub kvm: bool,
    /// The tender program was found.
    pub tender: bool,
    /// It is Solo5's own: for hvt alone, it opens `/dev/fd/3` where ours takes `@3`, and it records nothing.
    pub solo5: bool,
    /// The memory of each tender, with what the kernel holds for it, is bounded by a cgroup of its own. Where not, its address
    /// space is.
    pub memory_cgroup: bool,
    /// The processes of each tender are bounded by a cgroup of its own. Where not, those of its account are.
    pub pids_cgroup: bool,
    /// Virtual machines of bhyve can be run; what tells the names of this host half's from those of another ([`machine_name`]).
    pub bhyve: Option<u32>,
}

/// Why bytes are not a message, or a message does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// Not a message of this version: the two halves come from different builds, or one has gone mad.
    Malformed,
    /// More than [`CHANNEL_BYTES_MAX`] bytes, or more than the buffer has.
    TooLong,
}

impl core::fmt::Display for MessageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("a message between the halves of vmmd is malformed: restart vmmd"),
            Self::TooLong => {
                write!(f, "a message between the halves of vmmd is longer than {CHANNEL_BYTES_MAX} bytes")
            }
        }
    }
}

impl core::error::Error for MessageError {}

impl<'a> Request<'a> {
    /// Writes the message to the front of `buffer` and returns that part.
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], MessageError> {
        encode(self, buffer)
    }

    /// Reads a whole packet.
    ///
    /// # Errors
    /// [`MessageError`], as the name says.
    pub fn decode(packet: &'a [u8]) -> Result<Self, MessageError> {
        decode(packet)
    }
}

impl<'a> Answer<'a> {
    /// Writes the message to the front of `buffer` and returns that part.
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], MessageError> {
        encode(self, buffer)
    }

    /// Reads a whole packet.
    ///
    /// # Errors
    /// [`MessageError`], as the name says.
    pub fn decode(packet: &'a [u8]) -> Result<Self, MessageError> {
        decode(packet)
    }
}

fn encode<'b>(message: &impl Serialize, buffer: &'b mut [u8]) -> Result<&'b [u8], MessageError> {
    let room = buffer.len().min(CHANNEL_BYTES_MAX);
    let buffer = buffer.get_mut(..room).unwrap_or_default();
    match postcard::to_slice(message, buffer) {
        Ok(written) => Ok(written),
        Err(_) => Err(MessageError::TooLong),
    }
}

fn decode<'a, T: Deserialize<'a>>(packet: &'a [u8]) -> Result<T, MessageError> {
    if packet.len() > CHANNEL_BYTES_MAX {
        return Err(MessageError::TooLong);
    }
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) => Ok(message),
        _ => Err(MessageError::Malformed),
    }
}

#[cfg(test)]
mod tests;
