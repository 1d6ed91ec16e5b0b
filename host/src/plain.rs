//! Files that somebody else has named, opened without waiting and read within a bound: a fifo may have no writer for ever, and a
//! device no end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc::O_NONBLOCK;

/// Opens a plain file.
///
/// # Errors
/// The operating system's, and `InvalidInput` for what is none.
pub fn open(path: &Path) -> io::Result<File> {
    expect(OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?)
}

/// Reads a plain file of at most so many bytes.
///
/// # Errors
/// As [`open`], and `FileTooLarge`.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_open(open(path)?, most)
}

/// What was opened without waiting, where it is a plain file.
pub(crate) fn expect(file: File) -> io::Result<File> {
    let is_plain = file.metadata()?.is_file();
    let error = || io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file, give one");
    is_plain.then_some(file).ok_or_else(error)
}

/// Reads such a file of at most so many bytes.
pub(crate) fn read_open(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let text = format!("it has more than {most} bytes, which nothing of its kind has");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plain_and_bounded_is_read() {
        let folder = std::env::temp_dir().join(format!("fulmar-plain-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (file, fifo) = (folder.join("file"), folder.join("fifo"));
        std::fs::write(&file, b"12345").unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for path in [&fifo, &folder, Path::new("/dev/zero")] {
            assert_eq!(read(path, 5).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
        assert_eq!(open(&folder.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
