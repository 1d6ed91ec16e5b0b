//! Resident memory of the two halves together: idle, with 20 unikernels, with 1,000.

use std::fs;

use fulmar_core::wire::{Command, UnikernelCommand};
use fulmar_tests::system::System;

use super::Bench;
use super::load;
use crate::steps::{Done, Failure};
use fulmar_tests::built::Kind;

pub(super) fn run(bench: &Bench) -> Done {
    let system = bench.system()?;
    let vmmd = system.pid("vmmd")?;
    println!("idle: {}", resident(vmmd)?);
    let path = bench.guests.image("hello", Kind::Spt);
    let image = fs::read(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    create(&system, &image, 0..20)?;
    println!("with 20 unikernels: {} (peer: 38 MB, aim: 6 MB)", resident(vmmd)?);
    create(&system, &image, 20..1000)?;
    println!("with 1,000 unikernels: {} (aim: 24 MB)", resident(vmmd)?);
    let large = [image.as_slice(), &vec![0x5a; 8 << 20]].concat();
    create(&system, &large, 1000..1001)?;
    println!("and one with an image of 8 MiB more: {}", resident(vmmd)?);
    Ok(system.stop()?)
}

fn create(system: &System, image: &[u8], numbers: std::ops::Range<usize>) -> Done {
    for number in numbers {
        let config = load::config(image, load::arguments(4, &[]));
        let create = load::frame(&format!("u{number}"), Command::Unikernel(UnikernelCommand::Create(config)));
        load::ask(&system.socket("vmmd.sock"), &create?)?;
    }
    Ok(())
}

/// Resident memory of a process and of its children that are called the same.
fn resident(pid: u32) -> Done<String> {
    let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let mut parts = vec![field(&status(pid), "VmRSS:")];
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        let text = status(child);
        if text.lines().any(|line| line == "Name:\tvmmd") {
            parts.push(field(&text, "VmRSS:"));
        }
    }
    if parts.len() != 2 {
        return Err(Failure(format!("vmmd should be two processes, it is {}", parts.len())));
    }
    let total: u64 = parts.iter().sum();
    Ok(format!("{:.1} MB resident (host half {} kB, control half {} kB)", total as f64 / 1024.0, parts[0], parts[1]))
}
