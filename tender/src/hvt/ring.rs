//! The ring that a guest may send and receive frames by without leaving its processor: a page of numbers behind its memory,
//! a thread of the tender that looks at it, and a port that wakes the thread (Solo5 0.11 and later).
//!
//! Everything in the ring may change while it is looked at. Indices run freely; a slot is an index modulo [`SLOTS`].

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, fence};

use super::calls::{AGAIN, Death, INVALID, OK, receive, send};
use crate::device::{Attachment, Devices};
use crate::memory::Memory;
use crate::refusal::Refusal;
use crate::seccomp::{Argument, Row};
use crate::status::{self, Record};
use crate::sys::Errno;
use crate::{raw, report, sys};

/// Bytes that are added to a guest's memory for the ring: whole granules.
pub(super) const BYTES: u64 = 2 << 20;
/// The port whose writes wake the thread.
pub(super) const DOORBELL: u16 = 0x600;

const SLOTS: u32 = 1024;
const SUBMITTED_TAIL: u64 = 0;
const SUBMITTED_HEAD: u64 = 64;
const COMPLETED_TAIL: u64 = 68;
const NEEDS_KICK: u64 = 72;
const SUBMISSIONS: u64 = 128;
pub(super) const SUBMISSION_BYTES: u64 = 32;
const COMPLETIONS: u64 = SUBMISSIONS + SLOTS as u64 * SUBMISSION_BYTES;
const COMPLETION_BYTES: u64 = 16;
const WRITE: u32 = 1;
const READ: u32 = 2;

/// How often the thread looks at an empty ring before it sleeps: some tens of microseconds.
const LOOKS: u32 = 1024;
/// Bytes of the thread's stack.
const STACK_BYTES: usize = 64 * 1024;

/// Where the ring ends.
pub(super) const END: u64 = COMPLETIONS + SLOTS as u64 * COMPLETION_BYTES;

const _: () = assert!(END == 49280 && END <= BYTES);

/// Where the submission of an index stands.
pub(super) fn slot(index: u32) -> u64 {
    SUBMISSIONS + u64::from(index % SLOTS) * SUBMISSION_BYTES
}

/// What the thread works on.
pub(super) struct Ring<'a> {
    memory: &'a Memory,
    devices: &'a Devices,
    /// Counts the guest's writes to [`DOORBELL`].
    kick: OwnedFd,
    /// Counts 1 when the thread has begun, and 1 when it has ended.
    done: OwnedFd,
    stop: AtomicBool,
}

impl<'a> Ring<'a> {
    /// A ring behind this memory, which is mapped [`BYTES`] beyond its end.
    pub(super) fn new(memory: &'a Memory, devices: &'a Devices) -> Result<Ring<'a>, Errno> {
        let (kick, done) = (sys::event_create()?, sys::event_create()?);
        Ok(Ring { memory, devices, kick, done, stop: AtomicBool::new(false) })
    }

    /// What the guest's writes to [`DOORBELL`] count up.
    pub(super) fn kick_fd(&self) -> RawFd {
        self.kick.as_raw_fd()
    }

    /// What the thread needs of the kernel beside the networks themselves.
    pub(super) fn rows(&self) -> [Row; 4] {
        let (kick, done) = (self.kick.as_raw_fd(), self.done.as_raw_fd());
        let eight = |fd| [Argument::Is(0, fd as u64), Argument::Is(2, 8)];
        [
            Row::new(libc::SYS_read, &eight(kick), "the ring's thread: waiting for frames"),
            Row::new(libc::SYS_write, &eight(kick), "ending the ring's thread"),
            Row::new(libc::SYS_write, &eight(done), "the ring's thread: saying that it has ended"),
            Row::new(libc::SYS_read, &eight(done), "waiting until the ring's thread has ended"),
        ]
    }

    /// Starts the thread, which takes no signals, and waits until it needs no more than it will be left.
    pub(super) fn start(&'static self) -> Result<(), Refusal> {
        let work = move || {
            // Without it the handlers of signals might run here, where they do as well.
            let _ = sys::block_signals();
            self.say_done();
            if let Err(death) = self.work() {
                report::say(format_args!("{death}"));
                status::record(Record::Failed);
                raw::exit(1);
            }
            self.say_done();
            loop {
                // Its end would need system calls that nobody else needs: the process ends now.
                let _ = raw::read(self.kick.as_raw_fd(), &mut [0; 8]);
            }
        };
        let started = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work);
        started.map_err(|error| Refusal::Step {
            what: "Could not start the thread for frames",
            errno: error.into(),
            remedy: "raise the limit of processes, or give --no-net-ring",
        })?;
        self.await_done();
        Ok(())
    }

    /// Lets the thread do what is still in the ring, and waits for that.
    pub(super) fn stop(&self) {
        self.stop.store(true, SeqCst);
        let _ = raw::write(self.kick.as_raw_fd(), &1u64.to_ne_bytes());
        self.await_done();
    }

    fn say_done(&self) {
        // It cannot fail: nobody else counts it up.
        let _ = raw::write(self.done.as_raw_fd(), &1u64.to_ne_bytes());
    }

    fn await_done(&self) {
        while raw::read(self.done.as_raw_fd(), &mut [0; 8]) == Err(Errno(libc::EINTR)) {}
    }

    fn work(&self) -> Result<(), Death> {
        let (tail, needs_kick) = (self.number(SUBMITTED_TAIL), self.number(NEEDS_KICK));
        let (mut head, mut looks) = (0u32, 0);
        loop {
            // The guest does not run any more when this is seen: what is in the ring then is all that there will be.
            let is_last = self.stop.load(SeqCst);
            let end = tail.load(Acquire);
            if head != end {
                head = self.serve(head, end)?;
                looks = 0;
            }
            if is_last {
                return Ok(());
            }
            if looks < LOOKS {
                looks += 1;
                std::hint::spin_loop();
                continue;
            }
            needs_kick.store(1, SeqCst);
            // Either the guest sees that it must kick, or we see what it has submitted.
            fence(SeqCst);
            if tail.load(SeqCst) == head && !self.stop.load(SeqCst) {
                // An error leaves the next look to find what there is.
                let _ = raw::read(self.kick.as_raw_fd(), &mut [0; 8]);
            }
            needs_kick.store(0, SeqCst);
            looks = 0;
        }
    }

    /// Does everything from one index to another, and says where it has come to.
    pub(super) fn serve(&self, from: u32, to: u32) -> Result<u32, Death> {
        let requests = to.wrapping_sub(from);
        if requests > SLOTS {
            return Err(Death::Ring { requests });
        }
        let mut head = from;
        while head != to {
            let slot = slot(head);
            let word = |offset| self.number(slot + offset).load(Relaxed);
            let handle = u64::from(word(4));
            let data = u64::from(word(8)) | u64::from(word(12)) << 32;
            let (len, id) = (u64::from(word(16)), word(20));
            match word(0) {
                WRITE => self.write(handle, data, len)?,
                READ => self.read(handle, data, len, id)?,
                // Nobody knows what it was; it is over.
                _ => {}
            }
            head = head.wrapping_add(1);
            self.number(SUBMITTED_HEAD).store(head, Release);
        }
        Ok(head)
    }

    fn write(&self, handle: u64, data: u64, len: u64) -> Result<(), Death> {
        match self.devices.attachment(handle) {
            Some(Attachment::Net { fd, .. }) => send(self.memory, fd.as_raw_fd(), data, len),
            _ => Ok(()),
        }
    }

    fn read(&self, handle: u64, data: u64, len: u64, id: u32) -> Result<(), Death> {
        let (result, len) = match self.devices.attachment(handle) {
            Some(Attachment::Net { fd, .. }) => match receive(self.memory, fd.as_raw_fd(), data, len)? {
                Ok(Some(len)) => (OK, len as u32),
                Ok(None) => (AGAIN, 0),
                Err(_) => (INVALID, 0),
            },
            _ => (INVALID, 0),
        };
        let tail = self.number(COMPLETED_TAIL);
        let index = tail.load(Relaxed);
        let slot = COMPLETIONS + u64::from(index % SLOTS) * COMPLETION_BYTES;
        for (offset, value) in [(0, id), (4, result), (8, len)] {
            self.number(slot + offset).store(value, Relaxed);
        }
        tail.store(index.wrapping_add(1), Release);
        Ok(())
    }

    fn number(&self, offset: u64) -> &AtomicU32 {
        self.memory.beyond(offset)
    }
}

#[cfg(test)]
mod tests {
    //! What a ring says that no guest of good will would have put there.
    use super::*;

    #[test]
    fn more_requests_than_slots_are_no_requests() {
        let memory = Memory::anywhere(2 * BYTES, BYTES).unwrap();
        let devices = Devices { list: Vec::new() };
        let ring = Ring::new(&memory, &devices).unwrap();
        let start = u32::MAX - 500;
        assert_eq!(ring.serve(start, start.wrapping_add(SLOTS)), Ok(start.wrapping_add(SLOTS)));
        for tail in [start.wrapping_add(SLOTS + 1), start.wrapping_sub(1)] {
            let requests = tail.wrapping_sub(start);
            assert_eq!(ring.serve(start, tail), Err(Death::Ring { requests }));
        }
    }

    /// A write to a device that is none is passed over, a read answered; both are done with.
    #[test]
    fn requests_to_nobody_are_answered() {
        let memory = Memory::anywhere(2 * BYTES, BYTES).unwrap();
        let devices = Devices { list: Vec::new() };
        let ring = Ring::new(&memory, &devices).unwrap();
        for (index, operation) in [(0, WRITE), (1, READ), (2, 77)] {
            ring.number(slot(index)).store(operation, Relaxed);
            ring.number(slot(index) + 20).store(40 + index, Relaxed);
        }
        assert_eq!(ring.serve(0, 3), Ok(3));
        let completion = [0, 4, 8].map(|offset| ring.number(COMPLETIONS + offset).load(Relaxed));
        assert_eq!(completion, [41, INVALID, 0]);
        let ends = [SUBMITTED_HEAD, COMPLETED_TAIL].map(|offset| ring.number(offset).load(Relaxed));
        assert_eq!(ends, [3, 1]);
    }
}
