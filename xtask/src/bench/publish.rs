//! The figures of a run where people find them: the table in `SPECIFICATION.md`, `docs/figures.json`, and the picture of it.

use std::fmt::Write;
use std::fs;

use super::plot;
use super::report::Report;
use crate::steps::{Done, Failure, root};

const PAGE: &str = "SPECIFICATION.md";
const FIGURES: &str = "docs/figures.json";
const PICTURE: &str = "docs/figures.svg";

/// What the table stands between.
const BEGIN: &str = "<!-- figures -->\n";
const END: &str = "<!-- end of figures -->\n";

pub(super) fn publish(report: &Report) -> Done {
    report.save(&root().join(FIGURES))?;
    plot::save(report, &root().join(PICTURE))?;
    let path = root().join(PAGE);
    let failed = |error| Failure(format!("{PAGE}: {error}"));
    let page = fs::read_to_string(&path).map_err(failed)?;
    fs::write(&path, replace(&page, &table(report))?).map_err(failed)
}

/// The page with this table in the place of the one that it has.
fn replace(page: &str, table: &str) -> Done<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| Failure(format!("{PAGE} has no place for figures")))?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn table(report: &Report) -> String {
    let mut table =
        format!("Machine: {}.\n\n| of | what | value | aim | peer |\n|---|---|---:|---:|---:|\n", report.machine);
    for figure in report.figures.borrow().iter() {
        let show = |value: f64| figure.unit.show(value);
        let peer = match figure.peer {
            Some([worst, best]) if worst == best => show(best),
            Some([worst, best]) => format!("{} to {}", show(worst), show(best)),
            None => String::new(),
        };
        let missed = if figure.misses_its_aim() { ", missed" } else { "" };
        let aim = figure.aim.map(|aim| show(aim) + missed).unwrap_or_default();
        // A string takes all that is written.
        let _ = writeln!(table, "| {} | {} | {} | {aim} | {peer} |", figure.bench, figure.what, show(figure.value));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FIGURES, PAGE, PICTURE, Report, plot, replace, root, table};

    /// Nobody writes a figure by hand.
    #[test]
    fn the_page_and_the_picture_are_those_of_the_saved_run() {
        let report = Report::load(&root().join(FIGURES)).unwrap();
        let page = fs::read_to_string(root().join(PAGE)).unwrap();
        assert_eq!(page, replace(&page, &table(&report)).unwrap());
        assert_eq!(fs::read_to_string(root().join(PICTURE)).unwrap(), plot::draw(&report));
        for bench in ["codec", "scale", "create", "info", "console", "tls", "tender", "memory", "recovery", "stats"] {
            assert!(report.figures.borrow().iter().any(|figure| figure.bench == bench), "{bench} was not measured");
        }
    }
}
