//! All that goes into the machine and all that comes out of it.

use super::outcome::{BlockFileError, Exit, JournalError, StoreError, StoredImage};
use super::unikernel::Digest;
use crate::halves::{LaunchError, Unit};
use crate::name::Name;
use crate::policy::Policy;
use crate::wire::{Command, Header};

/// What time it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub ms: u64,
    /// Unix milliseconds, for people only.
    pub wall_ms: i64,
}

/// What the host can do, beside the root policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tenders {
    /// hvt images can run.
    pub hvt: bool,
    /// spt images can run.
    pub spt: bool,
    /// What runs them is Solo5's own program and not ours: it is told otherwise where its fds are.
    pub solo5: bool,
    /// Virtual machines of bhyve can run, under names with this in them ([`crate::halves::machine_name`]).
    pub bhyve: Option<u32>,
}

/// An image, or the content of a block device, that has arrived whole and waits in the spool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Spooled {
    /// The caller's number for it.
    pub spool: u32,
}

/// Where the new content of a block device comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// From the chunks that this connection sends.
    Chunks {
        /// The connection.
        connection: u16,
    },
    /// It came with the command; nothing where it is empty.
    Message(Option<Spooled>),
}

/// A record that is being made durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// The unikernel in this slot.
    Unikernel(u16),
    /// The removal of the unikernel in this slot.
    UnikernelGone(u16),
    /// The policy in this slot.
    Policy(u16),
    /// The removal of the policy in this slot.
    PolicyGone(u16),
    /// The block device in this slot.
    Block(u16),
    /// The removal of the block device in this slot.
    BlockGone(u16),
}

/// Everything that can happen.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// What the host has: at the start, and again when its bridges have changed.
    Host {
        /// The root policy.
        root: &'a Policy,
        /// Which images it can run.
        tenders: Tenders,
    },
    /// Who may name zvols as disks of virtual machines: unikernels of this path, and of none below it. Before [`Input::Start`].
    Zvols {
        /// The path.
        path: &'a Name,
    },
    /// What was found of the file of a restored block device. Between [`super::Machine::restore`] and [`Input::Start`].
    BlockFile {
        /// The slot.
        slot: u16,
        /// Its bytes; nothing where there is none.
        bytes: Option<u64>,
    },
    /// A process of a predecessor still runs. Between [`super::Machine::restore`] and [`Input::Start`].
    Survivor {
        /// Its number.
        unit: Unit,
        /// The account that it runs under.
        account: u16,
        /// When it started, unix milliseconds.
        started_wall_ms: i64,
        /// Whether it was told to end, and has not yet.
        told: bool,
    },
    /// A process of a predecessor has ended while nobody watched, and how is known. Between
    /// [`super::Machine::restore`] and [`Input::Start`].
    Ended {
        /// Its number.
        unit: Unit,
        /// How.
        exit: Exit,
    },
    /// Everything is restored: bring up what is desired.
    Start,
    /// A client asks.
    Command {
        /// The connection, below the bound of connections; it has no other command under way.
        connection: u16,
        /// Its header, to be repeated in the reply.
        header: &'a Header,
        /// What it asks for.
        command: &'a Command<'a>,
        /// The image of a create, the content that comes with a command.
        image: Option<Spooled>,
    },
    /// How [`Effect::Store`] or [`Effect::Inspect`] ended.
    Stored {
        /// The slot.
        slot: u16,
        /// What came of it.
        outcome: Result<StoredImage<'a>, StoreError>,
    },
    /// How [`Effect::MakeBlock`] ended.
    BlockMade {
        /// The slot.
        slot: u16,
        /// What came of it.
        outcome: Result<(), BlockFileError>,
    },
    /// [`Effect::RemoveBlock`] is done as far as it can be: what is left is left to the next start.
    BlockRemoved {
        /// The slot.
        slot: u16,
    },
    /// How [`Effect::SetContent`] ended. After an error the old content is there, unless the error says otherwise.
    ContentSet {
        /// The slot.
        slot: u16,
        /// What came of it.
        outcome: Result<(), BlockFileError>,
    },
    /// One that was told [`super::Reply::Dump`] has read all of it, or is gone: the file is closed.
    Dumped {
        /// The slot of the block device.
        slot: u16,
    },
    /// How [`Effect::Launch`] ended.
    Launched {
        /// The number.
        unit: Unit,
        /// What came of it.
        outcome: Result<(), LaunchError>,
    },
    /// How [`Effect::Append`] ended. After an error nothing of the change may come back, except by a crash that
    /// happens before the journal was written again.
    Appended {
        /// The change.
        change: Change,
        /// What came of it.
        outcome: Result<(), JournalError>,
    },
    /// A process has ended.
    Exited {
        /// Its number.
        unit: Unit,
        /// How.
        exit: Exit,
    },
    /// A client is gone; what it asked for goes on.
    HangUp {
        /// The connection.
        connection: u16,
    },
    /// A deadline has passed.
    Tick,
}

/// What is to be done now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Send [`super::Machine::reply`] of this connection.
    Reply {
        /// The connection.
        connection: u16,
    },
    /// Check and store the image of this slot durably.
    Store {
        /// The slot.
        slot: u16,
    },
    /// Look into the stored image of this slot once more, and answer as for [`Effect::Store`].
    Inspect {
        /// The slot.
        slot: u16,
    },
    /// Remove this image: no record and no slot names it.
    Release {
        /// Which.
        digest: Digest,
    },
    /// Remove all images for which [`super::Machine::uses`] is false.
    Collect,
    /// Make the file of the block device in this slot, of its size, durably. One that is there is left over from before.
    MakeBlock {
        /// The slot.
        slot: u16,
        /// What is on it from the start; zeros follow.
        content: Option<Spooled>,
    },
    /// Give the block device in this slot another content, wholly and durably, or leave the old one; zeros follow.
    SetContent {
        /// The slot.
        slot: u16,
        /// Where it comes from.
        source: Source,
    },
    /// Remove the file of the block device in this slot: no record names it.
    RemoveBlock {
        /// The slot.
        slot: u16,
    },
    /// Launch the tender of this slot by [`super::Machine::launch_plan`].
    Launch {
        /// The slot.
        slot: u16,
    },
    /// Append [`super::Machine::record`] of this change and make it durable.
    Append(Change),
    /// Send a signal.
    Signal {
        /// To which.
        unit: Unit,
        /// SIGKILL instead of SIGTERM.
        kill: bool,
    },
    /// A desired unikernel does not run now: say why.
    Rest {
        /// The slot.
        slot: u16,
    },
}
