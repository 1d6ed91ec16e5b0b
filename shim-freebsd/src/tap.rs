//! Taps: `vmmtap0`, `vmmtap1` and so on, each by the number that the kernel gave it. Here they do not vanish with their last
//! holder: they are removed as soon as nobody holds them, which is found out by opening them, since only one can.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};

use fulmar_core::halves::{Attempt, OsError};
use fulmar_host::shim::Tap;
use nix::errno::Errno;

use crate::abi::{
    BRDGADD, DRIVER, GROUP_MEMBERS, IFBR_IFSNAME, IFBREQ_SIZE, IFD_CMD, IFD_NAME, IFDRV_SIZE, IFF_UP, IFGR_LEN,
    IFGR_NAME, IFGROUPREQ_SIZE, IFR_FLAGS, IFR_INDEX, IFR_NAME, IFREQ_SIZE, MEMBER_SIZE, NAME_SIZE, RENAME,
    SIOCGIFFLAGS, SIOCGIFINDEX, SIOCIFCREATE2, SIOCIFDESTROY, SIOCSIFFLAGS,
};
use crate::failed;
use crate::kernel::{Kernel, OpenFor};

/// What every tap's name begins with, as the peer's do: tools and firewalls match it.
const PREFIX: &str = "vmmtap";

/// The kernel's own beginning of the name of a tap, and the group that all of them are in.
const GROUP: &str = "tap";

/// The group that all bridges are in, whatever they are called.
const BRIDGES: &str = "bridge";

/// How often a list is asked for that grows meanwhile.
const TRIES: u32 = 8;

/// What requests about interfaces go through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interfaces<'a, K> {
    /// The kernel.
    pub(crate) kernel: &'a K,
    /// A socket.
    pub(crate) socket: BorrowedFd<'a>,
}

impl<K: Kernel> Interfaces<'_, K> {
    /// The names of all bridges.
    pub(crate) fn bridges(&self) -> Result<Vec<Vec<u8>>, Errno> {
        self.members(BRIDGES)
    }

    /// Makes a tap and puts it, up, into a bridge. Nothing is left when that fails.
    pub(crate) fn create(&self, bridge: &[u8]) -> Result<Tap, OsError> {
        if !self.bridges().map_err(failed(Attempt::ListBridges))?.iter().any(|known| known == bridge) {
            return Err(failed(Attempt::FindBridge)(Errno::ENODEV));
        }
        let (fd, name) = self.open().map_err(failed(Attempt::CreateTap))?;
        let attached = self.set_up(&name).and_then(|()| self.add_to(bridge, &name));
        match attached {
            Ok(()) => Ok(Tap { name, fd }),
            Err(errno) => {
                drop(fd);
                // What failed before is told; should this fail too, the next sweep removes it.
                let _ = self.destroy(&name);
                Err(failed(Attempt::AttachTap)(errno))
            }
        }
    }

    /// Whether taps can be made here: one is, and goes again.
    pub(crate) fn is_possible(&self) -> bool {
        self.open().is_ok_and(|(fd, name)| {
            drop(fd);
            self.destroy(&name).is_ok()
        })
    }

    /// Lets go of a tap: it stays if a tender has it.
    pub(crate) fn release(&self, tap: Tap) -> Result<bool, Errno> {
        drop(tap.fd);
        self.destroy_unheld(&tap.name)
    }

    /// Removes taps of our names that nobody holds. How many.
    pub(crate) fn sweep(&self) -> Result<u32, OsError> {
        let mut count = 0;
        for name in self.members(GROUP).map_err(failed(Attempt::ListTaps))? {
            let Some(name) = String::from_utf8(name).ok().filter(|name| is_ours(name)) else { continue };
            count += u32::from(self.destroy_unheld(&name).map_err(failed(Attempt::RemoveTap))?);
        }
        Ok(count)
    }

    /// Removes a tap that nobody holds; whether there was one.
    pub(crate) fn destroy_unheld(&self, name: &str) -> Result<bool, Errno> {
        match self.kernel.open(&device_of(name)?, OpenFor::Frames) {
            Ok(_) => self.destroy(name),
            // Somebody holds it, or it is gone.
            Err(Errno::EBUSY | Errno::ENOENT | Errno::ENXIO) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The index of an interface.
    pub(crate) fn index_of(&self, name: &str) -> Result<u32, Errno> {
        let mut request = about(name.as_bytes())?;
        self.kernel.ask(self.socket, SIOCGIFINDEX, &mut request)?;
        u32::try_from(IFR_INDEX.number(&request)).map_err(|_| Errno::EINVAL)
    }

    fn destroy(&self, name: &str) -> Result<bool, Errno> {
        match self.kernel.ask(self.socket, SIOCIFDESTROY, &mut about(name.as_bytes())?) {
            Ok(()) => Ok(true),
            Err(Errno::ENXIO) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// A tap of our name. The kernel picks the number, so that two who ask at once get two taps.
    fn open(&self) -> Result<(OwnedFd, String), Errno> {
        let mut request = about(GROUP.as_bytes())?;
        self.kernel.ask(self.socket, SIOCIFCREATE2, &mut request)?;
        let given = String::from_utf8(IFR_NAME.text(&request).to_vec()).map_err(|_| Errno::EILSEQ)?;
        let number = given.strip_prefix(GROUP).ok_or(Errno::EINVAL)?;
        let name = format!("{PREFIX}{number}");
        let renamed = self.rename(&given, &name);
        let opened = renamed.and_then(|()| self.kernel.open(&device_of(&name)?, OpenFor::Frames));
        match opened {
            Ok(fd) => Ok((fd, name)),
            Err(errno) => {
                // What failed first is told.
                let _ = self.destroy(if renamed.is_ok() { &name } else { &given });
                Err(errno)
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let mut name = [0; NAME_SIZE];
        copy_name(&mut name, to.as_bytes())?;
        self.kernel.ask_pointing(self.socket, RENAME, &mut about(from.as_bytes())?, &mut name)
    }

    fn set_up(&self, name: &str) -> Result<(), Errno> {
        let mut request = about(name.as_bytes())?;
        self.kernel.ask(self.socket, SIOCGIFFLAGS, &mut request)?;
        let flags = IFR_FLAGS.number(&request) | u64::from(IFF_UP);
        IFR_FLAGS.put(&mut request, &flags.to_le_bytes());
        self.kernel.ask(self.socket, SIOCSIFFLAGS, &mut request)
    }

    fn add_to(&self, bridge: &[u8], name: &str) -> Result<(), Errno> {
        let mut member = [0; IFBREQ_SIZE];
        IFBR_IFSNAME.put(&mut member, about(name.as_bytes())?.get(..NAME_SIZE).unwrap_or_default());
        let mut request = [0; IFDRV_SIZE];
        IFD_NAME.put(&mut request, about(bridge)?.get(..NAME_SIZE).unwrap_or_default());
        IFD_CMD.put(&mut request, &BRDGADD.to_le_bytes());
        self.kernel.ask_pointing(self.socket, DRIVER, &mut request, &mut member)
    }

    /// The names of the interfaces in a group. A group that no interface is in is none.
    fn members(&self, group: &str) -> Result<Vec<Vec<u8>>, Errno> {
        for _ in 0..TRIES {
            let mut request = [0; IFGROUPREQ_SIZE];
            IFGR_NAME.put(&mut request, about(group.as_bytes())?.get(..NAME_SIZE).unwrap_or_default());
            // With room for none it says how much there is.
            match self.kernel.ask_pointing(self.socket, GROUP_MEMBERS, &mut request, &mut []) {
                Err(Errno::ENOENT) => return Ok(Vec::new()),
                result => result?,
            }
            let mut members = vec![0; usize::try_from(IFGR_LEN.number(&request)).unwrap_or(0)];
            if members.is_empty() {
                return Ok(Vec::new());
            }
            match self.kernel.ask_pointing(self.socket, GROUP_MEMBERS, &mut request, &mut members) {
                // There are more meanwhile.
                Err(Errno::EINVAL) => continue,
                Err(Errno::ENOENT) => return Ok(Vec::new()),
                result => result?,
            }
            let length = usize::try_from(IFGR_LEN.number(&request)).unwrap_or(0);
            let told = members.get(..length).unwrap_or(&members);
            return Ok(told.chunks_exact(MEMBER_SIZE).map(|member| IFR_NAME.text(member).to_vec()).collect());
        }
        Err(Errno::EAGAIN)
    }
}

/// The device of a tap. By a name that is not the kernel's own a tap is found, and never made.
fn device_of(name: &str) -> Result<CString, Errno> {
    CString::new(format!("/dev/{name}")).map_err(|_| Errno::EINVAL)
}

/// A request about the interface of this name.
fn about(name: &[u8]) -> Result<[u8; IFREQ_SIZE], Errno> {
    let mut request = [0; IFREQ_SIZE];
    copy_name(request.get_mut(..NAME_SIZE).unwrap_or_default(), name)?;
    Ok(request)
}

/// Copies a name to where its NUL has room too.
fn copy_name(place: &mut [u8], name: &[u8]) -> Result<(), Errno> {
    if name.len() >= NAME_SIZE {
        return Err(Errno::ENAMETOOLONG);
    }
    place.iter_mut().zip(name).for_each(|(place, byte)| *place = *byte);
    Ok(())
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
