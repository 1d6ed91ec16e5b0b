//! The policies of a chain: all of them are set, or none.

use fulmar_core::machine::{Change, Effect, Input, JournalError, Machine, Now, Reply, Tenders};
use fulmar_core::policy::{Bridges, CpuSet, Policy};
use fulmar_core::wire::{self, Command, Header, List, NamedPolicy, PolicyCommand};
use fulmar_tests::ask::name;
use proptest::prelude::*;

type Host = Machine<2, 6, 2, 2, 512>;

const NOW: Now = Now { ms: 1, wall_ms: 1 };

fn host() -> Box<Host> {
    let mut host = Box::new(Host::new());
    let (cpus, bridges) = (CpuSet::first(2), Bridges::EMPTY);
    let root = Policy { unikernels: 100, cpus, memory_mb: 10_000, block_mb: Some(100), bridges };
    host.handle(NOW, Input::Host { root: &root, tenders: Tenders { hvt: true, spt: true, solo5: false, bhyve: None } });
    host.handle(NOW, Input::Start);
    while host.next_effect().is_some() {}
    host
}

fn policy(unikernels: i64, memory: i64) -> wire::Policy<'static> {
    wire::Policy { cpuids: List::Items(&[0]), unikernels, memory, block: None, bridges: List::EMPTY }
}

fn ask(host: &mut Host, path: &str, command: PolicyCommand<'_>) {
    let header = Header::new(7, name(path));
    host.handle(
        NOW,
        Input::Command { connection: 0, header: &header, command: &Command::Policy(command), image: None },
    );
}

fn chain(host: &mut Host, path: &str, policies: &[(&str, wire::Policy<'_>)]) {
    let listed: Vec<_> =
        policies.iter().map(|(path, policy)| NamedPolicy { name: name(path), policy: *policy }).collect();
    ask(host, path, PolicyCommand::Chain(List::Items(&listed)));
}

/// What is to be made durable.
fn appends(host: &mut Host) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some(effect) = host.next_effect() {
        if let Effect::Append(change) = effect {
            changes.push(change);
        }
    }
    changes
}

fn settle(host: &mut Host, outcome: Result<(), JournalError>) {
    for change in appends(host) {
        host.handle(NOW, Input::Appended { change, outcome });
    }
}

fn said(host: &Host) -> String {
    match host.reply(0) {
        Reply::None => "waits".into(),
        Reply::Done(done) => done.as_str().into(),
        Reply::Refused(refusal) => refusal.to_string(),
        other => format!("{other:?}"),
    }
}

fn stands(host: &Host, path: &str) -> Option<(u64, u64)> {
    let policy = host.ledger().account_at(&name(path))?.policy()?;
    Some((policy.unikernels, policy.memory_mb))
}

#[test]
fn a_chain_is_set_as_a_whole_and_said_when_all_of_it_is_durable() {
    let mut host = host();
    chain(&mut host, "a:b:", &[("a:", policy(10, 100)), ("a:b:", policy(5, 50))]);
    let changes = appends(&mut host);
    assert_eq!(changes.len(), 2);
    // In whatever order they become durable, the last one is the answer.
    host.handle(NOW, Input::Appended { change: changes[1], outcome: Ok(()) });
    assert_eq!(said(&host), "waits");
    host.handle(NOW, Input::Appended { change: changes[0], outcome: Ok(()) });
    assert_eq!(said(&host), "added policy");
    assert!(host.keeps_open(0));
    assert_eq!((stands(&host, "a:"), stands(&host, "a:b:")), (Some((10, 100)), Some((5, 50))));

    chain(&mut host, "a:b:", &[("a:", policy(10, 100)), ("a:b:", policy(5, 50))]);
    assert!(appends(&mut host).is_empty());
    assert_eq!(said(&host), "no modification of policy");
}

#[test]
fn a_chain_grows_and_shrinks_in_one_go() {
    let mut host = host();
    for (above, below) in [(10, 5), (20, 20), (4, 3), (3, 3)] {
        chain(&mut host, "a:b:", &[("a:", policy(above, 100)), ("a:b:", policy(below, 50))]);
        settle(&mut host, Ok(()));
        assert_eq!(said(&host), "added policy");
        assert_eq!(stands(&host, "a:").unwrap().0, u64::try_from(above).unwrap());
        assert_eq!(stands(&host, "a:b:").unwrap().0, u64::try_from(below).unwrap());
    }
    // A sibling that is larger than the new policy above both stands against it.
    chain(&mut host, "a:c:", &[("a:", policy(3, 100)), ("a:c:", policy(2, 100))]);
    settle(&mut host, Ok(()));
    chain(&mut host, "a:b:", &[("a:", policy(1, 100)), ("a:b:", policy(1, 50))]);
    assert_eq!(
        said(&host),
        "policy allows 1 unikernels, which is fewer than 2, which a policy below allows: make that one smaller first, 'policy' lists them"
    );
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut host = host();
    let good = policy(5, 50);
    for (path, policies, expected) in [
        (
            "a:b:",
            vec![("a:", good), ("a:b:", policy(6, 50))],
            "policy above allows 5 unikernels, which is fewer than 6",
        ),
        (
            "a:b:",
            vec![("a:", policy(101, 50)), ("a:b:", good)],
            "policy above allows 100 unikernels, which is fewer than 101",
        ),
        ("a:b:", vec![("a:", good), ("a:b:", policy(-1, 50))], "-1 is negative"),
        ("a:b:", vec![("a:b:", good)], "the policies of a chain"),
        ("a:b:", vec![("a:b:", good), ("a:", good)], "the policies of a chain"),
        ("a:b:", vec![("a:", good), ("a:c:", good)], "the policies of a chain"),
        ("a:b:", vec![("a:", good), ("a:b:", good), ("a:b:c:", good)], "the policies of a chain"),
        ("a:b:", vec![("a:", good)], "the policies of a chain"),
        ("a:b:", vec![], "the policies of a chain"),
        (":", vec![("a:", good)], "the policies of a chain"),
        (":", vec![(":", good)], "the policies of a chain"),
        ("a:", vec![("a", good)], "the policies of a chain"),
    ] {
        chain(&mut host, path, &policies);
        let said = said(&host);
        assert!(said.contains(expected), "{said}, not {expected}");
        assert!(appends(&mut host).is_empty());
        assert_eq!((stands(&host, "a:"), stands(&host, "a:b:")), (None, None));
    }
    // Six places, one of which is the root's: the sixth path has no room, so the fifth is not set either.
    let paths = ["a:", "a:b:", "a:b:c:", "a:b:c:d:", "a:b:c:d:e:", "a:b:c:d:e:f:"];
    let deep: Vec<_> = paths.iter().map(|path| (*path, good)).collect();
    chain(&mut host, paths[5], &deep);
    assert_eq!(said(&host), "no room for another policy on this host: remove one that nobody needs");
    chain(&mut host, paths[4], &deep[..5]);
    settle(&mut host, Ok(()));
    assert_eq!(said(&host), "added policy");
}

#[test]
fn who_brings_what_is_on_its_way_waits_for_it() {
    for (outcome, expected) in
        [(Ok(()), "added policy".to_owned()), (Err(JournalError::DiskFull), JournalError::DiskFull.to_string())]
    {
        let mut host = host();
        let listed = [("a:", policy(10, 100)), ("a:b:", policy(5, 50))];
        let named = listed.map(|(path, policy)| NamedPolicy { name: name(path), policy });
        let command = Command::Policy(PolicyCommand::Chain(List::Items(&named)));
        let header = Header::new(7, name("a:b:"));
        for connection in [0, 1] {
            host.handle(NOW, Input::Command { connection, header: &header, command: &command, image: None });
        }
        let changes = appends(&mut host);
        assert_eq!((changes.len(), said(&host).as_str()), (2, "waits"));
        let mut replies = 0;
        for change in changes {
            host.handle(NOW, Input::Appended { change, outcome });
            replies +=
                std::iter::from_fn(|| host.next_effect()).filter(|it| matches!(it, Effect::Reply { .. })).count();
        }
        assert_eq!((replies, said(&host)), (2, expected.clone()));
        let other = match host.reply(1) {
            Reply::Done(done) => done.as_str().to_owned(),
            Reply::Refused(refusal) => refusal.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(other, expected);
    }
}

#[test]
fn one_that_fails_or_is_busy_is_told() {
    let mut host = host();
    ask(&mut host, "a:", PolicyCommand::Add(policy(10, 100)));
    let first = appends(&mut host);
    chain(&mut host, "a:b:", &[("a:", policy(11, 100)), ("a:b:", policy(5, 50))]);
    assert_eq!(said(&host), "this policy is being changed, try again");
    host.handle(NOW, Input::Appended { change: first[0], outcome: Ok(()) });

    chain(&mut host, "a:b:", &[("a:", policy(20, 100)), ("a:b:", policy(5, 50))]);
    let changes = appends(&mut host);
    host.handle(NOW, Input::Appended { change: changes[0], outcome: Ok(()) });
    host.handle(NOW, Input::Appended { change: changes[1], outcome: Err(JournalError::DiskFull) });
    assert_eq!(said(&host), JournalError::DiskFull.to_string());
    assert_eq!((stands(&host, "a:"), stands(&host, "a:b:")), (Some((20, 100)), None));
    let replies = std::iter::from_fn(|| host.next_effect()).filter(|it| matches!(it, Effect::Reply { .. })).count();
    assert_eq!(replies, 1);
}

proptest! {
    /// Whatever is asked for in whatever order: policies are contained in those above them, and who asked is answered once.
    #[test]
    fn chains_never_leave_a_policy_that_exceeds_one_above(
        rounds in prop::collection::vec((1..4_usize, prop::array::uniform3((1..6_i64, 1..6_i64)), any::<bool>()), 1..20),
    ) {
        let mut host = host();
        let paths = ["a:", "a:b:", "a:b:c:"];
        for (depth, numbers, alone) in rounds {
            let listed: Vec<_> = (0..depth).map(|at| (paths[at], policy(numbers[at].0, numbers[at].1))).collect();
            let before: Vec<_> = paths.iter().map(|path| stands(&host, path)).collect();
            if alone {
                ask(&mut host, paths[depth - 1], PolicyCommand::Add(listed[depth - 1].1));
            } else {
                chain(&mut host, paths[depth - 1], &listed);
            }
            settle(&mut host, Ok(()));
            let after: Vec<_> = paths.iter().map(|path| stands(&host, path)).collect();
            match said(&host).as_str() {
                "added policy" | "no modification of policy" => {
                    for at in if alone { depth - 1..depth } else { 0..depth } {
                        let (unikernels, memory) = numbers[at];
                        prop_assert_eq!(after[at], Some((unikernels.cast_unsigned(), memory.cast_unsigned())));
                    }
                }
                "waits" => prop_assert!(false, "nobody answered"),
                _ => prop_assert_eq!(&before, &after),
            }
            let standing: Vec<_> = after.iter().flatten().collect();
            prop_assert!(standing.windows(2).all(|pair| pair[0].0 >= pair[1].0 && pair[0].1 >= pair[1].1), "{:?}", after);
        }
    }
}
