//! What can happen: the events of the log, those that wire version 5 keeps places for and our own, whose tags go from `[30]`
//! downwards (`docs/wire.md`). The same encoding is stored (`core::event`), so it is a format for ever: new ones get new tags.
//! What people read of an event is its `Display`, the same in the daemons' own logs and in the client.
//!
//! | file | what is in it |
//! |---|---|
//! | `codec` | the encoding |
//! | `words` | the words |

mod codec;
mod words;

use core::net::IpAddr;

use crate::name::Name;
use crate::wire::condition::RunEnd;
use crate::wire::list::List;
use crate::wire::text::Text;

/// Where somebody logged in from, or out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Login {
    /// Who.
    pub name: Name,
    /// Where from.
    pub address: IpAddr,
    /// TCP port.
    pub port: i64,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// With this exit code.
    Exit(i64),
    /// By this signal.
    Signal(i64),
    /// Stopped by this signal.
    Stop(i64),
}

/// What a client had done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A unikernel was created, or another one put in its place.
    CreatedUnikernel,
    /// A unikernel is no longer desired.
    DestroyedUnikernel,
    /// A unikernel was started anew as it is.
    RestartedUnikernel,
    /// A policy was set.
    AddedPolicy,
    /// A policy was removed.
    RemovedPolicy,
    /// A block device was made.
    AddedBlock,
    /// A block device was removed.
    RemovedBlock,
    /// A block device was given another content.
    SetBlock,
}

impl Deed {
    /// In the order of their numbers on the wire.
    pub const ALL: [Self; 8] = [
        Self::CreatedUnikernel,
        Self::DestroyedUnikernel,
        Self::RestartedUnikernel,
        Self::AddedPolicy,
        Self::RemovedPolicy,
        Self::AddedBlock,
        Self::RemovedBlock,
        Self::SetBlock,
    ];

    /// In words: the text of the reply, but for the restart.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreatedUnikernel => "created unikernel",
            Self::DestroyedUnikernel => "destroyed unikernel",
            Self::RestartedUnikernel => "restarted unikernel",
            Self::AddedPolicy => "added policy",
            Self::RemovedPolicy => "removed policy",
            Self::AddedBlock => "added block device",
            Self::RemovedBlock => "removed block",
            Self::SetBlock => "set block device",
        }
    }
}

/// What follows from the end of a unikernel that nobody asked for, or from its failure to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It is tried again in so many seconds.
    Rest {
        /// So many.
        seconds: i64,
        /// Short runs and failed starts in a row.
        failures: i64,
    },
    /// It is started again at once.
    Again {
        /// How often it was started again, since `vmmd` started.
        restarts: i64,
    },
    /// It is over.
    Never,
    /// It does not run, and nothing is said about when it will.
    Stays,
}

/// Why events were lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The log daemon was not there, and more happened than can wait for it.
    Away,
    /// The log's disk took no more.
    Disk,
    /// The log daemon or its host stopped while it wrote: the count is of bytes.
    Torn,
    /// More commands were refused than the log takes in a minute.
    Refusals,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A daemon started.
    Startup,
    /// A client came.
    Login(Login),
    /// A client went.
    Logout(Login),
    /// What proved who a client is that came from afar.
    Proof {
        /// What it came for.
        name: Name,
        /// The serial numbers of its certificates, in hex, from the one that the CA has signed to its own.
        serials: Text<'a>,
    },
    /// A unikernel was started.
    Start {
        /// Its name.
        name: Name,
        /// Its process.
        pid: i64,
        /// Its network interfaces on the host.
        taps: List<'a, &'a str>,
        /// Its block device.
        block: Option<&'a str>,
    },
    /// A unikernel ended.
    Stop {
        /// Its name.
        name: Name,
        /// Its process.
        pid: i64,
        /// How it ended.
        status: ExitStatus,
    },
    /// The daemon was told to open its files again.
    Hup,
    /// One of our daemons has come up or ends.
    Daemon {
        /// Its name.
        program: &'a str,
        /// Its version.
        version: &'a str,
        /// Whether it has come up.
        up: bool,
    },
    /// A client had this done, durably.
    Done {
        /// To what.
        name: Name,
        /// What.
        deed: Deed,
        /// The user id of who asked, where that is known.
        user: Option<i64>,
    },
    /// A client was refused a change.
    Refused {
        /// Of what.
        name: Name,
        /// What it was told.
        reason: Text<'a>,
        /// The user id of who asked.
        user: Option<i64>,
    },
    /// A unikernel ended.
    Ended {
        /// Its name.
        name: Name,
        /// Its process; 0 where that is not known.
        pid: i64,
        /// How.
        end: RunEnd,
        /// Whether it was told to.
        asked: bool,
    },
    /// What follows for a unikernel that does not run.
    Decided {
        /// Its name.
        name: Name,
        /// What follows.
        next: Next,
        /// Why it does not run.
        reason: Text<'a>,
    },
    /// Certificates of a path are not valid any more.
    Revoked {
        /// The path whose holder has revoked them.
        name: Name,
        /// The number of the list of revoked certificates.
        number: i64,
        /// How many are in it.
        count: i64,
    },
    /// Something failed that nobody was waiting for: the host, a launch, a signal.
    Trouble {
        /// What it is about; the root where it is about the host.
        name: Name,
        /// What failed, and why.
        reason: Text<'a>,
    },
    /// Events before this one are missing.
    Lost {
        /// How many; bytes of a torn write.
        count: i64,
        /// Why.
        loss: Loss,
    },
}

/// The signal that stands for an end that wire version 5 has no words for: SIGKILL, by which a kernel ends what has used up
/// its memory. An end that nobody saw is given as signal 0.
const SIGKILL: i64 = 9;

impl<'a> Event<'a> {
    /// What it is about; nothing where it is about the daemons.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Startup | Self::Hup | Self::Daemon { .. } | Self::Lost { .. } => None,
            Self::Login(Login { name, .. })
            | Self::Logout(Login { name, .. })
            | Self::Proof { name, .. }
            | Self::Start { name, .. }
            | Self::Stop { name, .. }
            | Self::Done { name, .. }
            | Self::Refused { name, .. }
            | Self::Ended { name, .. }
            | Self::Decided { name, .. }
            | Self::Revoked { name, .. }
            | Self::Trouble { name, .. } => Some(name),
        }
    }

    /// Whether it is told to whoever may see `asked`: a unikernel, or a path and all below it. What is about the daemons
    /// is told at the root alone, but that something is missing concerns everybody.
    #[must_use]
    pub fn concerns(&self, asked: &Name) -> bool {
        match self.name() {
            Some(name) if asked.is_path() => asked.contains(name),
            Some(name) => asked == name,
            None => asked.is_root() || matches!(self, Self::Lost { .. }),
        }
    }

    /// The same in the words that wire version 5 has; nothing where it has none.
    #[must_use]
    pub fn historic(&self) -> Option<Self> {
        match *self {
            Self::Startup | Self::Login(_) | Self::Logout(_) | Self::Start { .. } | Self::Stop { .. } | Self::Hup => {
                Some(*self)
            }
            Self::Daemon { up: true, .. } => Some(Self::Startup),
            Self::Ended { name, pid, end, .. } => {
                let status = match end {
                    RunEnd::Code(code) => ExitStatus::Exit(code),
                    RunEnd::Signal(signal) => ExitStatus::Signal(signal),
                    RunEnd::OutOfMemory | RunEnd::Stopped => ExitStatus::Signal(SIGKILL),
                    RunEnd::Unknown => ExitStatus::Signal(0),
                };
                Some(Self::Stop { name, pid, status })
            }
            Self::Daemon { up: false, .. }
            | Self::Proof { .. }
            | Self::Done { .. }
            | Self::Refused { .. }
            | Self::Decided { .. }
            | Self::Revoked { .. }
            | Self::Trouble { .. }
            | Self::Lost { .. } => None,
        }
    }
}
