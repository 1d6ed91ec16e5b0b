//! A run as a picture: how many times better than its aim, and than the peer, each figure is that has one of these.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::report::{Figure, Report};
use crate::steps::{Done, Failure};

const WIDTH: f64 = 960.0;
const LABELS: f64 = 470.0;
const VALUES: f64 = 110.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 64.0;

/// The scale is logarithmic, from this to that many times better.
const LEAST: f64 = 0.1;
const MOST: f64 = 100.0;

pub(super) fn save(report: &Report, path: &Path) -> Done {
    fs::write(path, draw(report)).map_err(|error| Failure(format!("cannot write {}: {error}", path.display())))
}

pub(super) fn draw(report: &Report) -> String {
    let figures = report.figures.borrow();
    let rows: Vec<&Figure> = figures.iter().filter(|figure| figure.aim.is_some() || figure.peer.is_some()).collect();
    let bottom = HEAD + ROW * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        bottom + 28.0
    );
    text(
        &mut svg,
        12.0,
        20.0,
        "start",
        "How many times better than the aim (bar) and than the peer (dots: its best and its worst)",
    );
    text(&mut svg, 12.0, 38.0, "start", &report.machine);
    for (times, label) in [(0.1, "0.1"), (1.0, "as good"), (10.0, "10"), (100.0, "100")] {
        let x = place(times);
        let colour = if times == 1.0 { "#333" } else { "#ddd" };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.0}\" x2=\"{x:.1}\" y2=\"{bottom:.0}\" stroke=\"{colour}\"/>",
            HEAD - 8.0
        );
        text(&mut svg, x, bottom + 16.0, "middle", label);
    }
    for (number, figure) in rows.iter().enumerate() {
        let middle = HEAD + ROW * (number as f64 + 0.5);
        text(&mut svg, 12.0, middle + 4.0, "start", &format!("{}: {}", figure.bench, figure.what));
        text(&mut svg, LABELS + VALUES - 10.0, middle + 4.0, "end", &figure.unit.show(figure.value));
        if let Some(aim) = figure.aim {
            let (from, to) = (place(1.0), place(figure.times_better_than(aim)));
            let colour = if to >= from { "#4a8f5b" } else { "#c0504d" };
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"10\" fill=\"{colour}\"/>",
                from.min(to),
                middle - 5.0,
                (to - from).abs().max(1.0)
            );
        }
        for peer in figure.peer.iter().flatten() {
            let x = place(figure.times_better_than(*peer));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"4\" fill=\"#2f5f9f\"/>");
        }
    }
    svg + "</svg>\n"
}

/// Where so many times better stands.
fn place(times: f64) -> f64 {
    let begin = LABELS + VALUES;
    let part = (times.clamp(LEAST, MOST) / LEAST).log10() / (MOST / LEAST).log10();
    begin + part * (WIDTH - begin - 24.0)
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::report::{Figure, Report, Unit};
    use super::draw;

    #[test]
    fn what_misses_its_aim_is_red_and_what_has_none_is_left_out() {
        let report = Report::new("m < n".into());
        report.keep(Figure::new("b", "slow", Unit::Seconds, 2.0).aim(1.0));
        report.keep(Figure::new("b", "bare", Unit::Seconds, 2.0));
        report.keep(Figure::new("b", "fast", Unit::PerSecond, 2.0).peer(1.0, 1.0));
        let svg = draw(&report);
        assert!(svg.contains("b: slow") && svg.contains("#c0504d") && svg.contains("m &lt; n"), "{svg}");
        assert!(!svg.contains("b: bare") && svg.matches("<circle").count() == 2, "{svg}");
    }
}
