//! A siege in a network namespace of its own, with a bridge `br0` for its unikernels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::namespace::inside;
use crate::siege::{self, Siege};
use crate::skips::skip;
use crate::system::{self, System};

/// Runs `ip` and says whether it did what it was told.
#[must_use]
pub fn ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).output().is_ok_and(|output| output.status.success())
}

/// Runs `body` with a siege and a view of its namespace's interfaces (a `sysfs`); the bridge has this address, if any. Skipped,
/// aloud, where bridges or taps cannot be made.
pub fn with_bridge(test: &str, address: Option<&str>, body: impl FnOnce(&mut Siege, &Path) + Send) {
    inside(test, || {
        let Some(programs) = siege::programs(test) else { return };
        let system = System::new(system::make_folder("siege").unwrap(), programs).unwrap();
        let has_bridge = ip(&["link", "add", "br0", "type", "bridge"])
            && address.is_none_or(|address| ip(&["addr", "add", address, "dev", "br0"]))
            && ip(&["link", "set", "br0", "up"]);
        if !has_bridge {
            return skip(test, "no bridge can be made here with `ip`");
        }
        let net = system.folder().join("sys");
        fs::create_dir(&net).unwrap();
        if mount(Some("sysfs"), &net, Some("sysfs"), MsFlags::empty(), None::<&str>).is_err() {
            return skip(test, "sysfs cannot be mounted here");
        }
        let mut siege = Siege::begin_in(system);
        match siege.system.log("vmmd").contains("taps cannot be made") {
            true => skip(test, "taps cannot be made here"),
            false => body(&mut siege, &net),
        }
        umount2(&net, MntFlags::MNT_DETACH).unwrap();
        siege.system.stop().unwrap();
    });
}
