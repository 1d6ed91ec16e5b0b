//! The link to the statistics daemon, which here is whoever says so: it is told what runs, and nobody waits for it.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::io::{Read, Write};

use fulmar_core::halves::{Status, Unit, machine_name};
use fulmar_core::wire::{self, BlockCommand, BlockDevice, Command, Frame, Payload, StatsCommand, Success};
use support::*;

/// What the statistics daemon was told.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Consent,
    Add(String),
    /// With the name of the virtual machine.
    AddMachine(String, String),
    Remove(String),
}

/// The next thing that it is told; nothing when it was hung up on.
fn next(client: &mut Client) -> Option<(u64, Told)> {
    let mut length = [0; 4];
    client.0.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    client.0.read_exact(&mut bytes).ok()?;
    let message = wire::decode(Frame::whole(&bytes)).unwrap();
    let name = message.header.name.to_string();
    let told = match message.payload {
        Payload::Success(Success::Empty) => Told::Consent,
        Payload::Command(Command::Stats(StatsCommand::Add { device, pid, taps })) => {
            assert_eq!((pid, taps.len()), (1, 0));
            match device.split_once(' ') {
                None => assert_eq!(device, "started-0000000000000007"),
                Some((started, machine)) => {
                    assert_eq!(started, "started-0000000000000007");
                    return Some((message.header.sequence, Told::AddMachine(name, machine.to_owned())));
                }
            }
            Told::Add(name)
        }
        Payload::Command(Command::Stats(StatsCommand::Remove)) => Told::Remove(name),
        other => panic!("{other:?}"),
    };
    Some((message.header.sequence, told))
}

fn call(daemon: &Daemon) -> Client {
    let mut client = daemon.connect();
    client.send(":", Command::Stats(StatsCommand::Initial));
    // The sequence of the question.
    assert_eq!(next(&mut client), Some((7, Told::Consent)));
    client
}

fn add(name: &str) -> Told {
    Told::Add(name.to_owned())
}

fn remove(name: &str) -> Told {
    Told::Remove(name.to_owned())
}

#[test]
fn it_is_told_what_runs_and_what_has_ended() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("a"), text("created unikernel"));
    assert_eq!(daemon.create("foo:b"), text("created unikernel"));
    let mut stats = call(&daemon);
    assert_eq!(next(&mut stats), Some((1, add(":a"))));
    assert_eq!(next(&mut stats), Some((2, add("foo:b"))));
    assert_eq!(daemon.create("c"), text("created unikernel"));
    assert_eq!(next(&mut stats), Some((3, add(":c"))));
    assert_eq!(daemon.destroy("a"), text("destroyed unikernel"));
    assert_eq!(next(&mut stats), Some((4, remove(":a"))));
    // One that ends by itself; whatever is answered is nothing to vmmd.
    stats.0.write_all(b"\x00\x00\x00\x03abc and more").unwrap();
    let last = *world.lock().unwrap().running.keys().next_back().unwrap();
    world.lock().unwrap().exits.push((last, Status::Code(0)));
    assert_eq!(next(&mut stats), Some((5, remove(":c"))));
    // Another one takes its place, and is told from the beginning.
    let mut other = call(&daemon);
    assert_eq!(next(&mut other), Some((1, add("foo:b"))));
    assert_eq!(next(&mut stats), None);
    // A new vmmd tells of those that outlived the old one.
    daemon.kill();
    assert_eq!(next(&mut other), None);
    let daemon = Daemon::start(&folder.0, &world);
    let mut stats = call(&daemon);
    assert_eq!(next(&mut stats), Some((1, add("foo:b"))));
    assert_eq!(daemon.destroy("foo:b"), text("destroyed unikernel"));
    assert_eq!(next(&mut stats), Some((2, remove("foo:b"))));
    // Whatever else is said of statistics is not known, nor who calls from elsewhere than the root.
    for (name, command) in [
        (":", StatsCommand::Subscribe),
        (":", StatsCommand::Remove),
        ("foo:", StatsCommand::Initial),
        ("foo", StatsCommand::Initial),
    ] {
        assert_eq!(daemon.ask(name, Command::Stats(command)).failure(), "unknown command");
    }
}

#[test]
fn one_that_does_not_read_is_hung_up_on_and_delays_nobody() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("stays"), text("created unikernel"));
    let mut deaf = call(&daemon);
    // Each comes and goes: two messages. The system keeps some hundred of them, vmmd as many again.
    let mut rounds = 0;
    // It can be written to as long as it is not hung up on.
    while deaf.0.write_all(b"x").is_ok() {
        assert_eq!(daemon.create("some"), text("created unikernel"));
        assert_eq!(daemon.destroy("some"), text("destroyed unikernel"));
        rounds += 1;
        assert!(rounds < 20_000);
    }
    assert!(rounds > 100, "{rounds}");
    // What was sent is whole and in order, as far as it goes.
    assert_eq!(next(&mut deaf), Some((1, add(":stays"))));
    let mut expected = 2;
    while let Some((sequence, told)) = next(&mut deaf) {
        assert_eq!((sequence, told), (expected, if expected % 2 == 0 { add(":some") } else { remove(":some") }));
        expected += 1;
    }
    assert!(expected > 100, "{expected}");
    // It calls again and is told everything.
    let mut stats = call(&daemon);
    assert_eq!(next(&mut stats), Some((1, add(":stays"))));
    assert_eq!(daemon.create("some"), text("created unikernel"));
    assert_eq!(next(&mut stats), Some((2, add(":some"))));
}

#[test]
fn a_virtual_machine_is_told_by_its_name() {
    let (folder, world) = (Folder::new(), World::default());
    world.lock().unwrap().bhyve = true;
    let daemon = Daemon::start(&folder.0, &world);
    let mut stats = call(&daemon);
    assert_eq!(daemon.ask("disk", Command::Block(BlockCommand::Add { size: 1 })), text("added block device"));
    let disk = [BlockDevice { name: "0", host_device: Some("disk"), sector_size: None }];
    assert_eq!(daemon.ask("vm", create_machine(&disk)), text("created unikernel"));
    let unit = *world.lock().unwrap().running.keys().next().unwrap();
    let machine = machine_name(7, Unit(unit)).to_string();
    let told = Told::AddMachine(":vm".to_owned(), machine);
    assert_eq!(next(&mut stats), Some((1, told.clone())));
    // One that is told later, with a unikernel beside it.
    assert_eq!(daemon.create("a"), text("created unikernel"));
    assert_eq!(next(&mut stats), Some((2, add(":a"))));
    let mut other = call(&daemon);
    assert_eq!((next(&mut other), next(&mut other)), (Some((1, told)), Some((2, add(":a")))));
}
