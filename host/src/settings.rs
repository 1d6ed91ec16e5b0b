//! What a daemon is told: by its command line, by a configuration file, and the command line has the last word. Both have the same
//! names: `--size 64` and `size = 64`. Read by hand, since the trusted program is told in this way too.

mod file;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use self::file::{FileError, Kind, LineError, read as read_file};
use crate::check::Findings;
use crate::log::{self, Level, Target};
use crate::privilege::Identity;

/// The exit code for a command line or a configuration that is wrong, as of all programs here.
pub const USAGE: u8 = 124;

/// One setting of a daemon.
pub struct Setting<T: 'static> {
    /// What it is called, without the `--` of the command line.
    pub name: &'static str,
    kind: Kind,
    take: Take<T>,
}

/// Where a value goes.
enum Take<T: 'static> {
    /// As it is to this place.
    Path(fn(&mut T) -> &mut PathBuf),
    /// Through this, which may say what is wrong with it.
    Value(fn(&mut T, &OsStr) -> Result<(), String>),
}

impl<T> Setting<T> {
    /// A path.
    #[must_use]
    pub const fn path(name: &'static str, place: fn(&mut T) -> &mut PathBuf) -> Self {
        Self { name, kind: Kind::Text, take: Take::Path(place) }
    }

    /// A text. `take` says what is wrong with it.
    #[must_use]
    pub const fn text(name: &'static str, take: fn(&mut T, &OsStr) -> Result<(), String>) -> Self {
        Self { name, kind: Kind::Text, take: Take::Value(take) }
    }

    /// A number. `take` says what is wrong with it.
    #[must_use]
    pub const fn number(name: &'static str, take: fn(&mut T, &OsStr) -> Result<(), String>) -> Self {
        Self { name, kind: Kind::Number, take: Take::Value(take) }
    }

    /// Takes a value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&self, own: &mut T, value: &OsStr) -> Result<(), String> {
        match self.take {
            Take::Path(place) => *place(own) = value.into(),
            Take::Value(take) => take(own, value)?,
        }
        Ok(())
    }
}

impl<T> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<T> {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Say what is wrong with these settings and what they name, and do nothing.
    Check(Given<T>),
    /// Do it.
    Run(Given<T>),
}

/// The settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given<T> {
    /// Those of this daemon.
    pub own: T,
    /// Those of every daemon: `log` and `log-level`.
    pub log: log::Settings,
}

/// What is wrong with a command line or a file.
#[derive(Debug)]
pub enum SettingsError {
    /// Not an option.
    Unknown(OsString),
    /// An option without its value.
    NoValue(&'static str),
    /// A value that an option cannot have, and why.
    Value(&'static str, String),
    /// A file that cannot be read.
    File(PathBuf, FileError),
    /// A line of a file that is none.
    Line(PathBuf, usize, LineError),
    /// A line that sets what there is not; what there is.
    UnknownName(PathBuf, usize, String, String),
    /// A line that sets what another line has set.
    Twice(PathBuf, usize, &'static str, usize),
    /// A value of the other kind.
    Kind(PathBuf, usize, &'static str, Kind),
    /// A value that a setting cannot have, and why.
    LineValue(PathBuf, usize, &'static str, String),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown option '{}', see --help", argument.display()),
            Self::NoValue(option) => write!(f, "--{option} needs a value, see --help"),
            Self::Value(option, why) => write!(f, "--{option}: {why}"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Line(path, line, error) => write!(f, "{}, line {line}: {error}", path.display()),
            Self::UnknownName(path, line, name, known) => {
                write!(f, "{}, line {line}: there is no setting '{name}', but {known}", path.display())
            }
            Self::Twice(path, line, name, first) => {
                write!(f, "{}, line {line}: line {first} has set {name} already", path.display())
            }
            Self::Kind(path, line, name, kind) => write!(f, "{}, line {line}: {name} is {kind}", path.display()),
            Self::LineValue(path, line, name, why) => write!(f, "{}, line {line}: {name}: {why}", path.display()),
        }
    }
}

impl std::error::Error for SettingsError {}

/// The settings of every daemon.
const COMMON: [Setting<log::Settings>; 2] =
    [Setting::text("log", set_log_target), Setting::text("log-level", set_log_level)];

/// Takes `stderr` or `syslog`.
///
/// # Errors
/// What is wrong with it.
pub fn set_log_target(log: &mut log::Settings, value: &OsStr) -> Result<(), String> {
    log.target = match value.as_bytes() {
        b"stderr" => Target::Stderr,
        b"syslog" => Target::Syslog,
        _ => return Err(format!("'{}' is neither stderr nor syslog", value.display())),
    };
    Ok(())
}

/// Takes the name of a level.
///
/// # Errors
/// What is wrong with it.
pub fn set_log_level(log: &mut log::Settings, value: &OsStr) -> Result<(), String> {
    let found = Level::ALL.iter().find(|(name, _)| OsStr::new(name) == value);
    let (_, level) = found.ok_or_else(|| format!("'{}' is none of error, warning, info, debug", value.display()))?;
    log.level = *level;
    Ok(())
}

/// A user.
///
/// # Errors
/// What is wrong with it.
pub fn user(value: &OsStr) -> Result<Option<Identity>, String> {
    Identity::parse(&value.to_string_lossy()).map(Some).map_err(|error| error.to_string())
}

/// A number within these bounds.
///
/// # Errors
/// What is wrong with it.
pub fn number(value: &OsStr, least: u64, most: u64) -> Result<u64, String> {
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("'{}' is no number from {least} to {most}", value.display()))
}

/// What is known of a program before it has started.
#[derive(Debug)]
pub struct Program<T: 'static> {
    /// Its name, before each line of its log.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What `--help` prints.
    pub help: &'static str,
    /// Its configuration file where none is named, if it has one. It need not be there.
    pub file: Option<&'static str>,
    /// Its settings, beside those that every daemon has.
    pub settings: &'static [Setting<T>],
}

impl<T: Default> Program<T> {
    /// Does what the command line says: a daemon's `main`.
    pub fn main<E: fmt::Display>(
        &self,
        check: impl FnOnce(&T, &mut Findings),
        serve: impl FnOnce(&T) -> Result<(), E>,
    ) -> ExitCode {
        crate::renounce::close_inherited();
        log::begin(self.name);
        let given = match self.begin(std::env::args_os().skip(1).collect(), check) {
            Ok(given) => given,
            Err(code) => return code,
        };
        log::set(given.log);
        if let Err(error) = serve(&given.own) {
            crate::error!("{error}");
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }

    /// Reads these arguments and does what they ask for, but for what the program is there for.
    ///
    /// # Errors
    /// The exit code, where it is done with that.
    pub fn begin(&self, arguments: Vec<OsString>, check: impl FnOnce(&T, &mut Findings)) -> Result<Given<T>, ExitCode> {
        match self.read(arguments) {
            Ok(Command::Help) => print!("{}", self.help),
            Ok(Command::Version) => println!("{} {}", self.name, self.version),
            Ok(Command::Check(given)) => {
                let mut findings = Findings::default();
                findings.check_log(given.log);
                check(&given.own, &mut findings);
                return Err(findings.conclude(self.name));
            }
            Ok(Command::Run(given)) => return Ok(given),
            Err(Wrong { error, checked }) => {
                crate::error!("{error}");
                return Err(if checked { ExitCode::FAILURE } else { ExitCode::from(USAGE) });
            }
        }
        Err(ExitCode::SUCCESS)
    }

    /// Reads the arguments after the program's name, and the file.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn read(&self, arguments: Vec<OsString>) -> Result<Command<T>, Wrong> {
        let mut line = CommandLine { values: Vec::new(), config: None, checks: false };
        let stop = line.take(self, arguments).map_err(|error| Wrong { error, checked: false })?;
        if let Some(stop) = stop {
            return Ok(stop);
        }
        let mut given = Given { own: T::default(), log: log::Settings::default() };
        let result = self.read_file(line.config.as_deref(), &mut given);
        result.map_err(|error| Wrong { error, checked: line.checks })?;
        for (name, value) in line.values {
            let wrong = |why| Wrong { error: SettingsError::Value(name, why), checked: line.checks };
            self.set(&mut given, name, &value).map_err(wrong)?;
        }
        Ok(if line.checks { Command::Check(given) } else { Command::Run(given) })
    }

    /// Sets what a file says.
    fn read_file(&self, named: Option<&Path>, given: &mut Given<T>) -> Result<(), SettingsError> {
        let Some(path) = named.or(self.file.map(Path::new)) else { return Ok(()) };
        let text = match file::read(path) {
            Err(FileError::Io(error)) if named.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(|error| SettingsError::File(path.to_owned(), error))?,
        };
        let mut seen = BTreeMap::new();
        for (text, line) in text.split('\n').zip(1..) {
            let place = || path.to_owned();
            let parsed = file::parse(text).map_err(|error| SettingsError::Line(place(), line, error))?;
            let Some((name, kind, value)) = parsed else { continue };
            let Some((known, wanted)) = self.known().find(|(known, _)| *known == name) else {
                let all: Vec<&str> = self.known().map(|(known, _)| known).collect();
                return Err(SettingsError::UnknownName(place(), line, name.to_owned(), all.join(", ")));
            };
            if let Some(first) = seen.insert(known, line) {
                return Err(SettingsError::Twice(place(), line, known, first));
            }
            if kind != wanted {
                return Err(SettingsError::Kind(place(), line, known, wanted));
            }
            let set = self.set(given, known, OsStr::new(&value));
            set.map_err(|why| SettingsError::LineValue(place(), line, known, why))?;
        }
        Ok(())
    }

    /// All settings.
    fn known(&self) -> impl Iterator<Item = (&'static str, Kind)> {
        let own = self.settings.iter().map(|it| (it.name, it.kind));
        own.chain(COMMON.iter().map(|it| (it.name, it.kind)))
    }

    fn set(&self, given: &mut Given<T>, name: &str, value: &OsStr) -> Result<(), String> {
        if let Some(setting) = self.settings.iter().find(|it| it.name == name) {
            return setting.set(&mut given.own, value);
        }
        COMMON.iter().find(|it| it.name == name).map_or(Ok(()), |setting| setting.set(&mut given.log, value))
    }
}

/// What is wrong, and how the program ends.
#[derive(Debug)]
pub struct Wrong {
    /// What.
    pub error: SettingsError,
    /// Whether `--check` has found it.
    pub checked: bool,
}

/// What a command line says.
struct CommandLine {
    values: Vec<(&'static str, OsString)>,
    config: Option<PathBuf>,
    checks: bool,
}

impl CommandLine {
    /// Takes all arguments; what to do where the settings do not matter.
    fn take<T: Default>(
        &mut self,
        program: &Program<T>,
        arguments: Vec<OsString>,
    ) -> Result<Option<Command<T>>, SettingsError> {
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            // Both `--run DIR` and `--run=DIR`.
            let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
            let option = parts.next().unwrap_or_default();
            let joined = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
            let mut value = |option| joined.clone().or_else(|| arguments.next()).ok_or(SettingsError::NoValue(option));
            match option {
                b"--help" | b"-h" => return Ok(Some(Command::Help)),
                b"--version" | b"-V" => return Ok(Some(Command::Version)),
                b"--check" if joined.is_none() => self.checks = true,
                b"--config" => self.config = Some(value("config")?.into()),
                _ => {
                    let name = option.strip_prefix(b"--").unwrap_or_default();
                    let Some((known, _)) = program.known().find(|(known, _)| known.as_bytes() == name) else {
                        return Err(SettingsError::Unknown(argument));
                    };
                    let value = value(known)?;
                    self.values.push((known, value));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Eq, Default, Debug)]
    struct Own {
        run: PathBuf,
        size: u64,
    }

    const PROGRAM: Program<Own> = Program {
        name: "vmmd_test",
        version: "1",
        help: "",
        file: Some("/nowhere/test.toml"),
        settings: &[
            Setting::path("run", |own| &mut own.run),
            Setting::number("size", |own, value| {
                own.size = number(value, 1, 1024)?;
                Ok(())
            }),
        ],
    };

    fn read(arguments: &[&str]) -> Result<Command<Own>, String> {
        let arguments = arguments.iter().map(OsString::from).collect();
        PROGRAM.read(arguments).map_err(|wrong| wrong.error.to_string())
    }

    fn given(run: &str, size: u64, target: Target, level: Level) -> Given<Own> {
        Given { own: Own { run: run.into(), size }, log: log::Settings { target, level } }
    }

    #[test]
    fn the_command_line() {
        let plain = |run, size| Ok(Command::Run(given(run, size, Target::Stderr, Level::Info)));
        assert_eq!(read(&[]), plain("", 0));
        assert_eq!(read(&["--run", "/a", "--size=7"]), plain("/a", 7));
        assert_eq!(read(&["--run=/a=b", "--run", "/c"]), plain("/c", 0));
        assert_eq!(read(&["--run", "/a", "--help"]), Ok(Command::Help));
        assert_eq!(read(&["-V"]), Ok(Command::Version));
        let debug = given("", 0, Target::Syslog, Level::Debug);
        assert_eq!(read(&["--check", "--log=syslog", "--log-level", "debug"]), Ok(Command::Check(debug)));
        for (arguments, said) in [
            (&["--run"][..], "--run needs a value, see --help"),
            (&["--rum", "/a"], "unknown option '--rum', see --help"),
            (&["here"], "unknown option 'here', see --help"),
            (&["--check=no"], "unknown option '--check=no', see --help"),
            (&["--size", "0"], "--size: '0' is no number from 1 to 1024"),
            (&["--size", "9999999999999999999999"], "--size: '9999999999999999999999' is no number from 1 to 1024"),
            (&["--log", "here"], "--log: 'here' is neither stderr nor syslog"),
            (&["--log-level", "loud"], "--log-level: 'loud' is none of error, warning, info, debug"),
            (&["--config"], "--config needs a value, see --help"),
        ] {
            assert_eq!(read(arguments).unwrap_err(), said);
        }
    }

    #[test]
    fn the_file_and_who_has_the_last_word() {
        let folder = std::env::temp_dir().join(format!("fulmar-settings-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("test.toml");
        let config = format!("--config={}", path.display());
        let with = |text: &str, more: &[&str]| {
            std::fs::write(&path, text).unwrap();
            read(&[&[config.as_str()], more].concat())
        };
        let text = "# what is kept\nrun = \"/a\"\r\nsize = 64\nlog-level = 'warning'\n";
        let from_file = given("/a", 64, Target::Stderr, Level::Warning);
        assert_eq!(with(text, &[]), Ok(Command::Run(from_file)));
        let both = given("/a", 7, Target::Stderr, Level::Error);
        assert_eq!(with(text, &["--size", "7", "--log-level=error"]), Ok(Command::Run(both)));
        for (text, said) in [
            ("run = \"/a\"\nrum = 1", "line 2: there is no setting 'rum', but run, size, log, log-level"),
            ("\n\nsize = \"64\"", "line 3: size is a number without quotes"),
            ("run = 3", "line 1: run is a text in quotes"),
            ("size = 1\n# again\nsize = 2", "line 3: line 1 has set size already"),
            ("size = 1025", "line 1: size: '1025' is no number from 1 to 1024"),
            ("size = 0.5", "line 1: size: '0.5' is no number from 1 to 1024"),
            ("log = \"here\"", "line 1: log: 'here' is neither stderr nor syslog"),
            ("[test]\nsize = 1", "line 1: there are no sections here: write NAME = VALUE"),
            ("config = \"/b\"", "line 1: there is no setting 'config', but run, size, log, log-level"),
        ] {
            assert_eq!(with(text, &[]).unwrap_err(), format!("{}, {said}", path.display()));
        }
        let missing = read(&["--config", "/nowhere/else.toml"]).unwrap_err();
        assert!(missing.starts_with("/nowhere/else.toml: it cannot be read: No such file"), "{missing}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
