//! The daemons under a service manager: what each tells it of being ready, alive and ending, sockets that it hands over, and an end in
//! order.

#![cfg(target_os = "linux")]
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fulmar_core::wire::{self, BlockCommand, ConsoleCommand, LogCommand, LogFrom, StatsCommand};
use fulmar_tests::managed::{DAEMONS, Place, hear, listen_at};
use fulmar_tests::raw::{Answer, Raw};
use fulmar_tests::siege::{Siege, control_half, pid_of};
use fulmar_tests::system::{PATIENCE, is_gone, wait_until};
use nix::sys::signal::{Signal, kill};

/// As long as a watchdog waits here for a sign of life: two of `vmmd` at least.
const WATCHDOG: Duration = Duration::from_secs(5);

/// A question that each daemon answers.
fn ask(program: &str, socket: &Path) {
    let command = match program {
        "vmmd" => wire::Command::Block(BlockCommand::Info),
        "vmmd_console" => wire::Command::Console(ConsoleCommand::ListInactive),
        "vmmd_stats" => wire::Command::Stats(StatsCommand::Subscribe),
        _ => wire::Command::Events(LogCommand { from: LogFrom::Window(wire::Window::Count(1)), follow: false }),
    };
    let answer = Raw::connect(socket).ask(":", command);
    assert_ne!(answer, Answer::Closed, "{program} answers nothing");
}

#[test]
fn a_service_manager_is_told_of_a_daemon_that_is_ready_alive_and_ending() {
    let Some(place) = Place::begin("a_service_manager_is_told_of_a_daemon_that_is_ready_alive_and_ending") else {
        return;
    };
    for (number, program) in DAEMONS.iter().map(|(program, _)| *program).chain(["vmmd_influx"]).enumerate() {
        // By a path, and by a name.
        let path = place.folder.join("notify");
        let name = format!("fulmar-notify-{}-{number}", std::process::id());
        let (manager, address) = if number % 2 == 0 {
            (listen_at(&path), path.display().to_string())
        } else {
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
        };
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = place.command(program);
        command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let mut running = place.start(command);
        let first = hear(&manager).unwrap();
        assert!(first.starts_with("READY=1\nSTATUS="), "{program}: {first}\n{}", running.log());
        // Whoever is ready answers.
        if let Some((_, socket)) = DAEMONS.iter().find(|(it, _)| *it == program) {
            ask(program, &place.socket(socket));
        }
        for _ in 0..3 {
            assert_eq!(hear(&manager).unwrap(), "WATCHDOG=1", "{program}");
        }
        if program == "vmmd" {
            assert!(first.ends_with("0 of 0 unikernels run"), "{first}");
            // Whoever it starts is none of the service manager's.
            let environment = fs::read(format!("/proc/{}/environ", control_half(running.child.id()))).unwrap();
            assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"));
        }
        assert_eq!(running.end().code(), Some(0), "{program}: {}", running.log());
        let last = std::iter::from_fn(|| Some(hear(&manager).unwrap())).find(|it| it != "WATCHDOG=1");
        assert_eq!(last.as_deref(), Some("STOPPING=1\nSTATUS=ending"), "{program}");
    }
}

/// Either half that stands still is noticed: a sign of life comes from one through the other.
#[test]
fn a_daemon_that_hangs_gives_no_sign_of_life() {
    let Some(place) = Place::begin("a_daemon_that_hangs_gives_no_sign_of_life") else { return };
    for (program, is_host_half) in [("vmmd", true), ("vmmd", false), ("vmmd_log", true)] {
        let path = place.folder.join("notify");
        let manager = listen_at(&path);
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = place.command(program);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let mut running = place.start(command);
        while hear(&manager).unwrap() != "WATCHDOG=1" {}
        let main = running.child.id();
        let hung = pid_of(if is_host_half { main } else { control_half(main) });
        kill(hung, Signal::SIGSTOP).unwrap();
        // What it has said before.
        manager.set_read_timeout(Some(WATCHDOG)).unwrap();
        let said = std::iter::from_fn(|| hear(&manager).ok()).take(100).count();
        assert!(said < 5, "{program}: {said} signs of life of who does not live");
        kill(hung, Signal::SIGCONT).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(hear(&manager).unwrap(), "WATCHDOG=1");
        assert_eq!(running.end().code(), Some(0), "{}", running.log());
    }
}

#[test]
fn a_socket_that_is_handed_over_is_served_and_stays() {
    let Some(place) = Place::begin("a_socket_that_is_handed_over_is_served_and_stays") else { return };
    for (program, socket) in DAEMONS {
        let path = place.socket(socket);
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        // Whoever comes before the daemon is there waits.
        let early = UnixStream::connect(&path).unwrap();
        for _ in 0..2 {
            let mut running = place.start(place.handed(program, listener.try_clone().unwrap().into(), "1"));
            ask(program, &path);
            assert!(!running.log().contains("handed over"), "{}", running.log());
            assert_eq!(running.end().code(), Some(0), "{}", running.log());
            assert!(path.exists(), "{program} has removed what is not its own");
        }
        drop((early, listener));
        fs::remove_file(&path).unwrap();
    }
    // Where clients do not look.
    let elsewhere = UnixListener::bind(place.folder.join("elsewhere")).unwrap();
    let mut running = place.start(place.handed("vmmd_log", elsewhere.into(), "1"));
    let said = format!("elsewhere: clients look at {}", place.socket("log.sock").display());
    assert!(wait_until(|| running.log().contains(&said)), "{}", running.log());
    assert_eq!(running.end().code(), Some(0));
    // The reporter's socket is one for TCP.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = place.start(place.handed("vmmd_influx", listener.into(), "1"));
    let mut client = TcpStream::connect(address).unwrap();
    io::Write::write_all(&mut client, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn what_is_handed_over_wrongly_is_said_to_be() {
    let Some(place) = Place::begin("what_is_handed_over_wrongly_is_said_to_be") else { return };
    let wrong = |program: &str, what: OwnedFd, count: &str| {
        let output = place.handed(program, what, count).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let unix = || UnixListener::bind(place.folder.join(format!("s{:?}", Instant::now()))).unwrap();
    for (program, _) in DAEMONS {
        for (what, said) in [
            (File::open("/dev/null").unwrap().into(), "descriptor 3 (door:other) that was handed over is no socket"),
            (TcpListener::bind("127.0.0.1:0").unwrap().into(), "is no Unix socket"),
            (UnixDatagram::unbound().unwrap().into(), "is no stream socket"),
            (OwnedFd::from(UnixStream::pair().unwrap().0), "does not listen"),
        ] {
            let line = wrong(program, what, "1");
            assert!(line.contains(said), "{program}: {line}");
        }
        let line = wrong(program, unix().into(), "2");
        assert!(line.contains("2 sockets were handed over (door:other): hand over one"), "{line}");
        let line = wrong(program, unix().into(), "x");
        assert!(line.contains("LISTEN_FDS is 'x', which is no number"), "{line}");
    }
    assert!(wrong("vmmd_influx", unix().into(), "1").contains("is no socket for TCP"));
    let mut command = place.command("vmmd_log");
    let output = command.env("NOTIFY_SOCKET", "vsock:2:1").stderr(Stdio::piped()).output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && line.contains("NOTIFY_SOCKET is 'vsock:2:1', neither"), "{line}");
    // What is for another process is not taken.
    let mut command = place.command("vmmd_log");
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").env("WATCHDOG_USEC", "1").env("WATCHDOG_PID", "1");
    let mut running = place.start(command);
    assert!(wait_until(|| UnixStream::connect(place.socket("log.sock")).is_ok()), "{}", running.log());
    assert_eq!(running.end().code(), Some(0));
}

/// `vmmd` ends in order: what is under way is answered and durable, the event log hears of it, unikernels run on. A log that stands
/// still keeps it from nothing.
#[test]
fn vmmd_ends_in_order() {
    let Some(mut siege) = Siege::begin("vmmd_ends_in_order") else { return };
    siege.system.start_log(&[]).unwrap();
    siege.expect_log("vmmd", "the event log is here");
    let image = siege.image("hello");
    assert_eq!(siege.client(&["create", "siege:web", &image]).code, 0);
    let tender = siege.expect_listed_runs_once()["siege:web"];
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // Somebody asks all the time: each is answered, or hung up on before anything was done about it.
        let run = siege.system.run();
        let answered = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut added = Vec::new();
                for number in 0.. {
                    let path = format!("s{}n{number}:", signal as i32);
                    let Ok(mut client) = Raw::try_connect(&run.join("util/vmmd.sock")) else { return added };
                    let policy = wire::Policy {
                        cpuids: wire::List::Items(&[0]),
                        unikernels: 1,
                        memory: 32,
                        block: None,
                        bridges: wire::List::EMPTY,
                    };
                    let command = wire::Command::Policy(wire::PolicyCommand::Add(policy));
                    if !client.send(&fulmar_tests::raw::frame(&path, command)) || client.receive_bytes().is_none() {
                        return added;
                    }
                    added.push(path);
                }
                added
            });
            let events = || siege.client(&["log", "--count", "1000000"]).out;
            assert!(wait_until(|| events().contains(&format!("s{}n3:", signal as i32))));
            kill(pid_of(siege.vmmd), signal).unwrap();
            asking.join().unwrap()
        });
        assert!(wait_until(|| is_gone(pid_of(siege.vmmd))), "{}", siege.system.log("vmmd"));
        assert!(!siege.system.socket("vmmd.sock").exists());
        let told = siege.client(&["log", "--only", "daemon", "--count", "1"]);
        assert!(told.out.contains("vmmd ") && told.out.contains("ended"), "{told:?}\n{}", siege.system.log("vmmd"));
        assert!(!is_gone(pid_of(tender)));
        siege.start_vmmd_again();
        let policies = siege.client(&["policy"]).out;
        for path in answered {
            assert!(policies.contains(&path), "{path} was acknowledged");
            assert_eq!(siege.client(&["remove-policy", &path]).code, 0);
        }
        siege.expect_log("vmmd", "the event log is here");
        assert_eq!(siege.expect_listed_runs_once()["siege:web"], tender);
    }
    let log = pid_of(siege.system.pid("vmmd_log").unwrap());
    kill(log, Signal::SIGSTOP).unwrap();
    kill(pid_of(siege.vmmd), Signal::SIGTERM).unwrap();
    let ends = wait_until(|| is_gone(pid_of(siege.vmmd)));
    kill(log, Signal::SIGCONT).unwrap();
    assert!(ends, "{}", siege.system.log("vmmd"));
    let said = siege.system.log("vmmd");
    assert!(!said.contains("is killed") && !said.contains("ended with"), "{said}");
    assert!(!is_gone(pid_of(tender)));
    siege.start_vmmd_again();
    siege.system.stop().unwrap();
}
