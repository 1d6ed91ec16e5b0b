//! What is known and what is chosen. Nothing here waits, draws or asks: news and keys come in, a picture can be made of it any time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use fulmar_core::name::Name;

use super::feed::News;
use super::survey::{Domain, Unikernel};
use crate::commands::stats::{Before, Rates};

/// Samples that a plot shows.
pub(crate) const PLOT: usize = 8;

/// Lines that are kept of events, and of a console.
const LINES_MAX: usize = 200;

/// By what rows are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sort {
    /// Ascending.
    Name,
    /// The most first, as all that follow.
    Cpu,
    /// Resident memory.
    Memory,
    /// Bytes sent and received a second.
    Network,
    /// How often it was started again.
    Restarts,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Name, Self::Cpu, Self::Memory, Self::Network, Self::Restarts];

    /// In a word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Network => "network",
            Self::Restarts => "restarts",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL.get(at + 1).copied().unwrap_or(Self::Name)
    }
}

/// What stands at the bottom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pane {
    /// What happens.
    Events,
    /// What the chosen unikernel says.
    Console,
}

/// A key, as far as it means something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Key {
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// To the first row.
    Home,
    /// To the last row.
    End,
    /// The other pane.
    Tab,
    /// Enough.
    Enter,
    /// Never mind.
    Escape,
    /// Take the last character back.
    Backspace,
    /// A character.
    Char(char),
}

/// What is measured of a unikernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    before: Option<Before>,
    /// Nothing before there are two measurements of one process.
    pub(crate) rates: Option<Rates>,
    /// Bytes.
    pub(crate) resident: i64,
    /// CPU in percent, the last at the end.
    pub(crate) cpu_plot: VecDeque<u64>,
    /// Bytes a second, both ways together, likewise.
    pub(crate) network_plot: VecDeque<u64>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Model {
    /// What `vmmd` said last.
    pub(crate) unikernels: BTreeMap<Name, Unikernel>,
    /// Whether it has said something.
    pub(crate) is_told: bool,
    /// The same.
    pub(crate) domains: BTreeMap<Name, Domain>,
    /// What `vmmd_stats` says.
    pub(crate) measured: BTreeMap<Name, Measured>,
    /// What has happened, the last at the end.
    pub(crate) events: VecDeque<String>,
    /// What the chosen unikernel has said, likewise.
    pub(crate) console: VecDeque<String>,
    /// Daemons that are away, and why.
    pub(crate) away: BTreeMap<&'static str, String>,
    /// How rows are ordered.
    pub(crate) sort: Sort,
    /// Names that have this in them are shown.
    pub(crate) filter: String,
    /// Whether the filter is being written.
    pub(crate) is_writing: bool,
    /// What stands at the bottom.
    pub(crate) pane: Pane,
    /// Whether the keys are shown.
    pub(crate) shows_help: bool,
    /// The chosen unikernel.
    pub(crate) chosen: Option<Name>,
    /// Whether it is over.
    pub(crate) is_over: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            unikernels: BTreeMap::new(),
            is_told: false,
            domains: BTreeMap::new(),
            measured: BTreeMap::new(),
            events: VecDeque::new(),
            console: VecDeque::new(),
            away: BTreeMap::new(),
            sort: Sort::Name,
            filter: String::new(),
            is_writing: false,
            pane: Pane::Events,
            shows_help: false,
            chosen: None,
            is_over: false,
        }
    }
}

impl Model {
    /// Takes in something that was heard.
    pub(crate) fn hear(&mut self, news: News) {
        match news {
            News::Survey(survey) => {
                self.measured.retain(|name, _| survey.unikernels.contains_key(name));
                (self.unikernels, self.domains) = (survey.unikernels, survey.domains);
                self.is_told = true;
                self.choose_something();
            }
            News::Usage(name, now, resident) => {
                let measured = self.measured.entry(name).or_default();
                measured.rates = measured.before.as_ref().and_then(|before| now.rates(before));
                measured.resident = resident;
                measured.before = Some(now);
                if let Some(rates) = measured.rates {
                    push(&mut measured.cpu_plot, rates.cpu_percent.round() as u64, PLOT);
                    let both = rates.sent_bytes.saturating_add(rates.received_bytes);
                    push(&mut measured.network_plot, both, PLOT);
                }
            }
            News::Event(text) => push(&mut self.events, text, LINES_MAX),
            // One that was chosen before may have said something meanwhile.
            News::Line(name, line) if self.chosen == Some(name) => push(&mut self.console, line, LINES_MAX),
            News::Line(..) => {}
            News::Away(daemon, None) => _ = self.away.remove(daemon.socket()),
            News::Away(daemon, Some(why)) => _ = self.away.insert(daemon.socket(), why),
        }
    }

    /// Does what a key says.
    pub(crate) fn press(&mut self, key: Key) {
        if self.is_writing {
            match key {
                Key::Enter => self.is_writing = false,
                Key::Escape => (self.is_writing, self.filter) = (false, String::new()),
                Key::Backspace => _ = self.filter.pop(),
                Key::Char(character) => self.filter.push(character),
                _ => {}
            }
            return self.choose_something();
        }
        match key {
            Key::Char('q') => self.is_over = true,
            Key::Char('?' | 'h') => self.shows_help = !self.shows_help,
            Key::Escape if self.shows_help => self.shows_help = false,
            Key::Escape => {
                self.filter.clear();
                self.choose_something();
            }
            Key::Char('/') => self.is_writing = true,
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Tab => {
                self.pane = if self.pane == Pane::Events { Pane::Console } else { Pane::Events };
            }
            Key::Up | Key::Char('k') => self.choose(|at, _| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.choose(|at, last| at.saturating_add(1).min(last)),
            Key::Home => self.choose(|_, _| 0),
            Key::End => self.choose(|_, last| last),
            _ => {}
        }
    }

    /// The names that are shown, in their order.
    #[must_use]
    pub(crate) fn rows(&self) -> Vec<Name> {
        let shown = self.unikernels.keys().filter(|name| name.as_str().contains(self.filter.as_str()));
        let mut rows: Vec<Name> = shown.copied().collect();
        rows.sort_by(|one, other| self.compare(one, other).then_with(|| one.as_str().cmp(other.as_str())));
        rows
    }

    fn compare(&self, one: &Name, other: &Name) -> Ordering {
        let rates = |name: &Name| self.measured.get(name).and_then(|it| it.rates);
        let descending = |of: &dyn Fn(&Name) -> i64| of(other).cmp(&of(one));
        match self.sort {
            Sort::Name => Ordering::Equal,
            Sort::Cpu => descending(&|name| rates(name).map_or(-1, |it| (it.cpu_percent * 10.0) as i64)),
            Sort::Memory => descending(&|name| self.measured.get(name).map_or(-1, |it| it.resident)),
            Sort::Network => descending(&|name| {
                let both = rates(name).map(|it| it.sent_bytes.saturating_add(it.received_bytes));
                both.map_or(-1, |both| i64::try_from(both).unwrap_or(i64::MAX))
            }),
            Sort::Restarts => descending(&|name| self.unikernels.get(name).map_or(-1, |it| it.restarts)),
        }
    }

    /// The place of the chosen one among the rows.
    #[must_use]
    pub(crate) fn place(&self, rows: &[Name]) -> Option<usize> {
        rows.iter().position(|name| Some(*name) == self.chosen)
    }

    fn choose(&mut self, to: impl Fn(usize, usize) -> usize) {
        let rows = self.rows();
        let at = self.place(&rows).unwrap_or(0);
        let chosen = rows.get(to(at, rows.len().saturating_sub(1))).copied();
        if chosen != self.chosen {
            self.chosen = chosen;
            self.console.clear();
        }
    }

    /// Where the chosen one is not shown, another one is.
    fn choose_something(&mut self) {
        let rows = self.rows();
        if self.place(&rows).is_none() {
            self.chosen = rows.first().copied();
            self.console.clear();
        }
    }
}

/// Adds to a list of bounded length.
fn push<T>(list: &mut VecDeque<T>, item: T, max: usize) {
    if list.len() >= max {
        list.pop_front();
    }
    list.push_back(item);
}
