//! Policies: a thousand durable additions on one connection, and listing them.

use std::time::Instant;

use fulmar_core::wire::{Command, List, Policy, PolicyCommand};

use super::Bench;
use super::load::{self, Connection};
use super::report::{Figure, Unit};
use crate::steps::Done;

const POLICIES: usize = 1000;
const LISTINGS: usize = 2000;

pub(super) fn run(bench: &Bench) -> Done {
    let system = bench.system()?;
    let socket = system.socket("vmmd.sock");
    let policy = Policy { cpuids: List::Items(&[0]), unikernels: 10, memory: 64, block: None, bridges: List::EMPTY };
    let frames: Vec<Vec<u8>> = (0..POLICIES)
        .map(|index| load::frame(&format!("p{index}:"), Command::Policy(PolicyCommand::Add(policy))))
        .collect::<Done<_>>()?;
    let mut connection = Connection::open(&socket)?;
    let begun = Instant::now();
    for frame in &frames {
        connection.send(frame)?;
        connection.success()?;
    }
    let what = format!("{POLICIES} durable additions on one connection");
    bench.add(Figure::time("policies", &what, begun.elapsed()).aim(1.5).peer(5.0, 4.0));
    let list = load::frame(":", Command::Policy(PolicyCommand::Info))?;
    for clients in [1, 2] {
        let (begun, each) = (Instant::now(), LISTINGS / clients);
        let listings = || {
            (0..each).try_for_each(|_| {
                let mut connection = Connection::open(&socket)?;
                connection.send(&list)?;
                connection.receive().map(|_| ())
            })
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..clients).map(|_| scope.spawn(listings)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
        })?;
        let rate = LISTINGS as f64 / begun.elapsed().as_secs_f64();
        let what = format!("listing {POLICIES} of them, {clients} at once");
        bench.add(Figure::new("policies", &what, Unit::PerSecond, rate).aim(5_000.0).peer(200.0, 200.0));
    }
    Ok(system.stop()?)
}
