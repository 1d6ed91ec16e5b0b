//! Messages to the kernel and its answers, whichever part of it is asked. What comes from the kernel is nevertheless read with every
//! length checked.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The kernel fills at most this for one `recv` of a dump.
const BUFFER_BYTES: usize = 32 * 1024;

/// Header of a message.
pub(super) const HEADER: usize = 16;

/// A socket of one protocol.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// How an exchange went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listed {
    All,
    /// What is listed changed meanwhile: some may be missing.
    Interrupted,
}

impl Socket {
    pub(crate) fn open(protocol: SockProtocol) -> Result<Self, Errno> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends a request that [`begin`] began, and calls `each` with the body of every message of the answer, until it says that one is none.
    pub(super) fn exchange(
        &mut self,
        mut request: Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Option<()>,
    ) -> Result<Listed, Errno> {
        let mut listed = Listed::All;
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
        request.splice(0..4, length.to_ne_bytes());
        request.splice(8..12, self.sequence.to_ne_bytes());
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
                    _ => each(body).ok_or(Errno::EBADMSG)?,
                }
            }
        }
    }

    /// As [`Socket::exchange`], of a request that is answered by one message and acknowledged: what `read` finds in it.
    pub(crate) fn ask<T>(&mut self, request: Vec<u8>, read: impl Fn(&[u8]) -> Option<T>) -> Result<T, Errno> {
        let mut answer = None;
        self.exchange(request, &mut |body| {
            answer = Some(read(body)?);
            Some(())
        })?;
        answer.ok_or(Errno::EBADMSG)
    }
}

/// The header of a request. Length and sequence are filled in when it is sent, the port by the kernel.
pub(crate) fn begin(kind: u16, flags: c_int) -> Vec<u8> {
    let flags = u16::try_from(libc::NLM_F_REQUEST | flags).unwrap_or_default();
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

pub(crate) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The attributes of a message or of a nested attribute, up to the first that is damaged.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half_word(rest, 0)?);
        // The two upper bits are flags.
        let kind = half_word(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_wrong_length_end_the_list() {
        for damaged in [&[0, 0, 3, 0][..], &[3, 0, 3, 0], &[9, 0, 3, 0, 1], &[4]] {
            assert_eq!(attributes(damaged).count(), 0, "{damaged:?}");
        }
    }
}
