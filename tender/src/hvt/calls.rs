//! The hypercalls. The guest gives the address of a structure; every address and length in it is the guest's word and goes
//! through the memory's door. Nothing here allocates.

use std::fmt;
use std::os::fd::BorrowedFd;

use crate::device::{Attachment, Devices};
use crate::memory::{Memory, Outside};
use crate::sys::{self, Errno, TIMER};

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
const OK: u32 = 0;
const AGAIN: u32 = 1;
const INVALID: u32 = 2;

/// Bytes that a halting guest may point to.
const COOKIE_BYTES: u64 = 512;
/// The timer and 63 networks.
const EVENTS_MAX: usize = 64;

/// What answers.
pub(super) struct Host<'a> {
    pub(super) memory: &'a mut Memory,
    pub(super) devices: &'a Devices,
    pub(super) epoll: BorrowedFd<'a>,
    pub(super) timer: BorrowedFd<'a>,
}

/// What becomes of the guest after a hypercall.
pub(super) enum Answer {
    Done,
    Halt { status: i32 },
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
    pub(super) fn call(&mut self, port: u16, argument: u32) -> Result<Answer, Death> {
        let at = u64::from(argument);
        let number = port.checked_sub(PORTS).filter(|number| *number <= HALT).ok_or(Death::Port { port })?;
        match number {
            WALLTIME => self.put_u64(at, sys::wall_ns())?,
            PUTS => self.puts(at)?,
            POLL => self.poll(at)?,
            BLOCK_WRITE | BLOCK_READ if self.has(is_block) => self.block(at, number == BLOCK_WRITE)?,
            NET_WRITE if self.has(is_net) => self.net_write(at)?,
            NET_READ if self.has(is_net) => self.net_read(at)?,
            HALT => return self.halt(at),
            number => return Err(Death::Hypercall { number }),
        }
        Ok(Answer::Done)
    }

    fn puts(&mut self, at: u64) -> Result<(), Death> {
        let [data, len] = self.words(at)?;
        // A console that is full or gone costs the guest its bytes, never its life.
        let _ = sys::write(1, self.memory.bytes(data, len)?);
        Ok(())
    }

    fn poll(&mut self, at: u64) -> Result<(), Death> {
        let [timeout_ns] = self.words(at)?;
        let failed = |errno| Death::Poll { errno };
        sys::timer_set(self.timer, timeout_ns).map_err(failed)?;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let count = loop {
            match sys::epoll_wait(self.epoll, &mut events) {
                Err(Errno(libc::EINTR)) => {}
                result => break result.map_err(failed)?,
            }
        };
        let (mut ready, mut nets) = (0u64, 0u32);
        for event in events.iter().take(count) {
            let handle = event.u64;
            if handle != TIMER {
                ready |= 1 << (handle & 63);
                nets += 1;
            }
        }
        self.put_u64(at + 8, ready)?;
        self.put_u32(at + 16, nets)
    }

    fn block(&mut self, at: u64, write: bool) -> Result<(), Death> {
        let [handle, offset, data, len] = self.words(at)?;
        let Some(Attachment::Block { capacity_bytes, .. }) = self.devices.attachment(handle) else {
            return self.put_u32(at + 32, INVALID);
        };
        let within = offset < *capacity_bytes && offset.checked_add(len).is_some_and(|end| end <= *capacity_bytes);
        let Some(Ok(start)) = within.then(|| i64::try_from(offset)) else { return self.put_u32(at + 32, INVALID) };
        let fd = self.fd(handle);
        let (doing, done) = match write {
            true => ("writing", sys::pwrite(fd, self.memory.bytes(data, len)?, start)),
            false => ("reading", sys::pread(fd, self.memory.bytes_mut(data, len)?, start)),
        };
        whole(doing, done, len)?;
        self.put_u32(at + 32, OK)
    }

    fn net_write(&mut self, at: u64) -> Result<(), Death> {
        let [handle, data, len] = self.words(at)?;
        let Some(Attachment::Net { .. }) = self.devices.attachment(handle) else {
            return self.put_u32(at + 24, INVALID);
        };
        match sys::write(self.fd(handle), self.memory.bytes(data, len)?) {
            // A frame that the host has no room for is lost, as frames are.
            Err(Errno(libc::EAGAIN | libc::ENOBUFS)) => {}
            done => whole("writing", done, len)?,
        }
        self.put_u32(at + 24, OK)
    }

    fn net_read(&mut self, at: u64) -> Result<(), Death> {
        let [handle, data, len] = self.words(at)?;
        let Some(Attachment::Net { .. }) = self.devices.attachment(handle) else {
            return self.put_u32(at + 24, INVALID);
        };
        match sys::read(self.fd(handle), self.memory.bytes_mut(data, len)?) {
            Ok(0) | Err(Errno(libc::EAGAIN)) => self.put_u32(at + 24, AGAIN),
            Ok(done) => {
                self.put_u64(at + 16, done as u64)?;
                self.put_u32(at + 24, OK)
            }
            Err(errno) => Err(Death::Device { doing: "reading", errno }),
        }
    }

    fn halt(&mut self, at: u64) -> Result<Answer, Death> {
        let [cookie] = self.words(at)?;
        let status = i32::from_le_bytes(self.array(at + 8)?);
        if cookie != 0 {
            self.memory.bytes(cookie, COOKIE_BYTES)?;
        }
        Ok(Answer::Halt { status })
    }

    fn has(&self, kind: fn(&Attachment) -> bool) -> bool {
        self.devices.list().iter().any(|device| kind(&device.attachment))
    }

    /// The descriptor behind a handle that has been checked.
    fn fd(&self, handle: u64) -> i32 {
        self.devices.attachment(handle).map_or(-1, Attachment::fd)
    }

    /// The first words of a hypercall's structure.
    fn words<const N: usize>(&self, at: u64) -> Result<[u64; N], Death> {
        let mut words = [0; N];
        for (index, word) in (0..).zip(&mut words) {
            *word = u64::from_le_bytes(self.array(at + 8 * index)?);
        }
        Ok(words)
    }

    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], Death> {
        let mut array = [0; N];
        array.copy_from_slice(self.memory.bytes(at, N as u64)?);
        Ok(array)
    }

    fn put_u64(&mut self, at: u64, value: u64) -> Result<(), Death> {
        self.memory.bytes_mut(at, 8)?.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn put_u32(&mut self, at: u64, value: u32) -> Result<(), Death> {
        self.memory.bytes_mut(at, 4)?.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }
}

fn is_block(attachment: &Attachment) -> bool {
    matches!(attachment, Attachment::Block { .. })
}

fn is_net(attachment: &Attachment) -> bool {
    matches!(attachment, Attachment::Net { .. })
}

/// Checks that a transfer did all that it should.
fn whole(doing: &'static str, done: Result<usize, Errno>, bytes: u64) -> Result<(), Death> {
    match done {
        Ok(done) if done as u64 == bytes => Ok(()),
        Ok(done) => Err(Death::Short { doing, done: done as u64, bytes }),
        Err(errno) => Err(Death::Device { doing, errno }),
    }
}
