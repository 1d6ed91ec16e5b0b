//! `info` with a connection each: rate, and the time of one.

use std::time::{Duration, Instant};

use fulmar_core::wire::{Command, UnikernelCommand};

use super::load::{self, Connection};
use super::{Bench, median, shown};
use crate::steps::Done;

/// What the peer does on one of our machines, for scale (requests a second).
const PEER_RATE: std::ops::RangeInclusive<f64> = 14_000.0..=20_000.0;

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
    println!("one client, a connection each: {rate:.0} requests/s, median {}", shown(median(&mut times)));
    let mut best = rate;
    for clients in [2, 8, 32] {
        let (begun, each) = (Instant::now(), REQUESTS / clients);
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..clients).map(|_| scope.spawn(|| (0..each).try_for_each(|_| load::ask(&socket, &frame)))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
        })?;
        let rate = REQUESTS as f64 / begun.elapsed().as_secs_f64();
        println!("{clients} clients at once: {rate:.0} requests/s");
        best = best.max(rate);
    }
    let (low, high) = (PEER_RATE.start(), PEER_RATE.end());
    println!("best, by the peer's {low:.0} to {high:.0}: {:.1} to {:.1} times (aim: 3)", best / high, best / low);
    Ok(system.stop()?)
}
