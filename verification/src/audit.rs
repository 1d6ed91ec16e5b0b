//! Whether worlds of the same key go on alike: an abstraction that forgets too much would leave states out unseen.

use std::collections::{BTreeSet, HashMap, VecDeque};

use fulmar_tests::world::{Action, Violation};

use crate::model::{Left, Search, State};

/// What an audit has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audit {
    /// Distinct states.
    pub states: usize,
    /// Pairs of worlds of one key, reached in two ways, all of whose successors were compared.
    pub pairs: usize,
}

/// The keys of all that can follow, each with what it follows from.
fn successors(search: &Search, state: &State) -> HashMap<(u64, Left, bool), Action> {
    search.actions_at(state).into_iter().map(|action| (state.after(&action).key(), action)).collect()
}

/// Goes through up to `states_max` states; wherever one is met again that was reached in another way, all that can follow
/// from the one and from the other must be the same.
///
/// # Errors
/// Two states of one key that go on differently.
pub fn audit(search: &Search, states_max: usize) -> Result<Audit, Violation> {
    let start = search.start()?;
    let mut audit = Audit::default();
    let mut known = HashMap::from([(start.key(), start.clone())]);
    let mut queue = VecDeque::from([start]);
    while let Some(state) = queue.pop_front() {
        for action in search.actions_at(&state) {
            let next = state.after(&action);
            let Some(first) = known.get(&next.key()) else {
                if known.len() < states_max {
                    known.insert(next.key(), next.clone());
                    queue.push_back(next);
                }
                continue;
            };
            let (of_first, of_next) = (successors(search, first), successors(search, &next));
            let keys = |all: &HashMap<_, _>| all.keys().copied().collect::<BTreeSet<_>>();
            if keys(&of_first) != keys(&of_next) {
                let only = |one: &HashMap<_, Action>, other: &HashMap<_, Action>| -> Vec<Action> {
                    one.iter().filter(|(key, _)| !other.contains_key(*key)).map(|(_, action)| *action).collect()
                };
                let (one, other) = (only(&of_first, &of_next), only(&of_next, &of_first));
                return Err(format!(
                    "two worlds of one key: one goes on by {one:?}, the other by {other:?}; the second one was reached by {action:?}\n{:#?}\n{:#?}",
                    first.shown(),
                    next.shown()
                ));
            }
            audit.pairs += 1;
        }
    }
    audit.states = known.len();
    Ok(audit)
}
