//! A tenant that tries to use up what the host has only so much of: it gets as far as its policy, is told what stands against more,
//! and takes nothing from others. What it took is there again when it is gone.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Program;

use fulmar_core::wire::{Bridge, Command, UnikernelCommand};
use fulmar_tests::namespace::{Disk, inside};
use fulmar_tests::raw::{Raw, Wish, frame};
use fulmar_tests::siege::{self, Siege};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{self, System, wait_until};
use nix::mount::MsFlags;
use nix::unistd::geteuid;
use serde_json::Value;

/// Where a greedy user finds the socket.
const GREEDY: &str = "FULMAR_GREEDY";

/// Nobody's user id.
const NOBODY: u32 = 65534;

/// What the host says of its scarce things: used and limit, by name.
fn uses(siege: &Siege) -> BTreeMap<String, (u64, u64)> {
    let said = siege.client(&["host", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let value: Value = serde_json::from_str(&said.out).unwrap();
    let number = |entry: &Value, what: &str| entry[what].as_u64().unwrap();
    let uses = value["uses"].as_object().unwrap().iter();
    uses.map(|(what, entry)| (what.clone(), (number(entry, "used"), number(entry, "limit")))).collect()
}

/// The same without what changes by itself: the disk is not ours alone, the journal grows until it is written anew,
/// events wait for a log that is not there.
fn lasting(siege: &Siege) -> BTreeMap<String, (u64, u64)> {
    let mut uses = uses(siege);
    uses.retain(|what, _| !["disk-bytes", "journal-bytes", "connections", "event-bytes"].contains(&what.as_str()));
    uses
}

#[test]
fn a_tenant_at_its_limits_takes_nothing_from_another() {
    let Some(siege) = Siege::begin("a_tenant_at_its_limits_takes_nothing_from_another") else { return };
    let hello = siege.image("hello");
    assert_eq!(siege.client(&["add-policy", "other", "1", "--mem", "32", "--cpu", "0"]).code, 0);
    let before = lasting(&siege);
    for (what, (used, limit)) in &before {
        assert!(used <= limit, "{what}: {used} of {limit}");
    }
    assert_eq!(siege.client(&["create", "siege:one", &hello, "--mem", "32"]).code, 0);
    let busy = uses(&siege);
    for (what, used) in [("unikernels", 1), ("processes", 1), ("fifos", 1)] {
        assert_eq!(busy[what].0, before[what].0 + used, "{what}");
    }
    assert!(busy["image-bytes"].0 > before["image-bytes"].0);
    // Once more, larger, with a disk, with all the networks there can be.
    for _ in 0..20 {
        let said = siege.client(&["create", "siege:two", &hello, "--mem", "16"]);
        assert_eq!(said.code, 117, "{said:?}");
        assert!(said.err.contains("maximum amount of unikernels (1)"), "{said:?}");
        assert!(said.err.contains("(policy of siege:)"), "{said:?}");
    }
    let said = siege.client(&["add-block", "siege:disk", "1"]);
    assert!(said.err.contains("no block devices are allowed by policy (policy of siege:)"), "{said:?}");
    let socket = siege.system.socket("vmmd.sock");
    assert_eq!(siege.client(&["destroy", "siege:one"]).code, 0);
    let names: Vec<String> = (1..=63).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bridges: Vec<Bridge<'_>> = names.iter().map(|name| Bridge { name, bridge: Some("br0"), mac: None }).collect();
    // It is not looked at before the policies are.
    let image = fs::read(&hello).unwrap();
    let wish = Wish { bridges: &bridges, ..Wish::of(&image) };
    let answer = Raw::connect(&socket).ask("siege:wires", wish.command());
    assert!(answer.reason().contains("bridges br0 not allowed by policy"), "{answer:?}");
    let said = siege.client(&["create", "siege:large", &hello, "--mem", "65"]);
    assert!(said.err.contains("maximum allowed memory (64, used 0)"), "{said:?}");
    // The other one is served as ever, and nothing is left of either.
    assert_eq!(siege.client(&["create", "other:fine", &hello, "--mem", "16"]).code, 0);
    assert_eq!(siege.client(&["destroy", "other:fine"]).code, 0);
    assert!(wait_until(|| lasting(&siege) == before), "{before:?}\n{:?}", lasting(&siege));
    siege.end();
}

#[test]
fn who_sends_a_little_again_and_again_is_not_waited_for() {
    let Some(siege) = Siege::begin("who_sends_a_little_again_and_again_is_not_waited_for") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let mut image = fs::read(siege.image("hello")).unwrap();
    image.resize(1 << 20, 0);
    let create = frame("siege:drip", Wish::of(&image).command());
    let info = frame("siege:drip", Command::Unikernel(UnikernelCommand::Info));
    for (message, begun) in [(&create, 300_000), (&info, 3)] {
        let mut client = Raw::connect(&socket);
        assert!(client.send(&message[..begun]));
        if begun > 100_000 {
            assert!(wait_until(|| uses(&siege)["spool-bytes"].0 > 0), "it is being held");
        }
        // A byte now and then, never the last one.
        let mut rest = message[begun..message.len() - 1].iter();
        let ended = wait_until(|| match rest.next() {
            Some(byte) => !client.send(&[*byte]),
            // What is so short is not finished either.
            None => siege.system.log("vmmd").matches("the client did not finish its message").count() >= 2,
        });
        assert!(ended, "{}", siege.system.log("vmmd"));
        siege.expect_service();
    }
    assert!(wait_until(|| uses(&siege)["spool-bytes"].0 == 0), "and what it had sent is gone");
    siege.end();
}

#[test]
#[ignore = "not a test: what another one runs as another user"]
fn sends_images_without_end() {
    let Some(socket) = std::env::var_os(GREEDY) else { return };
    let image = vec![0; 200 << 20];
    let create = frame("siege:greedy", Wish::of(&image).command());
    let mut clients: Vec<Raw> = (0..3).map(|_| Raw::connect(Path::new(&socket))).collect();
    for client in &mut clients {
        // All but the last byte: nobody is done.
        assert!(client.send(&create[..create.len() - 1]));
    }
    println!("ANSWER {:?}", clients.pop().unwrap().receive());
}

#[test]
fn one_user_does_not_take_all_room_for_images_that_arrive() {
    const TEST: &str = "one_user_does_not_take_all_room_for_images_that_arrive";
    let Some(siege) = Siege::begin(TEST) else { return };
    if !geteuid().is_root() {
        skip(TEST, "only root can ask as two users");
        return siege.end();
    }
    let socket = siege.system.socket("vmmd.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    // This program again, as somebody else, from where somebody else can get at it.
    let program = siege.system.folder().join("greedy");
    siege::copy_program(&std::env::current_exe().unwrap(), &program);
    let mut greedy = Program::new(program);
    greedy.args(["--exact", "sends_images_without_end", "--ignored", "--nocapture"]).env(GREEDY, &socket);
    let output = greedy.uid(NOBODY).gid(NOBODY).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("ANSWER Refused(\"too many images of this user or domain are arriving at once"), "{said}");
    assert!(wait_until(|| uses(&siege)["spool-bytes"].0 == 0), "what it sent is gone with it");
    siege.end();
}

#[test]
fn the_journal_is_bounded_whatever_is_done_all_day() {
    let Some(siege) = Siege::begin("the_journal_is_bounded_whatever_is_done_all_day") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let word = "x".repeat(8000);
    let file = siege.system.state().join("journal");
    let mut largest = 0;
    let mut shrunk = false;
    for _ in 0..300 {
        let said = siege.client(&["create", "siege:again", &siege.image("hello"), "--mem", "32", "--arg", &word]);
        assert_eq!(said.code, 0, "{said:?}");
        let answer = Raw::connect(&socket).ask("siege:again", Command::Unikernel(UnikernelCommand::Destroy));
        assert!(matches!(answer, fulmar_tests::raw::Answer::Done(_)), "{answer:?}");
        let bytes = fs::metadata(&file).unwrap().len();
        shrunk |= bytes < largest;
        largest = largest.max(bytes);
        if shrunk {
            break;
        }
    }
    assert!(shrunk, "it was never written anew: {largest} bytes");
    let (used, limit) = uses(&siege)["journal-bytes"];
    assert!(used <= limit && largest <= limit + 64 * 1024, "{used}, {largest} of {limit}");
    siege.end();
}

#[test]
fn images_leave_the_journal_its_part_of_the_disk() {
    const TEST: &str = "images_leave_the_journal_its_part_of_the_disk";
    inside(TEST, || {
        let Some(programs) = siege::programs(TEST) else { return };
        let system = System::new(system::make_folder("siege").unwrap(), programs).unwrap();
        let disk = Disk::mount(&system.state(), 16 << 20, MsFlags::empty());
        let siege = Siege::begin_in(system);
        let socket = siege.system.socket("vmmd.sock");
        assert_eq!(siege.client(&["add-policy", "greedy", "20", "--mem", "320", "--cpu", "0"]).code, 0);
        let mut image = fs::read(siege.image("hello")).unwrap();
        image.resize(3 << 20, 0);
        let mut created = 0;
        let refused = loop {
            // Each another image.
            *image.last_mut().unwrap() = created + 1;
            let wish = Wish { memory: 16, ..Wish::of(&image) };
            match Raw::connect(&socket).ask(&format!("greedy:u{created}"), wish.command()) {
                fulmar_tests::raw::Answer::Done(_) => created += 1,
                answer => break answer,
            }
            assert!(created < 20, "the disk is not full");
        };
        assert!(refused.reason().contains("full"), "{refused:?}");
        // Everything that needs no image goes on.
        for number in 0..50 {
            let said = siege.client(&["add-policy", &format!("p{number}"), "1", "--mem", "32", "--cpu", "0"]);
            assert_eq!(said.code, 0, "{said:?}");
        }
        for number in 0..created {
            assert_eq!(siege.client(&["destroy", &format!("greedy:u{number}")]).code, 0);
        }
        siege.expect_nothing_left();
        drop(disk);
        siege.system.stop().unwrap();
    });
}
