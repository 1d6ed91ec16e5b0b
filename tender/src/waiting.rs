//! What a guest waits with: an epoll set of its networks, and a timer in the same set.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::device::Devices;
use crate::refusal::Refusal;
use crate::sys;

/// What the timer is known by in the set, beside the networks' handles.
pub(crate) const TIMER: u64 = 0xFFFF_FFFE;

/// An epoll set and its timer.
pub(crate) struct Waiting {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl Waiting {
    /// Makes both; every network is in the set under its handle.
    pub(crate) fn new(devices: &Devices) -> Result<Waiting, Refusal> {
        let step = |what| move |errno| Refusal::Step { what, errno, remedy: "raise the limit of open files" };
        let epoll = sys::epoll_create().map_err(step("Could not make an epoll set"))?;
        let timer = sys::timer_create().map_err(step("Could not make a timer"))?;
        sys::epoll_add(epoll.as_fd(), timer.as_raw_fd(), TIMER).map_err(step("Could not wait for the timer"))?;
        for (handle, fd) in devices.nets() {
            sys::epoll_add(epoll.as_fd(), fd, handle).map_err(step("Could not wait for a network"))?;
        }
        Ok(Waiting { epoll, timer })
    }

    /// Descriptor of the set.
    pub(crate) fn epoll(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Descriptor of the timer.
    pub(crate) fn timer(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}
