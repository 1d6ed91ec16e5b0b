//! One unikernel in the machine: what is wanted of it, what has become of it, and when to look again.
//!
//! Two things change on their own: the [`Stage`] of what was asked for, and the [`Life`] of the process. Every input
//! moves one of them; what follows is decided from the pair.

use super::arena::Span;
use super::ledger::Usage;
use super::outcome::{End, Exit, Trouble};
use super::refusal::Refusal;
use super::table::Named;
use crate::halves::Tender;
use crate::name::Name;
use crate::wire::FailBehaviour;

/// SHA-256 of an image, uncompressed.
pub type Digest = [u8; 32];

/// How far the wish has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)] // a tag of its own, 0 for the first: see `Machine::new`
pub enum Stage {
    /// The slot is free.
    Free,
    /// The image is being stored.
    Storing,
    /// A successor whose image and arguments are right: the process of the one whose place it takes must end first.
    Waiting,
    /// The process is being launched, nothing is durable yet.
    Creating,
    /// The process runs; its record is being made durable.
    Recording,
    /// The creation has failed for this reason; its process must end before the slot is free.
    Failed(Refusal),
    /// Desired: the record is durable.
    Kept,
    /// The record's removal is being made durable.
    Dropping,
    /// No longer desired; its process must end before the slot is free.
    Dropped,
}

/// What is known of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Life {
    /// There is none.
    None,
    /// The host half was asked for one.
    Launching,
    /// It runs.
    Alive,
}

/// What to do later with a desired unikernel that does not run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Again {
    /// Nothing.
    Never,
    /// Launch as soon as the host half has room.
    Queued,
    /// Launch at this time, milliseconds.
    Launch(u64),
    /// It has ended for good: record that at this time, milliseconds (the last try failed).
    Drop(u64),
    /// It has ended, and what follows is decided if the one that is to take its place fails.
    Undecided,
}

/// A stop that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stop {
    /// None.
    No,
    /// SIGTERM was sent; SIGKILL follows at this time, milliseconds.
    Terminating(u64),
    /// SIGKILL was sent.
    Killing,
}

/// The record of one unikernel.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Unikernel {
    /// Its name; never a path.
    pub(super) name: Name,
    /// How far the wish has come.
    pub(super) stage: Stage,
    /// What is known of the process.
    pub(super) life: Life,
    /// What to do later.
    pub(super) again: Again,
    /// A stop that is under way.
    pub(super) stop: Stop,
    /// Whether it is to take the place of the one of its name.
    pub(super) successor: bool,
    /// Whether somebody waits for it to be started anew.
    pub(super) restarting: bool,
    /// Whether it has ended for good: its record is to go.
    pub(super) over: bool,
    /// Whether its record, which is there, is being written once more.
    pub(super) rewriting: bool,
    /// Whether the ledger is charged for it.
    pub(super) charged: bool,
    /// Whether the one whose place it takes is charged for it in part.
    pub(super) shares: bool,
    /// That part of its memory, MiB.
    pub(super) shared_mb: u64,
    /// How many networks it has.
    pub(super) networks: u64,
    /// How many of them are charged with the place that it takes.
    pub(super) shared_networks: u64,
    /// Whether a stored image is named by `digest`.
    pub(super) stored: bool,
    /// hvt, spt or bhyve. What an image is for is known when it is stored.
    pub(super) tender: Tender,
    /// Its number towards the host half; never given twice.
    pub(super) unit: u64,
    /// The account that its process runs under.
    pub(super) account: u16,
    /// Where the spool is while the image is being stored.
    pub(super) spool: u32,
    /// Its arguments in the arena.
    pub(super) span: Span,
    /// SHA-256 of the image, uncompressed.
    pub(super) digest: Digest,
    /// Bytes of the image, uncompressed.
    pub(super) image_bytes: u64,
    /// Guest memory, MiB.
    pub(super) memory_mb: u64,
    /// Order of start: lower first.
    pub(super) startup: i64,
    /// When the process started, for people (unix milliseconds).
    pub(super) started_wall_ms: i64,
    /// When the process started, for the length of its run.
    pub(super) started_ms: u64,
    /// Short runs and failed launches in a row.
    pub(super) failures: u32,
    /// Runs in all, after the first.
    pub(super) restarts: u32,
    /// Why it does not run, or how the last run ended.
    pub(super) trouble: Trouble,
    /// How the last run ended.
    pub(super) last_end: End,
    /// When that was, for people (unix milliseconds).
    pub(super) ended_wall_ms: i64,
}

impl Named for Unikernel {
    const EMPTY: Self = Self {
        name: Name::EMPTY,
        stage: Stage::Free,
        life: Life::None,
        again: Again::Never,
        stop: Stop::No,
        successor: false,
        restarting: false,
        over: false,
        rewriting: false,
        charged: false,
        shares: false,
        shared_mb: 0,
        networks: 0,
        shared_networks: 0,
        stored: false,
        tender: Tender::Hvt,
        unit: 0,
        account: 0,
        spool: 0,
        span: Span::EMPTY,
        digest: [0; 32],
        image_bytes: 0,
        memory_mb: 0,
        startup: 0,
        started_wall_ms: 0,
        started_ms: 0,
        failures: 0,
        restarts: 0,
        trouble: Trouble::None,
        last_end: End::None,
        ended_wall_ms: 0,
    };

    fn name(&self) -> &Name {
        &self.name
    }

    fn is_successor(&self) -> bool {
        self.successor
    }
}

impl Unikernel {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How far the wish has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What is known of the process.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// What to do later.
    #[must_use]
    pub fn again(&self) -> Again {
        self.again
    }

    /// What runs it; of an image only when that is stored.
    #[must_use]
    pub fn tender(&self) -> Tender {
        self.tender
    }

    /// Its number towards the host half.
    #[must_use]
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// The spool that holds its image while it is being stored.
    #[must_use]
    pub fn spool(&self) -> u32 {
        self.spool
    }

    /// SHA-256 of its image, when that is stored.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.stored.then_some(&self.digest)
    }

    /// Bytes of its image, uncompressed.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// Guest memory, MiB.
    #[must_use]
    pub fn memory_mb(&self) -> u64 {
        self.memory_mb
    }

    /// Whether the ledger is charged for it.
    #[must_use]
    pub fn is_charged(&self) -> bool {
        self.charged
    }

    /// Runs in all, after the first, since `vmmd` started; those that were asked for are not counted.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Short runs and failed launches in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What the ledger is charged for it, if it is: one that takes a place shares the charge of that place.
    pub(super) fn usage(&self) -> Usage {
        let memory_mb = self.memory_mb.saturating_sub(self.shared_mb);
        let networks = self.networks.saturating_sub(self.shared_networks);
        Usage { unikernels: u64::from(!self.shares), memory_mb, block_mb: 0, networks }
    }

    /// Whether it is to take the place of the one of its name.
    #[must_use]
    pub fn is_successor(&self) -> bool {
        self.successor
    }

    /// Whether somebody waits for it to be started anew.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.restarting
    }

    /// Whether its process was told to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop != Stop::No
    }

    /// Why it does not run, or how the last run ended.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// Whether it is listed: its creation was acknowledged and its removal was not.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        matches!(self.stage, Stage::Kept | Stage::Dropping | Stage::Dropped)
    }

    /// When to look at it again, milliseconds.
    pub(super) fn alarm_ms(&self) -> Option<u64> {
        match (self.stop, self.again) {
            (Stop::Terminating(at), _) | (_, Again::Launch(at) | Again::Drop(at)) => Some(at),
            _ => None,
        }
    }

    /// Whether it is to run again after `exit`, which nobody here has asked for. The peer's rule for exit codes
    /// (`docs/wire.md`, restart): 1 and 60 to 64 never (64 once without its label: `is_over`). A signal that we did not send counts as a failure too.
    pub(super) fn runs_again(fail: FailBehaviour<'_>, exit: Exit) -> bool {
        let FailBehaviour::Restart(codes) = fail else { return false };
        match exit {
            Exit::Code(1 | 60..=64) => false,
            Exit::Code(code) => codes.is_empty() || codes.iter().any(|listed| listed == i64::from(code)),
            Exit::Signal(_) | Exit::OutOfMemory | Exit::Unknown => true,
        }
    }
}
