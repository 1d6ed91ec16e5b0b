//! The configuration file: lines of `name = "text"` and `name = 12`, comments, nothing else. Whatever is read here, TOML reads
//! in the same way; most of TOML is not read here. A privileged program reads it, so it is believed only where nobody else could have
//! written it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use fulmar_core::limits::SETTINGS_BYTES_MAX;
use nix::libc::O_NONBLOCK;
use nix::unistd::Uid;

/// What a value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// In quotes.
    Text,
    /// Digits, and perhaps a point and more of them.
    Number,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a text in quotes",
            Self::Number => "a number without quotes",
        })
    }
}

/// Why a file is not read.
#[derive(Debug)]
pub enum FileError {
    /// The system says so.
    Io(io::Error),
    /// Something else than a file.
    NoFile,
    /// Others can write it; its owner and mode.
    Untrusted(u32, u32),
    /// Longer than [`SETTINGS_BYTES_MAX`].
    TooLong,
    /// Not UTF-8.
    NotText,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::NoFile => f.write_str("it is no file"),
            Self::Untrusted(uid, mode) => write!(
                f,
                "it belongs to user {uid} and has mode {mode:03o}: let it belong to root, or to who starts this program, and take \
                 the write permission of others away"
            ),
            Self::TooLong => write!(f, "it has more than {SETTINGS_BYTES_MAX} bytes"),
            Self::NotText => f.write_str("it is not UTF-8"),
        }
    }
}

impl std::error::Error for FileError {}

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LineError {
    /// Not `name = value`.
    Form,
    /// The head of a section, or a name with points: there are none of these.
    Section,
    /// A text that has no end.
    Quote,
    /// An escape other than `\"` and `\\`.
    Escape(char),
    /// A control character.
    Control,
    /// Something after the value.
    Rest,
    /// Neither a text nor a number.
    Value,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("write NAME = VALUE"),
            Self::Section => f.write_str("there are no sections here: write NAME = VALUE"),
            Self::Quote => f.write_str("the text does not end"),
            Self::Escape(character) => {
                write!(f, "'\\{character}' is not understood, only \\\" and \\\\ are: or write the text in '...'")
            }
            Self::Control => f.write_str("there is a control character"),
            Self::Rest => f.write_str("there is something after the value"),
            Self::Value => f.write_str("the value is neither a text in quotes nor a number"),
        }
    }
}

impl std::error::Error for LineError {}

/// The text of a file, where it is believed.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path) -> Result<String, FileError> {
    // A fifo would have us wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(FileError::Io)?;
    trust(&file)?;
    let mut bytes = Vec::new();
    let most = SETTINGS_BYTES_MAX as u64;
    file.take(most + 1).read_to_end(&mut bytes).map_err(FileError::Io)?;
    if bytes.len() as u64 > most {
        return Err(FileError::TooLong);
    }
    String::from_utf8(bytes).map_err(|_| FileError::NotText)
}

fn trust(file: &File) -> Result<(), FileError> {
    let found = file.metadata().map_err(FileError::Io)?;
    if !found.is_file() {
        return Err(FileError::NoFile);
    }
    let is_ours = found.uid() == 0 || found.uid() == Uid::effective().as_raw();
    if is_ours && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(FileError::Untrusted(found.uid(), found.mode() & 0o7777))
}

/// The name, the kind and the value of a line; nothing where it sets nothing.
pub(super) fn parse(line: &str) -> Result<Option<(&str, Kind, String)>, LineError> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.chars().any(|it| it.is_control() && it != '\t') {
        return Err(LineError::Control);
    }
    let line = line.trim_matches(BLANK);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.starts_with('[') {
        return Err(LineError::Section);
    }
    let (name, rest) = line.split_once('=').ok_or(LineError::Form)?;
    let name = name.trim_matches(BLANK);
    if name.contains('.') {
        return Err(LineError::Section);
    }
    if name.is_empty() || !name.chars().all(|it| it.is_ascii_alphanumeric() || it == '-' || it == '_') {
        return Err(LineError::Form);
    }
    let rest = rest.trim_matches(BLANK);
    let (kind, value, rest) = if let Some(text) = rest.strip_prefix('"') {
        let (value, rest) = quoted(text)?;
        (Kind::Text, value, rest)
    } else if let Some(text) = rest.strip_prefix('\'') {
        let (value, rest) = text.split_once('\'').ok_or(LineError::Quote)?;
        (Kind::Text, value.to_owned(), rest)
    } else {
        let end = rest.find(|it: char| BLANK.contains(&it) || it == '#').unwrap_or(rest.len());
        let (number, rest) = rest.split_at(end);
        if !is_number(number) {
            return Err(LineError::Value);
        }
        (Kind::Number, number.to_owned(), rest)
    };
    let rest = rest.trim_start_matches(BLANK);
    if rest.is_empty() || rest.starts_with('#') { Ok(Some((name, kind, value))) } else { Err(LineError::Rest) }
}

/// What may stand between the parts of a line.
const BLANK: [char; 2] = [' ', '\t'];

/// What stands before the quote that ends it, and what after that.
fn quoted(text: &str) -> Result<(String, &str), LineError> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => return Err(LineError::Escape(other)),
                None => return Err(LineError::Quote),
            },
            other => value.push(other),
        }
    }
    Err(LineError::Quote)
}

/// `0`, `12`, `0.5`: as everybody reads it.
fn is_number(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    // A longer number means nothing to anybody here, and TOML has none.
    digits(whole) && digits(part) && (whole == "0" || !whole.starts_with('0')) && whole.len() <= 18
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines() {
        let some = |name, kind, value: &str| Ok(Some((name, kind, value.to_owned())));
        for (line, parsed) in [
            ("", Ok(None)),
            (" \t# a = 1", Ok(None)),
            ("run = \"/run/a\"", some("run", Kind::Text, "/run/a")),
            ("run=\"a \\\"b\\\" \\\\ # c\"# d\r", some("run", Kind::Text, "a \"b\" \\ # c")),
            ("log-level\t= 'a\\b' # c", some("log-level", Kind::Text, "a\\b")),
            ("size = 64", some("size", Kind::Number, "64")),
            ("interval = 0.5#", some("interval", Kind::Number, "0.5")),
            ("[vmmd]", Err(LineError::Section)),
            ("log.level = 1", Err(LineError::Section)),
            ("run", Err(LineError::Form)),
            ("= 1", Err(LineError::Form)),
            ("a b = 1", Err(LineError::Form)),
            ("\"run\" = 1", Err(LineError::Form)),
            ("run = ", Err(LineError::Value)),
            ("run = /run/a", Err(LineError::Value)),
            ("size = 064", Err(LineError::Value)),
            ("size = -1", Err(LineError::Value)),
            ("size = 1e3", Err(LineError::Value)),
            ("size = true", Err(LineError::Value)),
            ("size = 1234567890123456789", Err(LineError::Value)),
            ("size = 64 65", Err(LineError::Rest)),
            ("run = \"a\" b", Err(LineError::Rest)),
            ("run = \"\"\"a\"\"\"", Err(LineError::Rest)),
            ("run = \"a", Err(LineError::Quote)),
            ("run = 'a", Err(LineError::Quote)),
            ("run = \"a\\", Err(LineError::Quote)),
            ("run = \"a\\n\"", Err(LineError::Escape('n'))),
            ("run = \"a\u{7}\"", Err(LineError::Control)),
        ] {
            assert_eq!(parse(line), parsed, "{line:?}");
        }
    }

    proptest! {
        /// An operator's tools read TOML: what is accepted here they must read in the same way.
        #[test]
        fn what_is_accepted_is_toml_and_means_the_same(
            line in "[a-c_-]{0,2}[ \t]{0,2}=?[ \t]{0,2}[\"']{0,3}[a-z0-9 .#\"'\\\\\u{e9}]{0,8}[\"']{0,3}[ \t]{0,1}#?[\"'é]{0,2}\r?",
        ) {
            if let Ok(parsed) = parse(&line) {
                // A carriage return belongs to an end of a line.
                let table: toml::Table = toml::from_str(&format!("{line}\n")).unwrap();
                match parsed {
                    None => prop_assert!(table.is_empty()),
                    Some((name, kind, value)) => {
                        prop_assert_eq!(table.len(), 1);
                        match (&table[name], kind) {
                            (toml::Value::String(text), Kind::Text) => prop_assert_eq!(text, &value),
                            (toml::Value::Integer(number), Kind::Number) => prop_assert_eq!(number.to_string(), value),
                            (toml::Value::Float(number), Kind::Number) => prop_assert_eq!(*number, value.parse::<f64>().unwrap()),
                            other => prop_assert!(false, "{other:?}"),
                        }
                    }
                }
            }
        }

        #[test]
        fn whatever_stands_there_is_read_to_its_end(line in any::<String>()) {
            let _ = parse(&line);
        }
    }

    #[test]
    fn only_a_file_that_nobody_else_can_write_is_believed() {
        let folder = std::env::temp_dir().join(format!("fulmar-settings-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.toml");
        std::fs::write(&path, "a = 1\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert_eq!(read(&path).unwrap(), "a = 1\n");
        for others in [0o664, 0o646] {
            mode(others);
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {others:03o}")), "{error}");
        }
        mode(0o644);
        std::fs::write(&path, vec![b'#'; SETTINGS_BYTES_MAX]).unwrap();
        assert_eq!(read(&path).unwrap().len(), SETTINGS_BYTES_MAX);
        std::fs::write(&path, vec![b'#'; SETTINGS_BYTES_MAX + 1]).unwrap();
        assert!(matches!(read(&path), Err(FileError::TooLong)));
        std::fs::write(&path, b"a = \"\xff\"").unwrap();
        assert!(matches!(read(&path), Err(FileError::NotText)));
        assert!(matches!(read(&folder), Err(FileError::NoFile)));
        assert!(matches!(read(&folder.join("none")), Err(FileError::Io(_))));
        let fifo = folder.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(matches!(read(&fifo), Err(FileError::NoFile)));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
