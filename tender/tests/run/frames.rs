//! Frames of a machine that is not there: just enough of ARP, IPv4, ICMP, UDP and TCP to speak with a unikernel over a pair of
//! datagram sockets, without any privilege.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::tender::Running;

pub(crate) const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const GUEST: [u8; 4] = [10, 0, 0, 2];
pub(crate) const OURS: [u8; 4] = [10, 0, 0, 1];

pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const SYN_ACK: u8 = 0x12;

/// Longer than an answer takes where KVM interprets.
const PATIENCE: Duration = Duration::from_secs(40);

/// The other end of a unikernel's network.
pub(crate) struct Wire(UnixDatagram);

impl Wire {
    /// Starts a tender with one end as its network `service`; the options and the image follow.
    pub(crate) fn start(command: Command, rest: impl FnOnce(&mut Command)) -> (Wire, Running) {
        Wire::start_as(command, "02:00:00:00:00:02", rest)
    }

    /// As [`Wire::start`], with another hardware address.
    pub(crate) fn start_as(mut command: Command, mac: &str, rest: impl FnOnce(&mut Command)) -> (Wire, Running) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        command.arg("--mem=2").arg(format!("--net:service=@{}", theirs.as_raw_fd()));
        command.arg(format!("--net-mac:service={mac}"));
        rest(&mut command);
        (Wire(ours), Running::start(&mut command))
    }

    /// Sends a frame; waits while the other end has no room.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.0.send(frame).unwrap();
    }

    /// The next frame that satisfies.
    pub(crate) fn receive(&self, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        let late = Instant::now() + PATIENCE;
        let mut frame = [0; 2048];
        while Instant::now() < late {
            let len = self.0.recv(&mut frame).unwrap();
            if wanted(&frame[..len]) {
                return frame[..len].to_vec();
            }
        }
        panic!("the frame did not come");
    }

    /// It answers who asks for its hardware address, and a ping.
    pub(crate) fn expect_life(&self, number: u16) {
        self.send(&arp_request());
        let reply = self.receive(|frame| frame[12..14] == ARP.to_be_bytes() && frame[20..22] == [0, 2]);
        assert_eq!((&reply[22..28], &reply[28..32]), (&GUEST_MAC[..], &GUEST[..]));
        let mut echo = vec![8, 0, 0, 0, 0x12, 0x34];
        echo.extend(number.to_be_bytes());
        echo.extend(b"are you there?");
        let sum = checksum(&echo);
        echo[2..4].copy_from_slice(&sum);
        self.send(&ipv4(OURS, GUEST, ICMP, &echo));
        let is_reply = |frame: &[u8]| is(frame, ICMP) && frame[34] == 0 && frame[40..42] == number.to_be_bytes();
        assert_eq!(&self.receive(is_reply)[42..56], b"are you there?");
    }
}

/// Whether a frame carries this protocol of IPv4.
pub(crate) fn is(frame: &[u8], protocol: u8) -> bool {
    frame.len() > 42 && frame[12..14] == IPV4.to_be_bytes() && frame[23] == protocol
}

pub(crate) fn ethernet(to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &OUR_MAC, &kind.to_be_bytes(), payload].concat()
}

pub(crate) fn arp_request() -> Vec<u8> {
    let request = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &OUR_MAC, &OURS, &[0; 6], &GUEST].concat();
    ethernet([0xff; 6], ARP, &request)
}

pub(crate) fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = [0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&from);
    header[16..20].copy_from_slice(&to);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    let mac = if to == [255; 4] { [0xff; 6] } else { GUEST_MAC };
    ethernet(mac, IPV4, &[&header[..], payload].concat())
}

/// A datagram without a check sum, which UDP does not demand.
pub(crate) fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let datagram = [&from.1.to_be_bytes()[..], &to.1.to_be_bytes(), &len, &[0, 0], payload].concat();
    ipv4(from.0, to.0, UDP, &datagram)
}

/// A segment with no payload.
pub(crate) fn tcp(from: ([u8; 4], u16), to: ([u8; 4], u16), sequence: u32, flags: u8) -> Vec<u8> {
    let mut segment = [&from.1.to_be_bytes()[..], &to.1.to_be_bytes(), &sequence.to_be_bytes(), &[0; 4]].concat();
    segment.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let pseudo = [&from.0[..], &to.0, &[0, TCP, 0, 20], &segment].concat();
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum);
    ipv4(from.0, to.0, TCP, &segment)
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}
