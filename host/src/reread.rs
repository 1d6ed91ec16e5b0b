//! A file that is read at the start and again later. In capability mode there are no paths any more: there the folder in which it lies
//! is opened before, and the file is reached by its name in it.

use std::fs::File;
#[cfg(not(target_os = "freebsd"))]
use std::fs::OpenOptions;
use std::io;
#[cfg(not(target_os = "freebsd"))]
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::plain;

/// Links that are followed one after the other, as many as the system follows.
#[cfg(target_os = "linux")]
const LINKS_MAX: usize = 40;

/// Bytes of such a file: certificates of a chain, a key.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where such a file is.
#[derive(Debug)]
pub struct Reread {
    path: PathBuf,
    /// The folder in which it lies.
    #[cfg(target_os = "freebsd")]
    folder: std::os::fd::OwnedFd,
}

impl Reread {
    /// Of the file that has this path now and later, whether it is there yet or not.
    ///
    /// # Errors
    /// `InvalidInput` where the path names no file, and on FreeBSD what the system says of its folder.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.file_name().is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            path: path.to_owned(),
            #[cfg(target_os = "freebsd")]
            folder: open_folder(path)?,
        })
    }

    /// Its path, to be shown.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folders that must stay within reach for it to be read again, when it has been replaced: the one in which its name lies, and,
    /// where that is a link, the one in which that leads. Where such a folder is a link itself, the one in which that lies too, but
    /// not the root: who replaces a whole folder does so beside it.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let (mut folders, mut path) = (Vec::new(), self.path.clone());
        for _ in 0..LINKS_MAX {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
            if folder.is_symlink() {
                folders.extend(folder.parent().filter(|above| above.file_name().is_some()).map(Path::to_owned));
            }
            let next = path.read_link().map(|target| folder.join(target));
            folders.push(folder);
            let Ok(next) = next else { break };
            path = next;
        }
        folders
    }

    /// Reads all of it, which is at most 1 MiB.
    ///
    /// # Errors
    /// The operating system's; of a link that leads out of the folder one that [`leads_out`] knows, in capability mode.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        plain::read_open(plain::expect(self.open(false)?)?, FILE_BYTES_MAX)
    }

    /// Whether it can be read now, and not any more in capability mode.
    #[must_use]
    pub fn will_be_lost(&self) -> bool {
        cfg!(target_os = "freebsd") && self.open(true).is_err_and(|error| leads_out(&error))
    }

    /// Opens it; `beneath`, as capability mode would have it.
    #[cfg(target_os = "freebsd")]
    fn open(&self, beneath: bool) -> io::Result<File> {
        use nix::fcntl::{OFlag, openat};
        let beneath = OFlag::from_bits_retain(if beneath { nix::libc::O_RESOLVE_BENEATH } else { 0 });
        let name = self.path.file_name().unwrap_or_default();
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | beneath;
        Ok(openat(&self.folder, name, flags, nix::sys::stat::Mode::empty())?.into())
    }

    #[cfg(not(target_os = "freebsd"))]
    fn open(&self, _beneath: bool) -> io::Result<File> {
        // A fifo would have us wait for its writer.
        OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&self.path)
    }
}

/// The folder in which a file lies. Whoever may read a file in it need not be allowed to list it.
#[cfg(target_os = "freebsd")]
fn open_folder(path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    use nix::fcntl::{OFlag, open};
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlag::O_SEARCH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(folder, flags, nix::sys::stat::Mode::empty())?)
}

/// Whether a file could not be opened because its name is a link out of the folder, which is not followed in capability mode: one to
/// a path from the root on, or above the folder.
#[must_use]
pub fn leads_out(error: &io::Error) -> bool {
    #[cfg(target_os = "freebsd")]
    return error.raw_os_error() == Some(nix::libc::ENOTCAPABLE);
    #[cfg(not(target_os = "freebsd"))]
    {
        let _ = error;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_there_now_is_read_by_links_within_the_folder_too() {
        let path = std::env::temp_dir().join(format!("fulmar-reread-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let file = Reread::new(&path.join("file")).unwrap();
        assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(path.join("new"), "first").unwrap();
        fs::rename(path.join("new"), path.join("file")).unwrap();
        assert_eq!(file.read().unwrap(), b"first");
        fs::create_dir(path.join("below")).unwrap();
        fs::write(path.join("below/other"), "second").unwrap();
        fs::remove_file(path.join("file")).unwrap();
        symlink("below/../below/other", path.join("file")).unwrap();
        assert_eq!(file.read().unwrap(), b"second");
        // Who may not list the folder reads the file all the same.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o300)).unwrap();
        assert_eq!(Reread::new(&path.join("file")).unwrap().read().unwrap(), b"second");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    /// However a file is replaced, where it is then is beneath one of the folders that were named before.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_folders_of_a_file_are_those_in_which_it_is_replaced() {
        let path = std::env::temp_dir().join(format!("fulmar-reread-folders-{}", std::process::id()));
        for folder in ["live", "archive", "first"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        let folders = |name: &str| {
            let mut folders = Reread::new(&path.join(name)).unwrap().folders();
            folders.iter_mut().for_each(|folder| *folder = folder.canonicalize().unwrap());
            folders.iter().map(|folder| folder.strip_prefix(&path).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(folders("live/file"), [Path::new("live")]);
        symlink("../archive/file", path.join("live/link")).unwrap();
        assert_eq!(folders("live/link"), ["live", "archive"].map(PathBuf::from));
        symlink("first", path.join("current")).unwrap();
        assert_eq!(folders("current/file"), ["", "first"].map(PathBuf::from));
        assert_eq!(Reread::new(Path::new("file")).unwrap().folders(), [Path::new(".")]);
        symlink("loop", path.join("loop")).unwrap();
        assert_eq!(Reread::new(&path.join("loop")).unwrap().folders().len(), LINKS_MAX);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_leads_out_is_known_only_where_it_cannot_be_followed() {
        let path = std::env::temp_dir().join(format!("fulmar-reread-out-{}", std::process::id()));
        fs::create_dir_all(path.join("live")).unwrap();
        fs::write(path.join("archived"), "text").unwrap();
        let file = Reread::new(&path.join("live/file")).unwrap();
        assert!(!file.will_be_lost(), "what is not there leads nowhere");
        for target in [Path::new("../archived"), &path.join("archived")] {
            symlink(target, path.join("live/file")).unwrap();
            assert_eq!(file.read().unwrap(), b"text", "there are paths still");
            assert_eq!(file.will_be_lost(), cfg!(target_os = "freebsd"));
            fs::remove_file(path.join("live/file")).unwrap();
        }
        assert_eq!(Reread::new(&path.join("..")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fs::remove_dir_all(path).unwrap();
    }
}
