//! The graphs: for each a few commands, and what may happen meanwhile, in every order and to the end.

use fulmar_core::machine::Exit;
use fulmar_core::name::Name;
use fulmar_tests::ask::{Ask, Octets, PolicySpec, Spec, Wish, name};
use fulmar_tests::world::{Action, Crash, Fate, SetFate};

use crate::model::{Graph, Left};

/// Comes back after any end but a few codes.
const FAITHFUL: Spec = Spec { fail: Some(&[]), ..Spec::PLAIN };
const LARGER: Spec = Spec { image: 0, memory_mb: 48, fail: Some(&[]), ..Spec::PLAIN };
const ON_DISK: Spec = Spec { image: 6, blocks: &["storage"], ..Spec::PLAIN };
const ON_BRIDGE: Spec = Spec { image: 3, bridge: Some("br0"), fail: Some(&[]), ..Spec::PLAIN };

const NOTHING: Left = Left { commands: 0, faults: 0, crashes: 0, exits: 0, hosts: 0, waits: 0, hang_ups: 0, slow: 2 };

/// How large the graphs are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Small enough to be gone through once for each planted bug.
    Brief,
    /// For every change.
    Usual,
    /// For some minutes more.
    Larger,
}

/// All graphs of a size.
#[must_use]
pub fn all(size: Size) -> Vec<Graph> {
    let graphs = [create, replace, labels, blocks, contents, policies, uncharged, hosts, clients, clock];
    graphs.into_iter().map(|graph| graph(size)).collect()
}

impl Size {
    /// One of three.
    fn of<T>(self, brief: T, usual: T, larger: T) -> T {
        match self {
            Self::Brief => brief,
            Self::Usual => usual,
            Self::Larger => larger,
        }
    }
}

fn ask(text: &str, wish: Wish) -> Ask {
    Ask { name: name(text), wish }
}

/// What happens first: these commands, each to its end.
fn after(asks: &[Ask]) -> Vec<Action> {
    let mut actions = vec![Action::Store(true)];
    for ask in asks {
        actions.push(Action::Ask(0, *ask));
        actions.extend(match ask.wish {
            Wish::Create(_) => vec![Action::Store(true), Action::Launch(0, true), Action::Append(1, Fate::Durable)],
            Wish::BlockAdd(_) => vec![Action::Store(true), Action::Append(1, Fate::Durable)],
            Wish::BlockSet => vec![Action::Set(0, SetFate::Done)],
            _ => vec![Action::Append(1, Fate::Durable)],
        });
    }
    actions
}

fn empty(name: &'static str) -> Graph {
    Graph {
        name,
        before: after(&[]),
        asks: Vec::new(),
        exits: vec![Exit::Signal(11)],
        crashes: Crash::some().collect(),
        hosts: Vec::new(),
        waits: Vec::new(),
        compactions: false,
        left: NOTHING,
    }
}

/// Two unikernels come and go.
fn create(size: Size) -> Graph {
    Graph {
        asks: vec![
            ask("p:a", Wish::Create(Spec::PLAIN)),
            ask("p:b", Wish::Create(LARGER)),
            ask("p:a", Wish::Destroy),
            ask("p:b", Wish::Destroy),
        ],
        left: size.of(
            Left { commands: 2, faults: 1, crashes: 1, exits: 1, ..NOTHING },
            Left { commands: 2, faults: 2, crashes: 2, exits: 1, ..NOTHING },
            Left { commands: 3, faults: 2, crashes: 2, exits: 1, ..NOTHING },
        ),
        ..empty("create")
    }
}

/// One that runs is started anew, with and without other arguments, and another one takes its place.
fn replace(size: Size) -> Graph {
    Graph {
        before: after(&[ask("p:a", Wish::Create(FAITHFUL))]),
        asks: vec![
            ask("p:a", Wish::Restart),
            ask("p:a", Wish::RestartWith(Spec { memory_mb: 48, ..Spec::PLAIN })),
            ask("p:a", Wish::ForceCreate(LARGER)),
            ask("p:a", Wish::Destroy),
        ],
        left: size.of(
            Left { commands: 1, faults: 1, crashes: 1, exits: 1, ..NOTHING },
            Left { commands: 2, faults: 1, crashes: 2, exits: 1, ..NOTHING },
            Left { commands: 2, faults: 2, crashes: 2, exits: 1, ..NOTHING },
        ),
        ..empty("replace")
    }
}

/// One ends in all ways, the first time because it does not know its label.
fn labels(size: Size) -> Graph {
    Graph {
        before: after(&[ask("p:a", Wish::Create(Spec { fail: Some(&[2]), ..Spec::PLAIN }))]),
        asks: vec![ask("p:a", Wish::Restart), ask("p:a", Wish::Destroy), ask("p:a", Wish::ForceCreate(Spec::PLAIN))],
        exits: vec![Exit::Code(2), Exit::Code(3), Exit::Code(64), Exit::OutOfMemory],
        left: size.of(
            Left { commands: 1, faults: 1, crashes: 1, exits: 1, ..NOTHING },
            Left { commands: 1, faults: 2, crashes: 2, exits: 1, ..NOTHING },
            Left { commands: 1, faults: 2, crashes: 2, exits: 2, ..NOTHING },
        ),
        ..empty("labels")
    }
}

/// A block device comes and goes, and two unikernels want it.
fn blocks(size: Size) -> Graph {
    Graph {
        before: after(&[ask("p:storage", Wish::BlockAdd(5))]),
        asks: vec![
            ask("p:storage", Wish::BlockAdd(5)),
            ask("p:storage", Wish::BlockRemove),
            ask("p:a", Wish::Create(ON_DISK)),
            ask("p:b", Wish::ForceCreate(ON_DISK)),
            ask("p:a", Wish::Destroy),
        ],
        left: size.of(
            Left { commands: 2, faults: 1, crashes: 1, exits: 1, ..NOTHING },
            Left { commands: 3, faults: 2, crashes: 2, exits: 1, ..NOTHING },
            Left { commands: 4, faults: 2, crashes: 2, exits: 1, ..NOTHING },
        ),
        ..empty("blocks")
    }
}

/// A block device is set, read, removed and used.
fn contents(size: Size) -> Graph {
    Graph {
        before: after(&[ask("p:storage", Wish::BlockAdd(5)), ask("p:storage", Wish::BlockSet)]),
        asks: vec![
            ask("p:storage", Wish::BlockSet),
            ask("p:storage", Wish::BlockOldSet(Octets::Plain)),
            ask("p:storage", Wish::BlockDump(0, false)),
            ask("p:storage", Wish::BlockRemove),
            ask("p:storage", Wish::BlockOldAdd(5, Octets::Plain)),
            ask("p:a", Wish::Create(ON_DISK)),
        ],
        left: size.of(
            Left { commands: 2, faults: 1, crashes: 1, exits: 1, ..NOTHING },
            Left { commands: 3, faults: 2, crashes: 2, exits: 1, hang_ups: 1, ..NOTHING },
            Left { commands: 4, faults: 2, crashes: 2, exits: 1, hang_ups: 1, ..NOTHING },
        ),
        ..empty("contents")
    }
}

/// Policies come, go and shrink on two levels, while unikernels are made below.
fn policies(size: Size) -> Graph {
    let tight = PolicySpec { unikernels: 1, memory_mb: 64, cpus: &[0], bridges: &[], block_mb: None };
    let wide = PolicySpec { unikernels: 2, memory_mb: 64, cpus: &[0, 1], bridges: &["br0"], block_mb: Some(5) };
    Graph {
        asks: vec![
            ask("p:", Wish::PolicyAdd(tight)),
            ask("p:", Wish::PolicyAdd(wide)),
            ask("p:", Wish::PolicyRemove),
            ask("p:q:", Wish::PolicyAdd(tight)),
            ask("p:q:", Wish::PolicyAdd(wide)),
            ask("p:q:a", Wish::Create(LARGER)),
            ask("p:b", Wish::Create(FAITHFUL)),
            ask("p:storage", Wish::BlockAdd(5)),
        ],
        exits: Vec::new(),
        left: size.of(
            Left { commands: 2, faults: 1, crashes: 1, ..NOTHING },
            Left { commands: 3, faults: 1, crashes: 1, ..NOTHING },
            Left { commands: 3, faults: 2, crashes: 1, ..NOTHING },
        ),
        ..empty("policies")
    }
}

/// One rests after a crash and is not charged, while a policy against it is on its way to a disk that fails.
fn uncharged(size: Size) -> Graph {
    let tight = PolicySpec { unikernels: 1, memory_mb: 16, cpus: &[0], bridges: &[], block_mb: None };
    let mut before = after(&[ask("p:a", Wish::Create(LARGER))]);
    before.push(Action::Crash(Crash { late: true, dying: 1, ..Crash::PLAIN }));
    Graph {
        before,
        asks: vec![
            ask("p:", Wish::PolicyAdd(tight)),
            ask("p:", Wish::PolicyRemove),
            ask("p:a", Wish::Restart),
            ask("p:a", Wish::Destroy),
        ],
        left: size.of(
            Left { commands: 1, faults: 1, crashes: 1, ..NOTHING },
            Left { commands: 2, faults: 2, crashes: 1, exits: 1, ..NOTHING },
            Left { commands: 3, faults: 2, crashes: 2, exits: 1, ..NOTHING },
        ),
        ..empty("uncharged")
    }
}

/// The host has less than before, and then again more.
fn hosts(size: Size) -> Graph {
    Graph {
        before: after(&[ask("p:a", Wish::Create(ON_BRIDGE))]),
        asks: vec![
            ask("p:b", Wish::Create(LARGER)),
            ask("p:a", Wish::Restart),
            ask("p:a", Wish::ForceCreate(FAITHFUL)),
            ask(
                "p:",
                Wish::PolicyAdd(PolicySpec {
                    unikernels: 2,
                    memory_mb: 64,
                    cpus: &[0],
                    bridges: &["br0"],
                    block_mb: None,
                }),
            ),
        ],
        hosts: vec![0, 1, 2],
        left: size.of(
            Left { commands: 1, crashes: 1, exits: 1, hosts: 1, ..NOTHING },
            Left { commands: 1, faults: 1, crashes: 1, exits: 1, hosts: 2, ..NOTHING },
            Left { commands: 2, faults: 1, crashes: 2, exits: 1, hosts: 2, ..NOTHING },
        ),
        ..empty("hosts")
    }
}

/// Clients ask and are gone before they are told.
fn clients(size: Size) -> Graph {
    Graph {
        before: after(&[ask("p:a", Wish::Create(FAITHFUL))]),
        asks: vec![
            ask("p:a", Wish::Destroy),
            ask("p:a", Wish::Restart),
            ask("p:b", Wish::Create(Spec::PLAIN)),
            ask(
                "p:",
                Wish::PolicyAdd(PolicySpec { unikernels: 1, memory_mb: 64, cpus: &[0], bridges: &[], block_mb: None }),
            ),
            Ask { name: Name::ROOT, wish: Wish::Info },
            Ask { name: Name::ROOT, wish: Wish::Condition },
        ],
        compactions: true,
        left: size.of(
            Left { commands: 2, faults: 1, hang_ups: 1, ..NOTHING },
            Left { commands: 2, faults: 1, crashes: 1, exits: 1, hang_ups: 2, ..NOTHING },
            Left { commands: 3, faults: 2, crashes: 1, exits: 1, hang_ups: 2, ..NOTHING },
        ),
        ..empty("clients")
    }
}

/// Nobody looks at the clock in time; short runs and long ones.
fn clock(size: Size) -> Graph {
    Graph {
        before: after(&[ask("p:a", Wish::Create(FAITHFUL))]),
        asks: vec![ask("p:a", Wish::Restart), ask("p:a", Wish::Destroy), ask("p:b", Wish::Create(LARGER))],
        waits: vec![1, 700, 20_000],
        left: size.of(
            Left { commands: 1, faults: 1, exits: 2, waits: 1, ..NOTHING },
            Left { commands: 1, faults: 1, crashes: 1, exits: 2, waits: 2, ..NOTHING },
            Left { commands: 2, faults: 1, crashes: 1, exits: 2, waits: 2, ..NOTHING },
        ),
        ..empty("clock")
    }
}
