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
        for character in text.chars() {
            // A name or a text from outside must not look like a line of its own, nor steer a terminal: the controls above
            // 0x7f do that as well.
            let shown = if character.is_control() { '?' } else { character };
            let mut bytes = [0; 4];
            for byte in shown.encode_utf8(&mut bytes).bytes() {
                if self.len + 1 < LINE_BYTES_MAX {
                    self.bytes[self.len] = byte;
                    self.len += 1;
                }
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
    // A fuzzer's own lines would drown in what it makes us say.
    if cfg!(fuzzing) {
        return;
    }
    let _ = std::io::stderr().write_all(&line.bytes[..=line.len]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_line_ends_it_or_steers_a_terminal() {
        let mut text = Line { bytes: [0; LINE_BYTES_MAX], len: 0 };
        write!(text, "a\nb\u{1b}[2J\u{9b}1mü{}", "x".repeat(2 * LINE_BYTES_MAX)).unwrap();
        assert!(text.bytes.starts_with("a?b?[2J?1müx".as_bytes()));
        assert_eq!(text.len, LINE_BYTES_MAX - 1);
    }
}
