//! Block devices with the real daemons, tenders and files: what a guest writes stays, nobody else gets it, and nothing is left.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use fulmar_core::wire::{BlockCommand, Command};
use fulmar_tests::bridge::with_bridge;
use fulmar_tests::built::Kind;
use fulmar_tests::images;
use fulmar_tests::namespace::{Disk, inside};
use fulmar_tests::raw::{Answer, Raw};
use fulmar_tests::siege::{self, Siege, control_half};
use fulmar_tests::system::{self, System, is_gone, wait_until};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ADD: fn(i64) -> Command<'static> = |size| Command::Block(BlockCommand::Add { size });
const REMOVE: Command<'static> = Command::Block(BlockCommand::Remove);

fn folder(siege: &Siege) -> PathBuf {
    siege.system.state().join("block")
}

fn files(siege: &Siege) -> BTreeSet<String> {
    siege::files(&folder(siege))
}

/// The names of all block devices with their sizes, and whether they are active.
fn listed(siege: &Siege) -> BTreeMap<String, (i64, bool)> {
    let said = siege.client(&["block", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let one = |it: &serde_json::Value| {
        (it["name"].as_str().unwrap().to_owned(), (it["size_mb"].as_i64().unwrap(), it["active"].as_bool().unwrap()))
    };
    value["blocks"].as_array().unwrap().iter().map(one).collect()
}

/// Starts of [`images::counting`] on this disk.
fn starts(siege: &Siege, name: &str) -> u8 {
    let mut first = [0];
    let file = File::open(folder(siege).join(format!("{name}_disk"))).unwrap();
    file.read_exact_at(&mut first, 0).unwrap();
    first[0]
}

/// The image that counts its starts, as a file.
fn counting(siege: &Siege) -> String {
    let path = siege.system.folder().join("counting.spt");
    fs::write(&path, images::counting()).unwrap();
    path.to_string_lossy().into_owned()
}

fn add(siege: &Siege, name: &str, size_mb: &str) {
    let said = siege.client(&["add-block", name, size_mb]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}\n{}", siege.system.log("vmmd"));
}

fn expect_refusal(siege: &Siege, words: &[&str], reason: &str) {
    let said = siege.client(words);
    assert_eq!(said.code, 117, "{words:?}: {said:?}");
    assert!(said.err.contains(reason), "{words:?}: {said:?}");
}

#[test]
fn a_virtual_machine_of_bhyve_is_refused_where_linux_is() {
    let Some(siege) = Siege::begin("a_virtual_machine_of_bhyve_is_refused_where_linux_is") else { return };
    add(&siege, "system", "1");
    let vm = ["create", "vm", "--bhyve", "--block=0:system", "--numcpus", "1", "--linux-boot", "msdos1"];
    expect_refusal(&siege, &vm, "bhyve virtual machines are not run here (bhyve runs on FreeBSD)");
    assert_eq!(siege.client(&["info", "vm"]).code, 117);
    // Nobody has it, and a virtual machine has no image.
    assert_eq!(siege.client(&["remove-block", "system"]).code, 0);
    assert_eq!(siege.client(&["create", "vm", "--bhyve", "image.hvt"]).code, 124);
    assert_eq!(siege.client(&["create", "vm"]).code, 124);
}

#[test]
fn what_a_guest_writes_stays_until_the_block_device_is_removed() {
    let Some(siege) = Siege::begin("what_a_guest_writes_stays") else { return };
    let image = counting(&siege);
    let create = ["create", "counts", &image, "--block=storage:data"];
    expect_refusal(&siege, &create, "block device data does not exist");
    add(&siege, "data", "3");
    let metadata = fs::metadata(folder(&siege).join(":data_disk")).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (3 << 20, 0o600));
    for start in 1..=3 {
        let said = siege.client(&create);
        assert_eq!(said.code, 0, "{said:?}\n{}", siege.system.log("vmmd"));
        assert!(wait_until(|| starts(&siege, ":data") == start), "{}", siege.system.log("vmmd"));
        // The tender has the open file, and runs as somebody who could not open it.
        let tender = siege.the_tender();
        let fd = fs::read_link(format!("/proc/{tender}/fd/4")).unwrap();
        assert!(fd.ends_with("block/:data_disk"), "{}", fd.display());
        if nix::unistd::geteuid().is_root() {
            assert_ne!(fs::metadata(format!("/proc/{tender}")).unwrap().uid(), metadata.uid());
        }
        let shown = siege.client(&["info", "counts"]);
        assert!(shown.out.contains("storage is data, 3 MB, sectors of 512 bytes"), "{shown:?}");
        assert_eq!(siege.client(&["block", "data"]).out, "NAME   SIZE  ACTIVE\n:data  3 MB  yes\n");
        expect_refusal(&siege, &["remove-block", "data"], "remove block: is in use");
        expect_refusal(&siege, &["create", "other", &image, "--block=storage:data"], "block device data is in use");
        assert_eq!(siege.client(&["destroy", "counts"]).code, 0);
        assert_eq!(siege.client(&["block", "data"]).out, "NAME   SIZE  ACTIVE\n:data  3 MB  no\n");
    }
    assert_eq!(siege.client(&["remove-block", "data"]).code, 0);
    assert!(files(&siege).is_empty());
    expect_refusal(&siege, &["block", "data"], "info block: not found");
    // A new one of the same name has nothing of the old one.
    add(&siege, "data", "1");
    assert_eq!(starts(&siege, ":data"), 0);
    assert_eq!(siege.client(&["remove-block", "data"]).code, 0);
    siege.end();
}

#[test]
fn a_block_guest_keeps_its_data_across_destroy_and_create() {
    const TEST: &str = "a_block_guest_keeps_its_data_across_destroy_and_create";
    let Some(siege) = Siege::begin(TEST) else { return };
    add(&siege, "tested", "2");
    let mut start = 0;
    for kind in siege.kinds(TEST) {
        let image = siege.image_for("block", kind);
        for _ in 0..3 {
            start += 1;
            let said = siege.client(&["create", "tester", &image, "--block=storage:tested", "--arg", "--sectors=64"]);
            assert_eq!(said.code, 0, "{said:?}\n{}", siege.system.log("vmmd"));
            // The first start finds nothing yet.
            let found = if start == 1 { "written" } else { "as written" };
            siege.expect_line("tester", &format!("block: boot {start}, all sectors {found}"));
            // It exits with 0, and is not to run again: so its record goes, and its disk is free.
            assert!(wait_until(|| siege.names().is_empty()));
        }
    }
    assert_eq!(siege.client(&["remove-block", "tested"]).code, 0);
    siege.end();
}

#[test]
fn a_network_and_a_disk_together() {
    const TEST: &str = "a_network_and_a_disk_together";
    with_bridge(TEST, None, |siege, _| {
        siege.kinds(TEST).into_iter().for_each(|kind| a_network_and_a_disk(siege, kind));
    });
}

fn a_network_and_a_disk(siege: &Siege, kind: Kind) {
    add(siege, "p:disk", "2");
    let path = folder(siege).join("p:disk_disk");
    let file = File::options().read(true).write(true).open(path).unwrap();
    let first = [0xa5; 4096];
    file.write_all_at(&first, 0).unwrap();
    let image = siege.image_for("devices", kind);
    let said = siege.client(&["create", "p:both", &image, "--net=service:br0", "--block=storage:disk@4096"]);
    assert_eq!(said.code, 0, "{said:?}\n{}", siege.system.log("vmmd"));
    siege.expect_line("p:both", "disk: 2097152 bytes in sectors of 4096");
    // The guest copies the first sector to the last.
    let mut last = [0; 4096];
    assert!(wait_until(|| {
        file.read_exact_at(&mut last, (2 << 20) - 4096).unwrap();
        last == first
    }));
    // It may have ended by itself, after a frame or tired of waiting for one.
    let _ = siege.client(&["destroy", "p:both"]);
    assert!(wait_until(|| siege.client(&["remove-block", "p:disk"]).code == 0));
}

#[test]
fn policies_of_nested_domains() {
    let Some(siege) = Siege::begin("policies_of_nested_domains") else { return };
    for (path, block) in [("shop:", "10"), ("shop:web:", "6")] {
        let said = siege.client(&["add-policy", path, "3", "--mem", "96", "--cpu", "0", "--block", block]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    expect_refusal(&siege, &["add-block", "siege:disk", "1"], "no block devices are allowed by policy");
    expect_refusal(&siege, &["add-block", "siege:deep:disk", "1"], "no block devices are allowed by policy");
    add(&siege, "shop:web:a", "5");
    expect_refusal(&siege, &["add-block", "shop:web:x:b", "2"], "limit of 6 MB (used 5 MB) would be exceeded");
    add(&siege, "shop:c", "4");
    expect_refusal(&siege, &["add-block", "shop:d", "2"], "limit of 10 MB (used 9 MB) would be exceeded");
    // The host is the last that is asked.
    expect_refusal(&siege, &["add-block", "huge", "8796093022207"], "would be exceeded by the request");
    let tighter = ["add-policy", "shop:", "3", "--mem", "96", "--cpu", "0", "--block", "8"];
    expect_refusal(&siege, &tighter, "policy allows 8 MB block storage, but 9 MB are used already");
    let names: Vec<String> = listed(&siege).into_keys().collect();
    assert_eq!(names, ["shop:c", "shop:web:a"]);
    let below = siege.client(&["block", "shop:web:"]);
    assert_eq!(below.out, "NAME        SIZE  ACTIVE\nshop:web:a  5 MB  no\n");
    for name in ["shop:web:a", "shop:c"] {
        assert_eq!(siege.client(&["remove-block", name]).code, 0);
    }
    siege.end();
}

#[test]
fn bad_names_and_sizes_do_no_harm() {
    let Some(siege) = Siege::begin("bad_names_and_sizes_do_no_harm") else { return };
    for words in [
        &["add-block", "shop:", "1"][..],
        &["add-block", "a/b", "1"],
        &["add-block", "a_b", "1"],
        &["add-block", "..", "0"],
        &["add-block", "disk", "-1"],
        &["add-block", "disk", "8796093022208"],
        &["remove-block", "shop:"],
    ] {
        let said = siege.client(words);
        assert_eq!(said.code, 124, "{words:?}: {said:?}");
    }
    // Whoever does not use our client hears it from the daemon.
    let socket = siege.system.socket("vmmd.sock");
    for (name, command, reason) in [
        ("disk", ADD(0), "0 MB is no size of a block device"),
        ("disk", ADD(-1), "-1 MB is no size of a block device"),
        ("disk", ADD((1 << 62) - 1), "overflow while computing bytes"),
        ("disk", ADD(1 << 43), "overflow while computing bytes"),
        ("disk", ADD((1 << 43) - 1), "would be exceeded by the request"),
        ("shop:", ADD(1), "the name of a block device is needed"),
        ("shop:", REMOVE, "remove block: not found"),
        ("disk", REMOVE, "remove block: not found"),
    ] {
        let answer = Raw::connect(&socket).ask(name, command);
        assert!(answer.reason().contains(reason), "{name}: {answer:?}");
    }
    assert!(files(&siege).is_empty());
    // Names that look like something else to a file system are names here.
    for name in ["..", ".hidden", "a-:b.c"] {
        add(&siege, name, "1");
        assert_eq!(siege.client(&["remove-block", name]).code, 0);
    }
    assert!(files(&siege).is_empty());
    siege.end();
}

#[test]
fn a_full_disk() {
    inside("a_full_disk", || {
        let Some(programs) = siege::programs("a_full_disk") else { return };
        let system = System::new(system::make_folder("siege").unwrap(), programs).unwrap();
        let disk = Disk::mount(&system.state(), 4 << 20, MsFlags::empty());
        let siege = Siege::begin_in(system);
        // The root policy is the size of the file system, used or not.
        expect_refusal(&siege, &["add-block", "large", "5"], "limit of 4 MB (used 0 MB) would be exceeded");
        add(&siege, "kept", "1");
        disk.fill_up_to(0);
        let socket = siege.system.socket("vmmd.sock");
        let mut added = 0;
        // Each is undone, so that its name and its size are free again: the last block of the journal fills up.
        let refused = loop {
            match Raw::connect(&socket).ask("more", ADD(3)) {
                Answer::Done(_) => match Raw::connect(&socket).ask("more", REMOVE) {
                    Answer::Done(_) => {}
                    // Then it stays, with its file.
                    other => {
                        assert_eq!(files(&siege), [":kept_disk", ":more_disk"].map(str::to_owned).into());
                        break other;
                    }
                },
                other => break other,
            }
            added += 1;
            assert!(added < 300, "the disk is not full");
        };
        assert!(refused.reason().contains("full"), "{refused:?}");
        assert_eq!(listed(&siege).into_keys().next().unwrap(), ":kept");
        disk.make_room();
        if listed(&siege).len() == 2 {
            assert!(matches!(Raw::connect(&socket).ask("more", REMOVE), Answer::Done(_)));
        }
        // What was left over is gone as soon as the journal is written again.
        let said = siege.client(&["add-policy", "p", "1", "--mem", "32", "--cpu", "0"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(wait_until(|| Raw::connect(&socket).ask("more", ADD(3)) == Answer::Done("added block device".into())));
        assert_eq!(files(&siege), [":kept_disk", ":more_disk"].map(str::to_owned).into());
        for name in ["kept", "more"] {
            assert_eq!(siege.client(&["remove-block", name]).code, 0);
        }
        assert!(files(&siege).is_empty());
        drop(disk);
        siege.system.stop().unwrap();
    });
}

/// What was acknowledged while a daemon was being killed: which are there, and which of them may be either way.
#[derive(Default)]
struct Acknowledged {
    there: BTreeSet<String>,
    unsure: BTreeSet<String>,
    count: usize,
}

/// Adds and removes until nobody answers any more.
fn add_and_remove(socket: &Path, path: &str, done: &AtomicBool, acknowledged: &Mutex<Acknowledged>) {
    for round in 0.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("{path}d{}", round % 7);
        let adds = !acknowledged.lock().unwrap().there.contains(&name);
        acknowledged.lock().unwrap().unsure.insert(name.clone());
        let Ok(stream) = std::os::unix::net::UnixStream::connect(socket) else { return };
        match Raw(stream).ask(&name, if adds { ADD(1) } else { REMOVE }) {
            Answer::Done(_) => {
                let mut known = acknowledged.lock().unwrap();
                known.unsure.remove(&name);
                known.count += 1;
                if adds {
                    known.there.insert(name)
                } else {
                    known.there.remove(&name)
                };
            }
            // It dies, and nobody knows.
            _ => return,
        }
    }
}

#[test]
fn killed_at_any_time_vmmd_keeps_what_it_acknowledged() {
    let Some(mut siege) = Siege::begin("killed_at_any_time_vmmd_keeps_what_it_acknowledged") else { return };
    let image = counting(&siege);
    add(&siege, "stays", "1");
    assert_eq!(siege.client(&["create", "counts", &image, "--block=storage:stays"]).code, 0);
    let tender = siege.the_tender();
    let pid = |id: u32| Pid::from_raw(i32::try_from(id).unwrap());
    let socket = siege.system.socket("vmmd.sock");
    for wanted in [1, 7, 20, 33] {
        let acknowledged = Mutex::new(Acknowledged::default());
        for name in listed(&siege).into_keys().filter(|name| name.starts_with("k:")) {
            acknowledged.lock().unwrap().there.insert(name);
        }
        let (done, control) = (AtomicBool::new(false), control_half(siege.vmmd));
        std::thread::scope(|scope| {
            for path in ["k:a:", "k:b:"] {
                let (socket, done, acknowledged) = (&socket, &done, &acknowledged);
                scope.spawn(move || add_and_remove(socket, path, done, acknowledged));
            }
            assert!(wait_until(|| acknowledged.lock().unwrap().count >= wanted));
            kill(pid(control), Signal::SIGKILL).unwrap();
            done.store(true, Ordering::Relaxed);
        });
        let (host, half) = (pid(siege.vmmd), pid(control));
        assert!(wait_until(|| is_gone(host) && is_gone(half)));
        siege.system.end("vmmd", Signal::SIGTERM).unwrap();
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        let known = acknowledged.into_inner().unwrap();
        let found: BTreeSet<String> = listed(&siege).into_keys().filter(|name| name.starts_with("k:")).collect();
        let differing: Vec<&String> = found.symmetric_difference(&known.there).collect();
        assert!(differing.iter().all(|name| known.unsure.contains(*name)), "{differing:?} of {found:?}");
        // The files are those of the records, no more and no less.
        let expected: BTreeSet<String> =
            found.iter().map(|name| format!("{name}_disk")).chain([":stays_disk".to_owned()]).collect();
        assert_eq!(files(&siege), expected);
        // The unikernel goes on, and its disk is its own as before.
        assert!(!is_gone(pid(tender)));
        assert_eq!(listed(&siege)[":stays"], (1, true));
        expect_refusal(&siege, &["remove-block", "stays"], "remove block: is in use");
        assert_eq!(starts(&siege, ":stays"), 1);
    }
    // A restart of the host: everything is brought up again, with its disk.
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    kill(pid(tender), Signal::SIGKILL).unwrap();
    assert!(wait_until(|| is_gone(pid(tender))));
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    assert!(wait_until(|| starts(&siege, ":stays") == 2), "{}", siege.system.log("vmmd"));
    assert_eq!(siege.client(&["destroy", "counts"]).code, 0);
    for name in listed(&siege).into_keys() {
        assert_eq!(siege.client(&["remove-block", &name]).code, 0);
    }
    assert!(files(&siege).is_empty());
    siege.count_again();
    siege.end();
}
