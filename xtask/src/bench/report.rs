//! The figures of a run: a line each for people, JSON for programs, and beside those of a run that was saved.

use std::cell::RefCell;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::steps::{Done, Failure};

/// What a value is, and whether less of it is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Seconds; less is better.
    Seconds,
    /// Bytes of memory; less is better.
    Bytes,
    /// Times a second; more is better.
    PerSecond,
    /// Bytes a second; more is better.
    BytesPerSecond,
    /// One value by another; less is better.
    Ratio,
    /// Of one CPU; less is better.
    Percent,
}

impl Unit {
    /// Whether less is better.
    pub(crate) fn is_better_with_less(self) -> bool {
        !matches!(self, Self::PerSecond | Self::BytesPerSecond)
    }

    /// A value for people.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value >= 1.0 => format!("{value:.2} s"),
            Self::Seconds => shown(Duration::from_secs_f64(value.max(0.0))),
            Self::Bytes if value < 1e7 => format!("{:.0} kB", value / 1024.0),
            Self::Bytes => format!("{:.1} MB", value / 1_048_576.0),
            Self::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::BytesPerSecond => format!("{:.1} MB/s", value / 1e6),
            Self::Ratio => format!("{value:.2}"),
            Self::Percent => format!("{value:.2} %"),
        }
    }
}

/// One thing that was measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The benchmark that it is of.
    pub(crate) bench: String,
    /// What it is.
    pub(crate) what: String,
    pub(crate) unit: Unit,
    /// In the unit.
    pub(crate) value: f64,
    /// What we want it to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aim: Option<f64>,
    /// What the peer, or the original tender, has: the worst and the best that was seen of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<[f64; 2]>,
}

impl Figure {
    pub(crate) fn new(bench: &str, what: &str, unit: Unit, value: f64) -> Self {
        Self { bench: bench.into(), what: what.into(), unit, value, aim: None, peer: None }
    }

    /// A time.
    pub(crate) fn time(bench: &str, what: &str, value: Duration) -> Self {
        Self::new(bench, what, Unit::Seconds, value.as_secs_f64())
    }

    /// Memory, given in kB.
    pub(crate) fn kb(bench: &str, what: &str, value: u64) -> Self {
        Self::new(bench, what, Unit::Bytes, value as f64 * 1024.0)
    }

    pub(crate) fn aim(self, aim: f64) -> Self {
        Self { aim: Some(aim), ..self }
    }

    pub(crate) fn peer(self, worst: f64, best: f64) -> Self {
        Self { peer: Some([worst, best]), ..self }
    }

    /// How many times better this is than another value.
    pub(crate) fn times_better_than(&self, other: f64) -> f64 {
        if self.unit.is_better_with_less() { other / self.value } else { self.value / other }
    }

    pub(crate) fn misses_its_aim(&self) -> bool {
        self.aim.is_some_and(|aim| self.times_better_than(aim) < 1.0)
    }

    fn line(&self) -> String {
        let mut line = format!("{:<62} {:>13}", self.what, self.unit.show(self.value));
        if let Some(aim) = self.aim {
            let missed = if self.misses_its_aim() { ", missed" } else { "" };
            let _ = write!(line, "  aim {}{missed}", self.unit.show(aim));
        }
        match self.peer {
            Some([worst, best]) if worst == best => {
                let _ = write!(line, "  peer {}: {}", self.unit.show(best), better(self.times_better_than(best)));
            }
            Some([worst, best]) => {
                let (worst_shown, best_shown) = (self.unit.show(worst), self.unit.show(best));
                let (low, high) = (self.times_better_than(best), self.times_better_than(worst));
                let _ = write!(line, "  peer {worst_shown} to {best_shown}: {low:.1} to {high:.1} times better");
            }
            None => {}
        }
        line
    }
}

/// How two values compare, in words.
fn better(times: f64) -> String {
    if times >= 1.0 { format!("{times:.2} times better") } else { format!("{:.2} times worse", 1.0 / times) }
}

/// All figures of a run, and where it was made.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    /// Name, processors, kernel.
    pub(crate) machine: String,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) figures: RefCell<Vec<Figure>>,
}

impl Report {
    pub(crate) fn new(machine: String) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { machine, time: now.as_secs(), figures: RefCell::default() }
    }

    /// Says a figure and keeps it.
    pub(crate) fn add(&self, figure: Figure) {
        println!("{}", figure.line());
        self.keep(figure);
    }

    /// Keeps a figure that was said in another way.
    pub(crate) fn keep(&self, figure: Figure) {
        self.figures.borrow_mut().push(figure);
    }

    pub(crate) fn save(&self, path: &Path) -> Done {
        let failed = |error: &dyn std::fmt::Display| Failure(format!("cannot write {}: {error}", path.display()));
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        fs::write(path, text + "\n").map_err(|error| failed(&error))
    }

    pub(crate) fn load(path: &Path) -> Done<Self> {
        let failed = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        serde_json::from_str(&text)
            .map_err(|error| Failure(format!("{}: not what `bench --json` writes: {error}", path.display())))
    }

    /// Amounts, shares and ratios must be as good as their aims. Times need not: machines are shared and noisy.
    pub(crate) fn expect_aims(&self) -> Done {
        let is_missed = |figure: &&Figure| {
            matches!(figure.unit, Unit::Bytes | Unit::Ratio | Unit::Percent) && figure.misses_its_aim()
        };
        let missed: Vec<String> = self.figures.borrow().iter().filter(is_missed).map(Figure::line).collect();
        if missed.is_empty() { Ok(()) } else { Err(Failure(format!("a promise is not kept:\n{}", missed.join("\n")))) }
    }

    /// Each figure beside the same one of a run before.
    pub(crate) fn compare(&self, before: &Self) {
        println!("\n## beside the run on {}", before.machine);
        if before.machine != self.machine {
            println!("(another machine: these ratios say little)");
        }
        let old = before.figures.borrow();
        for figure in self.figures.borrow().iter() {
            let label = format!("{}: {}", figure.bench, figure.what);
            let now = figure.unit.show(figure.value);
            match old.iter().find(|old| old.bench == figure.bench && old.what == figure.what) {
                Some(old) if old.unit == figure.unit => println!(
                    "{label:<72} {:>13} {now:>13}  {}",
                    old.unit.show(old.value),
                    better(figure.times_better_than(old.value))
                ),
                _ => println!("{label:<72} {:>13} {now:>13}", "-"),
            }
        }
    }
}

/// A time for people.
pub(crate) fn shown(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if us < 1000.0 { format!("{us:.1} µs") } else { format!("{:.2} ms", us / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Report, Unit};

    #[test]
    fn more_is_better_only_where_it_is() {
        let time = Figure::new("b", "w", Unit::Seconds, 0.002);
        assert!((time.times_better_than(0.004) - 2.0).abs() < 1e-9);
        let rate = Figure::new("b", "w", Unit::PerSecond, 1000.0);
        assert!((rate.times_better_than(4000.0) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn a_line_has_the_aim_and_the_peer() {
        let figure = Figure::new("b", "create", Unit::Seconds, 0.006).aim(0.003).peer(0.015, 0.012);
        let line = figure.line();
        assert!(line.starts_with("create ") && line.contains("6.00 ms  aim 3.00 ms, missed"), "{line}");
        assert!(line.ends_with("peer 15.00 ms to 12.00 ms: 2.0 to 2.5 times better"), "{line}");
    }

    #[test]
    fn what_is_promised_is_amounts_not_times() {
        let report = Report::new("a machine".into());
        report.keep(Figure::new("b", "slow", Unit::Seconds, 2.0).aim(1.0));
        report.keep(Figure::new("b", "small", Unit::Bytes, 1.0).aim(2.0));
        assert!(report.expect_aims().is_ok());
        report.keep(Figure::new("b", "large", Unit::Bytes, 3.0).aim(2.0));
        let text = report.expect_aims().unwrap_err().to_string();
        assert!(text.contains("large") && !text.contains("slow") && !text.contains("small"), "{text}");
    }

    #[test]
    fn what_is_saved_is_read() {
        let report = Report::new("a machine".into());
        report.keep(Figure::new("b", "w", Unit::Ratio, 1.5).peer(1.0, 2.0));
        let path = std::env::temp_dir().join(format!("fulmar-report-{}", std::process::id()));
        report.save(&path).unwrap();
        let read = Report::load(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((read.machine, read.figures), ("a machine".into(), report.figures));
    }
}
