//! The hypercalls. The guest gives the address of a structure; every address and length in it is the guest's word and goes
//! through the memory's door. Nothing here allocates.

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};

use fulmar_core::solo5::DeviceKind;

use crate::device::{Attachment, Devices};
use crate::memory::{Memory, Outside};
use crate::raw;
use crate::sys::Errno;
use crate::waiting::{TIMER, Waiting};

const PORTS: u16 = 0x500;
const WALLTIME: u16 = 1;
const PUTS: u16 = 2;
const POLL: u16 = 3;
const BLOCK_WRITE: u16 = 4;
const BLOCK_READ: u16 = 5;
const NET_WRITE: u16 = 6;
const NET_READ: u16 = 7;
const HALT: u16 = 8;

/// What a hypercall says of its success.
pub(super) const OK: u32 = 0;
pub(super) const AGAIN: u32 = 1;
pub(super) const INVALID: u32 = 2;

/// Bytes that a halting guest may point to.
const COOKIE_BYTES: u64 = 512;
/// The timer and 63 networks.
const EVENTS_MAX: usize = 64;

/// What answers.
pub(super) struct Host<'a> {
    pub(super) memory: &'a Memory,
    pub(super) devices: &'a Devices,
    pub(super) waiting: &'a Waiting,
}

/// What becomes of the guest after a hypercall.
pub(super) enum Answer {
    Done,
    /// It waits for a network or for the time that has been set: [`Host::wait`], with this address.
    Wait {
        at: u64,
    },
    /// It has ended; `cookie` is the address of what it wants to be known of that, or 0.
    Halt {
        status: i32,
        cookie: u64,
    },
}

/// Why a guest must end; the tender's exit code is then 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Port { port: u16 },
    Hypercall { number: u16 },
    Access { address: u64, bytes: u64 },
    Device { doing: &'static str, errno: Errno },
    Short { doing: &'static str, done: u64, bytes: u64 },
    Poll { errno: Errno },
    Ring { requests: u32 },
    Translation { rip: u64 },
    Entry { reason: u64 },
    Internal { suberror: u32, rip: u64 },
    Unhandled { reason: u32, rip: u64 },
    Run { errno: Errno },
}

impl From<Outside> for Death {
    fn from(outside: Outside) -> Death {
        Death::Access { address: outside.address, bytes: outside.bytes }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Death::Port { port } => write!(f, "Invalid guest port access: port={port:#x}"),
            Death::Hypercall { number } => write!(f, "Invalid guest hypercall: num={number}"),
            Death::Access { address, bytes } => write!(f, "Invalid guest access: gpa={address:#x}, sz={bytes}"),
            Death::Device { doing, errno } => write!(f, "Fatal error when {doing}: {errno}"),
            Death::Short { doing, done, bytes } => {
                write!(f, "Fatal error when {doing}: only {done} out of {bytes} bytes")
            }
            Death::Poll { errno } => write!(f, "Fatal error when waiting: {errno}"),
            Death::Ring { requests } => write!(f, "Invalid guest ring: {requests} requests in 1024 slots"),
            Death::Translation { rip } => write!(f, "KVM: host/guest translation fault: rip={rip:#x}"),
            Death::Entry { reason } => write!(f, "KVM: entry failure: hw_entry_failure_reason={reason:#x}"),
            Death::Internal { suberror, rip } => {
                write!(f, "KVM: internal error exit: suberror={suberror:#x}, rip={rip:#x}")
            }
            Death::Unhandled { reason, rip } => write!(f, "KVM: unhandled exit: exit_reason={reason:#x}, rip={rip:#x}"),
            Death::Run { errno } => write!(f, "KVM: ioctl (RUN) failed: {errno}"),
        }
    }
}

impl Host<'_> {
    /// Answers the hypercall that was made by writing `argument` to `port`.
    pub(super) fn call(&self, port: u16, argument: u32) -> Result<Answer, Death> {
        let at = u64::from(argument);
        let number = port.checked_sub(PORTS).filter(|number| *number <= HALT).ok_or(Death::Port { port })?;
        match number {
            WALLTIME => self.memory.put_u64(at, raw::wall_ns())?,
            PUTS => self.puts(at)?,
            POLL => return self.poll(at),
            BLOCK_WRITE | BLOCK_READ if self.devices.has(DeviceKind::Block) => self.block(at, number == BLOCK_WRITE)?,
            NET_WRITE if self.devices.has(DeviceKind::Net) => self.net_write(at)?,
            NET_READ if self.devices.has(DeviceKind::Net) => self.net_read(at)?,
            HALT => return self.halt(at),
            number => return Err(Death::Hypercall { number }),
        }
        Ok(Answer::Done)
    }

    fn puts(&self, at: u64) -> Result<(), Death> {
        let [data, len] = self.words(at)?;
        // A console that is full or gone costs the guest its bytes, never its life.
        let _ = raw::write_guest(1, self.memory.readable(data, len)?);
        Ok(())
    }

    fn poll(&self, at: u64) -> Result<Answer, Death> {
        let [timeout_ns] = self.words(at)?;
        raw::timer_set(self.waiting.timer(), timeout_ns).map_err(|errno| Death::Poll { errno })?;
        Ok(Answer::Wait { at })
    }

    /// Waits as the guest has asked for in the structure at this address; `false` if a signal came before the end of it, or
    /// after this many milliseconds (-1: for ever).
    pub(super) fn wait(&self, at: u64, ms: i32) -> Result<bool, Death> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let count = match raw::epoll_wait(self.waiting.epoll(), &mut events, ms) {
            Ok(0) | Err(Errno(libc::EINTR)) => return Ok(false),
            result => result.map_err(|errno| Death::Poll { errno })?,
        };
        let (mut ready, mut nets) = (0u64, 0u32);
        for event in events.iter().take(count) {
            let handle = event.u64;
            if handle != TIMER {
                ready |= 1 << (handle & 63);
                nets += 1;
            }
        }
        self.memory.put_u64(place(at, 8), ready)?;
        self.memory.put_u32(place(at, 16), nets)?;
        Ok(true)
    }

    fn block(&self, at: u64, write: bool) -> Result<(), Death> {
        let [handle, offset, data, len] = self.words(at)?;
        let answer = |result| Ok(self.memory.put_u32(place(at, 32), result)?);
        let Some(Attachment::Block { file, capacity_bytes, .. }) = self.devices.attachment(handle) else {
            return answer(INVALID);
        };
        let within = offset < *capacity_bytes && offset.checked_add(len).is_some_and(|end| end <= *capacity_bytes);
        if !within {
            return answer(INVALID);
        }
        let fd = file.as_raw_fd();
        let (doing, done) = match write {
            true => ("writing", raw::pwrite_guest(fd, self.memory.readable(data, len)?, offset)),
            false => ("reading", raw::pread_guest(fd, self.memory.writable(data, len)?, offset)),
        };
        whole(doing, done, len)?;
        answer(OK)
    }

    fn net_write(&self, at: u64) -> Result<(), Death> {
        let [handle, data, len] = self.words(at)?;
        let result = match self.devices.attachment(handle) {
            Some(Attachment::Net { fd, .. }) => {
                send(self.memory, fd.as_raw_fd(), data, len)?;
                OK
            }
            _ => INVALID,
        };
        Ok(self.memory.put_u32(place(at, 24), result)?)
    }

    fn net_read(&self, at: u64) -> Result<(), Death> {
        let [handle, data, len] = self.words(at)?;
        let result = match self.devices.attachment(handle) {
            Some(Attachment::Net { fd, .. }) => match receive(self.memory, fd.as_raw_fd(), data, len)? {
                Ok(Some(len)) => {
                    self.memory.put_u64(place(at, 16), len)?;
                    OK
                }
                Ok(None) => AGAIN,
                Err(errno) => return Err(Death::Device { doing: "reading", errno }),
            },
            _ => INVALID,
        };
        Ok(self.memory.put_u32(place(at, 24), result)?)
    }

    fn halt(&self, at: u64) -> Result<Answer, Death> {
        let [cookie] = self.words(at)?;
        let status = self.memory.u32_at(place(at, 8))?.cast_signed();
        if cookie != 0 {
            self.memory.readable(cookie, COOKIE_BYTES)?;
        }
        Ok(Answer::Halt { status, cookie })
    }

    /// The first words of a hypercall's structure.
    fn words<const N: usize>(&self, at: u64) -> Result<[u64; N], Death> {
        let mut words = [0; N];
        for (index, word) in (0..).zip(&mut words) {
            *word = self.memory.u64_at(place(at, 8 * index))?;
        }
        Ok(words)
    }
}

/// The place of a field in a structure: the address of that has 32 bits.
fn place(at: u64, offset: u64) -> u64 {
    at.saturating_add(offset)
}

/// What a frame is lost by, as frames are: no room, or nobody at the other end. Anything else is the host's fault.
const LOST: [i32; 8] = [
    libc::EAGAIN,
    libc::ENOBUFS,
    libc::ECONNREFUSED,
    libc::ECONNRESET,
    libc::ENOTCONN,
    libc::EPIPE,
    libc::ENETDOWN,
    libc::EHOSTUNREACH,
];

/// Sends a frame of the guest's. One that the host has no room for is lost, as frames are.
pub(super) fn send(memory: &Memory, fd: RawFd, data: u64, len: u64) -> Result<(), Death> {
    match raw::write_guest(fd, memory.readable(data, len)?) {
        Err(Errno(errno)) if LOST.contains(&errno) => Ok(()),
        done => whole("writing", done, len),
    }
}

/// Puts a frame into the guest's memory, if one has come, and says how long it is.
pub(super) fn receive(memory: &Memory, fd: RawFd, data: u64, len: u64) -> Result<Result<Option<u64>, Errno>, Death> {
    Ok(match raw::read_guest(fd, memory.writable(data, len)?) {
        Ok(0) | Err(Errno(libc::EAGAIN)) => Ok(None),
        Ok(done) => Ok(Some(done)),
        Err(errno) => Err(errno),
    })
}

/// Checks that a transfer did all that it should.
fn whole(doing: &'static str, done: Result<u64, Errno>, bytes: u64) -> Result<(), Death> {
    match done {
        Ok(done) if done == bytes => Ok(()),
        Ok(done) => Err(Death::Short { doing, done, bytes }),
        Err(errno) => Err(Death::Device { doing, errno }),
    }
}
