//! What `--help` of the daemons and of the tender says, taken apart: how the program is called, what it is for, its options, an
//! example.

use std::path::Path;
use std::process::Command;

use crate::{PagesError, roff};

/// A help.
pub(crate) struct Help {
    usage: String,
    about: String,
    options: Vec<Entry>,
    example: String,
}

enum Entry {
    Heading(String),
    Option { says: String, text: String },
}

impl Help {
    /// What this program says.
    pub(crate) fn of(program: &Path) -> Result<Self, PagesError> {
        let fail = |why: String| PagesError::Program(program.to_owned(), why);
        let output = Command::new(program).arg("--help").output().map_err(|error| fail(error.to_string()))?;
        // The tender says it where its guest's words do not go.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).map_err(|error| fail(error.to_string()))?;
        let help = Self::parse(&text);
        let is_whole = !help.usage.is_empty() && !help.example.is_empty() && !help.options.is_empty();
        if is_whole { Ok(help) } else { Err(fail("no usage, no options or no example in it".into())) }
    }

    fn parse(text: &str) -> Self {
        let mut help = Self { usage: String::new(), about: String::new(), options: Vec::new(), example: String::new() };
        for line in text.lines() {
            if let Some(usage) = line.strip_prefix("usage: ") {
                help.usage = usage.to_owned();
            } else if let Some(example) = line.strip_prefix("example: ").or(line.strip_prefix("Example: ")) {
                help.example = example.to_owned();
            } else if let Some(option) = line.strip_prefix("  ").filter(|it| it.starts_with(['-', '['])) {
                help.options.push(option_of(option));
            } else if line.trim_end().ends_with(':') {
                help.options.push(Entry::Heading(line.trim_end().trim_end_matches(':').to_owned()));
            } else if help.options.is_empty() || !line.is_empty() {
                help.about += line;
                help.about += "\n";
            }
        }
        help
    }

    /// What stands at a place of a page.
    pub(crate) fn at(&self, place: &str) -> Option<String> {
        Some(match place {
            "USAGE" => roff::line(&self.usage) + "\n",
            "ABOUT" => roff::paragraphs(&self.about),
            "EXAMPLE" => roff::verbatim(&self.example),
            "OPTIONS" => self.options.iter().map(Entry::roff).collect(),
            // What can be said in a file too.
            "SETTINGS" => self.options.iter().filter(|it| it.is_setting()).map(Entry::roff_setting).collect(),
            _ => return None,
        })
    }
}

impl Entry {
    fn roff(&self) -> String {
        match self {
            Self::Heading(text) => format!(".SS {}\n", roff::line(text)),
            Self::Option { says, text } => format!(".TP\n.B {}\n{}\n", roff::line(says), roff::line(text)),
        }
    }

    fn is_setting(&self) -> bool {
        let known = ["--config", "--check", "--help", "--version"];
        matches!(self, Self::Option { says, .. } if !known.iter().any(|it| says.starts_with(it)))
    }

    fn roff_setting(&self) -> String {
        let Self::Option { says, text } = self else { return String::new() };
        let name = says.trim_start_matches('-').split(' ').next().unwrap_or_default();
        format!(".TP\n.B {}\n{}\n", roff::line(name), roff::line(text))
    }
}

/// `--run DIR   text` of the daemons, `[ --mem=512 ] (text)` of the tender.
fn option_of(line: &str) -> Entry {
    if let Some((says, text)) = line.split_once("  ") {
        return Entry::Option { says: says.to_owned(), text: text.trim().to_owned() };
    }
    let (says, text) = line.split_once(" (").unwrap_or((line, ""));
    let says = says.trim_start_matches("[ ").trim_end_matches(" ]");
    Entry::Option { says: says.to_owned(), text: text.trim_end_matches(')').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_help_is_taken_apart() {
        let help = Help::parse(
            "usage: a [OPTIONS]\n\nDoes it.\nAgain.\n\n  --run DIR  where (here) [/run]\n  --check    look\n\nexample: a --check\n",
        );
        assert_eq!(help.at("USAGE").unwrap(), "a [OPTIONS]\n");
        assert_eq!(help.at("ABOUT").unwrap(), "Does it.\nAgain.\n");
        assert_eq!(
            help.at("OPTIONS").unwrap(),
            ".TP\n.B \\-\\-run DIR\nwhere (here) [/run]\n.TP\n.B \\-\\-check\nlook\n"
        );
        assert_eq!(help.at("SETTINGS").unwrap(), ".TP\n.B run\nwhere (here) [/run]\n");
        assert!(help.at("WEATHER").is_none());
        let tender = Help::parse("usage: t\nCore options:\n  [ --mem=512 ] (memory)\n  --help (help)\nExample: t x\n");
        assert_eq!(
            tender.at("OPTIONS").unwrap(),
            ".SS Core options\n.TP\n.B \\-\\-mem=512\nmemory\n.TP\n.B \\-\\-help\nhelp\n"
        );
    }
}
