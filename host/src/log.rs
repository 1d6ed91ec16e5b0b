//! Lines for people, on standard error: `vmmd: ...`. A line is made in memory of its own and written at once, so that lines of
//! several threads do not mix; it is cut rather than split. Time stamps are the service manager's business.

use std::fmt::{Arguments, Write as _};
use std::io::Write as _;

/// Bytes of a line, its end included.
const LINE_BYTES_MAX: usize = 1024;

/// A text that takes what fits and drops the rest.
struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    len: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            if self.len + 1 < LINE_BYTES_MAX {
                // A name or a text from outside must not look like a line of its own.
                self.bytes[self.len] = if byte.is_ascii_control() { b'?' } else { byte };
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// Writes one line. What cannot be written is lost: a log must not stop what it is about.
pub fn line(program: &str, text: Arguments<'_>) {
    let mut line = Line { bytes: [0; LINE_BYTES_MAX], len: 0 };
    let _ = write!(line, "{program}: {text}");
    line.bytes[line.len] = b'\n';
    let _ = std::io::stderr().write_all(&line.bytes[..=line.len]);
}
