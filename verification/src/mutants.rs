//! Planting bugs: each patch of `verification/mutants/` is applied to a copy of the sources, which is built and must then fail
//! the brief checks by a violation. A bug that nobody notices is a gap in the checks.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::brief::CAUGHT;

/// What of the tree the brief checks are built from.
const COPIED: [&str; 7] = ["Cargo.toml", "Cargo.lock", "core", "host", "shim-linux", "tests", "verification"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Plants the bugs of these names, or all.
///
/// # Errors
/// The bugs that nobody noticed, and patches that do not apply or do not compile.
pub fn run(names: &[&str]) -> Result<(), String> {
    let patches = patches(names)?;
    let target = root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let copy = target.join("mutants").join("tree");
    let begun = Instant::now();
    copy_tree(&copy)?;
    build(&copy)?;
    if let Some(why) = check(&copy)? {
        return Err(format!("the machine as it is does not pass: {why}"));
    }
    println!("without a planted bug: passed, {:.0} s", begun.elapsed().as_secs_f64());
    let mut unnoticed = Vec::new();
    for patch in &patches {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let begun = Instant::now();
        apply(&copy, patch, &[])?;
        build(&copy).map_err(|why| format!("{name}: {why}"))?;
        let why = check(&copy)?;
        apply(&copy, patch, &["--reverse"])?;
        let seconds = begun.elapsed().as_secs_f64();
        match why {
            Some(why) => println!("{name}: {}, {seconds:.0} s", why.lines().next().unwrap_or_default()),
            None => {
                println!("{name}: UNNOTICED, {seconds:.0} s");
                unnoticed.push(name);
            }
        }
    }
    println!("{} bugs planted, {} unnoticed, {:.0} s", patches.len(), unnoticed.len(), begun.elapsed().as_secs_f64());
    if unnoticed.is_empty() { Ok(()) } else { Err(format!("nobody noticed {}", unnoticed.join(", "))) }
}

fn patches(names: &[&str]) -> Result<Vec<PathBuf>, String> {
    let folder = root().join("verification").join("mutants");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut patches: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    patches.retain(|path| {
        let stem = path.file_stem().unwrap_or_default();
        names.is_empty() || names.iter().any(|name| stem == *name)
    });
    patches.sort();
    if patches.is_empty() { Err("no such patch".into()) } else { Ok(patches) }
}

/// Copies what has changed since the last time, so that only that is built again, and removes what is gone.
fn copy_tree(copy: &Path) -> Result<(), String> {
    // What of the sources a planted bug has changed is put back by the copy.
    let mut files: Vec<PathBuf> = COPIED.iter().map(PathBuf::from).collect();
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    while let Some(file) = files.pop() {
        let (from, to) = (root().join(&file), copy.join(&file));
        if from.is_dir() {
            if file.file_name().is_some_and(|name| name == "target") {
                continue;
            }
            fs::create_dir_all(&to).map_err(|error| failed(&to, error))?;
            let names = |folder: &Path| -> Result<Vec<OsString>, String> {
                let entries = fs::read_dir(folder).map_err(|error| failed(folder, error))?;
                Ok(entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect())
            };
            for gone in names(&to)?.into_iter().map(|name| file.join(name)).filter(|file| !root().join(file).exists()) {
                let gone = copy.join(gone);
                let removed = if gone.is_dir() { fs::remove_dir_all(&gone) } else { fs::remove_file(&gone) };
                removed.map_err(|error| failed(&gone, error))?;
            }
            files.extend(names(&from)?.into_iter().map(|name| file.join(name)));
            continue;
        }
        let mut bytes = fs::read(&from).map_err(|error| failed(&from, error))?;
        if file == Path::new("Cargo.toml") {
            bytes = alone(&bytes);
        }
        if fs::read(&to).ok().as_deref() != Some(&bytes) {
            fs::write(&to, bytes).map_err(|error| failed(&to, error))?;
        }
    }
    Ok(())
}

/// The workspace with no other members than are copied.
fn alone(manifest: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(manifest);
    let (before, rest) = text.split_once("members = [").unwrap_or((&text, ""));
    let after = rest.split_once(']').map_or("", |(_, after)| after);
    format!("{before}members = [\"core\", \"host\", \"shim-linux\", \"tests\", \"verification\"]{after}").into_bytes()
}

fn apply(copy: &Path, patch: &Path, options: &[&str]) -> Result<(), String> {
    let mut command = Command::new("patch");
    command.args(["--strip=1", "--batch", "--silent", "--no-backup-if-mismatch", "--fuzz=0"]).args(options);
    let status = command.arg("--input").arg(patch).current_dir(copy).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("{} does not apply any more", patch.display())),
        Err(error) => Err(format!("cannot run patch: {error}")),
    }
}

fn build(copy: &Path) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--profile", "mutant", "--package", "fulmar-verification"]);
    command.env("CARGO_TARGET_DIR", copy.join("target")).env("RUSTFLAGS", "--cap-lints allow").current_dir(copy);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("it does not compile ({status})")),
        Err(error) => Err(format!("cannot run {command:?}: {error}")),
    }
}

/// What has caught it; nothing where all checks passed.
fn check(copy: &Path) -> Result<Option<String>, String> {
    let program = copy.join("target").join("mutant").join("fulmar-verification");
    let mut command = Command::new(&program);
    let output = command.arg("brief").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let caught = said.find(CAUGHT).map(|at| said[at..].to_owned());
    caught.map(Some).ok_or_else(|| format!("it failed by something else ({}):\n{said}", output.status))
}
