//! Writes the manual pages and the completions of a package, when it is made. What the programs say of their options is taken from
//! them, so that no page can say anything else; what else is to be said stands in `packaging/man/`.
//!
//! | file | what is in it |
//! |---|---|
//! | `clients` | the pages and completions of the programs that read their command line with clap |
//! | `help` | what `--help` of the others says |
//! | `written` | the pages that are written by hand around that |
//! | `roff` | text as roff takes it |

mod clients;
mod help;
mod roff;
mod written;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: fulmar-pages PROGRAMS OUT VERSION DATE
Writes OUT/man/man1, man5, man8 and OUT/bash, OUT/zsh, OUT/fish; PROGRAMS is where the built programs are.
";

/// What all pages say at their foot.
struct Foot {
    version: String,
    date: String,
}

/// Why there are no pages.
enum PagesError {
    /// A file or folder.
    File(PathBuf, io::Error),
    /// A program that does not say what its options are.
    Program(PathBuf, String),
    /// A page that is written by hand names what there is not.
    Place(PathBuf, String),
}

impl fmt::Display for PagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Program(path, why) => write!(f, "{} --help: {why}", path.display()),
            Self::Place(path, name) => write!(f, "{} has the place @{name}@, which nothing fills", path.display()),
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [programs, out, version, date] = words.as_slice() else {
        eprint!("{USAGE}");
        return ExitCode::from(124);
    };
    let foot = Foot { version: version.clone(), date: date.clone() };
    let (programs, out) = (Path::new(programs), Path::new(out));
    match clients::write(out, &foot).and_then(|()| written::write(programs, out, &foot)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fulmar-pages: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a file, whose folder need not be there.
fn put(path: &Path, content: &[u8]) -> Result<(), PagesError> {
    let fail = |error| PagesError::File(path.to_owned(), error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    std::fs::write(path, content).map_err(fail)
}
