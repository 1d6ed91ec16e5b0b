//! `vmmc_local top` with the real daemons: as a table, as a document, and on a terminal of 80 columns and 24 lines.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use fulmar_tests::siege::Siege;
use fulmar_tests::system::wait_until;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn begin(test: &str) -> Option<Siege> {
    let mut siege = Siege::begin(test)?;
    siege.system.start_log(&[]).unwrap();
    siege.system.start_stats(&["--interval".as_ref(), "1".as_ref()]).unwrap();
    let created = siege.client(&["create", "siege:spin", &siege.image("spin"), "--mem", "16"]);
    assert_eq!(created.code, 0, "{created:?}");
    siege.expect_log("vmmd", "the event log is here");
    Some(siege)
}

fn end(mut siege: Siege) {
    assert_eq!(siege.client(&["destroy", "siege:spin"]).code, 0);
    siege.system.end("vmmd_stats", Signal::SIGTERM).unwrap();
    siege.system.end("vmmd_log", Signal::SIGTERM).unwrap();
    siege.end();
}

/// A program on a terminal, and all that it has written there.
struct OnTerminal {
    child: Child,
    keyboard: File,
    written: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    fn start(siege: &Siege, words: &[&str]) -> Self {
        Self::start_on(siege, words, 24, 80)
    }

    /// On a terminal of so many lines and columns.
    fn start_on(siege: &Siege, words: &[&str], ws_row: u16, ws_col: u16) -> Self {
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let end = |fd: &OwnedFd| fd.try_clone().unwrap();
        let mut command = siege.system.client(words);
        command.env("TERM", "xterm-256color").stdin(end(&pair.slave)).stdout(end(&pair.slave)).stderr(pair.slave);
        let child = command.spawn().unwrap();
        // It holds the other ends of the terminal.
        drop(command);
        let mut screen = File::from(end(&pair.master));
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let into = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal is an error.
            while let Ok(read) = screen.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..read]);
            }
        });
        Self { child, keyboard: File::from(pair.master), written }
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// What is to be seen now.
    fn screen(&self) -> String {
        let mut terminal = vt100::Parser::new(24, 80, 0);
        terminal.process(&self.written.lock().unwrap_or_else(PoisonError::into_inner));
        terminal.screen().contents()
    }

    fn expect(&self, text: &str) {
        assert!(wait_until(|| self.screen().contains(text)), "no '{text}' in\n{}", self.screen());
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_terminal() {
    let Some(siege) = begin("on_a_terminal") else { return };
    let mut top = OnTerminal::start(&siege, &["top", "--interval", "1"]);
    top.expect("siege:spin");
    top.expect("1 of 1");
    // Measured twice, so that it has a plot, however much of its processor it got.
    let has_plot = |line: &str| line.starts_with("siege:spin") && line.chars().any(|it| ('▁'..='█').contains(&it));
    assert!(wait_until(|| top.screen().lines().any(has_plot)), "{}", top.screen());
    top.expect("created unikernel");
    top.press("\t");
    top.expect("console of siege:spin");
    top.expect("spin: without end");
    top.press("?");
    top.expect("choose a unikernel");
    top.press("?");
    assert!(wait_until(|| !top.screen().contains("choose a unikernel")));
    top.press("/nothing\r");
    top.expect("names with 'nothing'");
    top.press("q");
    assert!(wait_until(|| top.child.try_wait().unwrap().is_some()), "{:?}", top.written());
    assert!(top.child.wait().unwrap().success());
    // The terminal is as it was: the other screen is left, the cursor shown.
    assert!(top.written().contains("\u{1b}[?1049l") && top.written().contains("\u{1b}[?25h"), "{:?}", top.written());
    drop(top);
    end(siege);
}

#[test]
fn whatever_ends_it_the_terminal_is_as_it_was() {
    let Some(mut siege) = begin("whatever_ends_it_the_terminal_is_as_it_was") else { return };
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut top = OnTerminal::start(&siege, &["top"]);
        top.expect("siege:spin");
        kill(Pid::from_raw(i32::try_from(top.child.id()).unwrap()), signal).unwrap();
        assert!(wait_until(|| top.child.try_wait().unwrap().is_some()), "{signal}: {:?}", top.written());
        assert_eq!(top.child.wait().unwrap().signal(), Some(signal as i32));
        let is_restored = || top.written().contains("\u{1b}[?1049l") && top.written().contains("\u{1b}[?25h");
        assert!(wait_until(is_restored), "{signal}: {:?}", top.written());
    }
    // Where there is too little room nothing is drawn over anything.
    let mut small = OnTerminal::start_on(&siege, &["top"], 10, 60);
    small.expect("The terminal has 60 columns and 10 lines");
    small.press("q");
    assert!(wait_until(|| small.child.try_wait().unwrap().is_some()), "{:?}", small.written());
    assert!(!small.written().contains("siege:spin"), "{:?}", small.written());
    // Nothing is said of unikernels before vmmd has.
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    let away = OnTerminal::start(&siege, &["top"]);
    away.expect("vmmd is being asked");
    away.expect("is not running at");
    assert!(!away.written().contains("0 unikernels"), "{:?}", away.written());
    drop(away);
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    end(siege);
}

#[test]
fn once_for_people_and_for_programs() {
    let Some(siege) = begin("once_for_people_and_for_programs") else { return };
    let once = siege.client(&["top", "--once"]);
    assert_eq!(once.code, 0, "{once:?}");
    let line = once.out.lines().find(|line| line.starts_with("siege:spin")).unwrap();
    // A tender that has just started may not have a whole megabyte yet.
    assert!(line.contains("up ") && (line.contains(" MB") || line.contains(" kB")), "{once:?}");
    assert!(once.out.lines().any(|line| line.starts_with("siege:") && line.contains("1 of 1")), "{once:?}");
    let json = siege.client(&["top", "siege:", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(document["unikernels"][0]["name"], "siege:spin");
    assert!(document["unikernels"][0]["resident_bytes"].as_i64().unwrap() > 65_536, "{document}");
    assert_eq!(document["domains"][0]["memory_mb"]["used"], 16);
    // Without a terminal it says what to do instead.
    let piped = siege.client(&["top"]);
    assert_eq!(piped.code, 124, "{piped:?}");
    assert!(piped.err.contains("--once"), "{piped:?}");
    end(siege);
}
