//! Processes that are killed, twins, clients that hang up, and many commands at once: nothing is doubled, nothing is left.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::net::Shutdown;

use fulmar_core::wire::{Command, UnikernelCommand};
use fulmar_tests::raw::{Answer, DESTROY, Raw, Wish, frame};
use fulmar_tests::siege::{Siege, control_half, kill_9, pid_of, tenders};
use fulmar_tests::system::{is_gone, wait_until};
use nix::sys::signal::{Signal, kill};

#[test]
fn one_name_is_one_unikernel() {
    let Some(siege) = Siege::begin("one_name_is_one_unikernel") else { return };
    let hello = siege.image("hello");
    assert_eq!(siege.client(&["create", "siege:one", &hello]).code, 0);
    for name in ["siege:one", "SIEGE:One"] {
        let again = siege.client(&["create", name, &hello]);
        assert_eq!(again.code, 117, "{again:?}");
        assert!(again.err.contains("siege:one") && again.err.contains("already running"), "{again:?}");
    }
    assert_eq!(siege.client(&["destroy", "siege:one"]).code, 0);
    assert_eq!(siege.client(&["destroy", "siege:one"]).code, 117);
    // At once, each time one of them wins.
    let image = std::fs::read(&hello).unwrap();
    let socket = siege.system.socket("vmmd.sock");
    for _ in 0..5 {
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let create = || Raw::connect(&socket).ask("siege:one", Wish::of(&image).command());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let created = answers.iter().filter(|answer| matches!(answer, Answer::Done(_))).count();
        assert_eq!(created, 1, "{answers:?}");
        siege.the_tender();
        // And destroyed at once: all of them hear that it is gone.
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let destroy = || Raw::connect(&socket).ask("siege:one", DESTROY);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(destroy)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(answers.iter().any(|answer| matches!(answer, Answer::Done(_))), "{answers:?}");
        assert!(tenders(siege.system.folder()).is_empty());
    }
    siege.end();
}

#[test]
fn a_killed_tender_is_gone_or_comes_again() {
    let Some(siege) = Siege::begin("a_killed_tender_is_gone_or_comes_again") else { return };
    let hello = siege.image("hello");
    assert_eq!(siege.client(&["create", "siege:once", &hello]).code, 0);
    kill_9(siege.the_tender());
    assert!(wait_until(|| !siege.is_listed(":once") && siege.names().is_empty()), "{:?}", siege.names());
    siege.expect_log("vmmd", "siege:once ended: signal 9");
    siege.expect_nothing_left();
    // One that is to run again does, and is one and the same in the list.
    assert_eq!(siege.client(&["create", "siege:again", &hello, "--restart-on-fail"]).code, 0);
    let first = siege.the_tender();
    kill_9(first);
    assert!(wait_until(|| matches!(tenders(siege.system.folder()).as_slice(), [other] if *other != first)));
    assert_eq!(siege.names().len(), 1);
    assert_eq!(siege.client(&["destroy", "siege:again"]).code, 0);
    siege.end();
}

#[test]
fn a_guest_that_does_what_is_forbidden_harms_nobody() {
    let Some(siege) = Siege::begin("a_guest_that_does_what_is_forbidden_harms_nobody") else { return };
    let crash = siege.image("crash");
    for how in ["--how=call", "--how=null", "--how=text"] {
        assert_eq!(siege.client(&["create", "siege:bad", &crash, "--arg", how]).code, 0);
        siege.expect_line("siege:bad", "crash: now");
        assert!(wait_until(|| siege.names().is_empty()), "{how} {:?}", siege.names());
    }
    siege.expect_log("vmmd", "siege:bad ended: ");
    // One that fails at once and is to run again rests in between, and can be destroyed while it does.
    assert_eq!(siege.client(&["create", "siege:bad", &crash, "--restart-on-fail", "--arg", "--how=call"]).code, 0);
    siege.expect_log("vmmd", "siege:bad does not run, next try in");
    assert_eq!(siege.names().len(), 1);
    assert_eq!(siege.client(&["destroy", "siege:bad"]).code, 0);
    siege.end();
}

#[test]
fn a_killed_console_daemon_stalls_nobody_and_finds_its_consoles_again() {
    let Some(mut siege) = Siege::begin("a_killed_console_daemon") else { return };
    let hello = siege.image("hello");
    assert_eq!(siege.client(&["create", "siege:talks", &hello]).code, 0);
    siege.expect_line("siege:talks", "tick");
    let tender = siege.the_tender();
    siege.system.end("vmmd_console", Signal::SIGKILL).unwrap();
    let said = siege.client(&["console", "siege:talks"]);
    assert_eq!(said.code, 122, "{said:?}");
    assert!(said.err.contains("vmmd_console") && said.err.contains("start it again"), "{said:?}");
    // Unikernels come and go without it.
    assert_eq!(siege.client(&["destroy", "siege:talks"]).code, 0);
    assert!(is_gone(pid_of(tender)));
    assert_eq!(siege.client(&["create", "siege:later", &hello]).code, 0);
    siege.console = siege.system.start_console().unwrap();
    // It says its first words to the one that came after, for they were kept in the fifo.
    siege.expect_line("siege:later", "Hello, World!");
    siege.expect_line("siege:later", "tick");
    assert_eq!(siege.client(&["destroy", "siege:later"]).code, 0);
    siege.count_again();
    siege.end();
}

#[test]
fn a_killed_half_of_vmmd_ends_the_other_and_the_next_adopts_all() {
    let Some(mut siege) = Siege::begin("a_killed_half_of_vmmd") else { return };
    let hello = siege.image("hello");
    for kills_control in [true, false] {
        assert_eq!(siege.client(&["create", "siege:stays", &hello]).code, 0);
        let tender = siege.the_tender();
        let control = control_half(siege.vmmd);
        if kills_control {
            kill_9(control);
        } else {
            kill_9(siege.vmmd);
        }
        let (host, half) = (pid_of(siege.vmmd), pid_of(control));
        assert!(wait_until(|| is_gone(host) && is_gone(half)), "{}", siege.system.log("vmmd"));
        assert!(!is_gone(pid_of(tender)));
        let said = siege.client(&["info"]);
        assert_eq!(said.code, 122, "{said:?}");
        siege.system.end("vmmd", Signal::SIGTERM).unwrap();
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        siege.expect_log("vmmd", "siege:stays still runs");
        assert_eq!(siege.names().len(), 1);
        assert_eq!(siege.the_tender(), tender);
        // Its policy is full, as before.
        let other = siege.client(&["create", "siege:other", &hello]);
        assert!(other.err.contains("maximum amount of unikernels"), "{other:?}");
        siege.expect_line("siege:stays", "tick");
        assert_eq!(siege.client(&["destroy", "siege:stays"]).code, 0);
        assert!(is_gone(pid_of(tender)));
    }
    siege.expect_log("vmmd", "the control half is gone: vmmd ends, unikernels keep running");
    siege.count_again();
    siege.end();
}

#[test]
fn tenders_killed_while_vmmd_is_away() {
    let Some(mut siege) = Siege::begin("tenders_killed_while_vmmd_is_away") else { return };
    let hello = siege.image("hello");
    assert_eq!(siege.client(&["add-policy", "away", "3", "--mem", "96", "--cpu", "0"]).code, 0);
    for (name, rest) in [("away:a", None), ("away:b", Some("--restart-on-fail")), ("away:c", None)] {
        let words: Vec<&str> = ["create", name, &hello].into_iter().chain(rest).collect();
        assert_eq!(siege.client(&words).code, 0);
    }
    let before = tenders(siege.system.folder());
    assert_eq!(before.len(), 3);
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    assert_eq!(tenders(siege.system.folder()), before);
    before.iter().for_each(|tender| kill_9(*tender));
    assert!(wait_until(|| before.iter().all(|tender| is_gone(pid_of(*tender)))));
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    // Everything that has a record is brought up again, as after a reboot.
    assert!(wait_until(|| tenders(siege.system.folder()).len() == 3), "{}", siege.system.log("vmmd"));
    assert_eq!(siege.names().len(), 3);
    for name in ["away:a", "away:b", "away:c"] {
        assert_eq!(siege.client(&["destroy", name]).code, 0);
    }
    siege.count_again();
    siege.end();
}

#[test]
fn ends_that_nobody_watched() {
    let Some(mut siege) = Siege::begin("ends_that_nobody_watched") else { return };
    let hello = siege.image("hello");
    for is_adopted in [false, true] {
        // Long enough to be stopped in time.
        assert_eq!(
            siege.client(&["create", "siege:done", &hello, "--arg", "--ticks=5", "--arg", "--status=7"]).code,
            0
        );
        let tender = pid_of(siege.the_tender());
        kill(tender, Signal::SIGSTOP).unwrap();
        siege.system.end("vmmd", Signal::SIGTERM).unwrap();
        if is_adopted {
            siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
            kill(tender, Signal::SIGCONT).unwrap();
            siege.expect_log("vmmd", "siege:done ended: exit 7");
        } else {
            kill(tender, Signal::SIGCONT).unwrap();
            assert!(wait_until(|| is_gone(tender)));
            siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
            siege.expect_log("vmmd", "siege:done ended while vmmd was away: exit 7");
        }
        // It was not to be run again.
        assert!(wait_until(|| siege.names().is_empty()), "{}", siege.system.log("vmmd"));
    }
    siege.count_again();
    siege.end();
}

#[test]
fn clients_that_hang_up_half_way() {
    let Some(siege) = Siege::begin("clients_that_hang_up_half_way") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let mut image = std::fs::read(siege.image("hello")).unwrap();
    image.resize(2 << 20, 0);
    let create = frame("siege:half", Wish::of(&image).command());
    for part in [1, 3, 5, 40, 2000, 70_000, create.len() / 2, create.len() - 1] {
        let mut client = Raw::connect(&socket);
        assert!(client.send(&create[..part]));
    }
    siege.expect_log("vmmd", "a connection ended within a message");
    siege.expect_service();
    siege.expect_nothing_left();
    // Whoever hangs up after the last byte gets what it asked for, only not the answer.
    let mut client = Raw::connect(&socket);
    assert!(client.send(&create));
    drop(client);
    assert!(wait_until(|| siege.names().len() == 1), "{}", siege.system.log("vmmd"));
    let mut client = Raw::connect(&socket);
    assert!(client.send(&frame("siege:half", DESTROY)));
    client.0.shutdown(Shutdown::Both).unwrap();
    drop(client);
    assert!(wait_until(|| siege.names().is_empty()));
    siege.end();
}

#[test]
fn two_hundred_commands_of_four_clients() {
    let Some(siege) = Siege::begin("two_hundred_commands_of_four_clients") else { return };
    let said = siege.client(&["add-policy", "mix", "3", "--mem", "96", "--cpu", "0"]);
    assert_eq!(said.code, 0, "{said:?}");
    let socket = siege.system.socket("vmmd.sock");
    let image = std::fs::read(siege.image("hello")).unwrap();
    let broken = &image[..image.len() / 2];
    let work = |seed: u64| {
        let mut state = seed;
        for _ in 0..50 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let choice = state >> 33;
            let name = format!("mix:{}", ["a", "b", "c", "d"][usize::try_from(choice >> 8).unwrap() % 4]);
            let command = match choice % 8 {
                0..3 => Wish::of(&image).command(),
                3 => Wish::of(broken).command(),
                4 | 5 => DESTROY,
                6 => Command::Unikernel(UnikernelCommand::Info),
                _ => Command::Unikernel(UnikernelCommand::Get { level: 1 }),
            };
            let mut client = Raw::connect(&socket);
            assert!(client.send(&frame(&name, command)));
            // Some do not wait for the answer.
            if !choice.is_multiple_of(11) {
                assert_ne!(client.receive(), Answer::Closed, "{command:?}");
            }
        }
    };
    std::thread::scope(|scope| (1..=4).for_each(|seed| drop(scope.spawn(move || work(seed)))));
    assert!(siege.names().len() <= 3);
    for name in ["mix:a", "mix:b", "mix:c", "mix:d"] {
        assert!(wait_until(|| match Raw::connect(&socket).ask(name, DESTROY) {
            Answer::Done(_) => true,
            Answer::Refused(text) => text.contains("not found"),
            other => panic!("{other:?}"),
        }));
    }
    // All of the path's policy is free.
    for name in ["mix:a", "mix:b", "mix:c"] {
        assert_eq!(siege.client(&["create", name, &siege.image("hello"), "--mem", "32"]).code, 0);
    }
    for name in ["mix:a", "mix:b", "mix:c"] {
        assert_eq!(siege.client(&["destroy", name]).code, 0);
    }
    siege.end();
}
