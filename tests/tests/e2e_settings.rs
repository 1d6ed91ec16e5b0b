//! What the daemons are told by files and command lines, what `--check` says of it, and where their lines go.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fulmar_tests::managed::{DAEMONS, Place, Running, hear, listen_at};
use fulmar_tests::namespace::{Disk, inside};
use fulmar_tests::pages::blocks;
use fulmar_tests::siege::{Said, control_half, said};
use fulmar_tests::system::{PATIENCE, wait_until};
use nix::mount::MsFlags;

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

/// What the documentation shows is understood.
#[test]
fn the_files_of_the_documentation() {
    let Some(place) = Place::begin("the_files_of_the_documentation") else { return };
    let mut tried = 0;
    for block in blocks("docs/daemons.md", "toml") {
        let file = block.strip_prefix("# /etc/fulmar/").and_then(|rest| rest.split_once(".toml\n")).unwrap().0;
        let program = if file == "vmmd" { file.to_owned() } else { format!("vmmd_{file}") };
        let config = place.folder.join("shown.toml");
        // There may be no such user here.
        fs::write(&config, block.replace("\"fulmar\"", "\"12345\"")).unwrap();
        let checked = said(
            &place
                .command(&program)
                .arg("--config")
                .arg(&config)
                .arg("--check")
                .stdout(Stdio::piped())
                .output()
                .unwrap(),
        );
        assert_eq!((checked.code, checked.out), (0, format!("{program}: it is well\n")), "{}", checked.err);
        tried += 1;
    }
    assert_eq!(tried, 3);
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
