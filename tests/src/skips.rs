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

/// Whether the kernel tells more than its parent how a process has ended: Linux 6.15 does.
#[must_use]
pub fn tells_ends() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (6, 15)
}
