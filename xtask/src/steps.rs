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
    // Cargo runs in the workspace's folder: a relative path begins there.
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Cargo, in the workspace's folder, as somebody would call it by hand: of what cargo told this program of its own package nothing is
/// handed on. There are build scripts that begin anew when that changes, and all that stands on them then.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    let is_of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_package)) {
        command.env_remove(name);
    }
    command
}

/// Says what comes and runs it.
pub(crate) fn step(title: &str, command: &mut Command) -> Done {
    timed(title, || match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("failed ({status})")),
        Err(error) => Err(format!("cannot run {command:?}: {error}")),
    })
}

/// Says what comes, does it, and says how long it took.
pub(crate) fn timed<T, E: fmt::Display>(title: &str, work: impl FnOnce() -> Result<T, E>) -> Done<T> {
    println!("== {title}");
    let begun = Instant::now();
    let done = work().map_err(|error| Failure(format!("{title}: {error}")))?;
    println!("== {title}: done in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(done)
}
