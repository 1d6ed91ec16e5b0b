//! The content of block devices and those who do not do as they should, with the real daemons: what is refused, cut off, killed or does
//! not fit leaves the old content, and nothing else.

#![cfg(target_os = "linux")]
use std::collections::BTreeSet;
use std::fs;
use std::net::Shutdown;

use fulmar_core::limits::TRANSFERS_MAX;
use fulmar_core::wire::{BlockCommand, Command};
use fulmar_tests::contents::{
    DUMP, MB, SET, SET_COMPRESSED, chunks, connect, done, dumped, file, files, padded, refused, sample, set,
    try_dumped, zlib,
};
use fulmar_tests::namespace::{Disk, inside};
use fulmar_tests::raw::{Answer, Raw, frame};
use fulmar_tests::siege::{self, Siege, control_half};
use fulmar_tests::system::{self, System, is_gone, wait_until};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn what_is_not_right_leaves_the_old_content() {
    let Some(siege) = Siege::begin("what_is_not_right_leaves_the_old_content") else { return };
    done(&siege, &["add-block", "data", "1"]);
    let old = sample(MB, 3);
    assert_eq!(set(&siege, "data", SET, &chunks(&old, 4096)), Answer::Done("set block device".into()));
    let (short, long) = (sample(100_000, 5), sample(MB + 1, 6));
    let mut tail = zlib(&short);
    tail.extend([0; 9]);
    let cut = zlib(&short)[..30_000].to_vec();
    let mut damaged = zlib(&short);
    damaged[20_000..30_000].fill(0x55);
    let bomb = zlib(&vec![0; 40 * MB]);
    let huge = [&0x7fff_ffff_u32.to_be_bytes()[..], &[7; 4096]].concat();
    let negative = [&chunks(&short, 4096)[..8200], &[0xff; 4]].concat();
    let (too_large, no_zlib) = ("more than the block device holds", "no complete zlib stream");
    let cases: &[(&str, Command<'_>, Vec<u8>, &str)] = &[
        ("too long", SET, chunks(&long, 4096), too_large),
        ("much too long", SET, chunks(&[1; 40 * MB], 4096), too_large),
        ("in one chunk", SET, chunks(&long, 2 * MB), too_large),
        ("announced", SET, huge, too_large),
        ("negative", SET, negative, "ended before its end mark"),
        ("too long, compressed", SET_COMPRESSED, chunks(&zlib(&long), 4096), too_large),
        ("a bomb", SET_COMPRESSED, chunks(&bomb, 4096), too_large),
        ("with a tail", SET_COMPRESSED, chunks(&tail, 4096), no_zlib),
        ("cut", SET_COMPRESSED, chunks(&cut, 4096), no_zlib),
        ("damaged", SET_COMPRESSED, chunks(&damaged, 4096), no_zlib),
        ("not compressed", SET_COMPRESSED, chunks(&short, 4096), no_zlib),
        ("nothing", SET_COMPRESSED, chunks(&[], 1), no_zlib),
        ("without end", SET_COMPRESSED, huge_announced(), no_zlib),
    ];
    for (what, command, stream, reason) in cases {
        let answer = set(&siege, "data", *command, stream);
        assert!(answer.reason().contains(reason), "{what}: {answer:?}");
        assert!(dumped(&siege, "data", 0) == old, "{what}");
        assert_eq!(files(&siege), [":data_disk".to_owned()].into(), "{what}");
    }
    // The end comes without its mark: who can still hear it is told, who is gone is not.
    let mut raw = connect(&siege);
    raw.send(&frame("data", SET));
    raw.send(&chunks(&short, 4096)[..50_000]);
    raw.0.shutdown(Shutdown::Write).unwrap();
    assert!(raw.receive().reason().contains("ended before its end mark"));
    let mut raw = connect(&siege);
    raw.send(&frame("data", SET));
    raw.send(&chunks(&short, 4096)[..50_000]);
    drop(raw);
    assert!(wait_until(|| try_dumped(&siege, "data", 0).as_ref() == Some(&old)));
    assert_eq!(files(&siege).len(), 1);
    // Refused before anything is read: whoever sends on gets to read why.
    for (name, command, reason) in [
        ("none", SET, "set block: not found"),
        ("p:", SET, "set block: not found"),
        ("none", DUMP, "dump block: not found"),
    ] {
        let answer = set(&siege, name, command, &chunks(&[1; 20 * MB], 4096));
        assert_eq!(answer.reason(), reason);
    }
    // Any size of chunk is taken, and none at all: then all is zero.
    for chunk in [1, 4097, 1 << 20] {
        assert_eq!(set(&siege, "data", SET, &chunks(&short, chunk)), Answer::Done("set block device".into()));
        assert!(dumped(&siege, "data", 6) == padded(&short, 1));
        let answer = set(&siege, "data", SET_COMPRESSED, &chunks(&zlib(&old), chunk));
        assert_eq!(answer, Answer::Done("set block device".into()));
        assert!(dumped(&siege, "data", 1) == old);
    }
    assert_eq!(set(&siege, "data", SET, &[0; 4]), Answer::Done("set block device".into()));
    assert!(dumped(&siege, "data", 0) == padded(&[], 1));
    let missing = siege.client(&["set-block", "data", "/nonexistent"]);
    assert_eq!(missing.code, 124, "{missing:?}");
    let path = file(&siege, "long.img", &long);
    refused(&siege, &["set-block", "data", &path], too_large);
    refused(&siege, &["set-block", "data", "/dev/zero"], too_large);
    done(&siege, &["remove-block", "data"]);
    siege.end();
}

/// A compressed stream of which more is announced than ever comes, in a chunk that is no zlib stream.
fn huge_announced() -> Vec<u8> {
    [&0x7fff_ffff_u32.to_be_bytes()[..], &[0xff; 5000]].concat()
}

#[test]
fn nobody_else_has_it_meanwhile() {
    let Some(siege) = Siege::begin("nobody_else_has_it_meanwhile") else { return };
    done(&siege, &["add-block", "storage", "1"]);
    let image = siege.image("block");
    let create = ["create", "uses", &image, "--block=storage"];
    let busy = "this block device is being set or dumped, try again";
    let mut setting = connect(&siege);
    setting.send(&frame("storage", SET));
    assert!(wait_until(|| siege.client(&["dump-block", "storage", "/nonexistent/x"]).err.contains(busy)));
    refused(&siege, &["set-block", "storage", "/dev/null"], busy);
    refused(&siege, &["remove-block", "storage"], busy);
    refused(&siege, &create, "block device storage is being set or dumped, try again");
    setting.send(&chunks(b"content", 3));
    assert_eq!(setting.receive(), Answer::Done("set block device".into()));
    // As many read as may, and nobody changes it.
    done(&siege, &["add-block", "large", "16"]);
    let mut dumping: Vec<Raw> = Vec::new();
    for _ in 0..TRANSFERS_MAX {
        let mut raw = connect(&siege);
        raw.send(&frame("large", DUMP));
        assert!(raw.receive_bytes().is_some());
        dumping.push(raw);
    }
    assert!(connect(&siege).ask("large", DUMP).reason().contains("too many block devices"));
    assert!(connect(&siege).ask("storage", SET).reason().contains("too many block devices"));
    refused(&siege, &["remove-block", "large"], busy);
    refused(&siege, &["create", "uses", &image, "--block=storage:large"], "large is being set or dumped");
    // Each that goes leaves its place to another.
    drop(dumping.pop());
    assert!(wait_until(|| siege.client(&["set-block", "storage", "/dev/null"]).code == 0));
    drop(dumping);
    assert!(wait_until(|| siege.client(&["remove-block", "large"]).code == 0));
    // What a unikernel has is its own, also while it rests.
    let spin = siege.system.folder().join("counting.spt");
    fs::write(&spin, fulmar_tests::images::counting()).unwrap();
    done(&siege, &["create", "uses", &spin.to_string_lossy(), "--block=storage"]);
    refused(&siege, &["set-block", "storage", "/dev/null"], "set block: is in use");
    refused(&siege, &["dump-block", "storage"], "dump block: is in use");
    assert_eq!(set(&siege, "storage", SET, &chunks(&[1; 9 * MB], 4096)).reason(), "set block: is in use");
    done(&siege, &["destroy", "uses"]);
    done(&siege, &["remove-block", "storage"]);
    siege.end();
}

#[test]
fn who_is_silent_or_does_not_read_is_ended() {
    let Some(siege) = Siege::begin("who_is_silent_or_does_not_read_is_ended") else { return };
    done(&siege, &["add-block", "silent", "1"]);
    done(&siege, &["add-block", "unread", "16"]);
    done(&siege, &["add-block", "packed", "16"]);
    let path = file(&siege, "content.img", &sample(16 * MB, 4));
    done(&siege, &["set-block", "packed", &path]);
    // One says nothing after the command, one stops within a chunk, two do not read, one of them what is compressed.
    let mut silent = connect(&siege);
    silent.send(&frame("silent", SET));
    done(&siege, &["add-block", "stops", "1"]);
    let mut stops = connect(&siege);
    stops.send(&frame("stops", SET));
    stops.send(&0x000f_ffff_u32.to_be_bytes());
    stops.send(&[7; 9000]);
    let mut unread = connect(&siege);
    unread.send(&frame("unread", DUMP));
    let mut packed = connect(&siege);
    packed.send(&frame("packed", Command::Block(BlockCommand::Dump { level: 1 })));
    let names = ["silent", "stops", "unread", "packed"];
    let mut left: BTreeSet<&str> = names.into();
    for name in names {
        refused(&siege, &["remove-block", name], "is being set or dumped");
    }
    assert!(wait_until(|| {
        left.retain(|name| siege.client(&["remove-block", name]).code != 0);
        left.is_empty()
    }));
    assert_eq!((silent.receive(), stops.receive()), (Answer::Closed, Answer::Closed));
    assert!(files(&siege).is_empty());
    siege.expect_log("vmmd", "the client did not finish its message");
    siege.expect_log("vmmd", "the client did not read its reply");
    siege.end();
}

#[test]
fn a_hundred_times_leave_nothing() {
    let Some(siege) = Siege::begin("a_hundred_times_leave_nothing") else { return };
    done(&siege, &["add-block", "data", "1"]);
    let one = sample(MB, 8);
    for round in 0_i64..100 {
        let answer = match round % 4 {
            0 => set(&siege, "data", SET, &chunks(&one, 4096)),
            1 => set(&siege, "data", SET_COMPRESSED, &chunks(&zlib(&one), 30_000)),
            2 => {
                // Gone before or while it is being sent.
                let mut raw = connect(&siege);
                raw.send(&frame("data", Command::Block(BlockCommand::Dump { level: round % 10 })));
                if round % 8 == 2 {
                    assert!(raw.receive_bytes().is_some());
                }
                drop(raw);
                // It has gone when it can be set.
                let again = || set(&siege, "data", SET, &chunks(&one, 4096)) == Answer::Done("set block device".into());
                assert!(wait_until(again));
                continue;
            }
            _ => set(&siege, "data", SET, &chunks(&[3; MB + 1], 60_000)),
        };
        assert_eq!(round % 4 == 3, matches!(answer, Answer::Refused(_)), "{answer:?}");
        assert!(dumped(&siege, "data", round % 10) == one);
        assert_eq!(files(&siege), [":data_disk".to_owned()].into());
    }
    done(&siege, &["remove-block", "data"]);
    assert!(files(&siege).is_empty());
    siege.end();
}

#[test]
fn killed_while_it_sets_vmmd_keeps_the_old_content() {
    let Some(mut siege) = Siege::begin("killed_while_it_sets_vmmd_keeps_the_old_content") else { return };
    let pid = |id: u32| Pid::from_raw(i32::try_from(id).unwrap());
    done(&siege, &["add-block", "data", "4"]);
    let old = sample(4 * MB, 2);
    assert_eq!(set(&siege, "data", SET, &chunks(&old, 4096)), Answer::Done("set block device".into()));
    for sent in [0, 1, 3 * MB] {
        let control = control_half(siege.vmmd);
        let mut raw = connect(&siege);
        raw.send(&frame("data", SET));
        let stream = chunks(&[9; 4 * MB], 4096);
        raw.send(&stream[..sent]);
        // The new content arrives in a file of its own, which nobody else has.
        assert!(sent < MB || wait_until(|| files(&siege).contains(":data_new")));
        kill(pid(control), Signal::SIGKILL).unwrap();
        let (host, half) = (pid(siege.vmmd), pid(control));
        assert!(wait_until(|| is_gone(host) && is_gone(half)));
        siege.system.end("vmmd", Signal::SIGTERM).unwrap();
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        assert!(dumped(&siege, "data", 0) == old);
        assert_eq!(files(&siege), [":data_disk".to_owned()].into());
    }
    done(&siege, &["remove-block", "data"]);
    siege.count_again();
    siege.end();
}

#[test]
fn a_full_disk_leaves_the_old_content() {
    inside("a_full_disk_leaves_the_old_content", || {
        let Some(programs) = siege::programs("a_full_disk_leaves_the_old_content") else { return };
        let system = System::new(system::make_folder("siege").unwrap(), programs).unwrap();
        let disk = Disk::mount(&system.state(), 8 << 20, MsFlags::empty());
        let siege = Siege::begin_in(system);
        done(&siege, &["add-block", "data", "4"]);
        let old = sample(3 * MB, 2);
        assert_eq!(set(&siege, "data", SET, &chunks(&old, 4096)), Answer::Done("set block device".into()));
        disk.fill_up_to(1 << 20);
        // The old and the new one are both there for a while, which is more than there is.
        for (command, stream) in
            [(SET, chunks(&sample(3 * MB, 7), 4096)), (SET_COMPRESSED, chunks(&zlib(&sample(3 * MB, 7)), 4096))]
        {
            let answer = set(&siege, "data", command, &stream);
            assert!(answer.reason().contains("the disk of the block devices is full"), "{answer:?}");
            assert!(dumped(&siege, "data", 0) == padded(&old, 4));
            assert_eq!(files(&siege), [":data_disk".to_owned()].into());
        }
        disk.make_room();
        assert_eq!(set(&siege, "data", SET, &chunks(b"few", 4096)), Answer::Done("set block device".into()));
        done(&siege, &["remove-block", "data"]);
        drop(disk);
        siege.system.stop().unwrap();
    });
}
