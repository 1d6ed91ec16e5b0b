//! The fifo that a unikernel writes to. It is opened without waiting and without following links, and only a fifo is read:
//! a name that came over a socket must never make this program read or hang on anything else.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use fulmar_core::name::Name;
use fulmar_host::folder::Folder;
use nix::fcntl::OFlag;

/// Why the fifo of a unikernel cannot be read.
#[derive(Debug)]
pub(crate) enum FifoError {
    /// The name is no file name in its folder.
    Name(String),
    /// It cannot be opened.
    Open(PathBuf, io::Error),
    /// It is something else.
    NotFifo(PathBuf),
}

impl fmt::Display for FifoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name} cannot be the name of a fifo"),
            Self::Open(path, error) => {
                write!(
                    f,
                    "cannot open the fifo {}: {error}; it must be there before its console is added",
                    path.display()
                )
            }
            Self::NotFifo(path) => write!(f, "{} is not a fifo: remove it", path.display()),
        }
    }
}

impl std::error::Error for FifoError {}

/// The reading end of a fifo.
#[derive(Debug)]
pub(crate) struct Fifo {
    file: File,
    /// Device and inode: two fifos of one name in succession are two fifos.
    identity: (u64, u64),
}

impl Fifo {
    /// Opens the fifo of this unikernel.
    pub(crate) fn open(folder: &Folder, name: &Name) -> Result<Self, FifoError> {
        let file = file_name(name).ok_or(FifoError::Name(name.to_string()))?;
        let path = folder.path_of(file);
        let opened = folder.open_file(file, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0);
        let is_link = || folder.is_link(file);
        let (file, metadata) = match opened.and_then(|file| file.metadata().map(|metadata| (file, metadata))) {
            Ok(opened) => opened,
            // A link: the system says ELOOP or EMLINK, which would puzzle a reader.
            Err(_) if is_link() => return Err(FifoError::NotFifo(path)),
            Err(error) => return Err(FifoError::Open(path, error)),
        };
        if !metadata.file_type().is_fifo() {
            return Err(FifoError::NotFifo(path));
        }
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Whether both are the same fifo.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// For the event loop.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Reads what is there; nothing is `WouldBlock`, and 0 bytes mean that nobody writes any more.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match io::Read::read(&mut &self.file, buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

/// The text form, which has a colon: so it is never `.` or `..`, and a label has no `/`. Both are checked once more here,
/// where it matters.
fn file_name(name: &Name) -> Option<&str> {
    let text = name.as_str();
    (!name.is_path() && text.contains(':') && !text.contains(['/', '\0'])).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stays_in_its_folder() {
        for (name, file) in [
            ("hello", Some(":hello")),
            ("..", Some(":..")),
            (".", Some(":.")),
            ("..:..", Some("..:..")),
            ("a:b", Some("a:b")),
            ("..:", None),
            (":", None),
        ] {
            assert_eq!(file_name(&Name::parse(name).unwrap()), file);
        }
        assert!(Name::parse("../a").is_err() && Name::parse("/").is_err() && Name::parse("a\0").is_err());
    }

    #[test]
    fn only_a_fifo_is_opened() {
        let folder = std::env::temp_dir().join(format!("fulmar-fifo-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let opened = Folder::open(&folder).unwrap();
        let name = |text| Name::parse(text).unwrap();
        nix::unistd::mkfifo(&folder.join(":good"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(folder.join(":good"), folder.join(":link")).unwrap();
        std::fs::write(folder.join(":file"), "text").unwrap();
        std::fs::create_dir(folder.join(":folder")).unwrap();
        let good = Fifo::open(&opened, &name("good")).unwrap();
        assert!(good.is_same(&Fifo::open(&opened, &name("good")).unwrap()));
        for other in ["link", "file", "folder"] {
            assert!(matches!(Fifo::open(&opened, &name(other)), Err(FifoError::NotFifo(_))), "{other}");
        }
        assert!(matches!(Fifo::open(&opened, &name("none")), Err(FifoError::Open(..))));
        std::fs::remove_file(folder.join(":good")).unwrap();
        nix::unistd::mkfifo(&folder.join(":good"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!good.is_same(&Fifo::open(&opened, &name("good")).unwrap()));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
