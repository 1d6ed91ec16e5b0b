//! How long a unikernel lives: which ends are for good, how long it rests, how it is stopped.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use fulmar_core::limits::{REST_MS_MAX, REST_MS_MIN, RUN_MS_MIN, STOP_MS_MAX};
use fulmar_core::machine::{Again, Exit, Life, Reply, Stage};
use fulmar_tests::ask::{Ask, Spec, Wish, name};
use fulmar_tests::world::{Action, Budget, Crash, Fate, World};

type Host = World<8, 12, 6, 4, 4096>;

const DURABLE: Action = Action::Append(u8::MAX, Fate::Durable);
const LAUNCH: Action = Action::Launch(0, true);
const UNIT: u64 = 1;

/// A host whose start is over.
fn host() -> Host {
    let mut host = Host::new(Budget { faults: 1_000, crashes: 1, commands: 100 }).unwrap();
    act(&mut host, &[Action::Store(true)]);
    host
}

fn act(host: &mut Host, actions: &[Action]) {
    actions.iter().for_each(|action| host.apply(action).unwrap());
}

fn ask(connection: u16, wish: Wish) -> Action {
    Action::Ask(connection, Ask { name: name("p:a"), wish })
}

/// A host on which one unikernel runs, as unit 1.
fn running(fail: Option<&'static [i64]>) -> Host {
    let mut host = host();
    let create = ask(0, Wish::Create(Spec { fail, ..Spec::PLAIN }));
    act(&mut host, &[create, Action::Store(true), LAUNCH, DURABLE]);
    assert_eq!(stage(&host), Some((Stage::Kept, Life::Alive)));
    host
}

fn stage(host: &Host) -> Option<(Stage, Life)> {
    host.machine.find(&name("p:a")).map(|(_, unikernel)| (unikernel.stage(), unikernel.life()))
}

/// How long it rests from now on, milliseconds.
fn rest_ms(host: &Host) -> Option<u64> {
    match host.machine.find(&name("p:a")).map(|(_, unikernel)| unikernel.again()) {
        Some(Again::Launch(at)) => Some(at - host.now.ms),
        _ => None,
    }
}

#[test]
fn the_exit_code_decides_whether_it_runs_again() {
    const ENDS: [Exit; 14] = [
        Exit::Code(0),
        Exit::Code(1),
        Exit::Code(2),
        Exit::Code(3),
        Exit::Code(59),
        Exit::Code(60),
        Exit::Code(61),
        Exit::Code(63),
        Exit::Code(64),
        Exit::Code(65),
        Exit::Code(255),
        Exit::Signal(9),
        Exit::Signal(11),
        Exit::Unknown,
    ];
    // 1 where it runs again, in the order of the ends above.
    let table: [(Option<&'static [i64]>, [u8; 14]); 4] = [
        // 64 once, without its label.
        (None, [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]),
        (Some(&[]), [1, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1]),
        (Some(&[2]), [0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1]),
        // Listing 1 has no effect.
        (Some(&[1, 63, 255]), [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1]),
    ];
    for (fail, expected) in table {
        for (exit, again) in ENDS.into_iter().zip(expected) {
            let mut host = running(fail);
            act(&mut host, &[Action::Wait(RUN_MS_MIN), Action::Exit(UNIT, exit)]);
            let wanted = if again == 1 { (Stage::Kept, Life::Launching) } else { (Stage::Dropping, Life::None) };
            assert_eq!(stage(&host), Some(wanted), "{exit} of {fail:?}");
        }
    }
}

#[test]
fn one_that_does_not_know_its_arguments_runs_once_more_without_its_label() {
    // Listing 64 has no effect.
    for fail in [None, Some(&[64_i64] as &'static [i64])] {
        let mut host = running(fail);
        assert!(host.processes[&UNIT].named);
        act(&mut host, &[Action::Exit(UNIT, Exit::Code(64)), LAUNCH, DURABLE]);
        assert!(!host.processes[&UNIT].named);
        assert_eq!(stage(&host), Some((Stage::Kept, Life::Alive)));
        // That is kept, also when the host was started again.
        let mut restarted = host.clone();
        act(&mut restarted, &[Action::Crash(Crash { dying: 1, ..Crash::PLAIN }), Action::Store(true), LAUNCH]);
        assert!(!restarted.processes[&UNIT].named);
        for host in [&mut host, &mut restarted] {
            act(host, &[Action::Exit(UNIT, Exit::Code(64)), DURABLE]);
            assert_eq!(stage(host), None);
        }
    }
}

#[test]
fn lower_startup_first_and_launches_that_fail_make_room() {
    let mut host = host();
    let startups = [None, Some(90), Some(10), Some(60)];
    for (text, startup) in ["p:a", "p:b", "r:a", "r:b"].into_iter().zip(startups) {
        let wish = Wish::Create(Spec { startup, fail: Some(&[]), ..Spec::PLAIN });
        act(&mut host, &[Action::Ask(0, Ask { name: name(text), wish }), Action::Store(true), LAUNCH, DURABLE]);
    }
    act(&mut host, &[Action::Crash(Crash { dying: 1, ..Crash::PLAIN }), Action::Store(true)]);
    let order: Vec<u64> = host.launches.iter().map(|launch| launch.unit).collect();
    assert_eq!(order, [3, 1, 4, 2]);
    for _ in 0..40 {
        while !host.launches.is_empty() {
            act(&mut host, &[Action::Launch(0, false)]);
        }
        act(&mut host, &[Action::Tick(0)]);
    }
    act(&mut host, &[Action::Tick(REST_MS_MAX)]);
    assert_eq!(host.launches.len(), 4);
}

#[test]
fn what_the_host_refuses_is_tried_as_soon_as_the_host_has_more() {
    let mut host = host();
    let wish = Wish::Create(Spec { image: 3, bridge: Some("br1"), ..Spec::PLAIN });
    act(&mut host, &[ask(0, wish), Action::Store(true), LAUNCH, DURABLE]);
    // Its bridge is not there when the host comes up.
    act(&mut host, &[Action::Host(1), Action::Crash(Crash { dying: 1, ..Crash::PLAIN }), Action::Store(true)]);
    assert_eq!(rest_ms(&host), Some(REST_MS_MAX));
    act(&mut host, &[Action::Host(0)]);
    assert_eq!(host.machine.deadline(), Some(host.now.ms));
    act(&mut host, &[Action::Tick(0), LAUNCH]);
    assert_eq!(stage(&host), Some((Stage::Kept, Life::Alive)));
}

#[test]
fn short_runs_rest_twice_as_long_each_time() {
    let mut host = running(Some(&[]));
    let mut expected_ms = REST_MS_MIN;
    for _ in 0..12 {
        act(&mut host, &[Action::Wait(RUN_MS_MIN - 1), Action::Exit(UNIT, Exit::Code(2))]);
        assert_eq!(rest_ms(&host), Some(expected_ms));
        expected_ms = (expected_ms * 2).min(REST_MS_MAX);
        act(&mut host, &[Action::Tick(0), LAUNCH]);
    }
    assert_eq!(expected_ms, REST_MS_MAX);
    // A run that is long enough begins anew: at once, and then with the shortest rest.
    act(&mut host, &[Action::Wait(RUN_MS_MIN), Action::Exit(UNIT, Exit::Code(2))]);
    assert_eq!((stage(&host), rest_ms(&host)), (Some((Stage::Kept, Life::Launching)), None));
    act(&mut host, &[LAUNCH, Action::Exit(UNIT, Exit::Signal(11))]);
    assert_eq!(rest_ms(&host), Some(REST_MS_MIN));
}

#[test]
fn a_launch_that_fails_rests_too() {
    let mut host = running(Some(&[]));
    act(&mut host, &[Action::Wait(RUN_MS_MIN), Action::Exit(UNIT, Exit::Code(2))]);
    for expected_ms in [REST_MS_MIN, 2 * REST_MS_MIN, 4 * REST_MS_MIN] {
        act(&mut host, &[Action::Launch(0, false)]);
        assert_eq!(rest_ms(&host), Some(expected_ms));
        act(&mut host, &[Action::Tick(3)]);
    }
}

#[test]
fn sigterm_then_sigkill_after_the_time_for_last_words() {
    let mut host = running(Some(&[]));
    act(&mut host, &[ask(0, Wish::Destroy)]);
    assert_eq!(host.processes[&UNIT].terminated_ms, None, "before the removal is durable");
    act(&mut host, &[DURABLE]);
    assert_eq!(host.processes[&UNIT].terminated_ms, Some(host.now.ms));
    assert_eq!(host.machine.deadline(), Some(host.now.ms + STOP_MS_MAX));
    act(&mut host, &[Action::Wait(STOP_MS_MAX - 1)]);
    assert!(!host.processes[&UNIT].killed);
    act(&mut host, &[Action::Tick(0)]);
    assert!(host.processes[&UNIT].killed);
    assert_eq!(host.machine.deadline(), None);
    act(&mut host, &[Action::Exit(UNIT, Exit::Signal(9))]);
    assert_eq!(stage(&host), None);
    let Reply::Done(done) = host.last_reply else { panic!("{:?}", host.last_reply) };
    assert_eq!(done.as_str(), "destroyed unikernel");
}

#[test]
fn one_that_is_being_started_anew_when_vmmd_dies_runs_again() {
    let larger = Wish::ForceCreate(Spec { memory_mb: 48, ..Spec::PLAIN });
    for (wish, until_told) in [(Wish::Restart, &[][..]), (larger, &[Action::Store(true)])] {
        // After an end of its own it would not run again: this one is not its own, whoever sees it.
        for late in [false, true] {
            let mut host = running(None);
            act(&mut host, &[ask(0, wish)]);
            act(&mut host, until_told);
            assert!(host.processes[&UNIT].terminated_ms.is_some());
            let dying = u8::from(late);
            act(&mut host, &[Action::Crash(Crash { late, dying, ..Crash::PLAIN })]);
            if !late {
                assert_eq!(stage(&host), Some((Stage::Kept, Life::Alive)));
                assert_eq!(host.machine.deadline(), Some(host.now.ms + STOP_MS_MAX));
                act(&mut host, &[Action::Exit(UNIT, Exit::Unknown)]);
            }
            act(&mut host, &[LAUNCH]);
            assert_eq!(stage(&host), Some((Stage::Kept, Life::Alive)));
        }
    }
}

#[test]
fn a_clock_that_goes_back_changes_nothing_but_what_is_shown() {
    let life = |hour_back: bool| {
        let mut host = running(Some(&[]));
        let mut seen = Vec::new();
        for round in 0..8 {
            for action in [Action::Wait(700), Action::Exit(UNIT, Exit::Code(2)), Action::Tick(3), LAUNCH] {
                if hour_back && round % 2 == 1 {
                    host.now.wall_ms -= 3_600_000;
                }
                act(&mut host, &[action]);
                seen.push((stage(&host), rest_ms(&host), host.machine.deadline()));
            }
        }
        act(&mut host, &[ask(0, Wish::Destroy), DURABLE, Action::Tick(0), Action::Exit(UNIT, Exit::Signal(9))]);
        seen.push((stage(&host), rest_ms(&host), host.machine.deadline()));
        (seen, host.marks)
    };
    let steady = life(false);
    assert!(steady.0.iter().any(|(_, rest_ms, _)| rest_ms.is_some()) && steady.0.last().unwrap().0.is_none());
    assert_eq!(steady, life(true));
}

#[test]
fn all_who_ask_for_its_end_are_told() {
    let mut host = running(None);
    act(&mut host, &[ask(0, Wish::Destroy), ask(1, Wish::Destroy), DURABLE, ask(2, Wish::Destroy)]);
    act(&mut host, &[Action::HangUp(1), Action::Exit(UNIT, Exit::Code(0))]);
    assert_eq!(host.marks["destroyed unikernel"], 2);
    assert!(host.clients.iter().all(Option::is_none));
}

#[test]
fn an_end_that_cannot_be_recorded_is_recorded_later() {
    let mut host = running(None);
    act(&mut host, &[Action::Exit(UNIT, Exit::Code(0)), Action::Append(1, Fate::NotWritten)]);
    let (_, unikernel) = host.machine.find(&name("p:a")).unwrap();
    assert_eq!(unikernel.again(), Again::Drop(host.now.ms + REST_MS_MAX));
    act(&mut host, &[Action::Tick(0), DURABLE]);
    assert_eq!(stage(&host), None);
}

#[test]
fn a_destruction_that_cannot_be_recorded_changes_nothing() {
    let mut host = running(None);
    act(&mut host, &[ask(0, Wish::Destroy), Action::Append(1, Fate::NotWritten)]);
    assert_eq!(
        host.last_reply.text(),
        "the journal could not be written, the change was undone: input or output failed (error 5)"
    );
    assert_eq!(stage(&host), Some((Stage::Kept, Life::Alive)));
}

/// The text of a reply that is one.
trait ReplyText {
    fn text(&self) -> String;
}

impl ReplyText for Reply {
    fn text(&self) -> String {
        match self {
            Self::Done(done) => done.as_str().to_owned(),
            Self::Refused(refusal) => refusal.to_string(),
            other => format!("{other:?}"),
        }
    }
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let create = ask(0, Wish::Create(Spec::PLAIN));
    let cases: [(&[Action], &str); 4] = [
        (&[Action::Store(false)], "the image store's disk is full: destroy a unikernel or add space"),
        (
            &[Action::Store(true), Action::Launch(0, false)],
            "could not create unikernel: could not fork: the host is out of memory (error 12)",
        ),
        (
            &[Action::Store(true), LAUNCH, Action::Append(1, Fate::NotWritten), Action::Exit(UNIT, Exit::Signal(9))],
            "the journal could not be written, the change was undone: input or output failed (error 5)",
        ),
        (
            &[Action::Store(true), LAUNCH, Action::Exit(UNIT, Exit::Code(0)), Action::Append(1, Fate::Unknown)],
            "the journal could not be written, the change was undone, but a crash may bring it back: input or output failed (error 5)",
        ),
    ];
    for (steps, text) in cases {
        let mut host = host();
        act(&mut host, &[create]);
        act(&mut host, steps);
        assert_eq!(host.last_reply.text(), text);
        assert_eq!(host.machine.unikernels().count(), 0);
        assert!(host.processes.is_empty());
        // As soon as the journal is sure again nothing of the image is left either.
        act(&mut host, &[create, Action::Store(true), Action::Store(true), LAUNCH, DURABLE, ask(1, Wish::Destroy)]);
        act(&mut host, &[DURABLE, Action::Exit(2, Exit::Signal(15)), Action::Store(true), Action::Store(true)]);
        assert!(host.images.is_empty(), "{text}: {:?}", host.store_tasks);
    }
}
