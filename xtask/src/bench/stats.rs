//! What measuring costs: the statistics daemon's time on a CPU for each measurement of a thousand unikernels, and its memory.

use std::ffi::OsStr;
use std::fs;
use std::time::{Duration, Instant};

use fulmar_core::wire::{Command, StatsCommand, UnikernelCommand};
use fulmar_tests::built::Kind;

use super::load::{self, Connection};
use super::report::{Figure, Unit};
use super::{Bench, on_cpu, resident_kb};
use crate::steps::{Done, Failure};

const UNIKERNELS: u32 = 1_000;

/// Measurements that are looked at.
const ROUNDS: u32 = 20;

/// Memory of each, MB: its image needs no more.
const MEMORY_MB: i64 = 2;

/// Time between two measurements here, and where nobody says otherwise.
const INTERVAL: &str = "1";
const INTERVAL_USUAL: Duration = Duration::from_secs(10);

pub(super) fn run(bench: &Bench) -> Done {
    let mut system = bench.system()?;
    let path = bench.guests.image("hello", Kind::Spt);
    let image = fs::read(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let vmmd = system.socket("vmmd.sock");
    for number in 0..UNIKERNELS {
        let config = load::config(&image, load::arguments(MEMORY_MB, &[]));
        let create = Command::Unikernel(UnikernelCommand::Create(config));
        load::ask(&vmmd, &load::frame(&format!("u{number}"), create)?)?;
    }
    let stats = system.start_stats(&["--interval", INTERVAL].map(OsStr::new))?;
    let begun = Instant::now();
    let mut subscriber = Connection::open(&system.socket("stat.sock"))?;
    subscriber.send(&load::frame(":", Command::Stats(StatsCommand::Subscribe))?)?;
    subscriber.success()?;
    // Whatever it is told first, by now it knows all.
    receive(&mut subscriber, 2 * UNIKERNELS)?;
    let what = format!("from its start until {UNIKERNELS} were measured twice, at most");
    bench.add(Figure::time("stats", &what, begun.elapsed()));
    let before = on_cpu(stats)?;
    receive(&mut subscriber, ROUNDS * UNIKERNELS)?;
    let each = (on_cpu(stats)? - before) / ROUNDS;
    let share = each.as_secs_f64() / INTERVAL_USUAL.as_secs_f64() * 100.0;
    bench.add(Figure::time("stats", &format!("a measurement of {UNIKERNELS}, time on a CPU"), each));
    bench.add(Figure::new("stats", "that every 10 s: of one CPU", Unit::Percent, share).aim(1.0));
    bench.add(Figure::kb("stats", "vmmd_stats", resident_kb(stats)?));
    Ok(system.stop()?)
}

fn receive(subscriber: &mut Connection, messages: u32) -> Done {
    (0..messages).try_for_each(|_| subscriber.success())
}
