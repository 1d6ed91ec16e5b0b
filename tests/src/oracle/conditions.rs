//! What clients must be told about how unikernels fare, compared with the processes that there are.

use fulmar_core::machine::{Again, Exit};
use fulmar_core::wire::{Condition, List, NamedCondition, Phase, RunEnd};

use super::absolute;
use crate::world::{Question, Violation, World};

/// Whether all that are listed are told of, and as they are.
///
/// # Errors
/// What is missing or wrong.
pub fn check_conditions<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    question: &Question,
    list: List<'_, NamedCondition<'_>>,
) -> Result<(), Violation> {
    let asked = &question.ask.name;
    let named = list.iter().map(|entry| Some((absolute(asked, &entry.name)?, entry.condition)));
    let told: Vec<_> = named.collect::<Option<_>>().ok_or("a name that is none")?;
    let below = |name| asked == name || asked.contains(name);
    let listed = world.machine.unikernels().filter(|(_, it)| it.is_listed() && below(it.name()));
    if !listed.map(|(_, unikernel)| unikernel.name()).eq(told.iter().map(|(name, _)| name)) {
        return Err(format!("{told:?} are told of"));
    }
    for (name, condition) in &told {
        let (_, unikernel) = world.machine.find(name).ok_or("one that is not there")?;
        let Condition { phase, last, next_unix_ms, reason, .. } = *condition;
        let runs = world.processes.get(&unikernel.unit());
        let resting = matches!(unikernel.again(), Again::Launch(_) | Again::Drop(_));
        let right = match (phase, runs) {
            (Phase::Running, Some(process)) => process.terminated_ms.is_none() && !process.killed,
            (Phase::Stopping, Some(_)) => true,
            (Phase::Starting, None) => !resting,
            (Phase::Resting, None) => resting,
            _ => false,
        };
        if !right || resting != next_unix_ms.is_some() || runs.is_some() == reason.is_some() {
            return Err(format!("{name} is told to fare so: {condition:?}"));
        }
        let end = last.map(|last| last.end);
        let right = match world.ended.get(&unikernel.unit()) {
            Some((Exit::Code(code), _)) => end == Some(RunEnd::Code(i64::from(*code))),
            Some((Exit::Signal(signal), _)) => end == Some(RunEnd::Signal(i64::from(*signal))),
            Some((Exit::OutOfMemory, _)) => end == Some(RunEnd::OutOfMemory),
            Some((Exit::Unknown, _)) => end == Some(RunEnd::Unknown),
            None => true,
        };
        if !right && end != Some(RunEnd::Stopped) {
            return Err(format!("{name} is told to have ended so: {condition:?}"));
        }
    }
    Ok(())
}
