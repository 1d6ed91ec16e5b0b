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

/// How often links are listed again that changed meanwhile.
const DUMPS_MAX: usize = 3;

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
    flags: u32,
    mtu: u32,
    /// A `rtnl_link_stats64`, where the kernel was asked for it.
    counters: &'a [u8],
}

/// What the kernel counts of a network interface, from its own side: received is what the guest has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LinkCounters {
    pub(crate) flags: u32,
    pub(crate) mtu: u32,
    pub(crate) received_packets: u64,
    pub(crate) sent_packets: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_errors: u64,
    pub(crate) sent_errors: u64,
    pub(crate) received_dropped: u64,
    pub(crate) sent_dropped: u64,
    pub(crate) multicast: u64,
    pub(crate) collisions: u64,
}

/// How an exchange went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Listed {
    All,
    /// Links came or went meanwhile: some may be missing.
    Interrupted,
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
        })?;
        Ok(())
    }

    /// Calls `each` with index, name and counters of every link of this kind; with some of them twice where links come and go
    /// meanwhile.
    pub(crate) fn counters_of(
        &mut self,
        kind: &str,
        each: &mut dyn FnMut(u32, &[u8], LinkCounters),
    ) -> Result<(), Errno> {
        for _ in 0..DUMPS_MAX {
            let mut message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, 0);
            let mut nested = Vec::new();
            push_attribute(&mut nested, libc::IFLA_INFO_KIND, kind.as_bytes());
            message.attribute(libc::IFLA_LINKINFO, &nested);
            let listed = self.exchange(message, &mut |link| {
                if link.kind == kind.as_bytes()
                    && let Some(counters) = read_counters(link)
                {
                    each(link.index, link.name, counters);
                }
            })?;
            if listed == Listed::All {
                break;
            }
        }
        Ok(())
    }

    /// The index of the link of this name and kind, if there is one.
    pub(crate) fn index_of(&mut self, kind: &str, name: &[u8]) -> Result<Option<u32>, Errno> {
        let mut message = Message::new(libc::RTM_GETLINK, 0, 0);
        message.attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        message.name(name);
        let mut index = None;
        let exchanged = self.exchange(message, &mut |link| {
            if link.kind == kind.as_bytes() && link.name == name {
                index = Some(link.index);
            }
        });
        match exchanged {
            // Longer than a name can be, or empty.
            Err(Errno::ENODEV | Errno::EINVAL | Errno::ERANGE) => Ok(None),
            exchanged => exchanged.map(|_| index),
        }
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
        self.exchange(message, &mut |_| {}).map(drop)
    }

    /// Makes a bridge, up.
    #[cfg(test)]
    pub(crate) fn add_bridge(&mut self, name: &[u8]) -> Result<(), Errno> {
        let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_ACK, 1);
        message.name(name);
        let mut nested = Vec::new();
        push_attribute(&mut nested, libc::IFLA_INFO_KIND, b"bridge");
        message.attribute(libc::IFLA_LINKINFO, &nested);
        self.exchange(message, &mut |_| {}).map(drop)
    }

    /// Sends a request, and calls `each` with every link of the answer.
    fn exchange(&mut self, message: Message, each: &mut dyn FnMut(&Link<'_>)) -> Result<Listed, Errno> {
        let mut listed = Listed::All;
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
                if half_word(header, 6).is_some_and(|flags| i32::from(flags) & libc::NLM_F_DUMP_INTR != 0) {
                    listed = Listed::Interrupted;
                }
                match half_word(header, 4).map(i32::from) {
                    Some(libc::NLMSG_DONE) => return Ok(listed),
                    Some(libc::NLMSG_ERROR) => {
                        let code = word(body, 0).ok_or(Errno::EBADMSG)?.cast_signed();
                        return if code == 0 { Ok(listed) } else { Err(Errno::from_raw(-code)) };
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
    let (index, flags) = (word(body, 4)?, word(body, 8)?);
    let mut link = Link { index, name: &[], kind: &[], flags, mtu: 0, counters: &[] };
    for (kind, value) in attributes(body.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = value.strip_suffix(&[0]).unwrap_or(value),
            libc::IFLA_LINKINFO => {
                let info = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = info.map(|(_, value)| value.strip_suffix(&[0]).unwrap_or(value)).unwrap_or_default();
            }
            libc::IFLA_MTU => link.mtu = word(value, 0).unwrap_or(0),
            libc::IFLA_STATS64 => link.counters = value,
            _ => {}
        }
    }
    Some(link)
}

/// The first fields of `rtnl_link_stats64`.
fn read_counters(link: &Link<'_>) -> Option<LinkCounters> {
    let mut fields = link.counters.chunks_exact(8).filter_map(|field| Some(u64::from_ne_bytes(*field.first_chunk()?)));
    Some(LinkCounters {
        flags: link.flags,
        mtu: link.mtu,
        received_packets: fields.next()?,
        sent_packets: fields.next()?,
        received_bytes: fields.next()?,
        sent_bytes: fields.next()?,
        received_errors: fields.next()?,
        sent_errors: fields.next()?,
        received_dropped: fields.next()?,
        sent_dropped: fields.next()?,
        multicast: fields.next()?,
        collisions: fields.next()?,
    })
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
    fn counters_are_the_kernels_in_its_order() {
        let mut message = Message::new(libc::RTM_GETLINK, 0, 1);
        let fields: Vec<u8> = (1..=24_u64).flat_map(u64::to_ne_bytes).collect();
        message.attribute(libc::IFLA_MTU, &1400_u32.to_ne_bytes());
        message.attribute(libc::IFLA_STATS64, &fields);
        let bytes = message.finish(1);
        let counters = read_counters(&read_link(&bytes[HEADER..]).unwrap()).unwrap();
        let expected = LinkCounters {
            flags: 1,
            mtu: 1400,
            received_packets: 1,
            sent_packets: 2,
            received_bytes: 3,
            sent_bytes: 4,
            received_errors: 5,
            sent_errors: 6,
            received_dropped: 7,
            sent_dropped: 8,
            multicast: 9,
            collisions: 10,
        };
        assert_eq!(counters, expected);
        let mut message = Message::new(libc::RTM_GETLINK, 0, 0);
        message.attribute(libc::IFLA_STATS64, &fields[..79]);
        assert_eq!(read_counters(&read_link(&message.finish(1)[HEADER..]).unwrap()), None);
    }

    #[test]
    fn a_link_that_is_not_there_has_no_index() {
        let mut netlink = Netlink::open().unwrap();
        for name in [&b"vmmtap9999"[..], b"", b"a-name-of-more-than-15-bytes", b"lo"] {
            assert_eq!(netlink.index_of("tun", name), Ok(None));
        }
    }

    #[test]
    fn attributes_of_wrong_length_end_the_list() {
        for damaged in [&[0, 0, 3, 0][..], &[3, 0, 3, 0], &[9, 0, 3, 0, 1], &[4]] {
            assert_eq!(attributes(damaged).count(), 0, "{damaged:?}");
        }
    }
}
