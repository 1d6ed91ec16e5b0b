//! The first half of confinement, right after everything has been opened and before anything of the image is looked at:
//! another user, no groups, no capabilities, no network, no file system, no way to gain any of that again. What is left to
//! the second half is the filter of system calls, just before the guest runs.

use crate::refusal::Refusal;
use crate::sys::{self, Errno};
use crate::tap;

/// Whom a tender of root becomes where nobody says whom: the kernel's own word for nobody (`overflowuid`).
const NOBODY: u32 = 65534;

/// A folder of every Linux that is always empty and in which nobody can make anything.
const EMPTY: &std::ffi::CStr = c"/proc/tty/ldisc";

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// What the tender can see of the host from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// A network namespace with nothing in it.
    pub(crate) network_is_empty: bool,
    /// An empty folder for a root.
    pub(crate) root_is_empty: bool,
}

/// Gives up what whoever started us has. The network and the root folder are given up where the kernel lets us, by our own
/// right or by that of a new user namespace; the rest must succeed. A network namespace takes the kernel half a millisecond
/// and some 150 KiB, so whoever starts many tenders starts them in an empty one.
pub(crate) fn give_up(wanted: Option<User>, is_debugged: bool) -> Result<View, Refusal> {
    let step = |what| move |errno| Refusal::Step { what, errno, remedy: "run another kernel" };
    sys::forget_environment();
    let is_empty = tap::network_is_empty();
    let mut view =
        View { network_is_empty: is_empty || sys::unshare(libc::CLONE_NEWNET).is_ok(), root_is_empty: false };
    if view.network_is_empty {
        view.root_is_empty = sys::change_root(EMPTY).is_ok();
    }
    change_user(wanted)?;
    if !view.root_is_empty {
        let missing = if view.network_is_empty { 0 } else { libc::CLONE_NEWNET };
        let both = sys::unshare(libc::CLONE_NEWUSER | missing).is_ok();
        if both || sys::unshare(libc::CLONE_NEWUSER).is_ok() {
            view.network_is_empty |= both;
            view.root_is_empty = sys::change_root(EMPTY).is_ok();
        }
    }
    if !is_debugged {
        sys::forbid_looks().map_err(step("Could not forbid looks at the tender"))?;
    }
    sys::drop_capabilities().map_err(step("Could not give up capabilities"))?;
    sys::no_new_privileges().map_err(step("Could not give up the gain of privileges"))?;
    Ok(view)
}

fn change_user(wanted: Option<User>) -> Result<(), Refusal> {
    let own = User { user: sys::user(), group: sys::group() };
    let User { user, group } = match wanted {
        Some(wanted) if own.user == 0 => wanted,
        Some(wanted) if wanted == own => return Ok(()),
        Some(wanted) => return Err(Refusal::User { user: wanted.user, errno: Errno(libc::EPERM) }),
        None if own.user == 0 => User { user: NOBODY, group: NOBODY },
        None => return Ok(()),
    };
    match sys::become_user(user, group) {
        // Root of a container that has no such user: it stays what it is and keeps nothing of it but the number.
        Err(_) if wanted.is_none() && !sys::users_are_the_hosts() => Ok(()),
        result => result.map_err(|errno| Refusal::User { user, errno }),
    }
}
