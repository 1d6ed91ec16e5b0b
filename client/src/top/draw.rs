//! A picture of the model: 80 columns and 24 lines are enough, more are used.

use fulmar_core::name::Name;
use fulmar_core::wire::Phase;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::model::{Model, PLOT, Pane};
use super::survey::{Domain, Share, Unikernel};
use crate::output::text::{ago, ahead, megabytes, size};

/// Lines of domains at most.
const DOMAINS_MAX: usize = 4;

/// Lines of the pane at the bottom.
const PANE: u16 = 8;

/// The keys, for people.
pub(crate) const KEYS: [(&str, &str); 8] = [
    ("up, down, home, end", "choose a unikernel"),
    ("s", "order by name, CPU, memory, network, restarts"),
    ("/", "show names with a text in them, Enter keeps it"),
    ("Escape", "show all again"),
    ("Tab", "events, or the console of the chosen unikernel"),
    ("?", "these keys"),
    ("q", "end"),
    ("j, k", "as down, up"),
];

/// What all of it needs.
const COLUMNS_MIN: u16 = 80;

/// The same.
const ROWS_MIN: u16 = 24;

/// Draws all of it, where there is room.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, now_unix_ms: i64) {
    let Rect { width, height, .. } = frame.area();
    if width < COLUMNS_MIN || height < ROWS_MIN {
        let text = format!(
            "The terminal has {width} columns and {height} lines. top needs {COLUMNS_MIN} and {ROWS_MIN}: make it larger, or q and \
             top --once."
        );
        return frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), frame.area());
    }
    let domains = u16::try_from(model.domains.len().min(DOMAINS_MAX)).unwrap_or(0);
    let domains = if domains == 0 { 0 } else { domains + 1 };
    let [title, table, paths, pane, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(4),
        Constraint::Length(domains),
        Constraint::Length(PANE),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, model);
    draw_unikernels(frame, table, model, now_unix_ms);
    draw_domains(frame, paths, model);
    draw_pane(frame, pane, model);
    draw_foot(frame, foot, model);
    if model.shows_help {
        draw_help(frame);
    }
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    if !model.is_told {
        return frame.render_widget(
            Paragraph::new("vmmd is being asked").style(Style::new().add_modifier(Modifier::BOLD)),
            area,
        );
    }
    let running = model.unikernels.values().filter(|it| it.phase.is_none_or(|phase| phase == Phase::Running)).count();
    let rates = model.measured.values().filter_map(|it| it.rates);
    // A sum of none would be a negative zero.
    let cpu = rates.fold(0.0, |sum, rates| sum + rates.cpu_percent);
    let resident: i64 = model.measured.values().map(|it| it.resident).sum();
    let text = format!(
        "{} unikernels, {running} run, CPU {cpu:.1} %, {} resident, by {}",
        model.unikernels.len(),
        size(u64::try_from(resident).unwrap_or(0)),
        model.sort.as_str()
    );
    frame.render_widget(Paragraph::new(text).style(Style::new().add_modifier(Modifier::BOLD)), area);
}

/// What a unikernel does, in a few characters.
#[must_use]
pub(crate) fn state(unikernel: &Unikernel, now_unix_ms: i64) -> String {
    match (unikernel.phase, unikernel.started_unix_ms, unikernel.next_unix_ms) {
        (Some(Phase::Running) | None, Some(started), _) => format!("up {}", ago(started, now_unix_ms)),
        (Some(Phase::Resting), _, Some(next)) => format!("rests {}", ahead(next, now_unix_ms)),
        (Some(phase), ..) => phase.as_str().to_owned(),
        (None, None, _) => "-".to_owned(),
    }
}

/// The cells of a row: name, state, runs, CPU and its plot, memory, sent, received and their plot.
#[must_use]
pub(crate) fn cells(model: &Model, name: &Name, now_unix_ms: i64) -> [String; 9] {
    let nothing = || "-".to_owned();
    let Some(unikernel) = model.unikernels.get(name) else { return std::array::from_fn(|_| nothing()) };
    let measured = model.measured.get(name);
    let rates = measured.and_then(|it| it.rates);
    let bytes = |bytes: i64| size(u64::try_from(bytes).unwrap_or(0));
    let plots = measured.map(|it| (plot(it.cpu_plot.iter(), 100), plot(it.network_plot.iter(), 1024)));
    let (cpu_plot, network_plot) = plots.unwrap_or_default();
    [
        name.to_string(),
        state(unikernel, now_unix_ms),
        unikernel.restarts.saturating_add(1).to_string(),
        rates.map_or_else(nothing, |it| format!("{:.1}", it.cpu_percent)),
        cpu_plot,
        measured.map_or_else(|| megabytes(unikernel.memory_mb), |it| bytes(it.resident)),
        rates.map_or_else(nothing, |it| size(it.sent_bytes)),
        rates.map_or_else(nothing, |it| size(it.received_bytes)),
        network_plot,
    ]
}

/// Samples as columns of eight heights; the highest is at least `least`.
fn plot<'s>(samples: impl Iterator<Item = &'s u64> + Clone, least: u64) -> String {
    const COLUMNS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = samples.clone().copied().max().unwrap_or(0).max(least);
    let column = |sample: &u64| {
        let height = (u128::from(*sample) * 8).div_ceil(u128::from(highest.max(1)));
        COLUMNS.get(usize::try_from(height).unwrap_or(8)).copied().unwrap_or('█')
    };
    samples.map(column).collect()
}

fn draw_unikernels(frame: &mut Frame<'_>, area: Rect, model: &Model, now_unix_ms: i64) {
    let names = model.rows();
    let plot = u16::try_from(PLOT).unwrap_or(8);
    let widths = [
        Constraint::Min(14),
        Constraint::Length(13),
        Constraint::Length(4),
        Constraint::Length(6),
        Constraint::Length(plot),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        // On a narrow terminal there is no room for it.
        Constraint::Length(if area.width < 100 { 0 } else { plot }),
    ];
    let heading = Row::new(["NAME", "STATE", "RUNS", "CPU %", "", "MEMORY", "SENT/s", "RECV/s", ""]);
    let rows = names.iter().map(|name| Row::new(cells(model, name, now_unix_ms)));
    let table = Table::new(rows, widths)
        .header(heading.style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(model.place(&names));
    frame.render_stateful_widget(table, area, &mut state);
}

/// What a domain uses of what it may.
#[must_use]
pub(crate) fn shares(domain: &Domain) -> [String; 3] {
    let of = |share: Share, text: fn(i64) -> String| format!("{} of {}", text(share.used), text(share.allowed));
    [of(domain.unikernels, |it| it.to_string()), of(domain.memory_mb, megabytes), of(domain.block_mb, megabytes)]
}

fn draw_domains(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    // Those that are fullest first.
    let full = |domain: &Domain| domain.memory_mb.used.saturating_mul(1000) / domain.memory_mb.allowed.max(1);
    let mut domains: Vec<_> = model.domains.iter().collect();
    domains.sort_by_key(|(_, domain)| -full(domain));
    let rows = domains.into_iter().map(|(path, domain)| {
        let [unikernels, memory, block] = shares(domain);
        Row::new([path.to_string(), unikernels, memory, block])
    });
    let widths = [Constraint::Min(14), Constraint::Length(14), Constraint::Length(24), Constraint::Length(24)];
    let heading = Row::new(["PATH", "UNIKERNELS", "MEMORY", "BLOCK"]);
    let table = Table::new(rows, widths).header(heading.style(Style::new().add_modifier(Modifier::UNDERLINED)));
    frame.render_widget(table, area);
}

fn draw_pane(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let (title, lines) = match (model.pane, model.chosen) {
        (Pane::Events, _) => (" what happens ".to_owned(), &model.events),
        (Pane::Console, Some(name)) => (format!(" console of {name} "), &model.console),
        (Pane::Console, None) => (" console: nothing is chosen ".to_owned(), &model.console),
    };
    let room = usize::from(area.height.saturating_sub(1));
    let shown = lines.iter().skip(lines.len().saturating_sub(room)).map(|line| Line::raw(line.as_str()));
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(Paragraph::new(shown.collect::<Vec<_>>()).block(block), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let text = if model.is_writing {
        format!("names with: {}_", model.filter)
    } else if let Some((_, why)) = model.away.first_key_value() {
        why.clone()
    } else if model.filter.is_empty() {
        "q end  s order  / find  Tab console  ? keys".to_owned()
    } else {
        format!("names with '{}', Escape shows all  q end  s order  ? keys", model.filter)
    };
    frame.render_widget(Paragraph::new(text), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let lines = KEYS.map(|(key, does)| Line::raw(format!(" {key:<20} {does}")));
    let height = u16::try_from(lines.len()).unwrap_or(8) + 2;
    let whole = frame.area();
    let (width, height) = (whole.width.min(74), whole.height.min(height));
    let area = Rect { x: (whole.width - width) / 2, y: (whole.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines.to_vec()).block(Block::bordered().title(" keys ")), area);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use fulmar_core::wire::{List, Moment, Rusage, Usage};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::commands::stats::Before;
    use crate::connection::Daemon;
    use crate::top::feed::News;
    use crate::top::model::Key;
    use crate::top::survey::Survey;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn unikernel(phase: Phase, restarts: i64) -> Unikernel {
        let next_unix_ms = (phase == Phase::Resting).then_some(75_000);
        Unikernel { phase: Some(phase), started_unix_ms: Some(3_000), next_unix_ms, restarts, memory_mb: 32 }
    }

    fn usage(name: &str, cpu_seconds: i64, at: Instant) -> News {
        let rusage = Rusage { utime: Moment { seconds: cpu_seconds, microseconds: 0 }, ..Rusage::default() };
        let usage = Usage { rusage, interfaces: List::EMPTY, counters: None, memory: None };
        News::Usage(super::tests::name(name), Before::of(&usage, at), 5 << 20)
    }

    fn filled() -> Model {
        let mut model = Model::default();
        let share = |used, allowed| Share { used, allowed };
        let domain = Domain { unikernels: share(2, 4), memory_mb: share(64, 128), block_mb: share(0, 0) };
        model.hear(News::Survey(Survey {
            unikernels: [
                (name("shop:web"), unikernel(Phase::Running, 0)),
                (name("shop:db"), unikernel(Phase::Resting, 7)),
                (name("hello"), unikernel(Phase::Running, 1)),
            ]
            .into(),
            domains: [(name("shop:"), domain)].into(),
        }));
        let begin = Instant::now();
        for second in 0..4 {
            model.hear(usage("shop:web", second * 2, begin + Duration::from_secs(second.unsigned_abs() * 10)));
        }
        model.hear(usage("hello", 1, begin));
        model.hear(News::Event("2026-01-01T00:00:00Z shop:web: created unikernel".into()));
        model
    }

    /// The lines of a picture of 80 columns and 24 lines.
    fn picture(model: &Model) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, model, 63_000)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..24).map(line).collect()
    }

    fn line<'l>(lines: &'l [String], text: &str) -> &'l str {
        lines.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text} in {lines:#?}"))
    }

    #[test]
    fn everything_is_to_be_seen_in_80_columns_and_24_lines() {
        let lines = picture(&filled());
        assert_eq!(lines[0], "3 unikernels, 2 run, CPU 20.0 %, 10.0 MB resident, by name");
        let web = line(&lines, "shop:web  ");
        for part in ["up 1m 0s", "20.0", "▂▂▂", "5.0 MB"] {
            assert!(web.contains(part), "{web}");
        }
        let db = line(&lines, "shop:db");
        assert!(db.contains("rests 12s") && db.contains(" 8 ") && db.contains("32 MB"), "{db}");
        let shop = line(&lines, "shop:   ");
        assert!(shop.contains("2 of 4") && shop.contains("64 MB of 128 MB"), "{shop}");
        assert!(line(&lines, "created unikernel").starts_with("2026-01-01T00:00:00Z"));
        assert_eq!(lines[23], "q end  s order  / find  Tab console  ? keys");
    }

    #[test]
    fn keys_order_find_choose_and_end() {
        let mut model = filled();
        let rows = |model: &Model| model.rows().iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(rows(&model), [":hello", "shop:db", "shop:web"]);
        assert_eq!(model.chosen, Some(name("hello")));
        model.press(Key::Char('s'));
        assert_eq!(rows(&model), ["shop:web", ":hello", "shop:db"], "by CPU");
        (0..3).for_each(|_| model.press(Key::Char('s')));
        assert_eq!(rows(&model), ["shop:db", ":hello", "shop:web"], "by restarts");
        assert_eq!(model.chosen, Some(name("hello")), "it stays chosen");
        model.press(Key::Down);
        model.press(Key::Down);
        assert_eq!(model.chosen, Some(name("shop:web")));
        model.press(Key::Home);
        assert_eq!(model.chosen, Some(name("shop:db")));
        // Its console, of which nobody else's lines are shown.
        model.press(Key::Tab);
        model.hear(News::Line(name("shop:db"), "a line of its own".into()));
        model.hear(News::Line(name("shop:web"), "a line of another".into()));
        let lines = picture(&model);
        line(&lines, " console of shop:db ");
        line(&lines, "a line of its own");
        assert!(!lines.iter().any(|line| line.contains("of another")));
        // A filter, while which is written every key is a letter of it.
        for key in "/web".chars().map(Key::Char).chain([Key::Char('q'), Key::Backspace]) {
            model.press(key);
        }
        assert_eq!((rows(&model), model.chosen), (vec!["shop:web".to_owned()], Some(name("shop:web"))));
        assert!(line(&picture(&model), "names with: web_").starts_with("names with"));
        model.press(Key::Enter);
        assert!(!model.is_over && !model.is_writing);
        model.press(Key::Escape);
        assert_eq!(rows(&model).len(), 3);
        model.press(Key::Char('?'));
        line(&picture(&model), "choose a unikernel");
        model.press(Key::Escape);
        model.press(Key::Char('q'));
        assert!(model.is_over);
    }

    #[test]
    fn what_is_away_or_gone_is_said_and_forgotten() {
        let mut model = filled();
        model.hear(News::Away(Daemon::Stats, Some("vmmd_stats is away".into())));
        assert_eq!(picture(&model)[23], "vmmd_stats is away");
        model.hear(News::Away(Daemon::Stats, None));
        assert!(picture(&model)[23].starts_with("q end"));
        model.hear(News::Survey(Survey::default()));
        assert!(model.measured.is_empty() && model.chosen.is_none());
        assert_eq!(picture(&model)[0], "0 unikernels, 0 run, CPU 0.0 %, 0 bytes resident, by name");
        // However small the terminal is.
        for (width, height) in [(1, 1), (10, 3), (200, 60)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            model.shows_help = true;
            terminal.draw(|frame| draw(frame, &filled(), 0)).unwrap();
            terminal.draw(|frame| draw(frame, &model, 0)).unwrap();
        }
    }
}
