//! Files that are named on the command line, opened without waiting: a fifo may have no writer for ever.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc::O_NONBLOCK;

/// Where what the shell has opened for us is found: these are pipes, but somebody writes to them.
const OWN: [&str; 4] = ["/dev/stdin", "/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"];

/// Opens a file, or whatever else can be read; no fifo but one that was opened for us.
///
/// # Errors
/// The operating system's, and `InvalidInput` for a fifo.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if OWN.iter().any(|own| path.starts_with(own)) {
        return File::open(path);
    }
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a fifo: give a file, or /dev/stdin"));
    }
    Ok(file)
}
