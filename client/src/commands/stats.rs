//! `stats`: shows what unikernels use of CPU, memory and network, a line for each measurement, until one side has enough.
//!
//! What comes are totals. A rate is shown where there are two of the same process; where a number is smaller than before, or
//! the process is another, the totals are shown again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, Data, Memory, Message, Moment, Payload, Rusage, StatsCommand, Success, Usage};

use super::{Context, full_name};
use crate::connection::{Connection, Daemon, refused};
use crate::error::Failure;
use crate::options;
use crate::output::json;
use crate::output::text::size;

/// Bytes of the pages that the daemon counts.
const PAGE_BYTES: i64 = 4096;

/// A measurement that comes sooner after the one before gives no rate.
const APART_MIN: Duration = Duration::from_millis(50);

/// The command line of `stats`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local stats
  vmmc_local stats shop: --count 10
  vmmc_local stats shop:web --json")]
pub struct Stats {
    /// A unikernel, or a path (with ':' at its end) for all in it and below; all where it is missing
    #[arg(value_name = "NAME|PATH:", value_parser = options::name)]
    place: Option<Name>,
    /// The same, as an option
    #[arg(short, long = "name", value_name = "NAME|PATH:", value_parser = options::name, conflicts_with = "place")]
    name: Option<Name>,
    /// End after N measurements, each of one unikernel
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// The last measurement of a unikernel.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Before {
    at: Instant,
    started: Option<Moment>,
    cpu_seconds: f64,
    traffic: Traffic,
}

/// Bytes that went through each interface of a unikernel: sent by it, and received.
pub(crate) type Traffic = BTreeMap<Vec<u8>, (i64, i64)>;

/// What happened in a second since the measurement before.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Rates {
    pub(crate) cpu_percent: f64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

impl Stats {
    /// Does it until it is ended or enough has come.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let asked = self.place.or(self.name).unwrap_or(context.door.root());
        let mut connection = context.door.open(Daemon::Stats)?;
        connection.send(asked, Command::Stats(StatsCommand::Subscribe))?;
        show(context, &mut connection, asked, self.count)
    }
}

/// Shows the measurements as they come, so many where a number is given.
pub(crate) fn show(
    context: &mut Context<'_>,
    connection: &mut Connection,
    asked: Name,
    count: Option<u64>,
) -> Result<(), Failure> {
    let daemon = connection.daemon();
    match connection.receive(asked)? {
        Success::Text(_) | Success::Empty => {}
        _ => return Err(Failure::Unexpected { daemon }),
    }
    connection.wait_for_ever()?;
    if !context.json {
        let heading = row("NAME", ["CPU", "MEMORY", "SENT", "RECEIVED"]);
        writeln!(context.out, "{heading}").and_then(|()| context.out.flush()).map_err(Failure::print)?;
    }
    let mut known: BTreeMap<Name, Before> = BTreeMap::new();
    let mut left = count;
    while left != Some(0) {
        let Message { header, payload } = connection.next_of_stream()?;
        let usage = match payload {
            Payload::Data(Data::Stats(usage)) => usage,
            Payload::Failure(text) => return Err(refused(asked, text)),
            _ => return Err(Failure::Unexpected { daemon }),
        };
        let name = full_name(asked.path(), header.name);
        let now = Before::of(&usage, Instant::now());
        let rates = known.get(&name).and_then(|before| now.rates(before));
        let line = match context.json {
            true => json::usage(&name, &usage, rates.map(|rates| rates.cpu_percent)).to_string(),
            false => line(&name, &usage, &now, rates),
        };
        writeln!(context.out, "{line}").and_then(|()| context.out.flush()).map_err(Failure::print)?;
        known.insert(name, now);
        left = left.map(|left| left.saturating_sub(1));
    }
    Ok(())
}

impl Before {
    pub(crate) fn of(usage: &Usage<'_>, at: Instant) -> Self {
        let traffic = usage.interfaces.iter().map(|it| (it.bridge.0.to_vec(), (it.input_bytes, it.output_bytes)));
        Self {
            at,
            started: usage.memory.map(|memory| memory.start),
            cpu_seconds: cpu_seconds(&usage.rusage),
            traffic: traffic.collect(),
        }
    }

    /// What happened since; nothing where this is another process, or counts less.
    pub(crate) fn rates(&self, before: &Self) -> Option<Rates> {
        let apart = self.at.saturating_duration_since(before.at);
        if apart < APART_MIN || self.started != before.started || self.cpu_seconds < before.cpu_seconds {
            return None;
        }
        let (mut sent, mut received) = (0_u64, 0_u64);
        for (device, now) in &self.traffic {
            // One that was not counted before has no rate yet.
            let Some(then) = before.traffic.get(device) else { continue };
            let grown = |now: i64, then: i64| now.checked_sub(then).and_then(|grown| u64::try_from(grown).ok());
            sent = sent.saturating_add(grown(now.0, then.0)?);
            received = received.saturating_add(grown(now.1, then.1)?);
        }
        let seconds = apart.as_secs_f64();
        let per_second = |bytes: u64| (bytes as f64 / seconds) as u64;
        let cpu_percent = (self.cpu_seconds - before.cpu_seconds) / seconds * 100.0;
        Some(Rates {
            cpu_percent: (cpu_percent * 10.0).round() / 10.0,
            sent_bytes: per_second(sent),
            received_bytes: per_second(received),
        })
    }
}

/// CPU time used so far.
pub(crate) fn cpu_seconds(rusage: &Rusage) -> f64 {
    let seconds = |moment: &Moment| moment.seconds as f64 + moment.microseconds as f64 / 1e6;
    let both = seconds(&rusage.utime) + seconds(&rusage.stime);
    // The system counts in microseconds at best.
    (both * 1e6).round() / 1e6
}

/// Bytes of memory, where the daemon counts pages.
pub(crate) fn bytes_of_pages(pages: i64) -> i64 {
    pages.saturating_mul(PAGE_BYTES)
}

/// When a process started, in milliseconds since 1970.
pub(crate) fn started(memory: &Memory) -> i64 {
    memory.start.seconds.saturating_mul(1000).saturating_add(memory.start.microseconds / 1000)
}

fn line(name: &Name, usage: &Usage<'_>, now: &Before, rates: Option<Rates>) -> String {
    let bytes = |bytes: i64| size(u64::try_from(bytes).unwrap_or(0));
    let memory = usage.memory.map(|memory| bytes(bytes_of_pages(memory.rss))).unwrap_or_default();
    let total = |of: fn(&(i64, i64)) -> i64| bytes(now.traffic.values().map(of).fold(0, i64::saturating_add));
    let (cpu, sent, received) = match rates {
        None => (format!("{:.2} s", now.cpu_seconds), total(|it| it.0), total(|it| it.1)),
        Some(rates) => (
            format!("{:.1} %", rates.cpu_percent),
            format!("{}/s", size(rates.sent_bytes)),
            format!("{}/s", size(rates.received_bytes)),
        ),
    };
    let (sent, received) = if now.traffic.is_empty() { ("-".into(), "-".into()) } else { (sent, received) };
    row(name.as_str(), [&cpu, &memory, &sent, &received])
}

/// A line of a table whose other lines are not known yet.
fn row(name: &str, [cpu, memory, sent, received]: [&str; 4]) -> String {
    format!("{name:<24}  {cpu:>10}  {memory:>11}  {sent:>13}  {received:>13}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(at: Instant, cpu_seconds: f64, traffic: &[(&str, i64, i64)]) -> Before {
        let started = Some(Moment { seconds: 1, microseconds: 0 });
        let traffic = traffic.iter().map(|(device, sent, received)| (device.as_bytes().to_vec(), (*sent, *received)));
        Before { at, started, cpu_seconds, traffic: traffic.collect() }
    }

    #[test]
    fn rates_are_of_one_process_whose_numbers_grow() {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(10);
        let first = before(begin, 1.0, &[("a", 100, 1000)]);
        let second = before(end, 2.5, &[("a", 300, 1000), ("b", 9000, 9000)]);
        let rates = Rates { cpu_percent: 15.0, sent_bytes: 20, received_bytes: 0 };
        assert_eq!(second.rates(&first), Some(rates));
        assert_eq!(first.rates(&second), None, "too early");
        for other in [
            before(end, 0.5, &[("a", 300, 1000)]),
            before(end, 2.0, &[("a", 99, 1000)]),
            before(end, 2.0, &[("a", i64::MIN, 1000)]),
            before(begin, 2.0, &[("a", 300, 1000)]),
            Before { started: Some(Moment::default()), ..second.clone() },
            Before { started: None, ..second.clone() },
        ] {
            assert_eq!(other.rates(&first), None, "{other:?}");
        }
        assert_eq!(before(end, 1.0, &[]).rates(&first).map(|rates| rates.sent_bytes), Some(0));
    }

    #[test]
    fn absurd_numbers_are_no_reason_to_fail() {
        let moment = Moment { seconds: i64::MAX, microseconds: i64::MIN };
        let rusage = Rusage { utime: moment, stime: moment, ..Rusage::default() };
        assert!(cpu_seconds(&rusage).is_finite());
        assert_eq!(bytes_of_pages(i64::MAX), i64::MAX);
        let memory = Memory { start: moment, ..Memory::default() };
        assert!(started(&memory) > 0);
        let extreme = before(Instant::now(), 0.0, &[("a", i64::MAX, -1), ("b", i64::MAX, -1)]);
        let usage = Usage { rusage, interfaces: fulmar_core::wire::List::EMPTY, counters: None, memory: Some(memory) };
        assert!(line(&Name::ROOT, &usage, &extreme, None).contains("0 bytes"));
    }
}
