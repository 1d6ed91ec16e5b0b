//! A simulated host around the real machine of `vmmd`: journal, image store, processes, clients and a clock, any of which
//! can fail. [`World::actions`] says what can happen next, [`World::apply`] lets it happen and checks everything.
//!
//! What is lawful here is what the machine may rely on: appends end in their order, and so do the operations of the
//! image store; launches are answered in any order; a process ends when it likes, and for certain only after SIGKILL;
//! a crash keeps what is durable and, of the rest, any part.

mod act;
pub mod arrows;
mod clients;
pub mod content;
mod crash;
mod effects;
pub mod journal;
mod key;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fulmar_core::machine::{Change, Digest, Exit, Input, Machine, Now, Reply};
use fulmar_core::name::Name;

pub use self::act::{Action, ActionKind, KINDS};
use self::arrows::{Arrows, kind_of, phases};
pub use self::clients::{Known, Question};
pub use self::content::{Dump, OnDisk, SetFate, Setting};
pub use self::crash::Crash;
pub use self::journal::{Fate, Journal, Kept, Laid, Rest, State};
pub use crate::drive::run;
use crate::invariants;

/// What has gone wrong.
pub type Violation = String;

/// Something for the worker that owns the image store.
#[derive(Clone, Debug)]
pub enum StoreTask {
    /// Store this image for the slot.
    Store {
        /// Which slot asked.
        slot: u16,
        /// Index of the image.
        image: usize,
    },
    /// Look into a stored image once more for the slot.
    Inspect {
        /// Which slot asked.
        slot: u16,
        /// The image.
        digest: Digest,
    },
    /// Remove one.
    Release(Digest),
    /// Remove all but these.
    Collect(BTreeSet<Digest>),
    /// Make the file of a block device.
    MakeBlock {
        /// Which slot asked.
        slot: u16,
        /// Its name.
        name: Name,
        /// Its size, MiB.
        size_mb: u64,
        /// What is on it.
        content: u64,
    },
    /// Remove the file of a block device.
    RemoveBlock {
        /// Which slot asked.
        slot: u16,
        /// Its name.
        name: Name,
    },
}

/// An append that was given out.
#[derive(Clone, Debug)]
pub struct Append {
    /// What the machine calls it.
    pub change: Change,
    /// The bytes.
    pub record: Laid,
}

/// A launch that was given out.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The number.
    pub unit: u64,
    /// The account.
    pub account: u16,
    /// Exit codes for which it runs again, as it was asked for; `None` where never.
    pub fail: Option<Vec<i64>>,
    /// Whether it is told its label.
    pub named: bool,
    /// Its block devices.
    pub blocks: Vec<Name>,
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Under which account.
    pub account: u16,
    /// When it runs again.
    pub fail: Option<Vec<i64>>,
    /// Whether it was told its label.
    pub named: bool,
    /// Its block devices.
    pub blocks: Vec<Name>,
    /// When it was asked to end, milliseconds.
    pub terminated_ms: Option<u64>,
    /// Whether it was sent SIGKILL.
    pub killed: bool,
}

/// How much may still go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Failing operations.
    pub faults: u32,
    /// Crashes.
    pub crashes: u32,
    /// Commands.
    pub commands: u32,
}

/// Where to crash in a run that is repeated: before or after this effect is carried out, without telling the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashPoint {
    /// The number of the effect, counted from 0.
    pub effect: usize,
    /// Whether it has been carried out.
    pub carried_out: bool,
}

/// The whole.
#[derive(Clone)]
pub struct World<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> {
    /// What is tested.
    pub machine: Box<Machine<U, P, B, C, A>>,
    /// Its journal.
    pub journal: Journal,
    /// Images in the store.
    pub images: BTreeSet<Digest>,
    /// Sizes of the files of block devices, MiB.
    pub block_files: BTreeMap<Name, u64>,
    /// What is on them.
    pub contents: BTreeMap<Name, OnDisk>,
    /// Sets that are under way.
    pub settings: Vec<Setting>,
    /// Dumps that are under way.
    pub dumps: Vec<Dump>,
    /// For the worker of the image store and the block devices, in order.
    pub store_tasks: VecDeque<StoreTask>,
    /// For the worker of the journal, in order.
    pub appends: VecDeque<Append>,
    /// Launches that are under way.
    pub launches: Vec<Launch>,
    /// Processes that run, by unit.
    pub processes: BTreeMap<u64, Process>,
    /// Units whose end was told to the machine, and how: of those that it still has.
    pub ended: BTreeMap<u64, (Exit, bool)>,
    /// What each client waits for.
    pub clients: Vec<Option<Question>>,
    /// Commands whose client has hung up.
    pub orphans: Vec<Question>,
    /// What clients know to be so.
    pub known: Known,
    /// Units for which something was made to fail.
    pub faulted: BTreeSet<u64>,
    /// Whether the last append has failed.
    pub append_failed: bool,
    /// The time.
    pub now: Now,
    /// Index of what the host has.
    pub host: usize,
    /// Whether the host has ever had less than before.
    pub shrunk: bool,
    /// What may still go wrong.
    pub budget: Budget,
    /// Where to crash.
    pub crash_point: Option<CrashPoint>,
    /// Effects that were carried out.
    pub effects: usize,
    /// The last reply that a client got.
    pub last_reply: Reply,
    /// How often things happened, for the report of a run.
    pub marks: BTreeMap<&'static str, u64>,
    /// How the machine went from phase to phase, where somebody wants to know.
    pub arrows: Option<Arrows>,
    sequence: u64,
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> World<U, P, B, C, A> {
    /// A host that has just started, without anything.
    ///
    /// # Errors
    /// What is wrong already.
    pub fn new(budget: Budget) -> Result<Self, Violation> {
        let mut world = Self {
            machine: Box::default(),
            journal: Journal::default(),
            images: BTreeSet::new(),
            block_files: BTreeMap::new(),
            contents: BTreeMap::new(),
            settings: Vec::new(),
            dumps: Vec::new(),
            store_tasks: VecDeque::new(),
            appends: VecDeque::new(),
            launches: Vec::new(),
            processes: BTreeMap::new(),
            ended: BTreeMap::new(),
            clients: vec![None; C],
            orphans: Vec::new(),
            known: Known::default(),
            faulted: BTreeSet::new(),
            append_failed: false,
            now: Now { ms: 1_000, wall_ms: 1_700_000_000_000 },
            host: 0,
            shrunk: false,
            budget,
            crash_point: None,
            effects: 0,
            last_reply: Reply::None,
            marks: BTreeMap::new(),
            arrows: None,
            sequence: 0,
        };
        world.tell_host(0)?;
        world.handle(Input::Start)?;
        world.finish_step()?;
        Ok(world)
    }

    /// Gives an input to the machine and takes in all its effects.
    pub(crate) fn handle(&mut self, input: Input<'_>) -> Result<(), Violation> {
        let (kind, before) = (kind_of(&input), self.arrows.is_some().then(|| phases(&self.machine)));
        self.machine.handle(self.now, input);
        if let (Some(arrows), Some(before)) = (&self.arrows, before) {
            arrows.note(&before, kind, &phases(&self.machine));
        }
        self.drain()
    }

    pub(crate) fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    /// Checks everything, after a step.
    pub(crate) fn finish_step(&mut self) -> Result<(), Violation> {
        self.settle_orphans();
        let machine = &self.machine;
        self.ended.retain(|unit, _| machine.unikernels().any(|(_, it)| it.unit() == *unit));
        invariants::check(self)
    }

    /// Whether nothing is under way but processes.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.store_tasks.is_empty()
            && self.appends.is_empty()
            && self.launches.is_empty()
            && self.settings.is_empty()
            && self.dumps.is_empty()
            && self.processes.values().all(|process| process.terminated_ms.is_none() && !process.killed)
    }

    /// Whether a command about this name is under way.
    pub(crate) fn is_asked(&self, name: &Name, wanted: impl Fn(&Question) -> bool) -> bool {
        let waiting = self.clients.iter().flatten().chain(&self.orphans);
        waiting.into_iter().any(|question| question.ask.name == *name && wanted(question))
    }
}
