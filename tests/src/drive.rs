//! Runs of the world: what happens next is chosen by somebody, and what is left of a failing run after shrinking is shown.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fulmar_core::machine::{BlockStage, Trouble};

use crate::ask::{Ask, BLOCKS, FAILS, HOSTS_OF_ONE, NAMES, OCTETS, PATHS, PolicySpec, Spec, Wish, name};
use crate::choose::{Choose, Seeded};
use crate::images::IMAGES;
use crate::world::{Action, ActionKind, Budget, Crash, CrashPoint, Fate, KINDS, SetFate, Violation, World};

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Things that happen.
    pub steps: usize,
    /// What may go wrong.
    pub budget: Budget,
}

impl Plan {
    /// A usual run.
    pub const USUAL: Self = Self { steps: 300, budget: Budget { faults: 12, crashes: 5, commands: 200 } };
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// In this order.
    pub actions: Vec<Action>,
    /// How often what happened.
    pub marks: BTreeMap<&'static str, u64>,
}

/// One run of usual length with a machine so small that everything is full now and then. For fuzzers: it panics when something is wrong.
///
/// # Panics
/// When something is wrong; what is left of the run after shrinking is told.
pub fn run(choices: &mut dyn Choose) {
    let mut log = Log::default();
    if let Err(violation) = run_once::<8, 12, 6, 4, 4096>(choices, Plan::USUAL, &mut log) {
        panic!("{violation}\n{}", shrunk::<8, 12, 6, 4, 4096>(log.actions, Plan::USUAL.budget));
    }
}

/// How likely each kind is in one run; some are left out (swarm testing).
fn weights(choices: &mut dyn Choose) -> Vec<(ActionKind, u32)> {
    let weight = |kind: ActionKind, choices: &mut dyn Choose| match kind {
        ActionKind::Store | ActionKind::Append | ActionKind::Launch => choices.pick(&[4, 8, 16]),
        ActionKind::Content => choices.pick(&[1, 4, 8]),
        ActionKind::Create => choices.pick(&[4, 8, 16]),
        ActionKind::Replace => choices.pick(&[0, 2, 8]),
        ActionKind::Crash | ActionKind::Fault => choices.pick(&[0, 1, 2]),
        ActionKind::Host => choices.pick(&[0, 0, 1]),
        ActionKind::Compact | ActionKind::Wait | ActionKind::HangUp => choices.pick(&[0, 1, 2]),
        _ => choices.pick(&[0, 1, 4, 8]),
    };
    KINDS.iter().map(|kind| (*kind, weight(*kind, choices))).collect()
}

/// What happens next.
fn choose_action<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    weights: &[(ActionKind, u32)],
    choices: &mut dyn Choose,
) -> Action {
    let total = weights.iter().map(|(_, weight)| weight).sum();
    let mut ticket = choices.below(total);
    let drawn = weights.iter().find(|(_, weight)| match ticket.checked_sub(*weight) {
        Some(rest) => {
            ticket = rest;
            false
        }
        None => true,
    });
    let kind = drawn.map_or(ActionKind::Wait, |(kind, _)| *kind);
    if let Some(wish) = choose_wish(kind, choices)
        && let Some(connection) = world.free_connection()
    {
        if let Wish::Create(spec) = wish
            && let Some(ask) = on_present_block(world, spec, choices)
        {
            return Action::Ask(connection, ask);
        }
        let wish = alike(world, wish, choices);
        let place = match wish {
            Wish::PolicyAdd(_) | Wish::PolicyRemove | Wish::PolicyInfo => choices.pick(&PATHS),
            Wish::BlockInfo if choices.once_in(2) => choices.pick(&PATHS),
            Wish::BlockAdd(_) if choices.once_in(20) => choices.pick(&PATHS),
            Wish::BlockSet | Wish::BlockOldSet(_) | Wish::BlockDump(..) if !choices.once_in(6) => {
                let present: Vec<_> = world.machine.blocks().map(|(_, block)| *block.name()).collect();
                let chosen = present.get(choices.index(present.len())).copied();
                return Action::Ask(connection, Ask { name: chosen.unwrap_or(name(BLOCKS[0])), wish });
            }
            Wish::BlockAdd(_)
            | Wish::BlockRemove
            | Wish::BlockInfo
            | Wish::BlockSet
            | Wish::BlockOldSet(_)
            | Wish::BlockOldAdd(..)
            | Wish::BlockDump(..) => choices.pick(&BLOCKS),
            Wish::Info | Wish::Condition if choices.once_in(2) => choices.pick(&PATHS),
            Wish::Create(_) if choices.once_in(20) => choices.pick(&PATHS),
            Wish::Destroy | Wish::Get(_) | Wish::Restart | Wish::ForceCreate(_) | Wish::RestartWith(_)
                if !choices.once_in(4) =>
            {
                let present: Vec<_> = world.machine.unikernels().map(|(_, unikernel)| *unikernel.name()).collect();
                let chosen = present.get(choices.index(present.len())).copied();
                return Action::Ask(connection, Ask { name: chosen.unwrap_or(name(NAMES[0])), wish });
            }
            _ => NAMES[choices.index(NAMES.len().min(U + 2))],
        };
        return Action::Ask(connection, Ask { name: name(place), wish });
    }
    let mut possible = world.happenings();
    possible.retain(|action| action.kind() == kind);
    if possible.is_empty() { Action::Wait(1) } else { possible[choices.index(possible.len())] }
}

/// A restart whose devices are often those of some unikernel: by chance alone most would be refused.
fn alike<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    wish: Wish,
    choices: &mut dyn Choose,
) -> Wish {
    let Wish::RestartWith(spec) = wish else { return wish };
    let stored: Vec<_> = world.machine.unikernels().filter_map(|(_, unikernel)| unikernel.digest().copied()).collect();
    let chosen = stored.get(choices.index(stored.len()));
    let image = chosen.and_then(|digest| IMAGES.iter().position(|image| image.digest == *digest)).unwrap_or(spec.image);
    let bridge = if matches!(image, 2 | 3 | 7) { Some("br0") } else { None };
    let blocks: &[&str] = if image == 6 { &["storage"] } else { &[] };
    Wish::RestartWith(Spec { image, bridge, blocks, ..spec })
}

/// A create that wants one block device, moved to where there is one: by chance alone that is rare.
fn on_present_block<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    spec: Spec,
    choices: &mut dyn Choose,
) -> Option<Ask> {
    if spec.blocks.len() != 1 || choices.once_in(4) {
        return None;
    }
    let present: Vec<_> = world.machine.blocks().map(|(_, block)| *block.name()).collect();
    let block = present.get(choices.index(present.len()))?;
    let blocks = HOSTS_OF_ONE.into_iter().find(|hosts| hosts.first() == block.label().as_ref())?;
    let near: Vec<_> = NAMES.into_iter().map(name).filter(|name| name.path() == block.path()).collect();
    let chosen = near.get(choices.index(near.len()))?;
    Some(Ask { name: *chosen, wish: Wish::Create(Spec { blocks, ..spec }) })
}

fn choose_wish(kind: ActionKind, choices: &mut dyn Choose) -> Option<Wish> {
    Some(match kind {
        ActionKind::Create => Wish::Create(Spec::choose(choices)),
        ActionKind::Replace => match choices.below(6) {
            0 => Wish::Restart,
            1 | 2 => Wish::RestartWith(Spec::choose(choices)),
            3 => Wish::ForceCreate(Spec::choose(choices)),
            // Of any, most are refused.
            _ => {
                let (memory_mb, fail) = (choices.pick(&[16, 48]), choices.pick(&FAILS));
                Wish::ForceCreate(Spec { image: choices.index(2), memory_mb, fail, ..Spec::PLAIN })
            }
        },
        ActionKind::Destroy => Wish::Destroy,
        ActionKind::Query => {
            choices.pick(&[Wish::Info, Wish::Condition, Wish::Get(-1), Wish::Get(99), Wish::PolicyInfo, Wish::Unknown])
        }
        ActionKind::Block if choices.once_in(3) => {
            choices.pick(&[Wish::BlockRemove, Wish::BlockRemove, Wish::BlockInfo])
        }
        ActionKind::Block if choices.once_in(2) => match choices.below(5) {
            0 => Wish::BlockOldAdd(choices.pick(&[1, 2, 5, 0]), choices.pick(&OCTETS)),
            1 => Wish::BlockOldSet(choices.pick(&OCTETS)),
            2 => Wish::BlockDump(choices.pick(&[0, 9, -1, 99]), choices.once_in(3)),
            _ => Wish::BlockSet,
        },
        ActionKind::Block => Wish::BlockAdd(choices.pick(&[1, 2, 2, 5, 10, 0, -1, i64::MAX >> 2])),
        ActionKind::Policy if choices.once_in(4) => Wish::PolicyRemove,
        ActionKind::Policy => Wish::PolicyAdd(PolicySpec::choose(choices)),
        _ => return None,
    })
}

/// One run, and then until everything is quiet.
///
/// # Errors
/// What has gone wrong; the log says when.
pub fn run_once<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    choices: &mut dyn Choose,
    plan: Plan,
    log: &mut Log,
) -> Result<(), Violation> {
    let mut world = World::<U, P, B, C, A>::new(plan.budget)?;
    let weights = weights(choices);
    for _ in 0..plan.steps {
        if choices.is_exhausted() {
            break;
        }
        let action = choose_action(&world, &weights, choices);
        log.actions.push(action);
        world.apply(&action)?;
    }
    let settled = settle(&mut world);
    log.marks = world.marks;
    settled
}

/// The same things again.
///
/// # Errors
/// What has gone wrong.
pub fn replay<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    actions: &[Action],
    budget: Budget,
) -> Result<(), Violation> {
    let mut world = World::<U, P, B, C, A>::new(budget)?;
    actions.iter().try_for_each(|action| world.apply(action))?;
    settle(&mut world)
}

/// Nothing fails any more: everything that is under way comes to its end, and time passes until all that is desired runs
/// or is not allowed to.
///
/// # Errors
/// What has gone wrong, or that it takes too long.
pub fn settle<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &mut World<U, P, B, C, A>,
) -> Result<(), Violation> {
    let steps_max = 60 + 20 * U + 10 * B;
    for _ in 0..steps_max {
        let Some(action) = next_to_settle(world) else { return Ok(()) };
        world.apply(&action).map_err(|violation| format!("while settling, {action:?}: {violation}"))?;
    }
    Err(format!("not quiet after {steps_max} steps without faults"))
}

/// What happens next where nothing fails any more; nothing when all is quiet.
#[must_use]
pub fn next_to_settle<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Option<Action> {
    if !world.appends.is_empty() {
        return Some(Action::Append(u8::MAX, Fate::Durable));
    }
    if !world.store_tasks.is_empty() {
        return Some(Action::Store(true));
    }
    if !world.launches.is_empty() {
        return Some(Action::Launch(0, true));
    }
    if !world.settings.is_empty() {
        return Some(Action::Set(0, SetFate::Done));
    }
    if !world.dumps.is_empty() {
        return Some(Action::Dumped(0));
    }
    let dying = world.processes.iter().find(|(_, process)| process.killed);
    if let Some((unit, _)) = dying {
        return Some(Action::Exit(*unit, fulmar_core::machine::Exit::Signal(9)));
    }
    // What does not heed SIGTERM gets SIGKILL in time; what is not allowed may rest for ever.
    let stopping = world.processes.values().any(|process| process.terminated_ms.is_some());
    let resting = world.machine.unikernels().any(|(_, unikernel)| {
        unikernel.life() == fulmar_core::machine::Life::None && !matches!(unikernel.trouble(), Trouble::Refused(_))
    });
    let undoing = world.machine.blocks().any(|(_, block)| matches!(block.stage(), BlockStage::Undoing(_)));
    (stopping || resting || undoing).then_some(Action::Tick(0))
}

/// Runs one seed; a failure is shrunk and told.
///
/// # Panics
/// When something has gone wrong.
pub fn run_seed<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    seed: u64,
    plan: Plan,
) -> BTreeMap<&'static str, u64> {
    let mut log = Log::default();
    let outcome = guarded(|| run_once::<U, P, B, C, A>(&mut Seeded::new(seed), plan, &mut log));
    if let Err(violation) = outcome {
        panic!("SEED={seed}: {violation}\n{}", shrunk::<U, P, B, C, A>(log.actions, plan.budget));
    }
    log.marks
}

/// What is left of a failing run after shrinking, in words.
#[must_use]
pub fn shrunk<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    actions: Vec<Action>,
    budget: Budget,
) -> String {
    let actions = shrink::<U, P, B, C, A>(actions, budget);
    let last = guarded(|| replay::<U, P, B, C, A>(&actions, budget)).err().unwrap_or_default();
    let lines: Vec<String> = actions.iter().map(|action| format!("    {action:?}")).collect();
    format!("shrunk to {}:\n{}\n{last}", actions.len(), lines.join("\n"))
}

fn guarded(run: impl FnOnce() -> Result<(), Violation>) -> Result<(), Violation> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it panicked, see above".into()))
}

/// Leaves out whatever the failure does not need.
fn shrink<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    mut actions: Vec<Action>,
    budget: Budget,
) -> Vec<Action> {
    let fails = |actions: &[Action]| guarded(|| replay::<U, P, B, C, A>(actions, budget)).is_err();
    let mut piece = actions.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < actions.len() {
            let mut fewer = actions.clone();
            fewer.drain(at..actions.len().min(at + piece));
            if fails(&fewer) {
                actions = fewer;
            } else {
                at += piece;
            }
        }
        piece = if piece > 1 && fails(&actions) { piece / 2 } else { 0 };
    }
    actions
}

/// Plays a script, counts its effects, and plays it again with a crash before and after each of them. Returns the number
/// of runs.
///
/// # Errors
/// What has gone wrong, and where.
pub fn crash_everywhere<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    script: &[Action],
) -> Result<usize, Violation> {
    let budget = Budget { faults: 8, crashes: 0, commands: 100 };
    let play = |crash_point: Option<CrashPoint>| -> Result<usize, Violation> {
        let mut world = World::<U, P, B, C, A>::new(budget)?;
        world.crash_point = crash_point;
        for action in script {
            world.apply(action)?;
        }
        settle(&mut world)?;
        Ok(world.effects)
    };
    let effects = play(None)?;
    for effect in 0..effects {
        for carried_out in [false, true] {
            play(Some(CrashPoint { effect, carried_out }))
                .map_err(|violation| format!("crash {effect} of {effects}, carried out {carried_out}: {violation}"))?;
        }
    }
    Ok(effects * 2)
}

/// Crashes that are tried after every step of a script, beside those at its effects.
///
/// # Errors
/// What has gone wrong, and where.
pub fn crash_every_way<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    script: &[Action],
) -> Result<usize, Violation> {
    let mut world = World::<U, P, B, C, A>::new(Budget { faults: 8, crashes: 1, commands: 100 })?;
    let mut runs = 0;
    for (index, action) in script.iter().enumerate() {
        world.apply(action)?;
        for crash in Crash::some() {
            let mut other = world.clone();
            let crashed = other.apply(&Action::Crash(crash)).and_then(|()| settle(&mut other));
            crashed.map_err(|violation| format!("{crash:?} after step {index}: {violation}"))?;
            runs += 1;
        }
    }
    Ok(runs)
}
