//! `cargo xtask deb`: a package for Debian and its relatives, from what is here and nothing else. Made twice of one commit it is the
//! same, byte by byte.

mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::stage::Stage;
use crate::build;
use crate::steps::{Done, Failure, cargo, root, step, target, timed};

/// Names the folder of programs that are built already, as for the tests.
const BUILT: &str = "FULMAR_PROGRAMS";

/// What Debian calls this machine; the tender runs on no other.
const ARCHITECTURE: &str = "amd64";

/// Who is asked about the package.
const MAINTAINER: &str = "Fulmar maintainers <maintainers@fulmar.invalid>";

/// Makes the package, of this version or of that of the workspace.
pub(crate) fn run(version: Option<&str>) -> Done {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Failure("the package is for Linux on x86_64: make it there".into()));
    }
    let version = version.unwrap_or(env!("CARGO_PKG_VERSION"));
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || ".+~-".contains(letter);
    if !version.starts_with(|first: char| first.is_ascii_digit()) || !version.chars().all(is_part) {
        let rule = "it begins with a digit and has letters, digits, `.`, `+`, `~` and `-`";
        return Err(Failure(format!("`{version}` is no version of a package: {rule}")));
    }
    let programs = match std::env::var_os(BUILT) {
        Some(folder) => PathBuf::from(folder),
        None => build::programs()?.folder().to_owned(),
    };
    let commit = Commit::last()?;
    let work = target().join("debian");
    let (pages, tree) = (work.join("pages"), work.join(format!("fulmar-{version}")));
    for folder in [&pages, &tree] {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|error| Failure(format!("{}: {error}", folder.display())))?;
        }
    }
    let mut write = cargo(&["run", "--quiet", "--locked", "--package", "fulmar-pages", "--"]);
    step("writing manual pages and completions", write.arg(&programs).arg(&pages).args([version, &commit.day]))?;
    timed("laying out the files", || Stage::new(&tree).fill(&programs, &pages, version))?;
    let package = work.join(format!("fulmar_{version}_{ARCHITECTURE}.deb"));
    let mut pack = Command::new("dpkg-deb");
    // What is newer than this is said to be as old.
    pack.env("SOURCE_DATE_EPOCH", &commit.seconds);
    pack.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]).arg(&tree).arg(&package);
    step("packing", &mut pack)?;
    println!("{}", package.display());
    Ok(())
}

/// When what is here was last changed.
struct Commit {
    seconds: String,
    day: String,
}

impl Commit {
    fn last() -> Done<Self> {
        // What is given counts: where there is no repository, say.
        let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(seconds) => seconds,
            Err(_) => said("git", &["log", "-1", "--format=%ct"])?,
        };
        let day = said("date", &["--utc", "--date", &format!("@{seconds}"), "+%Y-%m-%d"])?;
        Ok(Self { seconds, day })
    }
}

/// What a program says, in one line.
fn said(program: &str, words: &[&str]) -> Done<String> {
    let fail = |why: String| Failure(format!("{program} {}: {why}; or set SOURCE_DATE_EPOCH", words.join(" ")));
    let output = Command::new(program).args(words).current_dir(root()).output();
    let output = output.map_err(|error| fail(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        Ok(text)
    } else {
        Err(fail(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// The C library that a program needs at least: the largest version that it names.
fn glibc(program: &Path) -> Done<(u32, u32)> {
    let bytes = fs::read(program).map_err(|error| Failure(format!("{}: {error}", program.display())))?;
    let mut needed = (2, 17);
    for at in bytes.windows(6).enumerate().filter(|(_, window)| *window == b"GLIBC_").map(|(at, _)| at) {
        let rest = bytes.get(at + 6..).unwrap_or_default();
        let version: Vec<u8> =
            rest.iter().copied().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').take(9).collect();
        let version = String::from_utf8_lossy(&version).into_owned();
        let mut numbers = version.split('.').map(str::parse);
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) {
            needed = needed.max((major, minor));
        }
    }
    Ok(needed)
}
