//! What a tender takes beside its guest's memory is not more than what the host is charged for it: without devices and with all that
//! an image can have, with little memory and with much.

#![cfg(target_os = "linux")]
use std::fs::{self, File};
use std::io::Write;

use fulmar_core::machine::Usage;
use fulmar_tests::bridge::{ip, with_bridge};
use fulmar_tests::siege::Siege;
use fulmar_tests::system::wait_until;

/// KiB of a line of a process's status.
fn field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// KiB that are resident, of its program too, and its page tables.
fn taken(pid: u32) -> u64 {
    field(pid, "VmRSS") + field(pid, "VmPTE")
}

#[test]
fn a_guest_that_uses_all_its_memory() {
    const TEST: &str = "a_guest_that_uses_all_its_memory";
    let Some(siege) = Siege::begin(TEST) else { return };
    for kind in siege.kinds(TEST) {
        for memory_mb in [16, 300] {
            let image = siege.image_for("mem", kind);
            let (memory, touched) = (memory_mb.to_string(), format!("--mib={}", memory_mb - 8));
            let said =
                siege.client(&["create", "all", &image, "--mem", &memory, "--arg", &touched, "--arg", "--hold=60"]);
            assert_eq!(said.code, 0, "{said:?}");
            let tender = siege.the_tender();
            let touched_kib = (memory_mb - 8) * 1024;
            assert!(wait_until(|| field(tender, "VmRSS") > touched_kib), "{kind:?} {memory_mb}");
            let (taken, charged) = (taken(tender), charge_kib(memory_mb, 0));
            assert!(
                taken <= touched_kib + charged,
                "{kind:?}, {memory_mb} MB: {taken} KiB, {touched_kib} and {charged} charged"
            );
            assert_eq!(siege.client(&["destroy", "all"]).code, 0);
        }
    }
    siege.end();
}

#[test]
fn a_guest_with_all_the_devices_that_there_can_be() {
    const TEST: &str = "a_guest_with_all_the_devices_that_there_can_be";
    with_bridge(TEST, None, |siege, _| {
        // Nobody else's frame comes before the one that the guest waits for, and waits for as long as this takes.
        assert!(ip(&["link", "set", "br0", "down"]));
        for number in 1..=42 {
            assert_eq!(siege.client(&["add-block", &format!("b{number}"), "1"]).code, 0);
        }
        let blocks = (1..=42).map(|number| format!("--block=b{number}"));
        let nets = (1..=21).map(|number| format!("--net=n{number}:br0=02:00:00:00:00:{number:02x}"));
        let devices: Vec<String> = blocks.chain(nets).collect();
        for kind in siege.kinds(TEST) {
            // It wants to find its numbers on them, and writes others there.
            for number in 1..=42_u8 {
                let disk = siege.system.state().join(format!("block/:b{number}_disk"));
                File::options().write(true).open(disk).unwrap().write_all(&[number]).unwrap();
            }
            let (image, name) = (siege.image_for("many", kind), format!("many-{}", kind.name()));
            let words = ["create", &name, &image, "--mem", "16"];
            let words: Vec<&str> = words.into_iter().chain(devices.iter().map(String::as_str)).collect();
            let said = siege.client(&words);
            assert_eq!(said.code, 0, "{said:?}");
            siege.expect_line(&name, "many: waiting for frames");
            let (taken, charged) = (taken(siege.the_tender()), charge_kib(16, 21));
            // Of its guest's memory it has touched next to nothing.
            assert!(taken <= charged, "{kind:?}: {taken} KiB, {charged} are charged");
            assert_eq!(siege.client(&["destroy", &name]).code, 0);
        }
    });
}

/// KiB that the host is charged beside the guest's memory.
fn charge_kib(memory_mb: u64, networks: u64) -> u64 {
    let usage = Usage { unikernels: 1, memory_mb, block_mb: 0, networks };
    (usage.host_memory_mb() - memory_mb) * 1024
}
