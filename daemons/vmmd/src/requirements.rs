//! What must hold before `vmmd` starts: asked by a start, which ends at the first that does not, and by `--check`, which says them all.
//! Nothing is made or changed here.

use std::fmt;
use std::fs::{self, Metadata};
#[cfg(target_os = "linux")]
use std::io;
use std::os::unix::fs::MetadataExt;
#[cfg(target_os = "linux")]
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fulmar_core::limits::ACCOUNTS_MAX;
use fulmar_host::check::{NoSocket, check_socket};
use fulmar_host::privilege::Identity;

use crate::options::Options;

/// What does not hold.
#[derive(Debug)]
pub(crate) enum Unmet {
    /// The control half would be root.
    Root,
    /// It would be one of the users of unikernels, of which this is the first.
    UserOfUnikernels(Identity, u32),
    /// Others can change what is in the run folder; its owner and mode.
    OpenRun(PathBuf, u32, u32),
    /// Others can change what is in the state folder; its mode.
    OpenState(PathBuf, u32),
    /// Something of the state folder is not of the control half, but of this user.
    Owner(PathBuf, u32, Identity),
    /// One folder is given for both purposes.
    OneFolder(PathBuf),
    /// Something else is where a folder should be.
    NoFolder(PathBuf),
    /// No socket can be made there.
    Socket(NoSocket),
    /// There is no tender.
    #[cfg(target_os = "linux")]
    NoTender(PathBuf, io::Error),
    /// What should be one cannot be executed.
    #[cfg(target_os = "linux")]
    NoProgram(PathBuf),
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the control half is not to be root: give another --user"),
            Self::UserOfUnikernels(user, first) => write!(
                f,
                "--user {user} is one of the {ACCOUNTS_MAX} user ids from {first} on, which unikernels get: choose another \
                 --tender-uid-base"
            ),
            Self::OpenRun(path, uid, mode) => write!(
                f,
                "the run folder {} belongs to user {uid} and has mode {mode:03o}: who else can change it could take over \
                 vmmd. Let it belong to {} and take the write permission of others away",
                path.display(),
                Identity::current().uid
            ),
            Self::OpenState(path, mode) => write!(
                f,
                "the state folder {} has mode {mode:03o}: who else can change it could take whatever tenants have. Take the \
                 write permission of others away (chmod go-w)",
                path.display()
            ),
            Self::Owner(path, uid, user) => write!(
                f,
                "{} belongs to user {uid}, and the control half is user {user}: give it the state folder with all that is \
                 in it (chown -R {user}), or give --user {uid}",
                path.display()
            ),
            Self::OneFolder(path) => {
                write!(
                    f,
                    "{} cannot be both run folder and state folder: give another --run or --state",
                    path.display()
                )
            }
            Self::NoFolder(path) => write!(f, "{} is no folder: see --run and --state", path.display()),
            Self::Socket(error) => write!(f, "{error}; see --run"),
            #[cfg(target_os = "linux")]
            Self::NoTender(path, error) => write!(f, "no tender program {}: {error}; see --tender", path.display()),
            #[cfg(target_os = "linux")]
            Self::NoProgram(path) => write!(f, "{} is no program: see --tender", path.display()),
        }
    }
}

/// All that does not hold, where the control half is to be `user`.
pub(crate) fn unmet(options: &Options, user: Identity) -> Vec<Unmet> {
    let Options { run, state, .. } = options;
    let mut unmet = Vec::new();
    if options.user().uid.is_root() {
        unmet.push(Unmet::Root);
    }
    let first = options.tender_uid_base;
    if (first..first.saturating_add(ACCOUNTS_MAX.into())).contains(&user.uid.as_raw()) {
        unmet.push(Unmet::UserOfUnikernels(user, first));
    }
    let [run_found, state_found] = [run, state].map(|folder| find_folder(folder, &mut unmet));
    if let Some(found) = &run_found {
        unmet.extend(check_run(run, found));
    }
    if let Some(found) = &state_found {
        check_state(state, found, user, &mut unmet);
    }
    let place = |found: &Metadata| (found.dev(), found.ino());
    let is_one = run_found.as_ref().map(place).zip(state_found.as_ref().map(place)).is_some_and(|(a, b)| a == b);
    if is_one || run == state {
        unmet.push(Unmet::OneFolder(state.clone()));
    }
    unmet.extend(check_socket(&run.join("util/vmmd.sock")).err().map(Unmet::Socket));
    #[cfg(target_os = "linux")]
    if !options.is_fake() {
        unmet.extend(check_tender(options).err());
    }
    unmet
}

/// A folder, if it is there; it is no complaint that it is not.
fn find_folder(folder: &Path, unmet: &mut Vec<Unmet>) -> Option<Metadata> {
    let found = fs::metadata(folder).ok();
    let above = folder.ancestors().skip(1).find(|above| above.exists());
    if let Some(wrong) = match &found {
        Some(found) => (!found.is_dir()).then_some(folder),
        None if folder.symlink_metadata().is_ok() => Some(folder),
        None => above.filter(|above| !above.is_dir()),
    } {
        unmet.push(Unmet::NoFolder(wrong.to_owned()));
    }
    found.filter(Metadata::is_dir)
}

/// What is directly in the run folder is trusted (the lock, the records of units), so nobody else may write there.
pub(crate) fn check_run(run: &Path, found: &Metadata) -> Option<Unmet> {
    let is_open = found.uid() != Identity::current().uid.as_raw() || is_open_to(found, &[Identity::current()]);
    is_open.then(|| Unmet::OpenRun(run.to_owned(), found.uid(), found.mode() & 0o7777))
}

/// Whether others than these can change what is in a folder.
fn is_open_to(found: &Metadata, trusted: &[Identity]) -> bool {
    let is_group = |it: &Identity| it.gid.as_raw() == found.gid();
    found.mode() & 0o002 != 0 || (found.mode() & 0o020 != 0 && !trusted.iter().any(is_group))
}

/// What the control half keeps is its own. Folders that are root's are given to it by a start, files are not.
fn check_state(state: &Path, found: &Metadata, user: Identity, unmet: &mut Vec<Unmet>) {
    if is_open_to(found, &[user, Identity::current()]) {
        unmet.push(Unmet::OpenState(state.to_owned(), found.mode() & 0o7777));
    }
    let me = Identity::current().uid;
    for (name, is_given) in [("", true), ("block", true), ("images", false), ("lock", false), ("journal", false)] {
        let path = if name.is_empty() { state.to_owned() } else { state.join(name) };
        let Ok(found) = fs::metadata(&path) else { continue };
        let uid = found.uid();
        if uid != user.uid.as_raw() && !(is_given && uid == me.as_raw()) {
            return unmet.push(Unmet::Owner(path, uid, user));
        }
    }
}

#[cfg(target_os = "linux")]
fn check_tender(options: &Options) -> Result<(), Unmet> {
    let tender = options.tender().map_err(|error| Unmet::NoTender("fulmar-tender".into(), error))?;
    match fs::metadata(&tender) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(()),
        Ok(_) => Err(Unmet::NoProgram(tender)),
        Err(error) => Err(Unmet::NoTender(tender, error)),
    }
}
