//! How far something is that takes long, on one line of a terminal. Where standard error is none, nothing is shown.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use crate::output::text::size;

/// What takes less is not worth a line.
const QUIET: Duration = Duration::from_millis(500);

/// Time between two lines: more often nobody can read them.
const APART: Duration = Duration::from_millis(200);

/// Bytes on their way.
#[derive(Debug)]
pub(crate) struct Progress {
    verb: &'static str,
    bytes: u64,
    total: Option<u64>,
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// None yet, of so many where that is known.
    pub(crate) fn new(verb: &'static str, total: Option<u64>) -> Self {
        let next = stderr().is_terminal().then(|| Instant::now() + QUIET);
        Self { verb, bytes: 0, total, next, shown: false }
    }

    /// So many more.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let Some(next) = self.next.filter(|next| Instant::now() >= *next) else { return };
        self.next = Some(next.max(Instant::now()) + APART);
        self.shown = true;
        // Whoever closed the terminal does not look at it.
        let _ = write!(stderr(), "\r\x1b[K{}", self.line());
    }

    fn line(&self) -> String {
        let Self { verb, bytes, total, .. } = self;
        match total.filter(|total| *total > 0) {
            None => format!("{verb} {}", size(*bytes)),
            Some(total) => {
                let percent = u128::from(*bytes) * 100 / u128::from(total);
                format!("{verb} {} of {} ({percent} %)", size(*bytes), size(total))
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = |bytes, total| Progress { verb: "sent", bytes, total, next: None, shown: false }.line();
        assert_eq!(line(2 << 20, Some(8 << 20)), "sent 2.0 MB of 8.0 MB (25 %)");
        assert_eq!(line(2 << 20, None), "sent 2.0 MB");
        assert_eq!(line(0, Some(0)), "sent 0 bytes");
    }
}
