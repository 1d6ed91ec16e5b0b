//! Block devices through the real control half: the peer's recorded conversations, the files on the disk, and who holds them.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fulmar_core::halves::Status;
use fulmar_core::wire::{self, BlockCommand, BlockDevice, Command, Frame, List, Payload, PolicyCommand};
use fulmar_tests::images::{Device, image_with};
use support::*;

const INFO: Command<'_> = Command::Block(BlockCommand::Info);
const REMOVE: Command<'_> = Command::Block(BlockCommand::Remove);

const STORAGE: [BlockDevice<'_>; 1] = [BlockDevice { name: "storage", host_device: None, sector_size: None }];

fn add(size: i64) -> Command<'static> {
    Command::Block(BlockCommand::Add { size })
}

fn on_disk() -> Vec<u8> {
    image_with(2, &[Device::Block("storage")], 0x1000)
}

fn allow(daemon: &Daemon, path: &str, block: i64) {
    let policy = wire::Policy {
        cpuids: List::Items(&[0]),
        unikernels: 5,
        memory: 256,
        block: Some(block),
        bridges: List::EMPTY,
    };
    assert_eq!(daemon.ask(path, Command::Policy(PolicyCommand::Add(policy))), text("added policy"));
}

fn file_of(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.settings.state.join("block").join(format!("{name}_disk"))
}

fn files(daemon: &Daemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.settings.state.join("block")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Whether somebody has the file of a block device locked.
fn is_held(daemon: &Daemon, name: &str) -> bool {
    File::open(file_of(daemon, name)).unwrap().try_lock().is_err()
}

/// A stream of the peer's, as it was recorded.
fn recorded(file: &str) -> Vec<u8> {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/captures");
    fs::read(captures.join(file)).unwrap()
}

/// The reason in a frame that refuses.
fn failure(frame: &[u8]) -> String {
    match wire::decode(Frame::whole(&frame[4..])).unwrap().payload {
        Payload::Failure(text) => text.to_string(),
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn the_peers_conversations_go_as_they_were_recorded() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    allow(&daemon, "foo:", 20);
    for name in ["foo:storage", "foo:disk1"] {
        assert_eq!(daemon.ask(name, add(2)), text("added block device"));
    }
    for conversation in ["block-add-again", "block-info", "block-over-limit", "block-destroy"] {
        let mut client = daemon.connect();
        client.0.write_all(&recorded(&format!("{conversation}.0.c2s.bin"))).unwrap();
        let mut answer = Vec::new();
        client.0.read_to_end(&mut answer).unwrap();
        let peers = recorded(&format!("{conversation}.0.s2c.bin"));
        if conversation == "block-over-limit" {
            // Ours goes on, and says whose limit it is.
            let [answer, peers] = [&answer, &peers].map(|it| failure(it));
            assert_eq!(answer.strip_prefix(&peers), Some(" (policy of foo:)"));
        } else {
            assert_eq!(answer, peers, "{conversation}");
        }
    }
    // Of a create only the reply was recorded whole.
    let mut client = daemon.connect();
    let command = create_on(&*on_disk().leak(), &STORAGE);
    let mut message = frame("foo:blk", command);
    let sequence = message.windows(10).position(|it| it == [4, 8, 0, 0, 0, 0, 0, 0, 0, 7]).unwrap();
    message[sequence + 9] = 0;
    client.0.write_all(&message).unwrap();
    let mut answer = Vec::new();
    client.0.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, recorded("create-blk.0.s2c.bin"));
    assert_eq!(files(&daemon), ["foo:storage_disk"]);
}

#[test]
fn a_block_device_is_a_private_sparse_file() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.ask("foo:disk", add(64)), text("added block device"));
    let metadata = fs::metadata(file_of(&daemon, "foo:disk")).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (64 << 20, 0o600));
    assert!(metadata.blocks() < 100, "{} blocks are taken", metadata.blocks());
    let block_folder = fs::metadata(daemon.settings.state.join("block")).unwrap();
    assert_eq!(block_folder.permissions().mode() & 0o777, 0o700);
    for size in [0, -1, i64::MAX >> 2] {
        assert!(!daemon.ask("foo:no", add(size)).failure().is_empty());
    }
    assert_eq!(files(&daemon), ["foo:disk_disk"]);
    assert_eq!(daemon.ask("foo:no", add(2)), text("added block device"));
    // The longest name is a file name too.
    let longest = format!("{}b", "a:".repeat(124));
    assert_eq!(daemon.ask(&longest, add(1)), text("added block device"));
    assert_eq!(daemon.ask(&longest, REMOVE), text("removed block"));
}

#[test]
fn a_unikernel_is_given_its_open_file_and_nobody_else_has_it() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let image = on_disk();
    assert_eq!(daemon.ask("p:a", create_on(&image, &STORAGE)).failure(), "block device storage does not exist");
    assert_eq!(daemon.ask("p:storage", add(1)), text("added block device"));
    assert_eq!(daemon.ask("p:a", create_on(&image, &STORAGE)), text("created unikernel"));
    assert!(is_held(&daemon, "p:storage"));
    // What is written through the descriptor is in the file.
    let given = {
        let pretended = world.lock().unwrap();
        let [fd] = &pretended.blocks.values().next().unwrap()[..] else { panic!("one block device") };
        File::from(fd.try_clone().unwrap())
    };
    std::os::unix::fs::FileExt::write_all_at(&given, b"of the guest", 512).unwrap();
    drop(given);
    assert_eq!(&fs::read(file_of(&daemon, "p:storage")).unwrap()[512..524], b"of the guest");
    assert_eq!(daemon.ask("p:storage", REMOVE).failure(), "remove block: is in use");
    let Answered::Other(listed) = daemon.ask("p:", INFO) else { panic!("no list") };
    assert!(listed.contains("active: true"), "{listed}");
    assert_eq!(daemon.ask("p:b", create_on(&image, &STORAGE)).failure(), "block device storage is in use");
    assert_eq!(daemon.destroy("p:a"), text("destroyed unikernel"));
    wait_for("the lock to go", || !is_held(&daemon, "p:storage"));
    assert_eq!(daemon.ask("p:b", create_on(&image, &STORAGE)), text("created unikernel"));
    assert_eq!(daemon.destroy("p:b"), text("destroyed unikernel"));
    assert_eq!(daemon.ask("p:storage", REMOVE), text("removed block"));
    assert!(files(&daemon).is_empty());
}

#[test]
fn a_new_vmmd_finds_all_as_it_was() {
    let (folder, world) = (Folder::new(), World::default());
    let image = on_disk();
    let daemon = Daemon::start(&folder.0, &world);
    for name in ["p:storage", "q:storage", "r:storage", "s:storage"] {
        assert_eq!(daemon.ask(name, add(1)), text("added block device"));
    }
    for name in ["p:a", "q:a"] {
        assert_eq!(daemon.ask(name, create_on(&image, &STORAGE)), text("created unikernel"));
    }
    daemon.kill();
    // One of them dies meanwhile, a file vanishes, another is cut, what was being made or removed is left over.
    let running: Vec<u64> = world.lock().unwrap().running.keys().copied().collect();
    {
        let mut pretended = world.lock().unwrap();
        pretended.running.remove(&running[1]);
        pretended.blocks.remove(&running[1]);
    }
    let block_folder = folder.0.join("state/block");
    fs::remove_file(block_folder.join("r:storage_disk")).unwrap();
    File::options().write(true).open(block_folder.join("s:storage_disk")).unwrap().set_len(5).unwrap();
    for name in ["p:full_disk", "p:of.another.program"] {
        fs::write(block_folder.join(name), b"x").unwrap();
    }
    File::create_new(block_folder.join("p:left_disk")).unwrap().set_len(1 << 20).unwrap();
    let daemon = Daemon::start(&folder.0, &world);
    let found = ["p:full_un1", "p:of.another.program", "p:storage_disk", "q:storage_disk", "s:storage_disk"];
    assert_eq!(files(&daemon), found);
    wait_for("the other to come back", || world.lock().unwrap().running.len() == 2);
    for name in ["p:storage", "q:storage"] {
        wait_for("the lock", || is_held(&daemon, name));
        assert_eq!(daemon.ask(name, REMOVE).failure(), "remove block: is in use");
    }
    let refused = daemon.ask("r:a", create_on(&image, &STORAGE));
    assert!(refused.failure().starts_with("the file of block device storage is gone"), "{refused:?}");
    let refused = daemon.ask("s:a", create_on(&image, &STORAGE));
    assert!(refused.failure().contains("another size than recorded, 5 bytes"), "{refused:?}");
    assert!(!file_of(&daemon, "r:storage").exists(), "it is never made again by itself");
    for name in ["r:storage", "s:storage"] {
        assert_eq!(daemon.ask(name, REMOVE), text("removed block"));
        assert_eq!(daemon.ask(name, add(2)), text("added block device"));
    }
    assert_eq!(daemon.ask("r:a", create_on(&image, &STORAGE)), text("created unikernel"));
}

#[test]
fn a_dying_process_that_nobody_recorded_keeps_its_block_device() {
    let (folder, world) = (Folder::new(), World::default());
    let image = on_disk();
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.ask("p:storage", add(1)), text("added block device"));
    // As if a process that was killed were still ending.
    let dying = File::open(file_of(&daemon, "p:storage")).unwrap();
    dying.try_lock().unwrap();
    let refused = daemon.ask("p:a", create_on(&image, &STORAGE));
    assert!(refused.failure().contains("a process that is still ending has a block device open"), "{refused:?}");
    drop(dying);
    assert_eq!(daemon.ask("p:a", create_on(&image, &STORAGE)), text("created unikernel"));
    // Its end for good makes it free.
    let unit = *world.lock().unwrap().running.keys().next().unwrap();
    world.lock().unwrap().exits.push((unit, Status::Code(0)));
    wait_for("its end", || daemon.names().is_empty());
    assert_eq!(daemon.ask("p:storage", REMOVE), text("removed block"));
}

#[test]
fn a_virtual_machine_boots_from_a_block_device_and_is_found_again() {
    let disk = [BlockDevice { name: "0", host_device: Some("system"), sector_size: None }];
    let zvol = [BlockDevice { name: "0", host_device: Some("/dev/zvol/tank/vm"), sector_size: None }];
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let refused = "bhyve virtual machines are not run here (bhyve runs on FreeBSD): give a Solo5 image";
    assert_eq!(daemon.ask("shop:vm", create_machine(&disk)).failure(), refused);
    assert!(daemon.names().is_empty());
    daemon.kill();
    world.lock().unwrap().bhyve = true;
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.ask("shop:system", add(1)), text("added block device"));
    assert!(daemon.ask("shop:vm", create_machine(&zvol)).failure().contains("--allow-zvol-for"));
    assert_eq!(daemon.ask("shop:vm", create_machine(&disk)), text("created unikernel"));
    assert_eq!((daemon.images(), daemon.names()), (0, vec!["shop:vm".to_owned()]));
    assert!(is_held(&daemon, "shop:system"));
    assert_eq!(world.lock().unwrap().blocks.values().map(Vec::len).collect::<Vec<_>>(), [1]);
    daemon.kill();
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!((daemon.names(), world.lock().unwrap().launches), (vec!["shop:vm".to_owned()], 1));
    assert_eq!(daemon.ask("shop:system", REMOVE).failure(), "remove block: is in use");
    assert_eq!(daemon.destroy("shop:vm"), text("destroyed unikernel"));
    assert_eq!(daemon.ask("shop:system", REMOVE), text("removed block"));
}
