//! Lines for people: `vmmd: ...`, on standard error or to the system's log daemon. A line is made in memory of its own and written
//! at once, so that lines of several threads do not mix; it is cut rather than split. Time stamps are the service manager's business.
//!
//! A line about something that has a name ends with it in a form for programs: `name=shop:web unit=7`. There are no other
//! keys than those of [`keys`].

mod syslog;

use std::fmt::{Arguments, Display, Write as _};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use self::syslog::Syslog;
pub(crate) use self::syslog::find as find_syslog;

/// How much a line matters, and the number of that in the system's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Something does not work that should, or was lost.
    Error = 3,
    /// Something goes on in another way than it should, or will not for long.
    Warning = 4,
    /// What has happened.
    Info = 6,
    /// What is only of interest to who looks for the cause of something.
    Debug = 7,
}

impl Level {
    /// Each with its name.
    pub const ALL: [(&str, Self); 4] =
        [("error", Self::Error), ("warning", Self::Warning), ("info", Self::Info), ("debug", Self::Debug)];
}

/// Where lines go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Standard error; where that is the journal, each line begins with its level as `<N>`.
    Stderr,
    /// The system's log daemon.
    Syslog,
}

/// What is written, and where to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where to.
    pub target: Target,
    /// The least that is written.
    pub level: Level,
}

impl Settings {
    /// The same, as the options of a process that is started from here.
    #[must_use]
    pub fn options(self) -> [&'static str; 4] {
        let target = if self.target == Target::Syslog { "syslog" } else { "stderr" };
        let level = Level::ALL.iter().find(|(_, level)| *level == self.level).map_or("info", |(name, _)| name);
        ["--log", target, "--log-level", level]
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { target: Target::Stderr, level: Level::Info }
    }
}

/// What a line can be about.
#[allow(
    non_upper_case_globals,
    missing_docs,
    reason = "they are written in lines, and in the macros, as they are called"
)]
pub mod keys {
    pub const name: &str = "name";
    pub const unit: &str = "unit";
    pub const user: &str = "user";
    pub const connection: &str = "connection";
}

/// Bytes of a line, its end included.
const LINE_BYTES_MAX: usize = 1024;

/// Bytes of what it is about: room for the longest name.
const TAIL_BYTES_MAX: usize = 512;

/// The name before each line; before it is known, that of all.
static PROGRAM: RwLock<&str> = RwLock::new("fulmar");
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static HAS_PREFIX: AtomicBool = AtomicBool::new(false);
static SYSLOG: OnceLock<Syslog> = OnceLock::new();

/// Whether lines go to the system's log daemon.
pub(crate) fn is_to_syslog() -> bool {
    SYSLOG.get().is_some()
}

/// A text that takes what fits and drops the rest.
struct Line<const N: usize> {
    bytes: [u8; N],
    len: usize,
    /// How far it may be filled.
    end: usize,
}

impl<const N: usize> Line<N> {
    fn new(end: usize) -> Self {
        Self { bytes: [0; N], len: 0, end: end.min(N) }
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, character: char) {
        let mut bytes = [0; 4];
        let bytes = character.encode_utf8(&mut bytes).as_bytes();
        if let Some(place) = self.bytes.get_mut(self.len..self.end).and_then(|free| free.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        } else {
            // Nothing after what was cut.
            self.end = self.len;
        }
    }
}

impl<const N: usize> std::fmt::Write for Line<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            // A name or a text from outside must not look like a line of its own, nor steer a terminal: the controls above
            // 0x7f do that as well.
            self.push(if character.is_control() { '?' } else { character });
        }
        Ok(())
    }
}

/// A value in the form for programs: it must not look like two.
struct Value<'a>(&'a mut Line<TAIL_BYTES_MAX>);

impl std::fmt::Write for Value<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            let splits = character.is_control() || character.is_whitespace() || character == '=' || character == '"';
            self.0.push(if splits { '?' } else { character });
        }
        Ok(())
    }
}

/// Says what this program is called in its lines. To be called first.
pub fn begin(program: &'static str) {
    *PROGRAM.write().unwrap_or_else(PoisonError::into_inner) = program;
    HAS_PREFIX.store(stderr_is_journal(), Ordering::Relaxed);
}

/// From now on these settings hold.
pub fn set(settings: Settings) {
    LEVEL.store(settings.level as u8, Ordering::Relaxed);
    if settings.target == Target::Syslog {
        match Syslog::new() {
            Ok(syslog) => drop(SYSLOG.set(syslog)),
            Err(error) => crate::error!("the system's log cannot be written to: {error}"),
        }
    }
}

/// What systemd says of standard error where that is the journal (systemd.exec(5)).
const JOURNAL: &str = "JOURNAL_STREAM";

/// The variable that says of standard error that it is the journal, for a process that is given it and nothing else of the environment.
#[must_use]
pub fn passed_on() -> Option<(&'static str, String)> {
    HAS_PREFIX.load(Ordering::Relaxed).then(stderr_place).flatten().map(|place| (JOURNAL, place))
}

/// Whether standard error is the socket that the variable names: it may have been passed on by somebody whose own standard error that
/// was.
fn stderr_is_journal() -> bool {
    std::env::var(JOURNAL).is_ok_and(|named| stderr_place() == Some(named))
}

/// Device and inode of standard error, as the variable has them.
fn stderr_place() -> Option<String> {
    let found = nix::sys::stat::fstat(io::stderr().as_fd()).ok()?;
    Some(format!("{}:{}", found.st_dev, found.st_ino))
}

/// Writes one line, about this. What cannot be written is lost: a log must not stop what it is about.
///
/// [`error!`](crate::error), [`warning!`](crate::warning), [`info!`](crate::info) and [`debug!`](crate::debug) call it.
pub fn line(level: Level, about: &[(&str, &dyn Display)], text: Arguments<'_>) {
    // A fuzzer's own lines would drown in what it makes us say.
    if level as u8 > LEVEL.load(Ordering::Relaxed) || cfg!(fuzzing) {
        return;
    }
    let program = *PROGRAM.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(syslog) = SYSLOG.get() {
        return syslog.send(level, program, text_of(format_args!(""), about, text).text());
    }
    let mut line = match HAS_PREFIX.load(Ordering::Relaxed) {
        true => text_of(format_args!("<{}>{program}: ", level as u8), about, text),
        false => text_of(format_args!("{program}: "), about, text),
    };
    line.end = LINE_BYTES_MAX;
    line.push('\n');
    let _ = io::stderr().write_all(line.text());
}

/// A whole line but for its end. What it is about is not cut.
fn text_of(head: Arguments<'_>, about: &[(&str, &dyn Display)], text: Arguments<'_>) -> Line<LINE_BYTES_MAX> {
    let mut tail = Line::<TAIL_BYTES_MAX>::new(TAIL_BYTES_MAX);
    for (key, value) in about {
        let _ = write!(tail, " {key}=");
        let _ = write!(Value(&mut tail), "{value}");
    }
    let mut line = Line::new(LINE_BYTES_MAX - 1 - tail.len);
    let _ = write!(line, "{head}{text}");
    line.end = LINE_BYTES_MAX - 1;
    let _ = line.write_str(std::str::from_utf8(tail.text()).unwrap_or_default());
    line
}

/// Writes a line of this level: `say!(Info; "...")`, or `say!(Info; name = shown, unit = 7; "...")`. Use those that have
/// the level in their names.
#[macro_export]
macro_rules! say {
    ($level:ident; $($key:ident = $value:expr),+; $($text:tt)+) => {
        $crate::log::line(
            $crate::log::Level::$level,
            &[$(($crate::log::keys::$key, &$value as &dyn ::std::fmt::Display)),+],
            ::std::format_args!($($text)+),
        )
    };
    ($level:ident; $($text:tt)+) => {
        $crate::log::line($crate::log::Level::$level, &[], ::std::format_args!($($text)+))
    };
}

/// A line of [`Level::Error`].
#[macro_export]
macro_rules! error {
    ($($all:tt)+) => { $crate::say!(Error; $($all)+) };
}

/// A line of [`Level::Warning`].
#[macro_export]
macro_rules! warning {
    ($($all:tt)+) => { $crate::say!(Warning; $($all)+) };
}

/// A line of [`Level::Info`].
#[macro_export]
macro_rules! info {
    ($($all:tt)+) => { $crate::say!(Info; $($all)+) };
}

/// A line of [`Level::Debug`].
#[macro_export]
macro_rules! debug {
    ($($all:tt)+) => { $crate::say!(Debug; $($all)+) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(about: &[(&str, &dyn Display)], text: Arguments<'_>) -> String {
        String::from_utf8(text_of(format_args!("vmmd: "), about, text).text().to_vec()).unwrap()
    }

    #[test]
    fn nothing_in_a_line_ends_it_or_steers_a_terminal() {
        let said = line_of(&[], format_args!("a\nb\u{1b}[2J\u{9b}1mü{}", "x".repeat(2 * LINE_BYTES_MAX)));
        assert!(said.starts_with("vmmd: a?b?[2J?1müx"), "{said}");
        assert_eq!(said.len(), LINE_BYTES_MAX - 1);
        // Characters are whole or not there.
        let said = line_of(&[], format_args!("{}", "ü".repeat(LINE_BYTES_MAX)));
        assert!(said.len() < LINE_BYTES_MAX && said.ends_with('ü'));
    }

    #[test]
    fn what_a_line_is_about_stands_at_its_end_and_is_not_cut() {
        let about: [(&str, &dyn Display); 2] = [(keys::name, &"shop:web"), (keys::unit, &7)];
        assert_eq!(line_of(&about, format_args!("it ended")), "vmmd: it ended name=shop:web unit=7");
        let said = line_of(&about, format_args!("{}", "x".repeat(2 * LINE_BYTES_MAX)));
        assert!(said.ends_with("xx name=shop:web unit=7"), "{said}");
        assert_eq!(said.len(), LINE_BYTES_MAX - 1);
        // A value does not pretend to be another one.
        let about: [(&str, &dyn Display); 1] = [(keys::name, &"a unit=9\n\"b\"")];
        assert_eq!(line_of(&about, format_args!("x")), "vmmd: x name=a?unit?9??b?");
        let long = "n".repeat(2 * TAIL_BYTES_MAX);
        let about: [(&str, &dyn Display); 1] = [(keys::name, &long)];
        assert!(line_of(&about, format_args!("said")).starts_with("vmmd: said name=nnn"));
    }
}
