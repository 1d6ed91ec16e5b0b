//! By what names are looked up: files of the system that the C library reads again and again. What this process reaches is fixed once
//! it has begun; a file that is replaced later is another one, and whoever starts it anew has it read.

use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::path::PathBuf;

/// What the C library reads (resolver(3), nsswitch.conf(5), gai.conf(5)).
const FILES: [&str; 5] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

/// Where its modules for the ways of nsswitch.conf(5) are. What lists them is replaced with each change of libraries, and not needed.
#[cfg(target_os = "linux")]
const LIBRARIES: [&str; 5] = ["/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// The folder whose files are reached one by one: in it are those of everybody.
#[cfg(target_os = "linux")]
const ETC: &str = "/etc";

/// What servers of names are asked on by TCP where an answer is long.
#[cfg(target_os = "linux")]
pub(crate) const PORT: u16 = 53;

/// Those files that could be read at the start.
#[derive(Clone, Debug)]
pub(crate) struct Names(Vec<&'static str>);

impl Names {
    /// For these hosts: none where all are addresses.
    pub(crate) fn of(hosts: &[&str]) -> Self {
        let is_address = |host: &&str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if hosts.iter().all(is_address) {
            return Self(Vec::new());
        }
        Self(FILES.into_iter().filter(|file| File::open(file).is_ok()).collect())
    }

    /// Whether any are looked up.
    pub(crate) fn are_used(&self) -> bool {
        !self.0.is_empty()
    }

    /// What has to be reached: where a file is elsewhere than in `/etc`, the folder in which it is replaced.
    #[cfg(target_os = "linux")]
    pub(crate) fn reach(&self) -> Vec<PathBuf> {
        let place = |file: &&str| {
            let file = Path::new(file).canonicalize().unwrap_or_else(|_| file.into());
            match file.parent() {
                Some(folder) if folder != Path::new(ETC) => folder.to_owned(),
                _ => file,
            }
        };
        let libraries = LIBRARIES.iter().filter(|_| self.are_used()).map(PathBuf::from);
        self.0.iter().map(place).chain(libraries).collect()
    }

    /// One that could be read at the start and cannot any more: it was replaced.
    pub(crate) fn lost(&self) -> Option<&'static Path> {
        let is_lost = |file: &&str| File::open(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        self.0.iter().copied().find(is_lost).map(Path::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_files() {
        assert!(!Names::of(&["127.0.0.1", "[::1]", "::1"]).are_used());
        let names = Names::of(&["127.0.0.1", "database.example"]);
        assert!(names.are_used() && names.lost().is_none());
        #[cfg(target_os = "linux")]
        assert!(names.reach().iter().all(|path| path != Path::new(ETC)), "{names:?}");
    }
}
