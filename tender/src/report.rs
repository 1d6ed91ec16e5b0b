//! What the tender says, on stderr, one line each with the program's name before it. Also used while the guest runs: a line
//! is put together in a buffer on the stack and leaves in one write.

use std::fmt::{self, Write};
use std::sync::OnceLock;

use crate::sys;

/// Bytes of a line, at most; what is longer is cut.
const LINE_BYTES_MAX: usize = 1024;

static PROGRAM: OnceLock<String> = OnceLock::new();

/// Sets the name before each line, once.
pub(crate) fn set_program(name: &str) {
    PROGRAM.get_or_init(|| name.to_owned());
}

/// Says one line.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; LINE_BYTES_MAX], len: 0 };
    let program = PROGRAM.get().map_or("fulmar-tender", String::as_str);
    // A line that is cut is still said.
    let _ = write!(line, "{program}: {text}");
    let end = line.len.min(LINE_BYTES_MAX - 1);
    line.bytes[end] = b'\n';
    // There is nobody left to tell that stderr is gone.
    let _ = sys::write(2, &line.bytes[..=end]);
}

struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        if len == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
