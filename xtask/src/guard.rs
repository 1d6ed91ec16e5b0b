//! Cleans up after a demo, however the demo ends: a process of its own that waits for the end of its standard input.
//!
//! When the demo is gone, by its own will or by any signal, the pipe closes, and the guard ends all that lives in the
//! folder. A byte on the pipe tells it to leave everything as it is.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fulmar_tests::system;

use crate::steps::{Done, Failure};

/// Starts the guard of `folder`.
pub(crate) fn start(folder: &Path) -> Done<Child> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut guard = Command::new(program);
    // A process group of its own: an interrupt from the keyboard must not reach it.
    guard.arg("guard").arg(folder).stdin(Stdio::piped()).process_group(0);
    guard.spawn().map_err(|error| Failure(format!("cannot start the guard: {error}")))
}

/// The guard itself.
pub(crate) fn run(folder: &Path) -> Done {
    let mut byte = [0];
    if matches!(std::io::stdin().read(&mut byte), Ok(1)) {
        return Ok(());
    }
    Ok(system::clean(folder)?)
}
