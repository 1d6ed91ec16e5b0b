//! Force-create and restart with the real daemons and tenders: what is refused touches nothing, what fails brings the old
//! one back, and of a name there is never more than one.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use fulmar_core::wire::{Bridge, Command, Config, UnikernelCommand};
use fulmar_tests::images;
use fulmar_tests::raw::{Answer, DESTROY, Raw, Wish, frame};
use fulmar_tests::siege::{self, Siege, arguments, pid_of, tenders};
use fulmar_tests::system::{is_gone, wait_until};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

const RESTART: Command<'static> = Command::Unikernel(UnikernelCommand::Restart(None));

/// What `info` says of one.
fn told(siege: &Siege, name: &str) -> Value {
    let said = siege.client(&["info", name, "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    serde_json::from_str::<Value>(&said.out).unwrap()["unikernels"][0].clone()
}

/// A create that takes the place of what is there.
fn force(wish: Wish<'_>) -> Command<'_> {
    match wish.command() {
        Command::Unikernel(UnikernelCommand::Create(config)) => {
            Command::Unikernel(UnikernelCommand::ForceCreate(config))
        }
        other => other,
    }
}

/// A restart with the arguments of this create.
fn restart(wish: Wish<'_>) -> Command<'_> {
    match wish.command() {
        Command::Unikernel(UnikernelCommand::Create(Config { arguments, .. })) => {
            Command::Unikernel(UnikernelCommand::Restart(Some(arguments)))
        }
        other => other,
    }
}

#[test]
fn one_takes_the_place_of_another() {
    let Some(siege) = Siege::begin("one_takes_the_place_of_another") else { return };
    let hello = siege.image("hello");
    // Where there is none it is made, and the path has room for one of 64 MB.
    assert_eq!(siege.client(&["create", "siege:one", &hello, "--mem", "48", "--force"]).code, 0);
    let first = siege.the_tender();
    assert_eq!(siege.client(&["create", "siege:one", &hello, "--mem", "64", "--force"]).code, 0);
    assert!(is_gone(pid_of(first)));
    let second = siege.the_tender();
    assert_eq!(told(&siege, "siege:one")["memory_mb"], 64);
    siege.expect_line("siege:one", "with 64 MiB of memory");
    // What is refused touches nothing: by the policy, by the image, by its devices, by what arrives.
    let image = fs::read(&hello).unwrap();
    let crash = images::image(2, &["service"], 0x1000);
    let huge = images::image(2, &[], 63 << 20);
    let nets = [Bridge { name: "service", bridge: Some("nowhere"), mac: None }];
    let of = Wish::of(&image);
    let refused = [
        (force(Wish { memory: 65, ..of }), "maximum allowed memory (64, used 0)"),
        (force(Wish { cpus: &[1], ..of }), "CPUid 1 is not allowed"),
        (force(Wish { bridges: &nets, ..of }), "bridges nowhere not allowed"),
        (force(Wish { compressed: true, ..of }), "no complete zlib stream"),
        (force(Wish::of(b"nonsense")), "ELF"),
        (force(Wish::of(&crash)), "declares net device service"),
        (force(Wish::of(&huge)), "needs at least"),
        (restart(Wish { memory: 65, ..of }), "maximum allowed memory (64, used 0)"),
        (restart(Wish { memory: 0, ..of }), "no amount of memory"),
        (restart(Wish { bridges: &nets, ..of }), "bridges nowhere not allowed"),
    ];
    let socket = siege.system.socket("vmmd.sock");
    for (command, reason) in refused {
        let answer = Raw::connect(&socket).ask("siege:one", command);
        assert!(answer.reason().contains(reason), "{answer:?} instead of {reason}");
        assert_eq!(siege.the_tender(), second);
    }
    assert_eq!(told(&siege, "siege:one")["memory_mb"], 64);
    // One that does not heed SIGTERM is killed in time.
    kill(pid_of(second), Signal::SIGSTOP).unwrap();
    assert_eq!(siege.client(&["create", "siege:one", &hello, "--mem", "16", "--force"]).code, 0);
    assert!(is_gone(pid_of(second)));
    assert_eq!(siege.client(&["destroy", "siege:one"]).code, 0);
    siege.end();
}

#[test]
fn restarts_with_and_without_arguments() {
    let Some(siege) = Siege::begin("restarts_with_and_without_arguments") else { return };
    let hello = siege.image("hello");
    for words in [&["restart", "siege:re"][..], &["restart", "siege:re", "--replace-arguments", "--mem", "16"]] {
        let said = siege.client(words);
        assert_eq!((said.code, said.err.contains("restart: not found")), (117, true), "{said:?}");
    }
    assert_eq!(siege.client_before(&["create", "siege:re", &hello, "--mem", "16", "--", "first"]).code, 0);
    let first = siege.the_tender();
    assert_eq!(siege.client(&["restart", "siege:re"]).code, 0);
    let second = siege.the_tender();
    assert!(first != second && is_gone(pid_of(first)));
    let now = told(&siege, "siege:re");
    assert_eq!((&now["memory_mb"], &now["condition"]["restarts"]), (&16.into(), &0.into()), "{now}");
    assert_eq!(now["condition"]["last_run"]["how"], "stopped, to be started anew", "{now}");
    let words = ["restart", "siege:re", "--replace-arguments", "--mem", "32", "--", "other"];
    assert_eq!(siege.client_before(&words).code, 0);
    let third = siege.the_tender();
    assert!(third != second && arguments(third).iter().any(|word| word == "other"), "{:?}", arguments(third));
    assert_eq!(told(&siege, "siege:re")["memory_mb"], 32);
    siege.expect_line("siege:re", "My arguments: --name=re other");
    // What it is now is what comes back.
    assert_eq!(siege.client(&["destroy", "siege:re"]).code, 0);
    // One that rests is started at once.
    let crash = siege.image("crash");
    assert_eq!(siege.client(&["create", "siege:re", &crash, "--restart-on-fail", "--arg", "--how=call"]).code, 0);
    let rests = || told(&siege, "siege:re")["condition"]["phase"] == "resting";
    for _ in 0..3 {
        assert!(wait_until(rests));
        let now = told(&siege, "siege:re")["condition"].clone();
        assert_eq!(now["last_run"]["signal"], 31, "{now}");
        assert!(now["last_run"]["how"].as_str().unwrap().contains("sandbox forbids"), "{now}");
        assert!(now["next_try"].is_string() && now["reason"].as_str().unwrap().contains("signal 31"), "{now}");
        assert_eq!(siege.client(&["restart", "siege:re"]).code, 0);
    }
    assert_eq!(siege.client(&["destroy", "siege:re"]).code, 0);
    siege.end();
}

#[test]
fn what_cannot_be_launched_rests_and_comes_back() {
    let Some(siege) = Siege::begin("what_cannot_be_launched_rests_and_comes_back") else { return };
    let hello = siege.image("hello");
    assert_eq!(siege.client(&["create", "siege:lost", &hello, "--mem", "16"]).code, 0);
    let first = siege.the_tender();
    // Somebody takes its image away.
    let folder = siege.system.state().join("images");
    let digest = told(&siege, "siege:lost")["digest"].as_str().unwrap().to_owned();
    let name = siege::files(&folder).into_iter().find(|name| name.contains(&digest)).unwrap();
    let (image, aside) = (folder.join(&name), siege.system.folder().join("aside"));
    fs::rename(&image, &aside).unwrap();
    // With other arguments it is looked into before anything is stopped.
    let said = siege.client(&["restart", "siege:lost", "--replace-arguments", "--mem", "32"]);
    assert_eq!(said.code, 117, "{said:?}");
    assert_eq!(siege.the_tender(), first);
    // As it is, it is stopped, cannot be started, and says so; it stays desired.
    let said = siege.client(&["restart", "siege:lost"]);
    assert_eq!((said.code, said.err.contains("could not create unikernel")), (117, true), "{said:?}");
    assert!(is_gone(pid_of(first)) && tenders(siege.system.folder()).is_empty());
    assert_eq!(told(&siege, "siege:lost")["condition"]["phase"], "resting");
    fs::rename(&aside, &image).unwrap();
    siege.the_tender();
    assert_eq!(siege.client(&["destroy", "siege:lost"]).code, 0);
    siege.end();
}

#[test]
fn many_replace_and_restart_and_destroy_the_same_one() {
    let Some(siege) = Siege::begin("many_replace_and_restart_and_destroy_the_same_one") else { return };
    let image = fs::read(siege.image("hello")).unwrap();
    let socket = siege.system.socket("vmmd.sock");
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..6_usize {
            let (image, socket, done) = (&image, &socket, &done);
            scope.spawn(move || {
                for round in 0..20_usize {
                    let of = Wish { memory: if round % 2 == 0 { 64 } else { 16 }, ..Wish::of(image) };
                    let command = match (thread + round) % 4 {
                        0 => restart(of),
                        1 => RESTART,
                        2 if thread == 5 => DESTROY,
                        _ => force(of),
                    };
                    if round % 7 == 6 {
                        // And is gone before it is answered.
                        Raw::connect(socket).send(&frame("siege:many", command));
                        continue;
                    }
                    let tried = wait_until(|| match Raw::connect(socket).ask("siege:many", command) {
                        Answer::Done(_) => done.fetch_add(1, Ordering::Relaxed) < usize::MAX,
                        Answer::Refused(reason) if reason.contains("try again") => false,
                        Answer::Refused(reason) => {
                            reason.contains("not found") || reason.contains("destroyed meanwhile")
                        }
                        other => panic!("{other:?}"),
                    });
                    assert!(tried, "it stays busy, or is refused without reason");
                }
            });
        }
    });
    assert!(done.load(Ordering::Relaxed) > 60, "{done:?}\n{}", siege.system.log("vmmd"));
    // What is left is one, or none, and it runs.
    let at_rest = || siege.names().len() == tenders(siege.system.folder()).len();
    assert!(wait_until(at_rest), "{:?}", siege.names());
    assert!(siege.names().len() <= 1, "{:?}", siege.names());
    let last = || match Raw::connect(&socket).ask("siege:many", DESTROY) {
        Answer::Refused(reason) if reason.contains("try again") => false,
        answer => matches!(answer, Answer::Done(_)) || answer.reason().contains("not found"),
    };
    assert!(wait_until(last));
    siege.end();
}

/// An image in a force-create takes the same way as in a create, and a hang-up in the middle of it leaves nothing.
#[test]
fn half_a_force_create_leaves_the_old_one() {
    let Some(siege) = Siege::begin("half_a_force_create_leaves_the_old_one") else { return };
    let hello = siege.image("hello");
    assert_eq!(siege.client(&["create", "siege:half", &hello]).code, 0);
    let tender = siege.the_tender();
    let image = fs::read(&hello).unwrap();
    let whole = frame("siege:half", force(Wish::of(&image)));
    for part in [5, 60, whole.len() / 2, whole.len() - 1] {
        let mut client = Raw::connect(&siege.system.socket("vmmd.sock"));
        client.send(&whole[..part]);
    }
    siege.expect_service();
    assert_eq!(siege.the_tender(), tender);
    assert_eq!(siege.client(&["destroy", "siege:half"]).code, 0);
    siege.end();
}
