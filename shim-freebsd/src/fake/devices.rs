//! The devices of the fake kernel: who holds one, and new ones.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::{Device, Interface, STARTS, State};

impl State {
    /// Whether anybody has this tap open.
    pub(super) fn is_held(&mut self, unit: u32) -> bool {
        // What nobody holds any more reads as ended.
        self.devices.retain(|_, (_, ours)| {
            let is_over = || matches!((&*ours).read(&mut [0]), Ok(0));
            // A process that another test starts holds a copy of everything until it is the program that it is to be.
            while !is_over() && STARTS.load(Ordering::SeqCst) > 0 {
                std::thread::yield_now();
            }
            !is_over()
        });
        self.devices.values().any(|(device, _)| *device == Device::Tap(unit))
    }

    /// A tap of the kernel's own name.
    pub(super) fn make_tap(&mut self) -> Result<String, Errno> {
        if !self.modules.contains("if_tuntap") {
            return Err(Errno::EINVAL);
        }
        let unit = (0..).find(|unit| !self.taps.contains_key(unit)).unwrap();
        let (name, index) = (format!("tap{unit}"), 100 + u16::try_from(unit).unwrap());
        self.taps.insert(unit, name.clone());
        self.interfaces.push(Interface { name: name.clone(), index, group: "tap", flags: 0, bridge: None });
        Ok(name)
    }

    pub(super) fn open(&mut self, device: Device) -> Result<OwnedFd, Errno> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let number = fstat(&theirs).unwrap().st_ino;
        self.devices.insert(number, (device, ours));
        Ok(theirs.into())
    }
}
