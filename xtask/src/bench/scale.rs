//! The cost of one creation and of one policy when much else is there, on a `vmmd` whose tenders are not real. What grows with the
//! others is looked for in the time that `vmmd` has a CPU: what passes until a disk has synced scatters more than that.

use std::time::{Duration, Instant};

use fulmar_core::wire::{Command, List, Policy, PolicyCommand, UnikernelCommand};
use fulmar_tests::siege::control_half;
use fulmar_tests::system::System;

use super::load::{self, Connection};
use super::report::{Figure, Unit};
use super::{Bench, median, on_cpu};
use crate::steps::{Done, Failure, cargo, step, target};
use fulmar_tests::built::Kind;

const SAMPLES: usize = 200;

/// How many others there are. With the samples they fit into what there can be.
const OTHERS: [usize; 3] = [10, 1_000, 4_000 - SAMPLES];

pub(super) fn run(bench: &Bench) -> Done {
    let folder = target().join("fake-shim");
    let mut build = cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "fulmar-vmmd",
        "--features",
        "fake-shim",
        "--target-dir",
    ]);
    step("building vmmd with a fake host", build.arg(&folder))?;
    let programs = folder.join("release");
    for name in ["vmmd_console", "vmmc_local", "fulmar-tender"] {
        std::fs::copy(bench.programs.path(name), programs.join(name))
            .map_err(|error| Failure(format!("cannot copy {name}: {error}")))?;
    }
    let system = bench.system_of(&programs, &[])?;
    let path = bench.guests.image("hello", Kind::Spt);
    let image = std::fs::read(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let mut least = None;
    for others in OTHERS {
        let costs = sample(&system, &image, others)?;
        let least = *least.get_or_insert(costs);
        for (what, now, least) in
            [("create", costs.create, least.create), ("policy add", costs.policy_add, least.policy_add)]
        {
            bench.add(Figure::time("scale", &format!("{what} beside {others}"), now.passed));
            bench.add(Figure::time("scale", &format!("{what} beside {others}: vmmd's time on a CPU"), now.on_cpu));
            if others != OTHERS[0] {
                let ratio = now.on_cpu.as_secs_f64() / least.on_cpu.as_secs_f64();
                let what = format!("{what} beside {others}: that, by that beside {}", OTHERS[0]);
                bench.add(Figure::new("scale", &what, Unit::Ratio, ratio).aim(1.3));
            }
        }
    }
    Ok(system.stop()?)
}

/// What a command takes.
#[derive(Clone, Copy)]
struct Cost {
    /// Until it is acknowledged, the middle of all.
    passed: Duration,
    /// Of the two halves, on average.
    on_cpu: Duration,
}

#[derive(Clone, Copy)]
struct Costs {
    create: Cost,
    policy_add: Cost,
}

/// Fills up to `others` unikernels and policies, then measures creations and policies, and takes those away again.
fn sample(system: &System, image: &[u8], others: usize) -> Done<Costs> {
    let host_half = system.pid("vmmd")?;
    let halves = [host_half, control_half(host_half)];
    let measure = |work: &mut dyn FnMut(usize) -> Done<Duration>| -> Done<Cost> {
        let both = || halves.iter().try_fold(Duration::ZERO, |sum, pid| Ok::<_, Failure>(sum + on_cpu(*pid)?));
        let before = both()?;
        let mut passed = (0..SAMPLES).map(work).collect::<Done<Vec<_>>>()?;
        let samples = u32::try_from(SAMPLES).unwrap_or(u32::MAX);
        Ok(Cost { passed: median(&mut passed), on_cpu: (both()? - before) / samples })
    };
    let socket = system.socket("vmmd.sock");
    let policy = Policy { cpuids: List::Items(&[0]), unikernels: 10, memory: 64, block: None, bridges: List::EMPTY };
    let create = |name: &str| -> Done<Duration> {
        let config = load::config(image, load::arguments(2, &[]));
        let frame = load::frame(name, Command::Unikernel(UnikernelCommand::Create(config)))?;
        let begun = Instant::now();
        load::ask(&socket, &frame)?;
        Ok(begun.elapsed())
    };
    let add = |connection: &mut Connection, name: &str| -> Done<Duration> {
        let frame = load::frame(name, Command::Policy(PolicyCommand::Add(policy)))?;
        let begun = Instant::now();
        connection.send(&frame)?;
        connection.success()?;
        Ok(begun.elapsed())
    };
    let mut connection = Connection::open(&socket)?;
    for number in 0..others {
        let name = format!("t{number}:u");
        // Those of the earlier sample are there already.
        let _ = create(&name);
        add(&mut connection, &format!("t{number}:"))?;
    }
    let create = measure(&mut |number| create(&format!("m{number}:u")))?;
    let policy_add = measure(&mut |number| add(&mut connection, &format!("m{number}:")))?;
    for number in 0..SAMPLES {
        let destroy = load::frame(&format!("m{number}:u"), Command::Unikernel(UnikernelCommand::Destroy))?;
        load::ask(&socket, &destroy)?;
        let remove = load::frame(&format!("m{number}:"), Command::Policy(PolicyCommand::Remove))?;
        load::ask(&socket, &remove)?;
    }
    Ok(Costs { create, policy_add })
}
