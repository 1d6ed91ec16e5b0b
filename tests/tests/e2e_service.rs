//! The daemons under a service manager: what each tells it of being ready, alive and ending, sockets that it hands over, settings from
//! a file, where lines go, and an end in order.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fulmar_core::wire::{self, BlockCommand, ConsoleCommand, LogCommand, LogFrom, StatsCommand};
use fulmar_tests::namespace::{Disk, inside};
use fulmar_tests::raw::{Answer, Raw};
use fulmar_tests::siege::{self, Said, Siege, control_half, pid_of, said};
use fulmar_tests::system::{self, PATIENCE, is_gone, wait_until};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};

/// The daemons that serve on a Unix socket, and what that is called.
const DAEMONS: [(&str, &str); 4] =
    [("vmmd", "vmmd.sock"), ("vmmd_console", "console.sock"), ("vmmd_stats", "stat.sock"), ("vmmd_log", "log.sock")];

/// As long as a watchdog waits here for a sign of life: two of `vmmd` at least.
const WATCHDOG: Duration = Duration::from_secs(5);

/// Folders as an installation has them, and the programs.
struct Place {
    folder: PathBuf,
    programs: PathBuf,
}

impl Place {
    fn begin(test: &str) -> Option<Self> {
        let programs = siege::programs(test)?;
        let folder = system::make_folder("service").unwrap();
        for made in ["run", "run/util", "run/fifo", "state"] {
            fs::create_dir(folder.join(made)).unwrap();
            fs::set_permissions(folder.join(made), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self { folder, programs })
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.join("run/util").join(name)
    }

    /// A program with the folders that it takes.
    fn command(&self, program: &str) -> Command {
        self.command_by(Command::new(self.programs.join(program)), program)
    }

    fn command_by(&self, mut command: Command, program: &str) -> Command {
        if program == "vmmd_influx" {
            let config = self.folder.join("influx.toml");
            let text = format!("run = {:?}\n[metrics]\nlisten = \"127.0.0.1:9\"\n", self.folder.join("run"));
            fs::write(&config, text).unwrap();
            command.arg("--config").arg(config);
        } else {
            command.arg("--run").arg(self.folder.join("run"));
        }
        if program == "vmmd" || program == "vmmd_log" {
            command.arg("--state").arg(self.folder.join("state"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A program that is handed this, as descriptor 3: by a shell that becomes it.
    fn handed(&self, program: &str, what: OwnedFd, count: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg("LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 0</dev/null").arg(self.programs.join(program));
        let mut command = self.command_by(shell, program);
        command.env("LISTEN_FDS", count).env("LISTEN_FDNAMES", "door:other").stdin(what);
        command
    }

    /// Starts it with its lines in a file.
    fn start(&self, mut command: Command) -> Running {
        let log = self.folder.join("lines");
        let lines = File::create(&log).unwrap();
        Running { child: command.stderr(lines).spawn().unwrap(), log }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A daemon that ends with its test.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn end(&mut self) -> ExitStatus {
        kill(pid_of(self.child.id()), Signal::SIGTERM).unwrap();
        assert!(wait_until(|| self.child.try_wait().unwrap().is_some()), "{}", self.log());
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket that everybody may write to, as those of the system are.
fn listen_at(path: &Path) -> UnixDatagram {
    let _ = fs::remove_file(path);
    let socket = UnixDatagram::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    socket
}

fn hear(manager: &UnixDatagram) -> io::Result<String> {
    let mut bytes = [0; 1024];
    loop {
        match manager.recv(&mut bytes) {
            // A child of another test has ended.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => return Ok(String::from_utf8(bytes[..received?].to_vec()).unwrap()),
        }
    }
}

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

/// All files below a folder, with when they were changed.
fn tree(folder: &Path) -> BTreeSet<(PathBuf, i64, u32)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let data = entry.metadata().unwrap();
        found.insert((entry.path(), data.ctime_nsec(), data.uid()));
        if data.is_dir() {
            found.append(&mut tree(&entry.path()));
        }
    }
    found
}

#[test]
fn a_check_says_what_is_wrong_and_changes_nothing() {
    let Some(place) = Place::begin("a_check_says_what_is_wrong_and_changes_nothing") else { return };
    let check = |program: &str, words: &[&str]| -> Said {
        let mut command = Command::new(place.programs.join(program));
        let before = tree(&place.folder);
        let output = command.args(words).arg("--check").output().unwrap();
        assert_eq!(tree(&place.folder), before, "{program} {words:?}");
        said(&output)
    };
    let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
    let (run, state) = (text(place.folder.join("run")), text(place.folder.join("state")));
    for (program, _) in DAEMONS {
        let words = ["--run", &run, "--state", &state];
        let words = if ["vmmd", "vmmd_log"].contains(&program) { &words[..] } else { &words[..2] };
        let well = check(program, words);
        assert_eq!((well.code, well.out), (0, format!("{program}: it is well\n")), "{}", well.err);
    }
    // Where nothing has been made yet, vmmd makes it; the others need it.
    let nowhere = text(place.folder.join("nowhere"));
    let vmmd = check("vmmd", &["--run", &nowhere, "--state", &state]);
    assert_eq!(vmmd.code, 0, "{vmmd:?}");
    for program in ["vmmd_console", "vmmd_stats", "vmmd_log"] {
        let said = check(program, &["--run", &nowhere]);
        assert!(said.code == 1 && said.err.contains(&format!("there is no folder {nowhere}")), "{said:?}");
    }
    // All at once, and each with its place.
    let file = text(place.folder.join("file"));
    fs::write(&file, "precious").unwrap();
    fs::write(place.socket("vmmd.sock"), "precious").unwrap();
    let wrong = check("vmmd", &["--run", &run, "--state", &file, "--tender", &nowhere]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    for said in [
        format!("{file} is no folder: see --run and --state"),
        format!("{}: there is something that is no socket", place.socket("vmmd.sock").display()),
        format!("no tender program {nowhere}: No such file"),
    ] {
        assert!(wrong.err.contains(&said), "no '{said}' in {}", wrong.err);
    }
    fs::remove_file(place.socket("vmmd.sock")).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
    let open = check("vmmd", &["--run", &run, "--state", &state]);
    assert!(open.code == 1 && open.err.contains("mode 777"), "{open:?}");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let long = format!("{run}/{}", "x".repeat(90));
    let too_long = check("vmmd", &["--run", &long, "--state", &state]);
    assert!(too_long.code == 1 && too_long.err.contains("too long for a socket's path"), "{too_long:?}");
    let one = check("vmmd", &["--run", &run, "--state", &state, "--user", "70001:70001", "--tender-uid-base", "70000"]);
    if nix::unistd::geteuid().is_root() {
        assert!(one.code == 1 && one.err.contains("one of the 8192 user ids from 70000 on"), "{one:?}");
    }
    let usage = check("vmmd", &["--rum"]);
    assert_eq!(usage.code, 124, "{usage:?}");
}

#[test]
fn settings_come_from_a_file_and_the_command_line_has_the_last_word() {
    let Some(place) = Place::begin("settings_come_from_a_file_and_the_command_line_has_the_last_word") else { return };
    let (run, state) = (place.folder.join("run"), place.folder.join("state"));
    let config = place.folder.join("daemon.toml");
    for (program, socket) in DAEMONS {
        let more = match program {
            "vmmd" => format!("state = {state:?}\ntender-uid-base = 70000\n"),
            "vmmd_log" => format!("state = {state:?}\nsize = 1\ndays = 2 # enough\n"),
            "vmmd_stats" => "interval = 0.5\n".to_owned(),
            _ => String::new(),
        };
        let begin = |text: &str, words: &[&str]| {
            fs::write(&config, text).unwrap();
            let mut command = Command::new(place.programs.join(program));
            command.arg("--config").arg(&config).args(words).stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let text = format!("# of the test\nrun = {run:?}\n{more}log-level = \"debug\"\n");
        let mut running = place.start(begin(&text, &["--log-level=warning"]));
        assert!(wait_until(|| UnixStream::connect(place.socket(socket)).is_ok()), "{}", running.log());
        assert_eq!(running.end().code(), Some(0), "{}", running.log());
        // Nothing that has only happened.
        let calm = |line: &str| !line.contains("ended by a signal") && !line.contains("serving on");
        assert!(running.log().lines().all(calm), "{}", running.log());
        for (wrong, at) in [("rum = 1", "there is no setting 'rum'"), ("run = 1", "run is a text in quotes")] {
            let output = begin(&format!("\n{wrong}\n"), &[]).output().unwrap();
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(124), "{line}");
            assert!(line.contains(&format!("{}, line 2: {at}", config.display())), "{line}");
        }
        // What others can write is not believed.
        fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
        let output = begin(&text, &[]).output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(124) && line.contains("mode 666"), "{line}");
        fs::remove_file(&config).unwrap();
    }
}

#[test]
fn lines_to_the_journal_begin_with_their_levels() {
    let Some(place) = Place::begin("lines_to_the_journal_begin_with_their_levels") else { return };
    for (program, socket) in DAEMONS {
        let log = place.folder.join("lines");
        File::create(&log).unwrap();
        let data = log.metadata().unwrap();
        for (stream, has_levels) in [(format!("{}:{}", data.dev(), data.ino()), true), ("1:2".to_owned(), false)] {
            let lines = File::options().append(true).open(&log).unwrap();
            lines.set_len(0).unwrap();
            let mut command = place.command(program);
            command.env("JOURNAL_STREAM", stream).stderr(lines);
            let mut running = Running { child: command.spawn().unwrap(), log: log.clone() };
            assert!(wait_until(|| UnixStream::connect(place.socket(socket)).is_ok()), "{}", running.log());
            assert_eq!(running.end().code(), Some(0));
            let said = running.log();
            assert!(said.lines().count() > 1, "{said}");
            // Both halves of vmmd.
            for line in said.lines() {
                let level = line.strip_prefix('<').and_then(|rest| rest.split_once(&format!(">{program}")));
                let is_level = level.is_some_and(|(level, _)| ["3", "4", "6"].contains(&level));
                assert!(is_level == has_levels && (has_levels || line.starts_with(program)), "{line}");
            }
        }
    }
}

/// Also those who have given up their privileges, and while nobody listens.
#[test]
fn lines_go_to_the_log_daemon_of_the_system() {
    const TEST: &str = "lines_go_to_the_log_daemon_of_the_system";
    inside(TEST, || {
        let Some(place) = Place::begin(TEST) else { return };
        // Where it listens, whichever there is: both are hidden here.
        let _run = Disk::mount(Path::new("/run"), 1 << 20, MsFlags::empty());
        let path = if Path::new("/dev/log").exists() { "/dev/log" } else { "/run/log" };
        if path == "/dev/log" {
            return fulmar_tests::skips::skip(TEST, "a log daemon listens here already");
        }
        let listen = || {
            let socket = listen_at(Path::new(path));
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        for (program, socket) in DAEMONS {
            let daemon = listen();
            let mut command = place.command(program);
            command.args(["--log", "syslog"]);
            let mut running = place.start(command);
            assert!(wait_until(|| UnixStream::connect(place.socket(socket)).is_ok()), "{}", running.log());
            let pid = if program == "vmmd" { control_half(running.child.id()) } else { running.child.id() };
            let own = format!("{program}[{pid}]: ");
            let line = std::iter::from_fn(|| Some(hear(&daemon).unwrap())).find(|line| line.contains(&own)).unwrap();
            assert!(["<27>", "<28>", "<30>"].iter().any(|level| line.starts_with(&format!("{level}{own}"))), "{line}");
            // It goes and comes again: nobody waits, and what was missed is told.
            drop(daemon);
            fs::remove_file(path).unwrap();
            let mut client = UnixStream::connect(place.socket(socket)).unwrap();
            io::Write::write_all(&mut client, &[0, 0, 0, 2, 0, 0]).unwrap();
            assert_eq!(client.read_to_end(&mut Vec::new()).map_err(|error| error.kind()).unwrap_or(0), 0);
            let daemon = listen();
            assert_eq!(running.end().code(), Some(0));
            let lost =
                std::iter::from_fn(|| Some(hear(&daemon).unwrap())).find(|line| line.contains("lines were lost"));
            assert!(lost.unwrap().starts_with("<28>vmmd"));
            assert_eq!(running.log(), "", "{program}");
        }
    });
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
