//! Resident memory of the two halves together: idle, with 20 unikernels, with 1,000; what each of these has, and what they use of a CPU.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fulmar_core::wire::{Command, UnikernelCommand};
use fulmar_tests::siege;
use fulmar_tests::system::System;

use super::Bench;
use super::load;
use super::on_cpu;
use super::report::{Figure, Unit};
use crate::steps::{Done, Failure};
use fulmar_tests::built::Kind;

/// How long the use of a CPU is watched.
const WATCHED: Duration = Duration::from_secs(5);

pub(super) fn run(bench: &Bench) -> Done {
    let system = bench.system()?;
    let vmmd = system.pid("vmmd")?;
    let idle = resident(vmmd)?;
    bench.add(Figure::kb("memory", "vmmd, idle", idle));
    let path = bench.guests.image("hello", Kind::Spt);
    let image = fs::read(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    create(&system, &image, 0..20)?;
    let (mb, peer) = (f64::from(1 << 20), 38.0 * f64::from(1 << 20));
    bench.add(Figure::kb("memory", "vmmd, 20 unikernels run", resident(vmmd)?).aim(6.0 * mb).peer(peer, peer));
    create(&system, &image, 20..1000)?;
    let with_all = resident(vmmd)?;
    bench.add(Figure::kb("memory", "vmmd, 1,000 unikernels run", with_all).aim(24.0 * mb));
    let each = with_all.saturating_sub(idle) as f64 * 1024.0 / 1000.0;
    bench.add(Figure::new("memory", "vmmd, for each unikernel", Unit::Bytes, each));
    let tenders = siege::tenders(system.folder());
    let own: u64 = tenders.iter().map(|pid| proportional(*pid)).sum();
    let tender = own as f64 * 1024.0 / tenders.len().max(1) as f64;
    bench.add(Figure::new("memory", "tender and guest of 4 MB, its part of what is shared", Unit::Bytes, tender));
    let used =
        || -> Done<Duration> { tenders.iter().try_fold(on_cpu(vmmd)?, |sum, pid| on_cpu(*pid).map(|time| sum + time)) };
    let (begun, before) = (Instant::now(), used()?);
    sleep(WATCHED);
    let share = (used()? - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    bench.add(Figure::new("memory", "1,000 that write a line a second: of one CPU", Unit::Percent, share));
    let large = [image.as_slice(), &vec![0x5a; 8 << 20]].concat();
    create(&system, &large, 1000..1001)?;
    bench.add(Figure::kb("memory", "vmmd, and one with an image of 8 MiB more", resident(vmmd)?));
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

/// A process's memory, with its part of what it shares with others, kB; 0 if it has ended.
fn proportional(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Resident memory of both halves of `vmmd`, kB. They are one program: the pages of its file, which the kernel has once, are counted
/// once.
fn resident(pid: u32) -> Done<u64> {
    let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let mut halves = vec![status(pid)];
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok()).map(status);
    halves.extend(children.filter(|text| text.lines().any(|line| line == "Name:\tvmmd")));
    if halves.len() != 2 {
        return Err(Failure(format!("vmmd should be two processes, it is {}", halves.len())));
    }
    let own: u64 = halves.iter().map(|half| field(half, "RssAnon:") + field(half, "RssShmem:")).sum();
    let shared = halves.iter().map(|half| field(half, "RssFile:")).max().unwrap_or(0);
    Ok(own + shared)
}
