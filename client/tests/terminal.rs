//! What is asked on a terminal: passphrases, which nobody sees, and whether something is to be signed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use common::authority::{Authority, present};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

const CA: &str = env!("CARGO_BIN_EXE_vmmp_ca");
const REQUEST: &str = env!("CARGO_BIN_EXE_vmmp_request");

/// Runs a program on a terminal of its own, and answers each question when it is there. The exit code, and what the terminal showed.
fn on_terminal(authority: &Authority, program: &str, words: &[&str], answers: &[(&str, &str)]) -> (i32, String) {
    let pair = openpty(None, None).unwrap();
    let end = |fd: &std::os::fd::OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", program]).args(words).current_dir(&authority.folder.0);
    command.stdin(end(&pair.slave)).stdout(end(&pair.slave)).stderr(end(&pair.slave));
    let mut child = command.spawn().unwrap();
    drop((command, pair.slave));
    let mut terminal = File::from(pair.master);
    let (mut screen, mut seen, mut answers) = (String::new(), 0, answers.iter());
    let mut next = answers.next();
    let mut piece = [0; 4096];
    // The end is an error on a terminal.
    while let Ok(count @ 1..) = terminal.read(&mut piece) {
        screen += &String::from_utf8_lossy(&piece[..count]);
        while let Some((question, answer)) = next
            && let Some(at) = screen[seen..].find(question)
        {
            seen += at + question.len();
            // A passphrase is typed when the terminal shows nothing any more, which is a moment after the question.
            while question.ends_with(": ") && tcgetattr(&terminal).unwrap().local_flags.contains(LocalFlags::ECHO) {
                std::thread::yield_now();
            }
            writeln!(terminal, "{answer}").unwrap();
            next = answers.next();
        }
    }
    assert!(next.is_none(), "nobody asked {next:?}:\n{screen}");
    (child.wait().unwrap().code().unwrap(), screen)
}

#[test]
fn a_passphrase_is_asked_for_and_not_shown() {
    let authority = Authority::new(present());
    let request = ["add-policy", "shop", "2", "--cpu", "0", "--encrypt"];
    let (first, again) = ("New passphrase of shop.key: ", "The same again: ");
    let (code, screen) = on_terminal(&authority, REQUEST, &request, &[(first, "sesame"), (again, "other")]);
    assert_eq!((code, screen.contains("are not the same")), (124, true), "{screen}");
    assert!(!authority.path("shop.key").exists() && !authority.path("shop.req").exists());
    let (code, screen) = on_terminal(&authority, REQUEST, &request, &[(first, "sesame"), (again, "sesame")]);
    assert_eq!((code, screen.contains("sesame")), (0, false), "{screen}");
    let key = fs::read_to_string(authority.path("shop.key")).unwrap();
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{key}");
    authority.sign("shop", None);
    authority.request("web", &["destroy", "web"]);
    let sign = ["sign", "web.req", "--cert", "shop.pem"];
    let asked = "Passphrase of shop.key: ";
    let (code, screen) = on_terminal(&authority, CA, &sign, &[(asked, "wrong")]);
    assert_eq!((code, screen.contains("this is not its passphrase")), (124, true), "{screen}");
    let (code, screen) = on_terminal(&authority, CA, &sign, &[(asked, "sesame"), ("? [y/N] ", "n")]);
    assert_eq!((code, screen.contains("not signed")), (124, true), "{screen}");
    assert!(!authority.path("web.pem").exists());
    let (code, screen) = on_terminal(&authority, CA, &sign, &[(asked, "sesame"), ("? [y/N] ", "y")]);
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("shop:web destroy the unikernel") && authority.path("web.pem").exists(), "{screen}");
}

#[test]
fn more_than_the_signer_has_is_asked_for() {
    let authority = Authority::new(present());
    authority.delegate("shop", None);
    authority.request("big", &["add-policy", "big", "4", "--mem", "512", "--cpu", "0"]);
    let sign = ["sign", "big.req", "--cert", "shop.pem"];
    let more = "No server will take it before the policy above is larger. Go on? [y/N] ";
    let (code, screen) = on_terminal(&authority, CA, &sign, &[(more, "")]);
    assert_eq!(code, 124, "{screen}");
    let (code, screen) = on_terminal(&authority, CA, &sign, &[(more, "yes"), ("? [y/N] ", "yes")]);
    assert_eq!(code, 0, "{screen}");
    assert!(authority.path("big.pem").exists());
}
