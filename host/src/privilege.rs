//! Giving up privileges: becoming another user for good, and never gaining any again. There is no way back here.

use std::fmt;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Who a process runs as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its user.
    pub uid: Uid,
    /// Its only group.
    pub gid: Gid,
}

/// A text that does not say who.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdentityError {
    /// No user of this name.
    NoSuchUser(String),
    /// Neither a name nor `UID` nor `UID:GID`.
    Malformed(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUser(name) => write!(f, "there is no user {name}: make it, or give its numbers as UID:GID"),
            Self::Malformed(text) => write!(f, "'{text}' is neither a user's name nor UID nor UID:GID"),
        }
    }
}

impl std::error::Error for IdentityError {}

impl Identity {
    /// Who this process is.
    #[must_use]
    pub fn current() -> Self {
        Self { uid: Uid::effective(), gid: Gid::effective() }
    }

    /// Reads `NAME`, `UID` (the group has the same number) or `UID:GID`.
    ///
    /// # Errors
    /// [`IdentityError`], as the name says.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            return Self::of_user(text).ok_or_else(|| IdentityError::NoSuchUser(text.to_owned()));
        }
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            // The largest number means "unchanged" to the kernel.
            (Ok(uid), Ok(gid)) if uid != u32::MAX && gid != u32::MAX => {
                Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) })
            }
            _ => Err(IdentityError::Malformed(text.to_owned())),
        }
    }

    /// The user of this name and its primary group, of those in `/etc/passwd`. A service's user is a local one, and the
    /// C library's lookup would load modules of who knows whom into a process that is root.
    #[must_use]
    pub fn of_user(name: &str) -> Option<Self> {
        in_passwd(&std::fs::read_to_string("/etc/passwd").ok()?, name)
    }

    /// Becomes this user for good, without any other group. Done already where this process is that user, and not root.
    ///
    /// # Errors
    /// The kernel's; the process must then end, since it may be halfway.
    pub fn assume(self) -> Result<(), Errno> {
        if self == Self::current() && !self.uid.is_root() {
            return Ok(());
        }
        join(self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        if !self.uid.is_root() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
            // The way back is open, so nothing was given up: a bug, or a kernel that lies.
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}

/// Gives up all groups but this one. What is made from now on has it.
///
/// # Errors
/// The kernel's.
pub fn join(gid: Gid) -> Result<(), Errno> {
    setgroups(&[])?;
    setresgid(gid, gid, gid)
}

/// The user of this name in a text of passwd(5): `name:password:uid:gid:...`.
fn in_passwd(passwd: &str, name: &str) -> Option<Identity> {
    let entry = passwd.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut fields = entry.split(':').skip(1).map(str::parse);
    match (fields.next()?, fields.next()?) {
        (Ok(uid), Ok(gid)) => Some(Identity { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) }),
        _ => None,
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Whether this process can become any of `count` users from `uid` on with groups from `gid` on. Only root can, and in a
/// user namespace only those that are mapped.
#[must_use]
pub fn can_become(uid: u32, gid: u32, count: u32) -> bool {
    // Where there are no user namespaces there are no such files.
    let text = |path| std::fs::read_to_string(path).unwrap_or_else(|_| "0 0 4294967295".to_owned());
    Uid::effective().is_root()
        && is_mapped(&text("/proc/self/uid_map"), uid, count)
        && is_mapped(&text("/proc/self/gid_map"), gid, count)
        && text("/proc/self/setgroups").trim() != "deny"
}

/// Whether one line (first inside, first outside, count) of a map has all of these.
fn is_mapped(map: &str, first: u32, count: u32) -> bool {
    let (first, end) = (u64::from(first), u64::from(first) + u64::from(count));
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u64>().unwrap_or_default());
        let (inside, _, mapped) = (numbers.next(), numbers.next(), numbers.next());
        inside.zip(mapped).is_some_and(|(inside, mapped)| inside <= first && end <= inside + mapped)
    })
}

/// Never gain privileges by executing a program, nor any child. (Linux only; elsewhere the sandbox does it.)
///
/// # Errors
/// The kernel's.
pub fn forbid_new_privileges() -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// From now on this process has what it has open and what is below the folders among that: no path, no other process, nobody new to
/// connect to. (FreeBSD only; elsewhere the service manager confines.)
///
/// # Errors
/// The kernel's: one without capability mode is no place for who counts on it.
pub fn confine() -> Result<(), Errno> {
    #[cfg(target_os = "freebsd")]
    crate::sys::enter_capability_mode()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nfulmar-old:x:7:7::/:/bin/false\nfulmar:x:8:9::/:/bin/false\nodd:x:a:1::\n";
        let found = |name| in_passwd(passwd, name).map(|identity| (identity.uid.as_raw(), identity.gid.as_raw()));
        assert_eq!(found("fulmar"), Some((8, 9)));
        assert_eq!(found("fulm"), None);
        assert_eq!(found("odd"), None);
        assert_eq!(found("nobody"), None);
    }

    #[test]
    fn a_user_is_a_name_or_numbers() {
        let root = Identity { uid: Uid::from_raw(0), gid: Gid::from_raw(0) };
        assert_eq!(Identity::parse("root"), Ok(root));
        assert_eq!(Identity::parse("0"), Ok(root));
        assert_eq!(Identity::parse("12:34").unwrap().to_string(), "12:34");
        for text in ["12:", "1:2:3", "4294967295", "12:4294967295", "99999999999", "1x"] {
            assert_eq!(Identity::parse(text), Err(IdentityError::Malformed(text.to_owned())));
        }
        for text in ["", "no such user", ":"] {
            assert_eq!(Identity::parse(text), Err(IdentityError::NoSuchUser(text.to_owned())));
        }
    }

    #[test]
    fn only_mapped_users_can_be_had() {
        let whole = "         0          0 4294967295\n";
        assert!(is_mapped(whole, 0, 1));
        assert!(is_mapped(whole, 516_096, 8192));
        let container = "0 1000 1\n1 100000 65536\n";
        assert!(is_mapped(container, 0, 1));
        assert!(is_mapped(container, 65_536, 1));
        assert!(!is_mapped(container, 65_536, 2));
        assert!(!is_mapped(container, 516_096, 1));
        assert!(!is_mapped("", 0, 1));
    }
}
