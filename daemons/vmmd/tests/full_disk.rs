//! A disk that is full while an image arrives or a record is written: a clear refusal, nothing left, and all goes on when there
//! is room again. It needs root for a small disk of its own.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::path::Path;
use std::process::Command as Program;

use fulmar_core::wire::{Command, PolicyCommand};
use support::*;

/// A small disk at a path, for as long as this lives.
struct Disk<'p>(&'p Path);

impl<'p> Disk<'p> {
    fn mount(path: &'p Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted =
            Program::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0755", "fulmar-test"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }

    /// Leaves about so many bytes.
    fn fill_up_to(&self, bytes: usize) {
        let ballast = self.0.join("ballast");
        let mut size = 1 << 20;
        while std::fs::write(&ballast, vec![0; size]).is_err() {
            size -= 4096;
        }
        std::fs::write(&ballast, vec![0; size.saturating_sub(bytes)]).unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Program::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let (folder, world) = (Folder::new(), World::default());
    let state = folder.0.join("state");
    let Some(disk) = Disk::mount(&state) else {
        fulmar_tests::skips::skip(
            "a_full_disk_refuses_and_loses_nothing",
            "no disk can be mounted here, run it as root",
        );
        return;
    };
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("before"), text("created unikernel"));

    // Room for less than an image.
    disk.fill_up_to(40_000);
    let mut large = image(7);
    large.resize(100_000, 0);
    let refused = daemon.ask("large", create(&large));
    assert!(refused.failure().contains("full"), "{refused:?}");
    assert_eq!(daemon.names(), [":before"]);
    wait_for("the spool to go", || daemon.images() == 1);

    // No room at all: records fit the last block of the journal and then no more.
    disk.fill_up_to(0);
    let mut added = 0;
    let refused = loop {
        let answer = daemon.ask(&format!("p{added:03}:"), add_policy(2));
        if answer != text("added policy") {
            break answer;
        }
        added += 1;
        assert!(added < 200, "the disk is not full");
    };
    assert!(refused.failure().contains("full"), "{refused:?}");
    let policies = |daemon: &Daemon| match daemon.ask(":", Command::Policy(PolicyCommand::Info)) {
        Answered::Names(names) => names.len() - 1,
        other => panic!("{other:?}"),
    };
    assert_eq!(policies(&daemon), added);
    assert_eq!(daemon.names(), [":before"]);

    disk.make_room();
    assert_eq!(daemon.ask("later:", add_policy(2)), text("added policy"));
    assert_eq!(daemon.ask("large", create(&large)), text("created unikernel"));
    assert_eq!(daemon.destroy("before"), text("destroyed unikernel"));
    daemon.kill();
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(policies(&daemon), added + 1);
    assert_eq!(daemon.names(), [":large"]);
    drop(daemon);
    drop(disk);
}
