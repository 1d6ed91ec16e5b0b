//! Figures: medians of both sides, their ratio, how far the pairs are apart, and which of them are bad.

use std::time::Duration;

use super::stage::Side;
use crate::bench::report::{self, Report, shown};

/// A ratio that is worse than this is more than noise.
const NOISE: f64 = 1.05;

/// What was measured of both sides; the same index is the same pair.
pub(super) struct Samples {
    ours: Vec<f64>,
    original: Vec<f64>,
}

/// What a value is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    /// Seconds; less is better.
    Seconds,
    /// Bytes of memory; less is better.
    Memory,
    /// Bytes a second; more is better.
    Rate,
    /// Sectors of so many bytes a second; more is better.
    Sectors(u32),
}

impl Samples {
    pub(super) const NONE: Samples = Samples { ours: Vec::new(), original: Vec::new() };

    pub(super) fn push(&mut self, side: Side, value: f64) {
        match side {
            Side::Ours => self.ours.push(value),
            Side::Original => self.original.push(value),
        }
    }
}

impl Unit {
    fn is_better_with_less(self) -> bool {
        matches!(self, Unit::Seconds | Unit::Memory)
    }

    fn of_report(self) -> report::Unit {
        match self {
            Unit::Seconds => report::Unit::Seconds,
            Unit::Memory => report::Unit::Bytes,
            Unit::Rate => report::Unit::BytesPerSecond,
            Unit::Sectors(_) => report::Unit::PerSecond,
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Unit::Seconds => shown(Duration::from_secs_f64(value.max(0.0))),
            Unit::Memory => format!("{:.0} kB", value / 1024.0),
            Unit::Rate => format!("{:.1} MB/s", value / 1e6),
            Unit::Sectors(bytes) => format!("{:.0}/s {:.0} MB/s", value, value * f64::from(bytes) / 1e6),
        }
    }
}

/// All figures of a run.
pub(super) struct Figures {
    all: Vec<report::Figure>,
    worse: Vec<String>,
}

impl Figures {
    /// None yet; says what the columns are.
    pub(super) fn new() -> Self {
        println!(
            "medians of both sides, and of the ratios ours/original of all pairs; in brackets the middle half of those"
        );
        println!("{:<50} {:>20} {:>20}  ratio", "", "ours", "original");
        Self { all: Vec::new(), worse: Vec::new() }
    }

    /// Says a figure, and keeps it in mind if it is bad.
    pub(super) fn add(&mut self, what: &str, unit: Unit, mut samples: Samples) {
        let mut ratios: Vec<f64> =
            samples.ours.iter().zip(&samples.original).map(|(ours, original)| ours / original).collect();
        let ours = quantile(&mut samples.ours, 0.5);
        let mut line = format!("{what:<50} {:>20}", unit.show(ours));
        let mut figure = report::Figure::new("tender", what, unit.of_report(), ours);
        if !ratios.is_empty() {
            let original = quantile(&mut samples.original, 0.5);
            figure = figure.peer(original, original);
            let [low, ratio, high] = [0.25, 0.5, 0.75].map(|part| quantile(&mut ratios, part));
            line += &format!(" {:>20}  {ratio:.2} [{low:.2} {high:.2}]", unit.show(original));
            let worse = if unit.is_better_with_less() { ratio } else { 1.0 / ratio };
            if worse > NOISE {
                self.worse.push(line.clone());
            }
        }
        println!("{line}");
        self.all.push(figure);
    }

    /// Says once more which figures are bad, and hands all over.
    pub(super) fn end(self, report: &Report) {
        match self.worse.as_slice() {
            [] => println!("nothing is worse than the original by more than {NOISE}"),
            worse => {
                println!("worse than the original by more than {NOISE}:");
                worse.iter().for_each(|line| println!("{line}"));
            }
        }
        self.all.into_iter().for_each(|figure| report.keep(figure));
    }
}

/// The value below which this part of all values is; 0 if there are none.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get((values.len() as f64 * part) as usize).copied().unwrap_or_default()
}
