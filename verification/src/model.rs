//! The simulated host as a graph: a state is a whole [`World`] around the real machine, a step is one thing that happens.
//!
//! States of the same key (`tests/src/world/key.rs`) are one. In each, all invariants hold, and from each, once nothing fails
//! any more, all that is desired runs or rests.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fulmar_core::machine::Exit;
use fulmar_tests::ask::Ask;
use fulmar_tests::drive::{next_to_settle, shrunk};
use fulmar_tests::world::arrows::Arrows;
use fulmar_tests::world::{Action, Budget, Crash, Rest, SetFate, Violation, World};
use stateright::{Checker, HasDiscoveries, Model, Property};

/// Two unikernels, three policies (the host's among them), two block devices, two clients.
pub type Small = World<2, 3, 2, 2, 512>;

/// More steps than anything needs to come to rest.
const SETTLE_STEPS_MAX: usize = 200;

/// What can happen in a graph. Each list is what is tried at every state, as long as there is something of its kind left.
#[derive(Clone, Debug)]
pub struct Graph {
    /// What it is called.
    pub name: &'static str,
    /// What happens first, without choice.
    pub before: Vec<Action>,
    /// What clients ask for.
    pub asks: Vec<Ask>,
    /// How processes end that nobody has asked to.
    pub exits: Vec<Exit>,
    /// How `vmmd` dies.
    pub crashes: Vec<Crash>,
    /// What the host can have.
    pub hosts: Vec<u8>,
    /// Milliseconds that pass while nobody looks.
    pub waits: Vec<u64>,
    /// Whether the journal is written anew at any time.
    pub compactions: bool,
    /// How much of what may happen.
    pub left: Left,
}

/// How often what may still happen; launches, appends and so on are answered as often as they are asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Left {
    /// Commands.
    pub commands: u8,
    /// Operations that fail.
    pub faults: u8,
    /// Crashes.
    pub crashes: u8,
    /// Processes that end by themselves.
    pub exits: u8,
    /// Changes of what the host has.
    pub hosts: u8,
    /// Waits.
    pub waits: u8,
    /// Clients that hang up.
    pub hang_ups: u8,
    /// Deadlines that pass while a record waits to be written.
    pub slow: u8,
}

/// A world and what may still happen in it.
#[derive(Clone)]
pub struct State {
    /// The world.
    pub world: Small,
    /// What may still happen, beside the world's own budget.
    pub left: Left,
    /// What has gone wrong on the last step.
    pub violation: Option<Violation>,
    key: u64,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl State {
    /// What tells it from others.
    #[must_use]
    pub fn key(&self) -> (u64, Left, bool) {
        (self.key, self.left, self.violation.is_some())
    }

    /// Most of it in words.
    #[must_use]
    pub fn shown(&self) -> String {
        let world = &self.world;
        let unikernels = world.machine.unikernels().map(|(slot, it)| {
            let phase = (it.stage(), it.life(), it.again(), it.trouble(), it.failures());
            format!("{slot} {} unit {} {phase:?}", it.name(), it.unit())
        });
        let blocks =
            world.machine.blocks().map(|(slot, it)| format!("{slot} {} {:?} {:?}", it.name(), it.stage(), it.holder()));
        let (unikernels, blocks): (Vec<_>, Vec<_>) = (unikernels.collect(), blocks.collect());
        format!(
            "{unikernels:#?} {blocks:?}\nnow {}, due {:?}\ntasks {:?}\nappends {:?}\nlaunches {:?}\nprocesses {:?}\nended {:?}\n\
             clients {:?}\norphans {:?}\nknown {:?}\nfaulted {:?}\njournal {:?} or {:?}\n{:?}",
            world.now.ms,
            world.machine.deadline(),
            world.store_tasks,
            world.appends,
            world.launches,
            world.processes,
            world.ended,
            world.clients,
            world.orphans,
            world.known,
            world.faulted,
            world.journal.state(),
            world.journal.unknown(),
            self.left,
        )
    }

    fn new(world: Small, left: Left, violation: Option<Violation>) -> Self {
        let key = world.key();
        Self { world, left, violation, key }
    }

    /// What follows when this happens.
    #[must_use]
    pub fn after(&self, action: &Action) -> Self {
        let (mut world, mut left) = (self.world.clone(), self.left);
        world.marks.clear();
        match action {
            Action::Exit(unit, _) if !self.is_told(*unit) => left.exits = left.exits.saturating_sub(1),
            Action::Host(_) => left.hosts = left.hosts.saturating_sub(1),
            Action::Wait(_) => left.waits = left.waits.saturating_sub(1),
            Action::Tick(_) if !world.appends.is_empty() => left.slow = left.slow.saturating_sub(1),
            Action::HangUp(_) => left.hang_ups = left.hang_ups.saturating_sub(1),
            _ => {}
        }
        // A machine that panics must not take the whole search with it.
        let violation = catch_unwind(AssertUnwindSafe(|| world.apply(action)))
            .unwrap_or_else(|_| Err("it panicked, see above".into()))
            .err();
        let spent = |left: u32| u8::try_from(left).unwrap_or(u8::MAX);
        let Budget { faults, crashes, commands } = world.budget;
        (left.faults, left.crashes, left.commands) = (spent(faults), spent(crashes), spent(commands));
        if violation.is_some() { Self { violation, ..self.clone() } } else { Self::new(world, left, None) }
    }

    /// Whether a process was told to end.
    fn is_told(&self, unit: u64) -> bool {
        self.world.processes.get(&unit).is_some_and(|it| it.killed || it.terminated_ms.is_some())
    }

    /// What is left of a crash here: parts that there is nothing for make no difference.
    fn effective(&self, crash: Crash) -> Crash {
        let world = &self.world;
        let count = |most: u8, len: usize| most.min(u8::try_from(len).unwrap_or(u8::MAX));
        let unsettled = world.contents.values().any(|on_disk| on_disk.now != on_disk.before);
        let written = count(crash.written, world.appends.len().max(usize::from(unsettled)));
        let loose = world.journal.unknown().is_some() || (written > 0 && !world.appends.is_empty());
        let launched = count(crash.launched, world.launches.len());
        let processes = launched > 0 || !world.processes.is_empty();
        Crash {
            written,
            rest: if loose { crash.rest } else { Rest::Lost },
            stored: count(crash.stored, world.store_tasks.len().max(world.settings.len())),
            launched,
            dying: if processes { crash.dying } else { 0 },
            late: processes && crash.late,
            word: crash.word.filter(|_| processes),
            away_ms: crash.away_ms,
        }
    }
}

/// A graph that was gone through to its end.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Distinct states.
    pub states: usize,
    /// Steps that were taken, to whatever state.
    pub steps: usize,
    /// The longest way that was gone.
    pub depth: usize,
    /// How long that took.
    pub seconds: f64,
}

/// A graph that is gone through.
#[derive(Clone)]
pub struct Search {
    graph: Graph,
    arrows: Option<Arrows>,
    /// Keys of worlds from which everything comes to rest.
    settling: Arc<Mutex<HashSet<u64>>>,
}

impl Search {
    /// Of this graph.
    #[must_use]
    pub fn new(graph: Graph) -> Self {
        Self { graph, arrows: None, settling: Arc::default() }
    }

    /// The same, and notes how the machine goes from phase to phase.
    #[must_use]
    pub fn drawing(graph: Graph, arrows: Arrows) -> Self {
        Self { arrows: Some(arrows), ..Self::new(graph) }
    }

    /// Goes through all states there are.
    ///
    /// # Errors
    /// What goes wrong, and the way there.
    pub fn go_through(&self) -> Result<Found, Violation> {
        let begun = Instant::now();
        self.start()?;
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let search = self.clone().checker().threads(threads).finish_when(HasDiscoveries::Any);
        // By depth: what waits to be looked at is little then.
        let checker = search.spawn_dfs().join();
        if let Some(path) = checker.discoveries().into_values().next() {
            let violation = match path.last_state() {
                State { violation: Some(violation), .. } => violation.clone(),
                state => self.settle(state).err().unwrap_or_default(),
            };
            let actions = self.before().chain(path.into_actions()).collect();
            let budget = Budget { faults: 99, crashes: 99, commands: 99 };
            return Err(format!("{violation}\n{}", shrunk::<2, 3, 2, 2, 512>(actions, budget)));
        }
        if !checker.is_done() {
            return Err("it was not gone through to its end".into());
        }
        let (states, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
        Ok(Found { states, steps, depth, seconds: begun.elapsed().as_secs_f64() })
    }

    fn settling(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens before the first state. What never ran began at 0: when this has passed that is long ago, and stays so.
    fn before(&self) -> impl Iterator<Item = Action> {
        [Action::Wait(20_000)].into_iter().chain(self.graph.before.iter().copied())
    }

    /// The first state.
    ///
    /// # Errors
    /// What goes wrong even before.
    pub fn start(&self) -> Result<State, Violation> {
        let Left { commands, faults, crashes, .. } = self.graph.left;
        let mut world = Small::new(Budget { faults: u32::MAX, crashes: u32::MAX, commands: u32::MAX })?;
        for action in self.before() {
            world.apply(&action)?;
        }
        world.arrows.clone_from(&self.arrows);
        world.budget = Budget { faults: faults.into(), crashes: crashes.into(), commands: commands.into() };
        Ok(State::new(world, self.graph.left, None))
    }

    /// All that can happen at a state.
    #[must_use]
    pub fn actions_at(&self, state: &State) -> Vec<Action> {
        let (world, graph, left) = (&state.world, &self.graph, state.left);
        if state.violation.is_some() {
            return Vec::new();
        }
        let mut actions = Vec::new();
        for action in world.happenings() {
            let wanted = match action {
                Action::Exit(unit, exit) if !state.is_told(unit) => left.exits > 0 && graph.exits.contains(&exit),
                // How one ends that was told to makes no difference.
                Action::Exit(_, exit) => matches!(exit, Exit::Signal(9 | 15)),
                Action::Host(host) => left.hosts > 0 && graph.hosts.contains(&host),
                Action::HangUp(_) => left.hang_ups > 0,
                Action::Compact => graph.compactions && world.appends.is_empty(),
                Action::Tick(late_ms) => late_ms == 0 && (left.slow > 0 || world.appends.is_empty()),
                Action::Wait(_) | Action::Crash(_) => false,
                Action::Set(_, SetFate::Refused | SetFate::Done | SetFate::Unsettled)
                | Action::Ask(..)
                | Action::Store(_)
                | Action::Append(..)
                | Action::Launch(..)
                | Action::Dumped(_) => true,
            };
            if wanted {
                actions.push(action);
            }
        }
        if left.crashes > 0 {
            let mut crashes: Vec<Crash> = Vec::new();
            for crash in graph.crashes.iter().map(|crash| state.effective(*crash)) {
                if !crashes.contains(&crash) {
                    crashes.push(crash);
                }
            }
            actions.extend(crashes.into_iter().map(Action::Crash));
        }
        if left.waits > 0 {
            actions.extend(graph.waits.iter().copied().map(Action::Wait));
        }
        if left.commands > 0
            && let Some(connection) = world.free_connection()
        {
            actions.extend(graph.asks.iter().map(|ask| Action::Ask(connection, *ask)));
        }
        actions
    }

    /// Lets everything come to rest from here, or to where that is known already.
    ///
    /// # Errors
    /// What goes wrong on the way.
    pub fn settle(&self, state: &State) -> Result<(), Violation> {
        let (mut world, mut key) = (state.world.clone(), state.key);
        let mut passed = Vec::new();
        while !self.settling().contains(&key) {
            passed.push(key);
            let Some(action) = next_to_settle(&world) else { break };
            if passed.len() > SETTLE_STEPS_MAX {
                return Err(format!("not at rest after {SETTLE_STEPS_MAX} steps without faults"));
            }
            let applied = catch_unwind(AssertUnwindSafe(|| world.apply(&action)));
            let applied = applied.unwrap_or_else(|_| Err("it panicked, see above".into()));
            applied.map_err(|violation| format!("while settling, {action:?}: {violation}"))?;
            key = world.key();
        }
        self.settling().extend(passed);
        Ok(())
    }
}

impl Model for Search {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.start().into_iter().collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.actions_at(state));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(state.after(&action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the invariants hold", |_: &Self, state: &State| state.violation.is_none()),
            Property::always("it comes to rest", |search: &Self, state: &State| {
                state.violation.is_some() || search.settle(state).is_ok()
            }),
        ]
    }
}
