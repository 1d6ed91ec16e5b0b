//! The machine of `vmmd`: every decision about unikernels, policies and block devices, and nothing else.
//!
//! ```text
//!  Input ──▶ handle ──▶ Effect* ──▶ the caller acts ──▶ Outcome as the next Input
//! ```
//! The caller hands in one [`Input`], then drains [`Machine::next_effect`] before the next one, and comes back with
//! [`Input::Tick`] when [`Machine::deadline`] has passed. Effects are small and name a slot; their bulk (record, launch
//! plan, reply) is read from the machine by reference. No time, chance, input or output of its own, no allocation.
//!
//! The ladder of a creation, each rung one effect, and what undoes it:
//! ```text
//!  admit (charge) ── Store ── Launch ── Append ── Reply
//!  release charge ◀─ Release ◀─ Signal Kill, wait for the exit
//! ```
//! One that takes the place of another of its name stops that between Store and Launch: `replace.rs`. The record is the commit point: before it nothing is promised, so a crash leaves at most a process that no record
//! names, and the next start ends it. A destruction goes the other way: first the record's removal is durable, then the
//! process ends. A unikernel that cannot run stays desired and rests. Block devices have a ladder of their own: `block.rs`.

mod arena;
mod arguments;
mod bhyve;
mod block;
mod blocks;
mod canonical;
mod condition;
mod content;
mod create;
mod destroy;
mod exchange;
mod host;
mod ledger;
mod life;
mod outcome;
mod plan;
mod policies;
mod record;
mod refusal;
mod refused;
mod replace;
mod reply;
mod restore;
mod table;
mod unikernel;

pub use self::arguments::{ArgumentsFault, DeviceName};
pub use self::block::{Block, BlockFile, BlockRefused, BlockStage, Transfer};
pub use self::exchange::{Change, Effect, Input, Now, Source, Spooled, Tenders};
pub use self::host::HOST_USES;
pub use self::ledger::{Account, Ledger, Pending, Usage};
pub use self::outcome::{BlockFileError, End, Exit, JournalError, StoreError, StoredImage, Trouble};
pub use self::plan::PlanBuffers;
pub use self::record::POLICY_BYTES_MAX;
pub use self::refusal::Refusal;
pub use self::refused::{NotAdmitted, PolicyRefused, Refused};
pub use self::reply::{Done, Reply};
pub use self::restore::RestoreError;
pub use self::unikernel::{Again, Digest, Life, Stage, Stop, Unikernel};

use self::arena::Arena;
use self::plan::Accounts;
use self::table::Table;
use crate::halves::{LaunchError, Unit};
use crate::limits::{ARENA_BYTES_MAX, BLOCKS_MAX, CONNECTIONS_MAX, POLICIES_MAX, RELEASES_MAX, SLOTS_MAX};
use crate::name::Name;
use crate::wire::{Command, Header, InfoForm, UnikernelCommand};

/// The machine of the product.
pub type Product = Machine<SLOTS_MAX, POLICIES_MAX, BLOCKS_MAX, CONNECTIONS_MAX, ARENA_BYTES_MAX>;

/// A machine small enough that all its states can be looked at.
pub type Tiny = Machine<2, 4, 2, 2, 512>;

/// Effects that one input can cause: a reply to every connection and a handful more.
const EFFECTS_MAX: usize = CONNECTIONS_MAX + 64;

/// Effects after which one input leaves the rest to the next tick.
const DUE_MAX: usize = CONNECTIONS_MAX;

/// One client.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Connection {
    sequence: u64,
    name: Name,
    waiting: Waiting,
    reply: Reply,
}

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Waiting {
    Nothing,
    Unikernel(u16),
    Policy(u16),
    /// For the policies of a chain, of the depths whose bits are set.
    Chain(u16),
    Block(u16),
}

impl Connection {
    const EMPTY: Self = Self { sequence: 0, name: Name::EMPTY, waiting: Waiting::Nothing, reply: Reply::None };
}

/// Up to `U` unikernels, `P` policies, `B` block devices, `C` connections and `A` bytes of arguments.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Machine<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> {
    unikernels: Table<Unikernel, U>,
    ledger: Ledger<P>,
    blocks: Table<Block, B>,
    connections: [Connection; C],
    arena: Arena<A>,
    tenders: Tenders,
    /// The path whose unikernels may name zvols; no path where none may.
    zvols: Name,
    /// The highest unit that was ever given.
    last_unit: u64,
    /// Accounts of a predecessor's processes that no record names. They are being killed, and until they are gone nobody
    /// else may have their user ids: not before the next start.
    strays: Accounts,
    /// Launches that the host half has not answered.
    launching: u16,
    /// Images that are being stored.
    storing: u16,
    /// Slots that are [`Again::Queued`].
    queued: u16,
    /// Block devices that are [`BlockStage::Undoing`].
    undoing: u16,
    /// Block devices that are being set, and clients that read one.
    transfers: u16,
    /// Appends that were given out and are not answered.
    appending: u32,
    /// Whether the last append has failed: a crash could still bring back what it was to write.
    unsure: bool,
    /// Images that may go as soon as none is being stored and the journal is sure of what it says.
    releases: heapless::Vec<Digest, RELEASES_MAX>,
    /// Whether all images are to be looked through.
    collect: bool,
    /// Not later than the earliest alarm.
    alarm_ms: Option<u64>,
    effects: heapless::Vec<Effect, EFFECTS_MAX>,
    /// Effects that were given out.
    given: usize,
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Default
    for Machine<U, P, B, C, A>
{
    fn default() -> Self {
        Self::new()
    }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// A machine that knows nothing. All bytes are zero: as a `static` it costs memory only where it is used.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            unikernels: Table::new(),
            ledger: Ledger::new(),
            blocks: Table::new(),
            connections: [const { Connection::EMPTY }; C],
            arena: Arena::new(),
            tenders: Tenders { hvt: false, spt: false, solo5: false, bhyve: None },
            zvols: Name::EMPTY,
            last_unit: 0,
            strays: Accounts::NONE,
            launching: 0,
            storing: 0,
            queued: 0,
            undoing: 0,
            transfers: 0,
            appending: 0,
            unsure: false,
            releases: heapless::Vec::new(),
            collect: false,
            alarm_ms: None,
            effects: heapless::Vec::new(),
            given: 0,
        }
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Host { root, tenders } => {
                self.ledger.set_root(root.clone());
                self.tenders = tenders;
                self.retry_refused(now);
            }
            Input::Zvols { path } => self.zvols = *path,
            Input::BlockFile { slot, bytes } => self.block_file(slot, bytes),
            Input::Survivor { unit, account, started_wall_ms, told } => {
                self.survivor(now, unit, account, started_wall_ms, told);
            }
            Input::Ended { unit, exit } => self.ended_unwatched(now, unit, exit),
            Input::Start => self.start(now),
            Input::Command { connection, header, command, image } => {
                self.command(now, connection, header, command, image);
            }
            Input::Stored { slot, outcome } => self.stored(now, slot, outcome),
            Input::BlockMade { slot, outcome } => self.block_made(slot, outcome),
            Input::BlockRemoved { slot } => self.block_removed(slot),
            Input::ContentSet { slot, outcome } => self.content_set(slot, outcome),
            Input::Dumped { slot } => self.dumped(slot),
            Input::Launched { unit, outcome } => self.launched(now, unit, outcome),
            Input::Appended { change, outcome } => self.appended(now, change, outcome),
            Input::Exited { unit, exit } => self.exited(now, unit, exit),
            Input::HangUp { connection } => self.hang_up(connection),
            Input::Tick => self.tick(now),
        }
        self.launch_queued();
        self.release_images();
        self.undo_blocks(now);
    }

    /// The next thing to do; to be drained before the next input.
    pub fn next_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.get(self.given).copied();
        if effect.is_some() {
            self.given = self.given.saturating_add(1);
        } else {
            self.effects.clear();
            self.given = 0;
        }
        effect
    }

    /// When to come back with [`Input::Tick`] at the latest, milliseconds. It may be early, never late.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.alarm_ms
    }

    /// The unikernel in a slot.
    #[must_use]
    pub fn unikernel(&self, slot: u16) -> Option<&Unikernel> {
        self.unikernels.get(slot).filter(|unikernel| unikernel.stage != Stage::Free)
    }

    /// The unikernel of this name.
    #[must_use]
    pub fn find(&self, name: &Name) -> Option<(u16, &Unikernel)> {
        let slot = self.unikernels.find(name)?;
        Some((slot, self.unikernel(slot)?))
    }

    /// The unikernel of this number.
    #[must_use]
    pub fn find_unit(&self, unit: Unit) -> Option<(u16, &Unikernel)> {
        self.unikernels().find(|(_, unikernel)| unikernel.unit == unit.0)
    }

    /// The one that is to take the place of the unikernel of this name.
    #[must_use]
    pub fn find_successor(&self, name: &Name) -> Option<(u16, &Unikernel)> {
        let slot = self.unikernels.find_successor(name)?;
        Some((slot, self.unikernel(slot)?))
    }

    /// All unikernels, in the order of listings, each followed by the one that is to take its place.
    pub fn unikernels(&self) -> impl Iterator<Item = (u16, &Unikernel)> {
        self.unikernels.iter()
    }

    /// Policies and their use.
    #[must_use]
    pub fn ledger(&self) -> &Ledger<P> {
        &self.ledger
    }

    /// Whether a slot names this image.
    #[must_use]
    pub fn uses(&self, digest: &Digest) -> bool {
        self.unikernels().any(|(_, unikernel)| unikernel.digest() == Some(digest))
    }

    fn effect(&mut self, effect: Effect) {
        if matches!(effect, Effect::Append(_)) {
            self.appending = self.appending.saturating_add(1);
        }
        // The bound is derived from what one input can cause; beyond it is a bug, and a lost effect would be a leak.
        let pushed = self.effects.push(effect);
        assert!(pushed.is_ok(), "more effects than one input can cause");
    }

    fn set_alarm(&mut self, at_ms: u64) {
        self.alarm_ms = Some(self.alarm_ms.map_or(at_ms, |alarm| alarm.min(at_ms)));
    }

    fn command(&mut self, now: Now, connection: u16, header: &Header, command: &Command<'_>, image: Option<Spooled>) {
        let Some(client) = self.connections.get_mut(usize::from(connection)) else { return };
        client.sequence = header.sequence;
        client.name = header.name;
        client.waiting = Waiting::Nothing;
        client.reply = Reply::None;
        let name = &header.name;
        match command {
            Command::Unikernel(UnikernelCommand::Create(config)) => self.create(now, connection, name, config, image),
            Command::Unikernel(UnikernelCommand::ForceCreate(config)) => {
                self.force_create(now, connection, name, config, image);
            }
            Command::Unikernel(UnikernelCommand::Restart(None)) => self.restart(now, connection, name),
            Command::Unikernel(UnikernelCommand::Restart(Some(arguments))) => {
                self.restart_with(now, connection, name, arguments);
            }
            Command::Unikernel(UnikernelCommand::Destroy) => self.destroy(connection, name),
            Command::Unikernel(UnikernelCommand::Get { level }) => self.get(connection, name, *level),
            Command::Unikernel(UnikernelCommand::Info) => self.info(connection, name, InfoForm::Current),
            Command::Unikernel(UnikernelCommand::OldInfo5) => self.info(connection, name, InfoForm::Old5),
            Command::Unikernel(UnikernelCommand::OldInfo4) => self.info(connection, name, InfoForm::Old4),
            Command::Unikernel(UnikernelCommand::Condition) => self.condition(now, connection, name),
            Command::Policy(command) => self.policy(connection, name, command),
            Command::Block(command) => self.block_command(connection, name, command, image),
            Command::Host if name.is_root() => self.answer(connection, Reply::Host),
            Command::Host => self.refuse(connection, Refusal::HostPath),
            Command::Console(_) | Command::Stats(_) | Command::Log(_) | Command::Events(_) | Command::Revoke { .. } => {
                self.refuse(connection, Refusal::UnknownCommand);
            }
        }
    }

    /// Answers one client.
    fn answer(&mut self, connection: u16, reply: Reply) {
        if let Some(client) = self.connections.get_mut(usize::from(connection)) {
            client.reply = reply;
            client.waiting = Waiting::Nothing;
            self.effect(Effect::Reply { connection });
        }
    }

    fn refuse(&mut self, connection: u16, refusal: Refusal) {
        self.answer(connection, Reply::Refused(refusal));
    }

    fn wait(&mut self, connection: u16, waiting: Waiting) {
        if let Some(client) = self.connections.get_mut(usize::from(connection)) {
            client.waiting = waiting;
        }
    }

    /// Answers all clients that wait for this.
    fn answer_all(&mut self, waiting: Waiting, reply: Reply) {
        for index in 0..C {
            if self.connections.get(index).is_some_and(|client| client.waiting == waiting) {
                self.answer(u16::try_from(index).unwrap_or(u16::MAX), reply);
            }
        }
    }

    fn hang_up(&mut self, connection: u16) {
        if let Some(client) = self.connections.get_mut(usize::from(connection)) {
            *client = Connection::EMPTY;
        }
    }

    fn appended(&mut self, now: Now, change: Change, outcome: Result<(), JournalError>) {
        self.appending = self.appending.saturating_sub(1);
        // After a failure the journal is not written again before it is rid of what has failed.
        self.unsure = outcome.is_err();
        match change {
            Change::Unikernel(slot) => self.recorded(now, slot, outcome),
            Change::UnikernelGone(slot) => self.dropped(now, slot, outcome),
            Change::Policy(slot) => self.policy_changed(slot, Done::AddedPolicy, outcome),
            Change::PolicyGone(slot) => self.policy_changed(slot, Done::RemovedPolicy, outcome),
            Change::Block(slot) => self.block_recorded(now, slot, outcome),
            Change::BlockGone(slot) => self.block_dropped(slot, outcome),
        }
    }

    /// Lets images go that no slot names; not while one is being stored, it could be the same, nor while a record that
    /// names one could come back.
    fn release_images(&mut self) {
        if self.storing > 0 || self.unsure {
            return;
        }
        while let Some(digest) = self.releases.pop() {
            if !self.uses(&digest) {
                self.effect(Effect::Release { digest });
            }
        }
        if core::mem::take(&mut self.collect) {
            self.effect(Effect::Collect);
        }
    }
}
