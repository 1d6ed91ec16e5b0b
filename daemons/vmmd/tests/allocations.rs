//! Goal: a daemon that has started takes no more memory for a steady stream of commands. Method: an allocator that counts what
//! the daemon's threads ask for, while real clients ask for everything over and over.

#![allow(unsafe_code, reason = "an allocator that counts")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use fulmar_core::wire::{BlockCommand, BlockDevice, Command, PolicyCommand, StatsCommand, UnikernelCommand};
use fulmar_tests::images::{Device, image_with};
use support::*;

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !OF_THE_TEST.get() {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: our caller keeps the promises of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: our caller keeps the promises of this function, and `alloc` is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DISK: [BlockDevice<'_>; 1] = [BlockDevice { name: "storage", host_device: None, sector_size: None }];

fn round(daemon: &Daemon, policies: &mut Client, stats: &mut Client, image: &[u8], on_disk: &[u8], number: i64) {
    assert_eq!(daemon.ask("foo:web", create(image)), text("created unikernel"));
    assert_eq!(daemon.names(), ["foo:web"]);
    policies.send("foo:", add_policy(10 + number % 2));
    assert_eq!(policies.receive(), Some(text("added policy")));
    let listed = daemon.ask(":", Command::Policy(PolicyCommand::Info));
    assert!(matches!(listed, Answered::Names(names) if names.len() == 2));
    let got = daemon.ask("foo:web", Command::Unikernel(UnikernelCommand::Get { level: 0 }));
    assert!(matches!(got, Answered::Image { compressed: false, .. }));
    assert_eq!(daemon.ask("foo:web", create(image)).failure(), "Unikernel with same name is already running");
    assert_eq!(daemon.destroy("foo:web"), text("destroyed unikernel"));
    assert_eq!(daemon.ask("bar:storage", Command::Block(BlockCommand::Add { size: 1 })), text("added block device"));
    assert_eq!(daemon.ask("bar:web", create_on(on_disk, &DISK)), text("created unikernel"));
    let listed = daemon.ask(":", Command::Block(BlockCommand::Info));
    assert!(matches!(listed, Answered::Other(_)));
    assert_eq!(daemon.destroy("bar:web"), text("destroyed unikernel"));
    assert_eq!(daemon.ask("bar:storage", Command::Block(BlockCommand::Remove)), text("removed block"));
    // The statistics daemon is told of both, as they come and go.
    for _ in 0..4 {
        assert!(matches!(stats.receive(), Some(Answered::Other(_))));
    }
}

#[test]
fn a_steady_stream_of_commands_takes_no_memory() {
    OF_THE_TEST.set(true);
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let image = image(0);
    let on_disk = image_with(2, &[Device::Block("storage")], 0x1000);
    let (mut policies, mut stats) = (daemon.connect(), daemon.connect());
    stats.send(":", Command::Stats(StatsCommand::Initial));
    assert!(matches!(stats.receive(), Some(Answered::Other(_))));
    for number in 0..20 {
        round(&daemon, &mut policies, &mut stats, &image, &on_disk, number);
    }
    let before = COUNT.load(Ordering::Relaxed);
    assert!(before > 0, "it counts");
    for number in 0..200 {
        round(&daemon, &mut policies, &mut stats, &image, &on_disk, number);
    }
    assert_eq!(COUNT.load(Ordering::Relaxed) - before, 0, "allocations in 200 rounds of 12 commands");
}
