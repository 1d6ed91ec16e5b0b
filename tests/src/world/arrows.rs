//! How the machine goes from phase to phase: which input has led from where to where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use fulmar_core::machine::{Again, BlockStage, Change, Input, Life, Machine, Pending, Stage, Transfer};
use fulmar_core::wire::{BlockCommand, Command, PolicyCommand, UnikernelCommand};

/// Phase, input, phase that follows.
pub type Arrow = (String, &'static str, String);

/// Arrows that were seen; all clones of a world draw the same picture.
#[derive(Clone, Debug, Default)]
pub struct Arrows(Arc<Mutex<BTreeSet<Arrow>>>);

/// What there is not yet, or not any more.
pub const NOTHING: &str = "nothing";

/// Who is in which phase.
pub(super) type Phases = BTreeMap<String, String>;

impl Arrows {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeSet<Arrow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what an input has changed.
    pub(super) fn note(&self, before: &Phases, input: &'static str, after: &Phases) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for who in before.keys().chain(after.keys().filter(|who| !before.contains_key(*who))) {
            let kind = who.split(' ').next().unwrap_or_default();
            let nothing = format!("{kind} {NOTHING}");
            let (from, to) = (before.get(who).unwrap_or(&nothing), after.get(who).unwrap_or(&nothing));
            if from != to {
                seen.insert((from.clone(), input, to.clone()));
            }
        }
    }
}

/// The phases of all that a machine has.
pub(super) fn phases<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    machine: &Machine<U, P, B, C, A>,
) -> Phases {
    let unikernels = machine.unikernels().map(|(_, it)| {
        let stage = match it.stage() {
            Stage::Failed(_) => "Failed".to_owned(),
            stage => format!("{stage:?}"),
        };
        let again = match it.again() {
            Again::Never => "",
            Again::Queued => ", queued",
            Again::Launch(_) => ", rests",
            Again::Drop(_) => ", rests, over",
            Again::Undecided => ", undecided",
        };
        let life = match it.life() {
            Life::None => "no process",
            Life::Launching => "launching",
            Life::Alive => "alive",
        };
        let role = match machine.find_successor(it.name()) {
            _ if it.is_successor() => ", successor",
            Some(_) => ", has successor",
            None => "",
        };
        let charged = if it.is_charged() { "" } else { ", not charged" };
        let restarting = if it.is_restarting() { ", restart asked" } else { "" };
        (format!("unikernel {}", it.unit()), format!("unikernel {stage}, {life}{again}{role}{restarting}{charged}"))
    });
    let blocks = machine.blocks().map(|(_, it)| {
        let stage = match it.stage() {
            BlockStage::Undoing(_) => "Undoing".to_owned(),
            stage => format!("{stage:?}"),
        };
        let held = if it.holder().is_some() { ", held" } else { "" };
        let transfer = match it.transfer() {
            Transfer::None => "",
            Transfer::Set => ", being set",
            Transfer::Dumps(_) => ", being read",
        };
        (format!("block {}", it.name()), format!("block {stage}{held}{transfer}"))
    });
    let policies = machine.ledger().slots().filter(|(_, it)| !it.path().is_root()).map(|(_, it)| {
        let stands = if it.policy().is_some() { "in force" } else { "new" };
        let pending = match it.pending() {
            Pending::None => "",
            Pending::Set(_) => ", another on its way",
            Pending::Remove => ", to be removed",
        };
        (format!("policy {}", it.path()), format!("policy {stands}{pending}"))
    });
    unikernels.chain(blocks).chain(policies).collect()
}

/// The kind of an input.
pub(super) fn kind_of(input: &Input<'_>) -> &'static str {
    match input {
        Input::Host { .. } => "host",
        Input::Zvols { .. } => "zvols",
        Input::BlockFile { .. } => "file of a block device",
        Input::Survivor { told: false, .. } => "survivor",
        Input::Survivor { told: true, .. } => "survivor, told to end",
        Input::Ended { .. } => "ended unwatched",
        Input::Start => "start",
        Input::Command { command, .. } => match command {
            Command::Unikernel(UnikernelCommand::Create(_)) => "create",
            Command::Unikernel(UnikernelCommand::ForceCreate(_)) => "force-create",
            Command::Unikernel(UnikernelCommand::Restart(None)) => "restart",
            Command::Unikernel(UnikernelCommand::Restart(Some(_))) => "restart with arguments",
            Command::Unikernel(UnikernelCommand::Destroy) => "destroy",
            Command::Policy(PolicyCommand::Add(_)) => "policy add",
            Command::Policy(PolicyCommand::Remove) => "policy remove",
            Command::Block(BlockCommand::Add { .. } | BlockCommand::OldAdd { .. }) => "block add",
            Command::Block(BlockCommand::Remove) => "block remove",
            Command::Block(BlockCommand::Set { .. } | BlockCommand::OldSet { .. }) => "block set",
            Command::Block(BlockCommand::Dump { .. } | BlockCommand::OldDump { .. }) => "block dump",
            _ => "question",
        },
        Input::Stored { outcome: Ok(_), .. } => "stored",
        Input::Stored { outcome: Err(_), .. } => "store failed",
        Input::BlockMade { outcome: Ok(()), .. } => "block made",
        Input::BlockMade { outcome: Err(_), .. } => "block not made",
        Input::BlockRemoved { .. } => "block removed",
        Input::ContentSet { .. } => "content set or not",
        Input::Dumped { .. } => "dumped",
        Input::Launched { outcome: Ok(()), .. } => "launched",
        Input::Launched { outcome: Err(_), .. } => "launch failed",
        Input::Appended { change, outcome: Ok(()) } => match change {
            Change::Unikernel(_) | Change::Policy(_) | Change::Block(_) => "record durable",
            Change::UnikernelGone(_) | Change::PolicyGone(_) | Change::BlockGone(_) => "removal durable",
        },
        Input::Appended { change, outcome: Err(_) } => match change {
            Change::Unikernel(_) | Change::Policy(_) | Change::Block(_) => "record failed",
            Change::UnikernelGone(_) | Change::PolicyGone(_) | Change::BlockGone(_) => "removal failed",
        },
        Input::Exited { .. } => "exited",
        Input::HangUp { .. } => "hang-up",
        Input::Tick => "tick",
    }
}
