//! The cost of one creation and of one policy when much else is there, on a `vmmd` whose tenders are not real.

use std::time::{Duration, Instant};

use fulmar_core::wire::{Command, List, Policy, PolicyCommand, UnikernelCommand};
use fulmar_tests::system::System;

use super::load::{self, Connection};
use super::report::{Figure, Unit};
use super::{Bench, median};
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
        let (create, add) = sample(&system, &image, others)?;
        bench.add(Figure::time("scale", &format!("create beside {others}"), create));
        bench.add(Figure::time("scale", &format!("policy add beside {others}"), add));
        let (create_least, add_least) = *least.get_or_insert((create, add));
        for (what, now, least) in [("create", create, create_least), ("policy add", add, add_least)] {
            if now != least {
                let ratio = now.as_secs_f64() / least.as_secs_f64();
                let what = format!("{what} beside {others}, by that beside {}", OTHERS[0]);
                bench.add(Figure::new("scale", &what, Unit::Ratio, ratio).aim(1.3));
            }
        }
    }
    Ok(system.stop()?)
}

/// Fills up to `others` unikernels and policies, then measures creations and policies, and takes those away again.
fn sample(system: &System, image: &[u8], others: usize) -> Done<(Duration, Duration)> {
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
    let mut creates = (0..SAMPLES).map(|number| create(&format!("m{number}:u"))).collect::<Done<Vec<_>>>()?;
    let mut adds = (0..SAMPLES).map(|number| add(&mut connection, &format!("m{number}:"))).collect::<Done<Vec<_>>>()?;
    for number in 0..SAMPLES {
        let destroy = load::frame(&format!("m{number}:u"), Command::Unikernel(UnikernelCommand::Destroy))?;
        load::ask(&socket, &destroy)?;
        let remove = load::frame(&format!("m{number}:"), Command::Policy(PolicyCommand::Remove))?;
        load::ask(&socket, &remove)?;
    }
    Ok((median(&mut creates), median(&mut adds)))
}
