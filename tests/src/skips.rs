//! What a machine cannot do is skipped aloud, and counted.

use std::fs::File;
use std::io::Write;

/// Says that `test` is skipped, and why: on standard error past the test runner's capture, and in the file that
/// `cargo xtask test` counts (`FULMAR_SKIPS`).
pub fn skip(test: &str, why: &str) {
    let line = format!("{test}: {why}\n");
    let _ = std::io::stderr().lock().write_all(format!("SKIPPED: {line}").as_bytes());
    if let Some(path) = std::env::var_os("FULMAR_SKIPS")
        && let Ok(mut file) = File::options().create(true).append(true).open(path)
    {
        let _ = file.write_all(line.as_bytes());
    }
}
