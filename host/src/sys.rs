//! The unsafe corner of this crate: packets with file descriptors, without an allocation for each; descriptors that this process
//! was started with; capability mode, and connections in it; what a process gives up.
//!
//! nix can do the first too, but allocates for every packet that carries fds. Nothing else belongs here.
#![allow(
    unsafe_code,
    reason = "sendmsg, recvmsg, control messages, inherited descriptors, connectat, cap_enter, capset, prctl"
)]

use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use fulmar_core::limits::CHANNEL_FDS_MAX;
use nix::libc;

/// Room for one control message with the largest number of fds, aligned as a `cmsghdr` must be.
#[repr(C, align(16))]
struct Control([u8; CONTROL_BYTES]);

const FDS_BYTES_MAX: usize = CHANNEL_FDS_MAX * mem::size_of::<RawFd>();

/// A header of at most 16 bytes, alignment of at most 16 before and after.
const CONTROL_BYTES: usize = (16 + 16 + FDS_BYTES_MAX + 16).next_multiple_of(16);

/// The fds that came with a packet, in their order. Those that nobody takes are closed.
#[derive(Debug, Default)]
pub struct ReceivedFds(heapless::Vec<OwnedFd, CHANNEL_FDS_MAX>);

impl ReceivedFds {
    /// Takes the fds, when exactly `N` and then `more` came.
    #[must_use]
    pub fn take<const N: usize>(&mut self, more: usize) -> Option<([OwnedFd; N], Vec<OwnedFd>)> {
        if self.0.len() != N + more {
            return None;
        }
        let mut fds = mem::take(&mut self.0).into_iter();
        let first: Vec<OwnedFd> = fds.by_ref().take(N).collect();
        Some((first.try_into().ok()?, fds.collect()))
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Sends one packet with at most [`CHANNEL_FDS_MAX`] fds.
///
/// # Errors
/// Those of `sendmsg`, and `InvalidInput` for too many fds.
pub(crate) fn send_packet(socket: BorrowedFd<'_>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > CHANNEL_FDS_MAX {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
    let mut header = header_of(&mut part);
    if !fds.is_empty() {
        // At most CHANNEL_FDS_MAX times 4.
        let bytes = u32::try_from(mem::size_of_val(fds)).unwrap_or(u32::MAX);
        header.msg_control = (&raw mut control).cast();
        // SAFETY: plain arithmetic on a small number.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
        // SAFETY: `header` points to `control`, which is aligned for and larger than a header and all fds.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        // SAFETY: as above; `first` is not null since `msg_controllen` has room for a header.
        let first = unsafe { &mut *first };
        first.cmsg_level = libc::SOL_SOCKET;
        first.cmsg_type = libc::SCM_RIGHTS;
        // SAFETY: plain arithmetic on a small number.
        first.cmsg_len = unsafe { libc::CMSG_LEN(bytes) } as _;
        // SAFETY: `first` is a header inside `control`.
        let data = unsafe { libc::CMSG_DATA(first) };
        // SAFETY: `BorrowedFd` is a transparent `RawFd`; the room was checked at compile time; nothing overlaps.
        unsafe { std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, mem::size_of_val(fds)) };
    }
    loop {
        // SAFETY: all that `header` points to lives until after the call.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
        match sent {
            -1 if is_interrupted() => {}
            -1 => return Err(io::Error::last_os_error()),
            // A packet socket takes all or nothing.
            _ => return Ok(()),
        }
    }
}

/// Receives one packet and its fds, which are close-on-exec. Returns its length, 0 where the other side is gone.
///
/// # Errors
/// Those of `recvmsg`, and `InvalidData` for a packet or fds that do not fit; its fds are closed.
pub(crate) fn receive_packet(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut ReceivedFds) -> io::Result<usize> {
    fds.clear();
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = header_of(&mut part);
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = mem::size_of::<Control>() as _;
    let length = loop {
        // SAFETY: all that `header` points to lives until after the call and is as large as it says.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(received) {
            Ok(length) => break length,
            Err(_) if is_interrupted() => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    };
    let spare = take_fds(&header, fds);
    if spare || header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        fds.clear();
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(length)
}

/// Takes the fds out of a received control message; whether there were more than can be kept.
#[allow(clippy::unnecessary_cast, reason = "the type of lengths differs between systems")]
fn take_fds(header: &libc::msghdr, fds: &mut ReceivedFds) -> bool {
    let mut spare = false;
    // SAFETY: the kernel filled `msg_control` up to `msg_controllen`.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: null or a header that the kernel wrote.
    while let Some(message) = unsafe { next.as_ref() } {
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: plain arithmetic.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (message.cmsg_len as usize).saturating_sub(head) / mem::size_of::<RawFd>();
            // SAFETY: `message` lies in the control buffer.
            let data = unsafe { libc::CMSG_DATA(message) };
            for index in 0..count {
                // SAFETY: the message has `count` fds.
                let place = unsafe { data.cast::<RawFd>().add(index) };
                // SAFETY: as above; they need not be aligned.
                let raw = unsafe { place.read_unaligned() };
                // SAFETY: the kernel made this fd for us, and nobody else knows it.
                let fd = unsafe { OwnedFd::from_raw_fd(raw) };
                spare |= fds.0.push(fd).is_err();
            }
        }
        // SAFETY: `next` is a header in the control buffer of `header`.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    spare
}

fn header_of(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: a `msghdr` of zeros says: no address, no parts, no control messages, no flags. It has private padding, so it
    // cannot be written as a literal.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header
}

/// A descriptor that this process was started with; it can be had once.
///
/// # Errors
/// `EBADF` where it is not open, `AlreadyExists` where it has been taken.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(ErrorKind::AlreadyExists.into());
    }
    // SAFETY: asks for flags, changes nothing.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open since before this process began, who started it says whose it is, and it is taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn is_interrupted() -> bool {
    io::Error::last_os_error().kind() == ErrorKind::Interrupted
}

/// Connects to the socket that `address` names within an open folder; see connectat(2).
#[cfg(target_os = "freebsd")]
pub(crate) fn connect_at(
    folder: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    address: &nix::sys::socket::UnixAddr,
) -> nix::Result<()> {
    use nix::sys::socket::SockaddrLike;
    unsafe extern "C" {
        fn connectat(
            folder: std::ffi::c_int,
            socket: std::ffi::c_int,
            address: *const libc::sockaddr,
            length: libc::socklen_t,
        ) -> std::ffi::c_int;
    }
    let (folder, socket) = (folder.as_raw_fd(), socket.as_raw_fd());
    // SAFETY: the address is as long as it says, and lives until after the call.
    let done = unsafe { connectat(folder, socket, address.as_ptr().cast(), address.len()) };
    nix::errno::Errno::result(done).map(drop)
}

/// Enters capability mode, for good.
#[cfg(target_os = "freebsd")]
pub(crate) fn enter_capability_mode() -> Result<(), nix::errno::Errno> {
    // SAFETY: the call takes nothing, and what it forbids from now on fails with an error.
    nix::errno::Errno::result(unsafe { libc::cap_enter() }).map(drop)
}

/// Closes all descriptors from `first` on. Only for a process that has opened nothing itself yet.
pub(crate) fn close_from(first: RawFd) {
    #[cfg(target_os = "linux")]
    // SAFETY: three numbers; what was left open for this process is nobody's yet. It cannot fail but for memory, and then they stay.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, first.cast_unsigned(), u32::MAX, 0) };
    #[cfg(not(target_os = "linux"))]
    let _ = first;
}

/// Empties the environment. Only for a process of one thread.
pub(crate) fn clear_environment() {
    #[cfg(target_os = "linux")]
    // SAFETY: there is one thread, so nobody reads the environment meanwhile.
    let _ = unsafe { libc::clearenv() };
}

/// No program that this process executes brings a capability that is not among these, and none is ambient. An ordinary user may not see
/// to the former, and does not need to once new privileges are forbidden.
#[cfg(target_os = "linux")]
pub(crate) fn limit_bounding(kept: u64) -> Result<(), nix::errno::Errno> {
    use nix::errno::Errno;
    let prctl = |what, number: u64| {
        // SAFETY: these operations take numbers only.
        Errno::result(unsafe { libc::prctl(what, number, 0, 0, 0) }).map(drop)
    };
    // SAFETY: as above.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    for number in (0..64).filter(|number| kept >> number & 1 == 0) {
        match prctl(libc::PR_CAPBSET_DROP, number) {
            Err(Errno::EPERM) => return Ok(()),
            // The kernel has no more.
            Err(Errno::EINVAL) => break,
            done => done?,
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn limit_bounding(_: u64) -> Result<(), nix::errno::Errno> {
    Ok(())
}

/// Gives up all capabilities that this process has and that are not among these.
#[cfg(target_os = "linux")]
pub(crate) fn limit_capabilities(kept: u64) -> Result<(), nix::errno::Errno> {
    /// `_LINUX_CAPABILITY_VERSION_3`, of this process.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    // Effective, permitted, inheritable; the low halves, then the high ones.
    let mut has = [0_u32; 6];
    // SAFETY: the kernel reads a header of two words and, in this version, writes two times three.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_capget, HEADER.as_ptr(), has.as_mut_ptr()) })?;
    let [effective, permitted, _, effective_high, permitted_high, _] = has;
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    let keeps = [effective & low, permitted & low, 0, effective_high & high, permitted_high & high, 0];
    // SAFETY: as above, and it only reads.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), keeps.as_ptr()) }).map(drop)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn limit_capabilities(_: u64) -> Result<(), nix::errno::Errno> {
    Ok(())
}
