//! Storms: halves that are killed while many clients ask, processes that stand still, one user who takes all connections.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use fulmar_core::limits::{CONNECTIONS_PER_USER_MAX, CONSOLE_CONNECTIONS_MAX, DAEMON_CONNECTIONS_PER_USER_MAX};
use fulmar_core::wire::{Command, ConsoleCommand, Window};
use fulmar_tests::raw::{Answer, DESTROY, INFO, Raw, Wish, frame};
use fulmar_tests::siege::{self, Siege, arguments, control_half, pid_of, tenders};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{is_gone, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;

/// Says to [`takes_all_connections`] which socket it is to take.
const GREEDY: &str = "FULMAR_GREEDY";

/// Nobody's user id, which owns nothing.
const NOBODY: u32 = 65534;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The labels of all tenders that run, sorted: each is given its own as its first argument.
fn running(siege: &Siege) -> Vec<String> {
    let label = |tender: &u32| {
        let words = arguments(*tender);
        words.iter().find_map(|word| word.strip_prefix("--name=").map(str::to_owned)).unwrap_or_default()
    };
    let mut labels: Vec<String> = tenders(siege.system.folder()).iter().map(label).collect();
    labels.sort();
    labels
}

fn listed(siege: &Siege) -> Vec<String> {
    let label = |name: &String| name.rsplit(':').next().unwrap().to_owned();
    let mut labels: Vec<String> = siege.names().iter().map(label).collect();
    labels.sort();
    labels
}

#[test]
fn halves_killed_while_many_ask() {
    let Some(mut siege) = Siege::begin("halves_killed_while_many_ask") else { return };
    assert_eq!(siege.client(&["add-policy", "storm", "4", "--mem", "128", "--cpu", "0"]).code, 0);
    let image = std::fs::read(siege.image("hello")).unwrap();
    let socket = siege.system.socket("vmmd.sock");
    for round in 0..8_u32 {
        let stop = AtomicBool::new(false);
        let control = control_half(siege.vmmd);
        std::thread::scope(|scope| {
            for name in NAMES {
                let (stop, socket, image) = (&stop, &socket, &image);
                scope.spawn(move || {
                    let name = format!("storm:{name}");
                    while !stop.load(Ordering::Relaxed) {
                        for command in [Wish::of(image).command(), DESTROY] {
                            if let Ok(mut client) = Raw::try_connect(socket)
                                && client.send(&frame(&name, command))
                            {
                                client.receive();
                            }
                        }
                    }
                });
            }
            // A different moment each time: after so many more creations.
            let created = || siege.system.log("vmmd").matches("created unikernel").count();
            let enough = created() + 5 + usize::try_from(round * 7 % 5).unwrap();
            assert!(wait_until(|| created() >= enough), "{}", siege.system.log("vmmd"));
            let victim = if round % 2 == 0 { control } else { siege.vmmd };
            kill(pid_of(victim), Signal::SIGKILL).unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        siege.system.end("vmmd", Signal::SIGTERM).unwrap();
        assert!(wait_until(|| is_gone(pid_of(control))));
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        // What is listed runs, once each, and nothing else does.
        let same = wait_until(|| running(&siege) == listed(&siege));
        assert!(same, "running {:?}, listed {:?}\n{}", running(&siege), listed(&siege), siege.system.log("vmmd"));
    }
    for name in NAMES {
        let answer = Raw::connect(&socket).ask(&format!("storm:{name}"), DESTROY);
        assert!(matches!(answer, Answer::Done(_)) || answer.reason().contains("not found"), "{answer:?}");
    }
    let images = || siege::files(&siege.system.state().join("images"));
    assert!(wait_until(|| images().iter().all(|name| name.starts_with("tmp-"))), "{:?}", images());
    // The whole of the path's policy is free.
    for name in NAMES {
        let words = ["create", &format!("storm:{name}"), &siege.image("hello"), "--mem", "32"];
        assert_eq!(siege.client(&words).code, 0);
    }
    for name in NAMES {
        assert_eq!(siege.client(&["destroy", &format!("storm:{name}")]).code, 0);
    }
    siege.count_again();
    siege.end();
}

#[test]
fn processes_that_stand_still() {
    let Some(siege) = Siege::begin("processes_that_stand_still") else { return };
    let hello = siege.image("hello");
    // A console daemon that does not answer.
    kill(pid_of(siege.console), Signal::SIGSTOP).unwrap();
    for _ in 0..70 {
        assert_eq!(siege.client(&["create", "siege:still", &hello]).code, 0);
        assert_eq!(siege.client(&["destroy", "siege:still"]).code, 0);
    }
    kill(pid_of(siege.console), Signal::SIGCONT).unwrap();
    // A tender that does not hear that it is to end.
    assert_eq!(siege.client(&["create", "siege:still", &hello]).code, 0);
    let mut found = Vec::new();
    assert!(wait_until(|| {
        found = tenders(siege.system.folder());
        found.len() == 1
    }));
    kill(pid_of(found[0]), Signal::SIGSTOP).unwrap();
    // Until it stands still, a signal of a lower number would still come first.
    assert!(wait_until(|| std::fs::read_to_string(format!("/proc/{}/stat", found[0])).unwrap().contains(") T ")));
    assert_eq!(siege.client(&["destroy", "siege:still"]).code, 0);
    assert!(is_gone(pid_of(found[0])));
    siege.expect_log("vmmd", "siege:still ended: signal 9");
    // A host half that does nothing: what needs it waits, the rest goes on.
    kill(pid_of(siege.vmmd), Signal::SIGSTOP).unwrap();
    let image = std::fs::read(&hello).unwrap();
    let mut waiting = Raw::connect(&siege.system.socket("vmmd.sock"));
    assert!(waiting.send(&frame("siege:still", Wish::of(&image).command())));
    for _ in 0..20 {
        siege.expect_service();
    }
    kill(pid_of(siege.vmmd), Signal::SIGCONT).unwrap();
    assert_eq!(waiting.receive(), Answer::Done("created unikernel".into()));
    assert_eq!(siege.client(&["destroy", "siege:still"]).code, 0);
    siege.end();
}

#[test]
#[ignore = "not a test: what another one runs as another user"]
fn takes_all_connections() {
    let Some(socket) = std::env::var_os(GREEDY) else { return };
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut client = Raw::connect(Path::new(&socket));
        client.send(&[0]);
        held.push(client);
    }
    // Until the other one lets go.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn one_user_does_not_take_all_connections() {
    const TEST: &str = "one_user_does_not_take_all_connections";
    let Some(siege) = Siege::begin(TEST) else { return };
    if !geteuid().is_root() {
        skip(TEST, "only root can ask as two users");
        return siege.end();
    }
    let socket = siege.system.socket("vmmd.sock");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    // This program again, as somebody else, from where somebody else can get at it.
    let program = siege.system.folder().join("greedy");
    siege::copy_program(&std::env::current_exe().unwrap(), &program);
    let mut greedy = Program::new(program);
    greedy.args(["--exact", "takes_all_connections", "--ignored"]).env(GREEDY, &socket).uid(NOBODY).gid(NOBODY);
    let mut greedy = greedy.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    siege.expect_log("vmmd", &format!("user {NOBODY} has {CONNECTIONS_PER_USER_MAX} already"));
    // Everybody else is served.
    let mut clients: Vec<Raw> = (0..100).map(|_| Raw::connect(&socket)).collect();
    for client in &mut clients {
        assert!(client.ask("siege:x", INFO).reason().contains("not found"));
    }
    drop(greedy.stdin.take());
    greedy.wait().unwrap();
    siege.end();
}

#[test]
#[ignore = "not a test: what another one runs as another user"]
fn takes_all_consoles() {
    let Some(socket) = std::env::var_os(GREEDY) else { return };
    let add = Command::Console(ConsoleCommand::Add { unikernels: 1 });
    assert!(
        Raw::connect(Path::new(&socket)).ask("siege:x", add).reason().contains("only root and the user of the daemons")
    );
    let mut held: Vec<Raw> = (0..CONSOLE_CONNECTIONS_MAX).map(|_| Raw::connect(Path::new(&socket))).collect();
    // Each its own console, of which it would not be the last subscriber. Those that were turned away hear nothing.
    let follow = |(number, client): (usize, &mut Raw)| {
        let window = Command::Console(ConsoleCommand::Subscribe(Window::Count(1)));
        client.send(&frame(&format!("siege:x{number}"), window)) && client.receive_bytes().is_some()
    };
    let served = held.iter_mut().enumerate().filter_map(|it| follow(it).then_some(())).count();
    assert!(served <= DAEMON_CONNECTIONS_PER_USER_MAX, "{served}");
    // Until the other one lets go.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn one_user_does_not_take_all_consoles() {
    const TEST: &str = "one_user_does_not_take_all_consoles";
    let Some(siege) = Siege::begin(TEST) else { return };
    if !geteuid().is_root() {
        skip(TEST, "only root can ask as two users");
        return siege.end();
    }
    let socket = siege.system.socket("console.sock");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let program = siege.system.folder().join("greedy");
    siege::copy_program(&std::env::current_exe().unwrap(), &program);
    let mut greedy = Program::new(program);
    greedy.args(["--exact", "takes_all_consoles", "--ignored"]).env(GREEDY, &socket).uid(NOBODY).gid(NOBODY);
    let mut greedy = greedy.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    siege.expect_log("vmmd_console", &format!("user {NOBODY} has {DAEMON_CONNECTIONS_PER_USER_MAX} already"));
    // Unikernels and who follows them do not notice.
    siege.expect_service();
    drop(greedy.stdin.take());
    assert!(greedy.wait().unwrap().success());
    siege.end();
}
