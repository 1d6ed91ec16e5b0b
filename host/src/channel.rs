//! The socket between the two halves of `vmmd`: one message is one packet, and file descriptors can travel with it.
//!
//! It carries bytes; what they mean is [`fulmar_core::halves`]. The control half sets it nonblocking and gives it to its
//! event loop by [`AsFd`]; the host half blocks on it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

pub use crate::sys::ReceivedFds;
use crate::sys::{receive_packet, send_packet};

/// One end of the channel. Close-on-exec: it reaches another program only by being passed on purpose.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Makes both ends, blocking.
    ///
    /// # Errors
    /// Those of `socketpair`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self::from(one), Self::from(other)))
    }

    /// Whether sending and receiving return `WouldBlock` instead of waiting. Both ends are set on their own.
    ///
    /// # Errors
    /// Those of `fcntl`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let mut flags = OFlag::from_bits_retain(fcntl(&self.socket, FcntlArg::F_GETFL)?);
        flags.set(OFlag::O_NONBLOCK, nonblocking);
        fcntl(&self.socket, FcntlArg::F_SETFL(flags))?;
        Ok(())
    }

    /// Sends one message with at most [`fulmar_core::limits::CHANNEL_FDS_MAX`] fds, wholly or not at all.
    ///
    /// # Errors
    /// `WouldBlock` when nonblocking and full, `BrokenPipe` or `ConnectionReset` when the other half is gone, and those of
    /// `sendmsg`.
    pub fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_packet(self.socket.as_fd(), packet, fds)
    }

    /// Receives one message into `buffer` and its fds (close-on-exec) into `fds`; none when the other half is gone.
    ///
    /// # Errors
    /// `WouldBlock` when nonblocking and empty, `InvalidData` when message or fds do not fit, and those of `recvmsg`.
    pub fn receive<'b>(&self, buffer: &'b mut [u8], fds: &mut ReceivedFds) -> io::Result<Option<&'b [u8]>> {
        match receive_packet(self.socket.as_fd(), buffer, fds) {
            Ok(0) => Ok(None),
            // A half that dies with messages unread resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) => Err(error),
        }
    }
}

impl From<OwnedFd> for Channel {
    /// Takes one end that was passed to this program.
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};

    use fulmar_core::limits::{CHANNEL_BYTES_MAX, CHANNEL_FDS_MAX};

    use super::*;

    #[test]
    fn packets_keep_their_bounds_and_their_order() {
        let (one, other) = Channel::pair().unwrap();
        let (mut buffer, mut fds) = (vec![0; CHANNEL_BYTES_MAX], ReceivedFds::default());
        let large = vec![7; CHANNEL_BYTES_MAX];
        one.send(b"first", &[]).unwrap();
        one.send(&large, &[]).unwrap();
        assert_eq!(other.receive(&mut buffer, &mut fds).unwrap(), Some(&b"first"[..]));
        assert_eq!(other.receive(&mut buffer, &mut fds).unwrap(), Some(&large[..]));
        assert!(fds.take::<1>(0).is_none());
        drop(one);
        assert_eq!(other.receive(&mut buffer, &mut fds).unwrap(), None);
        assert!(other.send(b"late", &[]).is_err());
    }

    #[test]
    fn fds_arrive_in_their_order_and_close_on_exec() {
        let (one, other) = Channel::pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        one.send(b"two", &[read.as_fd(), write.as_fd()]).unwrap();
        drop((read, write));
        let (mut buffer, mut fds) = ([0; 16], ReceivedFds::default());
        assert_eq!(other.receive(&mut buffer, &mut fds).unwrap(), Some(&b"two"[..]));
        let ([read, write], _) = fds.take(0).unwrap();
        let flags = nix::fcntl::FdFlag::from_bits_retain(fcntl(&write, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(nix::fcntl::FdFlag::FD_CLOEXEC));
        File::from(write).write_all(b"through").unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn too_many_fds_are_refused() {
        let (one, other) = Channel::pair().unwrap();
        let many = [one.as_fd(); CHANNEL_FDS_MAX];
        one.send(b"most", &many).unwrap();
        let (mut buffer, mut fds) = ([0; 16], ReceivedFds::default());
        other.receive(&mut buffer, &mut fds).unwrap();
        let ([_first], rest) = fds.take(CHANNEL_FDS_MAX - 1).unwrap();
        assert_eq!(rest.len(), CHANNEL_FDS_MAX - 1);
        let more = [one.as_fd(); CHANNEL_FDS_MAX + 1];
        assert_eq!(one.send(b"more", &more).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_packet_that_does_not_fit_is_refused_and_its_fds_are_closed() {
        let (one, other) = Channel::pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        one.send(b"too long for it", &[write.as_fd()]).unwrap();
        drop(write);
        let mut fds = ReceivedFds::default();
        assert_eq!(other.receive(&mut [0; 4], &mut fds).unwrap_err().kind(), ErrorKind::InvalidData);
        let mut end = Vec::new();
        File::from(read).read_to_end(&mut end).unwrap();
        assert!(end.is_empty(), "the last writer is gone");
    }

    #[test]
    fn nonblocking_returns_instead_of_waiting() {
        let (one, other) = Channel::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let (mut buffer, mut fds) = ([0; 16], ReceivedFds::default());
        assert_eq!(one.receive(&mut buffer, &mut fds).unwrap_err().kind(), ErrorKind::WouldBlock);
        let refused = loop {
            if let Err(error) = one.send(b"again", &[]) {
                break error;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        drop(other);
    }
}
