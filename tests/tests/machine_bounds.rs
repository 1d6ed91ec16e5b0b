//! The bounds of the machine's own tables: at each the next one is refused by its name, what is there is not touched, and the place of one
//! that goes is another's. The tables are as small here as they are large on a host; the code is the same.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use fulmar_core::machine::{Exit, Refusal, Reply};
use fulmar_tests::ask::{Ask, Spec, Wish, name};
use fulmar_tests::world::{Action, Budget, Fate, World};

/// Unikernels, policies, block devices, connections, bytes of arguments.
type Host<const UNIKERNELS: usize, const BLOCKS: usize, const ARGUMENTS: usize> =
    World<UNIKERNELS, 4, BLOCKS, 4, ARGUMENTS>;

const DURABLE: Action = Action::Append(u8::MAX, Fate::Durable);
const STORE: Action = Action::Store(true);

/// One with an argument of so many bytes.
const fn with(argument_bytes: usize) -> Wish {
    Wish::Create(Spec { argument_bytes, ..Spec::PLAIN })
}

fn host<const U: usize, const B: usize, const A: usize>() -> Host<U, B, A> {
    let mut host = Host::new(Budget { faults: 0, crashes: 0, commands: 1000 }).unwrap();
    host.apply(&STORE).unwrap();
    host
}

fn ask<const U: usize, const B: usize, const A: usize>(host: &mut Host<U, B, A>, text: &str, wish: Wish) -> Reply {
    host.last_reply = Reply::None;
    host.apply(&Action::Ask(0, Ask { name: name(text), wish })).unwrap();
    host.last_reply
}

/// What is asked for is done, by these actions.
fn done<const U: usize, const B: usize, const A: usize>(
    host: &mut Host<U, B, A>,
    text: &str,
    wish: Wish,
    actions: &[Action],
) {
    assert!(matches!(ask(host, text, wish), Reply::None), "{text}: {:?}", host.last_reply);
    actions.iter().for_each(|action| host.apply(action).unwrap());
    assert!(matches!(host.last_reply, Reply::Done(_)), "{text}: {:?}", host.last_reply);
}

const CREATED: [Action; 3] = [STORE, Action::Launch(0, true), DURABLE];
const ENDED: [Action; 3] = [DURABLE, Action::Tick(0), Action::Exit(1, Exit::Signal(9))];

#[test]
fn unikernels_end_where_the_table_ends() {
    let mut host = host::<3, 2, 4096>();
    for text in ["a", "b", "p:c"] {
        done(&mut host, text, with(0), &CREATED);
    }
    for text in ["d", "p:d"] {
        let reply = ask(&mut host, text, with(0));
        assert!(matches!(reply, Reply::Refused(Refusal::UnikernelsFull)), "{reply:?}");
    }
    done(&mut host, "a", Wish::Destroy, &ENDED);
    done(&mut host, "d", with(0), &CREATED);
    let reply = ask(&mut host, "e", with(0));
    assert!(matches!(reply, Reply::Refused(Refusal::UnikernelsFull)), "{reply:?}");
}

#[test]
fn arguments_of_all_together_end_where_their_memory_ends() {
    let mut host = host::<8, 2, 1024>();
    done(&mut host, "a", with(400), &CREATED);
    done(&mut host, "b", with(400), &CREATED);
    let reply = ask(&mut host, "c", with(400));
    assert!(matches!(reply, Reply::Refused(Refusal::ArgumentsFull)), "{reply:?}");
    // A short one has room still, and what a longer one left has room for another.
    done(&mut host, "c", with(10), &CREATED);
    done(&mut host, "a", Wish::Destroy, &ENDED);
    done(&mut host, "d", with(400), &CREATED);
    let reply = ask(&mut host, "e", with(400));
    assert!(matches!(reply, Reply::Refused(Refusal::ArgumentsFull)), "{reply:?}");
}

#[test]
fn block_devices_end_where_the_table_ends() {
    let mut host = host::<2, 2, 4096>();
    for text in ["a", "p:b"] {
        done(&mut host, text, Wish::BlockAdd(1), &[STORE, DURABLE]);
    }
    let full = |reply: Reply| matches!(reply, Reply::Refused(Refusal::Block(refused)) if refused.to_string().contains("no room"));
    assert!(full(ask(&mut host, "p:c", Wish::BlockAdd(1))), "{:?}", host.last_reply);
    done(&mut host, "a", Wish::BlockRemove, &[DURABLE, STORE]);
    done(&mut host, "p:c", Wish::BlockAdd(1), &[STORE, DURABLE]);
    assert!(full(ask(&mut host, "d", Wish::BlockAdd(1))), "{:?}", host.last_reply);
}
