//! The little of rtnetlink that bridges and taps need, written by hand: list links of a kind, find one, set one up.
//!
//! Answers come from the kernel, and are nevertheless read with every length checked.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The kernel fills at most this for one `recv` of a dump.
const BUFFER_BYTES: usize = 32 * 1024;

/// Header of a message, and of a link.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;

/// Numbers of `linux/if_link.h` that libc lacks.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// A socket to the kernel's network configuration, of the network namespace in which it was made.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A network interface.
struct Link<'a> {
    index: u32,
    name: &'a [u8],
    kind: &'a [u8],
}

impl Netlink {
    /// Opens the socket.
    pub(crate) fn open() -> Result<Self, Errno> {
        let (kind, protocol) = (SockType::Raw, SockProtocol::NetlinkRoute);
        let socket = socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Calls `each` with the name of every link of this kind (`bridge`, `tun`).
    pub(crate) fn links_of(&mut self, kind: &str, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        let mut message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, 0);
        message.attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        // Lets the kernel leave out thousands of taps when only bridges are asked for.
        let mut nested = Vec::new();
        push_attribute(&mut nested, libc::IFLA_INFO_KIND, kind.as_bytes());
        message.attribute(libc::IFLA_LINKINFO, &nested);
        self.exchange(message, &mut |link| {
            if link.kind == kind.as_bytes() {
                each(link.name);
            }
        })
    }

    /// The index of the bridge of this name; `ENODEV` where there is none, or it is no bridge.
    pub(crate) fn bridge(&mut self, name: &[u8]) -> Result<u32, Errno> {
        let mut message = Message::new(libc::RTM_GETLINK, 0, 0);
        message.attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        message.name(name);
        let mut index = None;
        self.exchange(message, &mut |link| {
            if link.kind == b"bridge" {
                index = Some(link.index);
            }
        })?;
        index.ok_or(Errno::ENODEV)
    }

    /// Sets the interface of this name up, and makes it a port of a bridge.
    pub(crate) fn attach(&mut self, name: &[u8], bridge: u32) -> Result<(), Errno> {
        let up = libc::IFF_UP.cast_unsigned();
        let mut message = Message::new(libc::RTM_SETLINK, 0, up);
        message.name(name);
        message.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        self.exchange(message, &mut |_| {})
    }

    /// Makes a bridge, up.
    #[cfg(test)]
    pub(crate) fn add_bridge(&mut self, name: &[u8]) -> Result<(), Errno> {
        let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_ACK, 1);
        message.name(name);
        let mut nested = Vec::new();
        push_attribute(&mut nested, libc::IFLA_INFO_KIND, b"bridge");
        message.attribute(libc::IFLA_LINKINFO, &nested);
        self.exchange(message, &mut |_| {})
    }

    /// Sends a request, and calls `each` with every link of the answer.
    fn exchange(&mut self, message: Message, each: &mut dyn FnMut(&Link<'_>)) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message.finish(self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while let Some(header) = rest.get(..HEADER) {
                let length = word(header, 0).unwrap_or(0) as usize;
                let body = rest.get(HEADER..length).ok_or(Errno::EBADMSG)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if word(header, 8) != Some(self.sequence) {
                    // The end of an exchange that failed in its middle.
                    continue;
                }
                match half_word(header, 4).map(i32::from) {
                    Some(libc::NLMSG_DONE) => return Ok(()),
                    Some(libc::NLMSG_ERROR) => {
                        let code = word(body, 0).ok_or(Errno::EBADMSG)?.cast_signed();
                        return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
                    }
                    _ => each(&read_link(body).ok_or(Errno::EBADMSG)?),
                }
            }
        }
    }
}

/// A request about links that is being written.
struct Message(Vec<u8>);

impl Message {
    /// `up` is [`libc::IFF_UP`] to set the link up. Every request is acknowledged, a dump by its end.
    fn new(kind: u16, flags: c_int, up: u32) -> Self {
        let ack = if flags == 0 { libc::NLM_F_ACK } else { flags };
        let flags = u16::try_from(libc::NLM_F_REQUEST | ack).unwrap_or_default();
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Sequence and port are filled in later, and by the kernel. Then family, type and index: any.
        bytes.extend([0; 8 + 8]);
        bytes.extend(up.to_ne_bytes());
        bytes.extend(up.to_ne_bytes());
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        push_attribute(&mut self.0, kind, value);
    }

    fn name(&mut self, name: &[u8]) {
        let mut text = name.to_vec();
        text.push(0);
        self.attribute(libc::IFLA_IFNAME, &text);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.splice(0..4, length.to_ne_bytes());
        self.0.splice(8..12, sequence.to_ne_bytes());
        self.0
    }
}

fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn read_link(body: &[u8]) -> Option<Link<'_>> {
    let mut link = Link { index: word(body, 4)?, name: &[], kind: &[] };
    for (kind, value) in attributes(body.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = value.strip_suffix(&[0]).unwrap_or(value),
            libc::IFLA_LINKINFO => {
                let info = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = info.map(|(_, value)| value.strip_suffix(&[0]).unwrap_or(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// The attributes of a message or of a nested attribute, up to the first that is damaged.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half_word(rest, 0)?);
        // The two upper bits are flags.
        let kind = half_word(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_from_its_attributes() {
        let mut message = Message::new(libc::RTM_GETLINK, 0, 0);
        message.name(b"br0");
        let mut nested = Vec::new();
        push_attribute(&mut nested, libc::IFLA_INFO_KIND, b"bridge\0");
        message.attribute(libc::IFLA_LINKINFO, &nested);
        let bytes = message.finish(1);
        let link = read_link(&bytes[HEADER..]).unwrap();
        assert_eq!((link.index, link.name, link.kind), (0, &b"br0"[..], &b"bridge"[..]));
        for cut in HEADER..bytes.len() {
            let _ = read_link(&bytes[HEADER..cut]);
        }
    }

    #[test]
    fn attributes_of_wrong_length_end_the_list() {
        for damaged in [&[0, 0, 3, 0][..], &[3, 0, 3, 0], &[9, 0, 3, 0, 1], &[4]] {
            assert_eq!(attributes(damaged).count(), 0, "{damaged:?}");
        }
    }
}
