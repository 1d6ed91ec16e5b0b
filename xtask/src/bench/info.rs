//! `info` with a connection each: rate, and the time of one.

use std::time::{Duration, Instant};

use fulmar_core::wire::{Command, UnikernelCommand};

use super::load::{self, Connection};
use super::report::{Figure, Unit};
use super::{Bench, median};
use crate::steps::Done;

/// What the peer does on two machines, for scale (requests a second).
const PEER_RATE: [f64; 2] = [14_000.0, 20_000.0];

/// How many times that we aim at.
const AIM: f64 = 3.0;

const REQUESTS: usize = 100_000;

pub(super) fn run(bench: &Bench) -> Done {
    let system = bench.system()?;
    let socket = system.socket("vmmd.sock");
    let frame = load::frame(":", Command::Unikernel(UnikernelCommand::Info))?;
    let mut times = vec![Duration::ZERO; REQUESTS];
    let begun = Instant::now();
    for time in &mut times {
        let sent = Instant::now();
        let mut connection = Connection::open(&socket)?;
        connection.send(&frame)?;
        connection.receive()?;
        *time = sent.elapsed();
    }
    let rate = REQUESTS as f64 / begun.elapsed().as_secs_f64();
    bench.add(Figure::time("info", "one, on a connection of its own", median(&mut times)));
    bench.add(Figure::new("info", "one client, a connection each", Unit::PerSecond, rate));
    let mut best = rate;
    for clients in [2, 8, 32] {
        let (begun, each) = (Instant::now(), REQUESTS / clients);
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..clients).map(|_| scope.spawn(|| (0..each).try_for_each(|_| load::ask(&socket, &frame)))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
        })?;
        let rate = REQUESTS as f64 / begun.elapsed().as_secs_f64();
        bench.add(Figure::new("info", &format!("{clients} clients at once"), Unit::PerSecond, rate));
        best = best.max(rate);
    }
    let [worst, most] = PEER_RATE;
    bench.add(Figure::new("info", "the best of these", Unit::PerSecond, best).aim(AIM * most).peer(worst, most));
    Ok(system.stop()?)
}
