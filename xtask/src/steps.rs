//! Running programs as steps that a person can follow: a heading, the output, and a failure that names the step.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// A step that did not work, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What a step gives.
pub(crate) type Done<T = ()> = Result<T, Failure>;

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Cargo, in the workspace's folder.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Says what comes and runs it.
pub(crate) fn step(title: &str, command: &mut Command) -> Done {
    println!("== {title}");
    let begun = Instant::now();
    let status = command.status().map_err(|error| Failure(format!("{title}: cannot run {command:?}: {error}")))?;
    if !status.success() {
        return Err(Failure(format!("{title}: failed ({status})")));
    }
    println!("== {title}: done in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}
