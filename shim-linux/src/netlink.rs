//! The little of rtnetlink that bridges and taps need, written by hand: list links of a kind, find one, set one up.

mod socket;

use std::ffi::c_int;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SockProtocol;

use self::socket::{Listed, word};
pub(crate) use self::socket::{Socket, attributes, begin, push_attribute};

/// Header of a link.
const LINK_HEADER: usize = 16;

/// Numbers of `linux/if_link.h` that libc lacks.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// How often links are listed again that changed meanwhile.
const DUMPS_MAX: usize = 3;

/// A socket to the kernel's network configuration, of the network namespace in which it was made.
#[derive(Debug)]
pub(crate) struct Netlink(Socket);

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

impl Netlink {
    /// Opens the socket.
    pub(crate) fn open() -> Result<Self, Errno> {
        Socket::open(SockProtocol::NetlinkRoute).map(Self)
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
        self.0.exchange(message.0, &mut |body| {
            each(&read_link(body)?);
            Some(())
        })
    }
}

/// A request about links that is being written.
struct Message(Vec<u8>);

impl Message {
    /// `up` is [`libc::IFF_UP`] to set the link up. Every request is acknowledged, a dump by its end.
    fn new(kind: u16, flags: c_int, up: u32) -> Self {
        let ack = if flags == 0 { libc::NLM_F_ACK } else { flags };
        let mut bytes = begin(kind, ack);
        // Family, type and index: any.
        bytes.extend([0; 8]);
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

#[cfg(test)]
mod tests {
    use super::socket::HEADER;
    use super::*;

    #[test]
    fn a_link_is_read_from_its_attributes() {
        let mut message = Message::new(libc::RTM_GETLINK, 0, 0);
        message.name(b"br0");
        let mut nested = Vec::new();
        push_attribute(&mut nested, libc::IFLA_INFO_KIND, b"bridge\0");
        message.attribute(libc::IFLA_LINKINFO, &nested);
        let bytes = message.0;
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
        let bytes = message.0;
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
        assert_eq!(read_counters(&read_link(&message.0[HEADER..]).unwrap()), None);
    }

    #[test]
    fn a_link_that_is_not_there_has_no_index() {
        let mut netlink = Netlink::open().unwrap();
        for name in [&b"vmmtap9999"[..], b"", b"a-name-of-more-than-15-bytes", b"lo"] {
            assert_eq!(netlink.index_of("tun", name), Ok(None));
        }
    }
}
