//! A folder that stays open, and files in it by their names alone: so a daemon reaches them when it has no paths any more, and
//! whoever renames a folder above it changes nothing. So it is with the sockets in it where the system can connect to one in an open
//! folder, which FreeBSD can; elsewhere they are reached by the path that the folder had.

#[cfg(not(target_os = "freebsd"))]
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(not(target_os = "freebsd"))]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::socket;

/// Bytes of the path of a socket, of which the system takes some 108.
#[cfg(not(target_os = "freebsd"))]
const SOCKET_PATH_BYTES_MAX: usize = 128;

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    file: File,
}

impl Folder {
    /// Opens it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// Its path, to be shown.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, to be shown.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file in it, never a link. A new one has this mode.
    ///
    /// # Errors
    /// The operating system's, and `InvalidInput` for a name that leads elsewhere.
    pub fn open_file(&self, name: &str, flags: OFlag, mode: u32) -> io::Result<File> {
        let name = plain(name)?;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // The types of modes differ in size, and nine bits have room in each.
        let mode = Mode::from_bits_truncate(mode as _);
        Ok(openat(&self.file, name, flags, mode)?.into())
    }

    /// Reads a file in it, where its name is a link that one.
    ///
    /// # Errors
    /// The operating system's, and `InvalidInput` for a name that leads elsewhere.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = File::from(openat(&self.file, plain(name)?, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Gives a file in it another name; what had that name is no more.
    ///
    /// # Errors
    /// The operating system's, and `InvalidInput` for a name that leads elsewhere.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.file, plain(from)?, &self.file, plain(to)?)?)
    }

    /// Makes durable which names are in it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// What the system says of it.
    ///
    /// # Errors
    /// The operating system's, and `NotFound` where it was removed.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let found = self.file.metadata()?;
        if found.nlink() == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }

    /// Whether a link has this name.
    #[must_use]
    pub fn is_link(&self, name: &str) -> bool {
        self.is(name, SFlag::S_IFLNK)
    }

    /// Whether a fifo has this name.
    #[must_use]
    pub fn is_fifo(&self, name: &str) -> bool {
        self.is(name, SFlag::S_IFIFO)
    }

    fn is(&self, name: &str, kind: SFlag) -> bool {
        let found = fstatat(&self.file, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind)
    }

    /// The names of all that is in it. What is not UTF-8 is not ours.
    ///
    /// # Errors
    /// The operating system's.
    pub fn names(&self) -> io::Result<Vec<String>> {
        names_in(self)
    }

    /// Connects to a socket in it, without waiting; a peer whose queue is full is `WouldBlock`.
    ///
    /// # Errors
    /// As [`socket::connect`], and `InvalidInput` for a name that leads elsewhere.
    pub fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let name = plain(name)?;
        #[cfg(target_os = "freebsd")]
        return socket::connect_with(Path::new(name), |socket, address| {
            crate::sys::connect_at(self.as_fd(), socket, address)
        });
        #[cfg(not(target_os = "freebsd"))]
        {
            // A link that is down is tried again all the time: that takes no memory.
            let mut path = heapless::Vec::<u8, SOCKET_PATH_BYTES_MAX>::new();
            let parts = [self.path.as_os_str().as_bytes(), b"/", name.as_bytes()];
            parts
                .iter()
                .try_for_each(|part| path.extend_from_slice(part))
                .map_err(|_| io::ErrorKind::InvalidFilename)?;
            socket::connect(Path::new(OsStr::from_bytes(&path)))
        }
    }

    /// Removes a file in it.
    ///
    /// # Errors
    /// The operating system's, and `InvalidInput` for a name that leads elsewhere.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.file, plain(name)?, UnlinkatFlags::NoRemoveDir)?)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The names of all that is in an open folder but itself and the one above.
pub(crate) fn names_in(folder: impl AsFd) -> io::Result<Vec<String>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut names = Vec::new();
    // Opened anew, since who reads it moves on in it.
    for entry in Dir::openat(folder, ".", flags, Mode::empty())? {
        let entry = entry?;
        names.extend(entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | "..")).map(str::to_owned));
    }
    Ok(names)
}

fn plain(name: &str) -> io::Result<&str> {
    let leads_elsewhere = name.is_empty() || name == "." || name == ".." || name.contains('/');
    if leads_elsewhere { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_reached_by_their_names_wherever_the_folder_has_gone() {
        let path = std::env::temp_dir().join(format!("fulmar-folder-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let folder = Folder::open(&path).unwrap();
        let moved = path.with_extension("moved");
        std::fs::rename(&path, &moved).unwrap();
        let made = folder.open_file("a", OFlag::O_WRONLY | OFlag::O_CREAT, 0o600).unwrap();
        io::Write::write_all(&mut &made, b"text").unwrap();
        assert_eq!(std::fs::read(moved.join("a")).unwrap(), b"text");
        std::os::unix::fs::symlink("a", moved.join("link")).unwrap();
        assert!(folder.is_link("link") && !folder.is_link("a") && !folder.is_link("none"));
        assert!(folder.open_file("link", OFlag::O_RDONLY, 0).is_err());
        let mut text = String::new();
        folder.open_file("a", OFlag::O_RDONLY, 0).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert_eq!((folder.read("a").unwrap(), folder.read("link").unwrap()), (b"text".to_vec(), b"text".to_vec()));
        folder.rename("a", "b").unwrap();
        assert_eq!(folder.read("link").unwrap_err().kind(), io::ErrorKind::NotFound);
        folder.rename("b", "a").unwrap();
        folder.sync().unwrap();
        for name in ["", ".", "..", "../a", "/etc/passwd"] {
            let kind = io::ErrorKind::InvalidInput;
            assert_eq!(folder.open_file(name, OFlag::O_RDONLY, 0).unwrap_err().kind(), kind, "{name}");
            assert_eq!(folder.remove(name).unwrap_err().kind(), kind, "{name}");
            assert_eq!(folder.read(name).unwrap_err().kind(), kind, "{name}");
            assert_eq!(folder.rename("a", name).unwrap_err().kind(), kind, "{name}");
            assert_eq!(folder.rename(name, "a").unwrap_err().kind(), kind, "{name}");
        }
        let mut names = folder.names().unwrap();
        names.sort();
        assert_eq!((names, folder.names().unwrap().len()), (vec!["a".to_owned(), "link".to_owned()], 2), "each time");
        folder.remove("a").unwrap();
        assert_eq!(folder.remove("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(Folder::open(&moved.join("link")).is_err());
        assert_eq!(folder.metadata().unwrap().mtime(), moved.metadata().unwrap().mtime());
        std::fs::remove_dir_all(moved).unwrap();
        assert_eq!(folder.metadata().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
