//! A tenant wants more than its policy: through those below it, beside it, by changes of what is there, and by haste.

use std::sync::Barrier;

use fulmar_core::wire::{BlockCommand, Command, List};
use fulmar_tests::contents::chunks;
use fulmar_tests::pki::Identity;
use fulmar_tests::raw::Answer;
use fulmar_tests::tenants::{DESTROY, INFO, Tenants, create, force_create, policy, restart_with};

/// Rounds of a race.
const ROUNDS: usize = 12;

fn created() -> Answer {
    Answer::Done("created unikernel".into())
}

fn destroyed() -> Answer {
    Answer::Done("destroyed unikernel".into())
}

fn expect_refused(answer: &Answer, reason: &str) {
    assert!(answer.reason().contains(reason), "not for '{reason}': {answer:?}");
}

#[test]
fn siblings_together_are_within_the_policy_above_them() {
    let Some(tenants) = Tenants::begin("siblings_together_are_within_the_policy_above_them") else { return };
    let a = tenants.ca.delegate("a", policy(3, 64));
    // Each of them alone may have three of them, as their parent may.
    let [b, c] = ["b", "c"].map(|label| a.delegate(label, policy(3, 64)));
    for label in ["one", "two"] {
        assert_eq!(tenants.create(&b, label, 32), created());
        assert_eq!(tenants.ask(&b.leaf(label, DESTROY)), destroyed());
    }
    assert_eq!(tenants.create(&b, "one", 32), created());
    assert_eq!(tenants.create(&c, "one", 24), created());
    expect_refused(&tenants.create(&c, "two", 24), "maximum allowed memory (64, used 56) would be exceeded");
    assert_eq!(tenants.create(&c, "two", 4), created());
    let answer = tenants.create(&b, "two", 4);
    expect_refused(&answer, "maximum amount of unikernels (3) reached");
    expect_refused(&answer, "(policy of a:)");
    // Nor may a third one that has just been made up.
    let d = a.delegate("d", policy(3, 64));
    expect_refused(&tenants.create(&d, "one", 4), "maximum amount of unikernels (3) reached");
    tenants.end();
}

#[test]
fn grandchildren_count_for_all_above_them_with_and_without_policies_of_their_own() {
    let test = "grandchildren_count_for_all_above_them_with_and_without_policies_of_their_own";
    let Some(tenants) = Tenants::begin(test) else { return };
    let a = tenants.ca.delegate("a", policy(2, 64));
    let b = a.delegate("b", policy(2, 64));
    let c = b.delegate("c", policy(2, 64));
    // A CA that carries nothing adds no label, whatever it is called.
    let nothing = a.issuer_by("z", |_| {});
    assert_eq!(tenants.create(&c, "deep", 32), created());
    assert_eq!(tenants.create(&nothing, "here", 16), created());
    assert_eq!(tenants.siege.names(), ["a:here", "a:b:c:deep"]);
    for (issuer, label) in [(&c, "more"), (&nothing, "more"), (&b, "more"), (&a, "more")] {
        expect_refused(&tenants.create(issuer, label, 16), "(policy of a:)");
    }
    let block = |size| Command::Block(BlockCommand::Add { size });
    assert_eq!(tenants.ask(&c.leaf("disk", block(6))), Answer::Done("added block device".into()));
    expect_refused(&tenants.ask(&nothing.leaf("disk", block(3))), "block device policy limit of 8 MB (used 6 MB)");
    tenants.end();
}

#[test]
fn a_restart_with_arguments_is_within_the_policy_or_changes_nothing() {
    let Some(tenants) = Tenants::begin("a_restart_with_arguments_is_within_the_policy_or_changes_nothing") else {
        return;
    };
    let a = tenants.ca.delegate("a", policy(2, 64));
    assert_eq!(tenants.create(&a, "one", 16), created());
    assert_eq!(tenants.create(&a, "other", 16), created());
    assert_eq!(tenants.ask(&a.leaf("one", restart_with(32))), created());
    let before = tenants.siege.running();
    expect_refused(&tenants.ask(&a.leaf("one", restart_with(49))), "maximum allowed memory (64, used 16)");
    expect_refused(&tenants.ask(&a.leaf("one", with_cpu_1(restart_with(32)))), "CPUid 1 is not allowed by policy");
    assert_eq!(tenants.siege.running(), before);
    expect_memory(&tenants, "a:one", 32);
    tenants.end();
}

#[test]
fn a_force_create_is_within_the_policy_or_changes_nothing() {
    let Some(tenants) = Tenants::begin("a_force_create_is_within_the_policy_or_changes_nothing") else { return };
    let a = tenants.ca.delegate("a", policy(2, 64));
    let image = tenants.image("hello");
    assert_eq!(tenants.create(&a, "one", 16), created());
    assert_eq!(tenants.create(&a, "other", 16), created());
    assert_eq!(tenants.say(&a.leaf("one", force_create(48)), &image), created());
    let before = tenants.siege.running();
    expect_refused(&tenants.say(&a.leaf("one", force_create(49)), &image), "maximum allowed memory (64, used 16)");
    expect_refused(
        &tenants.say(&a.leaf("one", with_cpu_1(force_create(16))), &image),
        "CPUid 1 is not allowed by policy",
    );
    // One that is not there is one more.
    expect_refused(&tenants.say(&a.leaf("third", force_create(16)), &image), "maximum amount of unikernels (2)");
    assert_eq!(tenants.siege.running(), before);
    expect_memory(&tenants, "a:one", 48);
    tenants.end();
}

#[test]
fn of_two_that_race_for_the_last_place_one_gets_it() {
    let Some(tenants) = Tenants::begin("of_two_that_race_for_the_last_place_one_gets_it") else { return };
    let a = tenants.ca.delegate("a", policy(1, 32));
    let (b, c) = (a.delegate("b", policy(1, 32)), a.delegate("c", policy(1, 32)));
    let image = tenants.image("hello");
    for issuer in [&b, &c] {
        assert_eq!(tenants.create(issuer, "alone", 32), created());
        assert_eq!(tenants.ask(&issuer.leaf("alone", DESTROY)), destroyed());
    }
    for round in 0..ROUNDS {
        // Two names, one name, and a name beside a force create of it.
        let pair: [Identity; 2] = match round % 3 {
            0 => [b.leaf("one", create(32)), c.leaf("one", create(32))],
            1 => [b.leaf("one", create(32)), b.leaf("one", create(32))],
            _ => [b.leaf("one", create(32)), c.leaf("two", force_create(32))],
        };
        let together = Barrier::new(2);
        let stream = chunks(&image, 1 << 16);
        let answers = std::thread::scope(|scope| {
            let (together, stream, tenants) = (&together, &stream, &tenants);
            let racer = |identity| {
                scope.spawn(move || {
                    let mut remote = tenants.connect(identity);
                    // All but the end of the image, so that both wait for the same thing.
                    assert!(remote.send(&stream[..stream.len() - 4]));
                    together.wait();
                    assert!(remote.send(&stream[stream.len() - 4..]));
                    remote.receive().unwrap()
                })
            };
            pair.each_ref().map(racer).map(|racer| racer.join().unwrap())
        });
        let winners = answers.iter().filter(|answer| **answer == created()).count();
        assert_eq!(winners, 1, "{answers:?}");
        assert_eq!(tenants.siege.expect_listed_runs_once().len(), 1);
        for issuer in [&b, &c] {
            for label in ["one", "two"] {
                let _ = tenants.ask(&issuer.leaf(label, DESTROY));
            }
        }
    }
    assert_eq!(tenants.create(&a, "whole", 32), created());
    tenants.end();
}

#[test]
fn a_policy_that_is_made_smaller_in_a_race_holds_for_the_winner() {
    let Some(tenants) = Tenants::begin("a_policy_that_is_made_smaller_in_a_race_holds_for_the_winner") else { return };
    let [large, small] = [policy(2, 64), policy(1, 16)].map(|policy| tenants.ca.delegate("a", policy));
    let image = tenants.image("hello");
    let _ = tenants.ask(&small.leaf(".", INFO));
    assert!(policy_of(&tenants).contains("16 MB"), "{}", policy_of(&tenants));
    assert_eq!(tenants.create(&large, "one", 64), created());
    expect_refused(&tenants.ask(&small.leaf(".", INFO)), "policy allows 16 MB memory, but 64 MB are used already");
    assert_eq!(tenants.ask(&large.leaf("one", DESTROY)), destroyed());
    for round in 0..ROUNDS {
        let (creates, shrinks) = (large.leaf("one", create(64)), small.leaf(".", INFO));
        let [created_it, shrunk_it] = std::thread::scope(|scope| {
            let one = scope.spawn(|| tenants.say(&creates, &image));
            let other = scope.spawn(|| tenants.ask(&shrinks));
            [one.join().unwrap(), other.join().unwrap()]
        });
        let runs = created_it == created();
        let is_shrunk = !matches!(shrunk_it, Answer::Refused(_));
        assert!(!(runs && is_shrunk) || policy_of(&tenants).contains("64 MB"), "{round}: {created_it:?} {shrunk_it:?}");
        if runs {
            assert_eq!(tenants.ask(&large.leaf("one", DESTROY)), destroyed());
        }
    }
    tenants.end();
}

fn policy_of(tenants: &Tenants) -> String {
    tenants.siege.client(&["policy", "a:"]).out
}

fn expect_memory(tenants: &Tenants, name: &str, memory: u32) {
    let listed = tenants.siege.client(&["info", name]);
    let is_of_it = |line: &str| line.starts_with("memory ") && line.ends_with(&format!(" {memory} MB"));
    assert!(listed.out.lines().any(is_of_it), "{listed:?}");
}

/// The same on another CPU.
fn with_cpu_1(command: Command<'_>) -> Command<'_> {
    use fulmar_core::wire::UnikernelCommand::{ForceCreate, Restart};
    const CPU_1: List<'static, i64> = List::Items(&[1]);
    match command {
        Command::Unikernel(ForceCreate(mut config)) => {
            config.arguments.cpuids = CPU_1;
            Command::Unikernel(ForceCreate(config))
        }
        Command::Unikernel(Restart(Some(mut arguments))) => {
            arguments.cpuids = CPU_1;
            Command::Unikernel(Restart(Some(arguments)))
        }
        other => panic!("{other:?}"),
    }
}
