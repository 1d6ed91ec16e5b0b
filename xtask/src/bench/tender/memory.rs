//! What a tender itself keeps of memory beside a guest that has begun to tick, and the kernel for it.
//!
//! The guest's own memory is the largest run of anonymous mappings one behind the other in `/proc/PID/smaps`: everything else
//! that is resident is the tender's, shared libraries included. Of that, what is of no file (`Anonymous`) is what one more
//! tender takes; the rest is there once. The peak is the process's highest resident memory (`VmHWM`) less what the guest's is
//! now. The kernel's memory is by how much slabs, stacks and page tables of the whole host grow, for each of some tenders.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::figures::{Figures, Unit};
use super::network::apart;
use super::stage::{Side, Stage, open_to_hand_over};
use crate::steps::{Done, Failure};

const PAIRS: usize = 5;
/// Tenders that the kernel's memory is shared out to.
const CROWD: usize = 50;
/// Until the kernel has taken away what the crowd before has left.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(stage: &Stage, figures: &mut Figures) -> Done {
    let [resident, anonymous, peak] = stage.pairs(PAIRS, |side| {
        let mut running = stage.start(&mut with_image(stage, side))?;
        running.await_console("tick 1\n")?;
        let read = |file: &str| read(&format!("/proc/{}/{file}", running.pid()));
        let mappings = mappings(&read("smaps")?);
        let guest = largest_run(&mappings);
        let others = mappings.iter().filter(|it| it.start < guest.start || it.end > guest.end);
        let sum = |(resident, anonymous), it: &Mapping| (resident + it.resident, anonymous + it.anonymous);
        let (resident, anonymous) = others.fold((0, 0), sum);
        let peak = field(&read("status")?, "VmHWM:").saturating_sub(guest.resident);
        Ok([resident, anonymous, peak].map(|bytes| bytes as f64))
    })?;
    let [kernel] = stage.pairs(PAIRS, |side| Ok([of_kernel(stage, || with_image(stage, side))?]))?;
    let kind = stage.kind.name();
    figures.add(&format!("{kind} hello: resident beside the guest's memory"), Unit::Memory, resident);
    figures.add(&format!("{kind} hello: of that, of no file"), Unit::Memory, anonymous);
    figures.add(&format!("{kind} hello: peak beside the guest's memory"), Unit::Memory, peak);
    figures.add(&format!("{kind} hello: of the kernel, each of {CROWD}"), Unit::Memory, kernel);
    Ok(())
}

/// As [`run`], but as `vmmd` starts a tender: the kernel has less to keep for each.
pub(super) fn run_as_vmmd(stage: &Stage, figures: &mut Figures) -> Done {
    let kind = stage.kind.name();
    apart(&format!("bench tender ({kind} memory, as under vmmd)"), || {
        let image = open_to_hand_over(&stage.image("hello"))?;
        let [kernel] = stage.pairs(PAIRS, |side| Ok([of_kernel(stage, || stage.command_of_vmmd(side, &image))?]))?;
        figures.add(&format!("{kind} hello as under vmmd: of the kernel"), Unit::Memory, kernel);
        Ok(())
    })
}

fn with_image(stage: &Stage, side: Side) -> Command {
    let mut command = stage.command(side);
    command.arg(stage.image("hello"));
    command
}

/// Bytes that the kernel takes for each of a crowd.
fn of_kernel(stage: &Stage, command: impl Fn() -> Command) -> Done<f64> {
    let used = || -> Done<u64> {
        let text = read("/proc/meminfo")?;
        Ok(["Slab:", "KernelStack:", "PageTables:"].iter().map(|name| field(&text, name)).sum())
    };
    sleep(PAUSE);
    let before = used()?;
    let mut crowd = (0..CROWD).map(|_| stage.start(&mut command())).collect::<Done<Vec<_>>>()?;
    crowd.iter_mut().try_for_each(|running| running.await_console("tick 1\n"))?;
    Ok(used()?.saturating_sub(before) as f64 / CROWD as f64)
}

fn read(path: &str) -> Done<String> {
    fs::read_to_string(path).map_err(|error| Failure(format!("{path}: {error}")))
}

/// A mapping; sizes in bytes.
#[derive(Debug, Clone, Default)]
struct Mapping {
    start: u64,
    end: u64,
    is_anonymous: bool,
    resident: u64,
    anonymous: u64,
}

/// The mappings of a process, in the order of their addresses.
fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = |text| u64::from_str_radix(text, 16).ok();
        let range = words.first().and_then(|word| word.split_once('-'));
        if let Some((Some(start), Some(end))) = range.map(|(start, end)| (address(start), address(end))) {
            // What nobody may touch is a fence between two.
            let is_anonymous = words.len() == 5 && words.get(1).is_some_and(|flags| !flags.starts_with("---"));
            all.push(Mapping { start, end, is_anonymous, resident: 0, anonymous: 0 });
        } else if let Some(last) = all.last_mut() {
            last.resident += field(line, "Rss:");
            last.anonymous += field(line, "Anonymous:");
        }
    }
    all
}

/// The run of adjacent anonymous mappings that spans most addresses, as one.
fn largest_run(mappings: &[Mapping]) -> Mapping {
    let (mut largest, mut run) = (Mapping::default(), Mapping::default());
    for mapping in mappings.iter().filter(|it| it.is_anonymous) {
        if mapping.start == run.end {
            run.end = mapping.end;
            run.resident += mapping.resident;
        } else {
            run = mapping.clone();
        }
        if run.end - run.start > largest.end - largest.start {
            largest = run.clone();
        }
    }
    largest
}

/// The bytes that a line of this name says in kB; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}
