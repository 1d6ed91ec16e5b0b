//! What is refused, in which order, and in which words.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use fulmar_core::machine::{Input, NotAdmitted, Now, Refusal, Refused, Reply};
use fulmar_core::wire::{Command, Header};
use fulmar_tests::ask::{Ask, Flaw, PolicySpec, Spec, Wish, name};
use fulmar_tests::world::{Action, Budget, Fate, World};

type Host = World<8, 12, 6, 4, 4096>;

const DURABLE: Action = Action::Append(u8::MAX, Fate::Durable);

fn host() -> Host {
    let mut host = Host::new(Budget { faults: 100, crashes: 1, commands: 1000 }).unwrap();
    host.apply(&Action::Store(true)).unwrap();
    host
}

/// Asks on connection 0 and gives what is said at once.
fn say(host: &mut Host, text: &str, wish: Wish) -> String {
    host.last_reply = Reply::None;
    host.apply(&Action::Ask(0, Ask { name: name(text), wish })).unwrap();
    match host.last_reply {
        Reply::Done(done) => done.as_str().to_owned(),
        Reply::Refused(refusal) => refusal.to_string(),
        other => format!("{other:?}"),
    }
}

/// Sets a policy.
fn allow(host: &mut Host, path: &str, policy: PolicySpec) {
    assert_eq!(say(host, path, Wish::PolicyAdd(policy)), "None");
    host.apply(&DURABLE).unwrap();
    assert_eq!(host.marks["added policy"], host.known.policies.len() as u64);
}

const POLICY: PolicySpec =
    PolicySpec { unikernels: 2, memory_mb: 100, cpus: &[0, 1], bridges: &["br0"], block_mb: Some(5) };

#[test]
fn a_create_is_refused_for_the_first_reason() {
    let mut host = host();
    allow(&mut host, "p:", POLICY);
    let wrong = Spec { flaw: Flaw::NoImage, memory_mb: 300, cpus: &[2], bridge: Some("br1"), ..Spec::PLAIN };
    assert_eq!(say(&mut host, "p:a", Wish::Create(Spec::PLAIN)), "None");
    host.apply(&Action::HangUp(0)).unwrap();
    // Each step takes away the reason before.
    let path = "the name of a unikernel is needed, a path was given (it ends with ':')";
    let memory = "maximum allowed memory (100, used 16) would be exceeded (requesting 300): ask for less or allow more";
    for (text, spec, expected) in [
        ("p:", Spec { flaw: Flaw::Bhyve, ..wrong }, path),
        ("p:a", Spec { flaw: Flaw::Bhyve, ..wrong }, "Unikernel with same name is already running"),
        ("p:b", Spec { flaw: Flaw::NoMemory, ..wrong }, "0 MB is no amount of memory: give 1 to 4096 MB"),
        ("p:b", wrong, memory),
        ("p:b", Spec { memory_mb: 84, ..wrong }, "CPUid 2 is not allowed by policy: name another or allow it"),
        (
            "p:b",
            Spec { memory_mb: 84, cpus: &[1], ..wrong },
            "bridges br1 not allowed by policy: name another or allow it",
        ),
        ("p:b", Spec { memory_mb: 84, cpus: &[1], bridge: Some("br0"), ..wrong }, "the image is empty"),
    ] {
        assert_eq!(say(&mut host, text, Wish::Create(spec)), expected);
    }
    assert_eq!(say(&mut host, "p:q:b", Wish::Create(Spec::PLAIN)), "None");
    host.apply(&Action::HangUp(0)).unwrap();
    assert_eq!(
        say(&mut host, "p:c", Wish::Create(wrong)),
        "maximum amount of unikernels (2) reached: destroy one or allow more"
    );
}

#[test]
fn arguments_that_make_no_sense_are_refused_first() {
    for (flaw, expected) in [
        (Flaw::NoMemory, "0 MB is no amount of memory: give 1 to 4096 MB"),
        (Flaw::NoCpu, "no CPU is given: name at least one"),
        (Flaw::Bhyve, "bhyve virtual machines are not run here (bhyve runs on FreeBSD): give a Solo5 image"),
        (Flaw::Sector, "513 bytes are no sector of a block device: give a power of two from 512 to 32768"),
        (Flaw::Twice, "device service is given twice"),
        (Flaw::Nul, "an argument contains a NUL byte"),
        (Flaw::NoImage, "the image is empty"),
    ] {
        assert_eq!(say(&mut host(), "p:a", Wish::Create(Spec { flaw, ..Spec::PLAIN })), expected);
    }
}

#[test]
fn an_image_is_refused_with_what_it_lacks() {
    for (spec, expected) in [
        (Spec { image: 5, ..Spec::PLAIN }, "the compressed image is damaged: it is no complete zlib stream"),
        (Spec { image: 4, ..Spec::PLAIN }, "the image needs at least 65 MB of memory, 16 MB are given"),
        (Spec { image: 3, ..Spec::PLAIN }, "the image declares net device service, which is not given: add it"),
        (
            Spec { bridge: Some("br0"), ..Spec::PLAIN },
            "net device service is given, but the image does not declare it: leave it out",
        ),
    ] {
        let mut host = host();
        assert_eq!(say(&mut host, "p:a", Wish::Create(spec)), "None");
        host.apply(&Action::Store(true)).unwrap();
        let Reply::Refused(refusal) = host.last_reply else { panic!("{:?}", host.last_reply) };
        assert_eq!(refusal.to_string(), expected);
    }
    let mut host = host();
    host.apply(&Action::Host(1)).unwrap();
    assert_eq!(say(&mut host, "p:a", Wish::Create(Spec { image: 0, ..Spec::PLAIN })), "None");
    host.apply(&Action::Store(true)).unwrap();
    let Reply::Refused(refusal) = host.last_reply else { panic!("{:?}", host.last_reply) };
    let expected = "hvt images cannot run here, /dev/kvm (on FreeBSD: vmm) cannot be used: build the unikernel for spt";
    assert_eq!(refusal.to_string(), expected);
}

#[test]
fn what_is_being_created_is_busy_and_unknown() {
    let mut host = host();
    host.apply(&Action::Ask(1, Ask { name: name("p:a"), wish: Wish::Create(Spec::PLAIN) })).unwrap();
    for step in [Action::Store(true), Action::Launch(0, true), DURABLE] {
        let busy = "this unikernel is still being created or replaced, try again";
        assert_eq!(say(&mut host, "p:a", Wish::Destroy), busy);
        assert_eq!(say(&mut host, "p:a", Wish::Info), "info: not found");
        assert_eq!(say(&mut host, "p:a", Wish::Get(0)), "get: no unikernel found");
        host.apply(&step).unwrap();
    }
    assert_eq!(say(&mut host, "p:a", Wish::Info), "Infos(Current)");
    assert_eq!(say(&mut host, "p:b", Wish::Destroy), "destroy: not found");
    assert_eq!(say(&mut host, "p:", Wish::Destroy), "destroy: not found");
    assert_eq!(say(&mut host, "p:a", Wish::Unknown), "unknown command");
}

#[test]
fn policies_stand_within_those_above_and_around_what_runs() {
    let mut host = host();
    allow(&mut host, "p:", POLICY);
    allow(&mut host, "p:q:", PolicySpec { unikernels: 1, memory_mb: 50, cpus: &[0], bridges: &[], block_mb: None });
    let running = Spec { image: 3, bridge: Some("br0"), cpus: &[1], ..Spec::PLAIN };
    assert_eq!(say(&mut host, "p:a", Wish::Create(running)), "None");
    for step in [Action::Store(true), Action::Launch(0, true), DURABLE] {
        host.apply(&step).unwrap();
    }
    let root = "the root policy is what the host has and can be neither set nor removed";
    for (path, policy, expected) in [
        (":", POLICY, root),
        ("p:", POLICY, "no modification of policy"),
        ("p:x:", PolicySpec { unikernels: -1, ..POLICY }, "-1 is negative: a policy allows 0 or more"),
        ("p:x:", PolicySpec { cpus: &[0, 2000], ..POLICY }, "CPUid 2000 does not exist: ids run from 0 to 1023"),
        ("p:x:", PolicySpec { unikernels: 3, ..POLICY }, "policy above allows 2 unikernels, which is fewer than 3"),
        (
            "p:x:",
            PolicySpec { memory_mb: 101, ..POLICY },
            "policy above allows 100 MB memory, which is fewer than 101 MB",
        ),
        ("p:x:", PolicySpec { cpus: &[0, 2], ..POLICY }, "policy above does not allow CPUid 2"),
        ("p:x:", PolicySpec { bridges: &["br0", "br1"], ..POLICY }, "policy above does not allow bridge br1"),
        (
            "p:x:",
            PolicySpec { block_mb: Some(6), ..POLICY },
            "policy above allows 5 MB block storage, which is fewer than 6 MB",
        ),
        (
            "p:",
            PolicySpec { unikernels: 0, ..POLICY },
            "policy allows 0 unikernels, which is fewer than 1, which a policy below allows: make that one smaller first, 'policy' lists them",
        ),
        (
            "p:",
            PolicySpec { memory_mb: 10, unikernels: 1, ..POLICY },
            "policy allows 10 MB memory, which is fewer than 50 MB, which a policy below allows: make that one smaller first, 'policy' lists them",
        ),
        ("p:", PolicySpec { cpus: &[0], ..POLICY }, "policy does not allow CPUid 1, which a running unikernel uses"),
        (
            "p:",
            PolicySpec { bridges: &[], ..POLICY },
            "policy does not allow bridge br0, which a running unikernel uses",
        ),
    ] {
        assert_eq!(say(&mut host, path, Wish::PolicyAdd(policy)), expected);
    }
    assert_eq!(say(&mut host, ":", Wish::PolicyRemove), root);
    assert_eq!(say(&mut host, "r:", Wish::PolicyRemove), "unknown policy");
    assert_eq!(say(&mut host, "p:q:", Wish::PolicyRemove), "None");
    host.apply(&Action::HangUp(0)).unwrap();
    assert_eq!(say(&mut host, "p:q:", Wish::PolicyRemove), "this policy is being changed, try again");
    host.apply(&DURABLE).unwrap();
    for (policy, expected) in [
        (PolicySpec { unikernels: 0, ..POLICY }, "policy allows 0 unikernels, but 1 run already"),
        (PolicySpec { memory_mb: 10, ..POLICY }, "policy allows 10 MB memory, but 16 MB are used already"),
    ] {
        assert_eq!(say(&mut host, "p:", Wish::PolicyAdd(policy)), expected);
    }
}

#[test]
fn the_host_is_asked_about_at_the_root_alone() {
    let mut host = host();
    let mut ask = |text: &str| {
        let header = Header::new(1, name(text));
        let input = Input::Command { connection: 0, header: &header, command: &Command::Host, image: None };
        host.machine.handle(Now { ms: 0, wall_ms: 0 }, input);
        while host.machine.next_effect().is_some() {}
        host.machine.reply(0)
    };
    assert_eq!(ask(":"), Reply::Host);
    for text in ["p:", "a", "p:a"] {
        assert_eq!(ask(text), Reply::Refused(Refusal::HostPath), "{text}");
    }
    // A tender's own memory, and the kernel's for it, are the host's to have.
    assert_eq!(say(&mut host, "a", Wish::Create(Spec::PLAIN)), "None");
    let uses = host.machine.uses_of_host();
    let used = |what: &str| uses.iter().find(|it| it.what.as_str() == Some(what)).unwrap().used;
    assert_eq!((used("unikernels"), used("memory-mb"), used("policies")), (1, 16 + 4 + 1, 1));
    assert!(used("argument-bytes") > 0);
}

#[test]
fn a_refusal_says_whose_policy_it_comes_from() {
    let refused = |above| Refusal::Admission(NotAdmitted { refused: Refused::Unikernels { allowed: 3 }, above });
    for (above, wanted) in
        [(0, "(policy of a:b:)"), (1, "(policy of a:)"), (2, "(policy of the host)"), (255, "the host")]
    {
        let text = refused(above).to_whom(&name("a:b:c")).to_string();
        assert!(text.starts_with("maximum amount of unikernels (3) reached") && text.contains(wanted), "{text}");
    }
}
