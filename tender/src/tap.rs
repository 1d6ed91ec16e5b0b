//! Networks: an existing tap by its name, or a descriptor that whoever started us has opened. One read or write is one
//! Ethernet frame without any header before it.
#![allow(unsafe_code, reason = "ioctls with structures")]

use std::ffi::{OsStr, c_ulong};
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use fulmar_core::limits::INTERFACE_BYTES_MAX;

use crate::raw;
use crate::sys::{self, Errno};

/// Payload of a frame on a descriptor that is no interface (a datagram socket: one datagram is one frame).
const MTU_BYTES: u16 = 1500;

const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNGETIFF: c_ulong = 0x8004_54d2;
const SIOCGIFCONF: c_ulong = 0x8912;
const IFF_TAP: i16 = 2;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_SGRO: u32 = 0x2c;

/// An open network.
pub(crate) struct Tap {
    pub(crate) fd: OwnedFd,
    /// Bytes of a frame's payload, its header not counted.
    pub(crate) mtu: u16,
}

/// The kernel's `struct ifreq`.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; INTERFACE_BYTES_MAX + 1],
    value: Value,
}

#[repr(C)]
union Value {
    flags: i16,
    number: i32,
    address: *mut EthtoolValue,
    room: [u64; 3],
}

/// The kernel's `struct ifconf`.
#[repr(C)]
struct InterfaceList {
    bytes: i32,
    list: *mut InterfaceRequest,
}

/// The kernel's `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

impl InterfaceRequest {
    fn new(name: [u8; INTERFACE_BYTES_MAX + 1]) -> InterfaceRequest {
        InterfaceRequest { name, value: Value { room: [0; 3] } }
    }

    fn send(&mut self, fd: RawFd, request: c_ulong) -> Result<(), Errno> {
        // SAFETY: every request of this module takes a `struct ifreq`; where an address stands in it, it is that of a
        // structure that outlives the call.
        unsafe { raw::ioctl_with(fd, request, self) }.map(drop)
    }
}

/// Attaches to a tap that exists, is up, and that nobody else has.
pub(crate) fn attach(interface: &OsStr) -> Result<Tap, Errno> {
    let bytes = interface.as_bytes();
    let mut name = [0; INTERFACE_BYTES_MAX + 1];
    if bytes.len() > INTERFACE_BYTES_MAX {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    name[..bytes.len()].copy_from_slice(bytes);
    let control = sys::control_socket()?;
    let mut request = InterfaceRequest::new(name);
    request.send(control.as_raw_fd(), libc::SIOCGIFFLAGS)?;
    // SAFETY: the kernel has written the flags.
    let flags = i32::from(unsafe { request.value.flags });
    if flags & (libc::IFF_UP | libc::IFF_RUNNING) == 0 {
        return Err(Errno(libc::ENETDOWN));
    }
    let tun = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = InterfaceRequest::new(name);
    request.value.flags = IFF_TAP | IFF_NO_PI;
    request.send(tun.as_raw_fd(), TUNSETIFF)?;
    if request.name != name {
        return Err(Errno(libc::EINVAL));
    }
    Ok(Tap { fd: tun.into(), mtu: prepare(&control, name)? })
}

/// Takes over a descriptor: a tap, or a datagram socket. Of a tap in another network namespace only a socket of that
/// (`control`) can tell.
pub(crate) fn inherit(fd: OwnedFd, control: Option<&OwnedFd>) -> Result<Tap, Errno> {
    sys::set_nonblocking(fd.as_fd())?;
    let mut request = InterfaceRequest::new([0; INTERFACE_BYTES_MAX + 1]);
    if request.send(fd.as_raw_fd(), TUNGETIFF).is_err() {
        return match sys::keeps_datagrams(fd.as_fd()) {
            true => Ok(Tap { fd, mtu: MTU_BYTES }),
            false => Err(Errno(libc::EINVAL)),
        };
    }
    // SAFETY: the kernel has written the flags.
    let flags = unsafe { request.value.flags };
    if flags & IFF_TAP == 0 || flags & IFF_NO_PI == 0 || flags & IFF_VNET_HDR != 0 {
        return Err(Errno(libc::EINVAL));
    }
    let mtu = match control {
        Some(control) => prepare(control, request.name)?,
        None => prepare(&sys::control_socket()?, request.name)?,
    };
    Ok(Tap { fd, mtu })
}

/// Whether our network namespace is one that nobody has set up: its one interface is the loopback, and not even that has an
/// address.
pub(crate) fn network_is_empty() -> bool {
    has_no_addresses() && has_one_interface()
}

/// Two lines of headings, and one for each interface.
fn has_one_interface() -> bool {
    let mut text = [0; 1024];
    let read = std::fs::File::open("/proc/self/net/dev").and_then(|mut file| std::io::Read::read(&mut file, &mut text));
    let lines = read.ok().and_then(|len| text.get(..len)).unwrap_or_default().split(|byte| *byte == b'\n');
    lines.skip(2).filter(|line| !line.is_empty()).count() == 1
}

fn has_no_addresses() -> bool {
    let mut request = InterfaceRequest::new([0; INTERFACE_BYTES_MAX + 1]);
    let mut list = InterfaceList { bytes: size_of::<InterfaceRequest>() as i32, list: &raw mut request };
    let asked = sys::control_socket().and_then(|control| {
        // SAFETY: the request takes a `struct ifconf`, whose list has as much room as it says.
        unsafe { raw::ioctl_with(control.as_raw_fd(), SIOCGIFCONF, &mut list) }
    });
    asked.is_ok() && list.bytes == 0
}

/// Asks for the MTU and turns off what would hand us frames glued together.
fn prepare(control: &OwnedFd, name: [u8; INTERFACE_BYTES_MAX + 1]) -> Result<u16, Errno> {
    let mut request = InterfaceRequest::new(name);
    request.send(control.as_raw_fd(), libc::SIOCGIFMTU)?;
    // SAFETY: the kernel has written the MTU.
    let mtu = unsafe { request.value.number };
    for command in [ETHTOOL_SGRO, ETHTOOL_SGSO] {
        let mut off = EthtoolValue { command, data: 0 };
        let mut request = InterfaceRequest::new(name);
        request.value.address = &raw mut off;
        // A kernel that cannot turn it off never had it on.
        let _ = request.send(control.as_raw_fd(), libc::SIOCETHTOOL);
    }
    u16::try_from(mtu).map_err(|_| Errno(libc::EINVAL))
}
