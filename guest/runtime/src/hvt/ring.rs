//! The guest's side of the ring that a tender may share with us: frames go out without a hypercall each. Everything here is
//! arithmetic on atomics, so that it is also tested outside of a unikernel.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Entries of each of the two lists.
pub(crate) const ENTRIES: u32 = 1024;
/// Frames that can be on their way out at once. The ABI allows more; these are memory of every image with a network.
pub(crate) const BUFFERS: u32 = 16;
/// What a buffer holds; longer frames go by hypercall.
pub(crate) const BUFFER_BYTES: usize = 2048;

const WRITE: u32 = 1;
const READ: u32 = 2;
const OK: u32 = 0;

/// A request to the host.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Submission {
    /// 1 writes, 2 reads.
    pub(crate) operation: AtomicU32,
    /// The network.
    pub(crate) handle: AtomicU32,
    /// Address of the frame.
    pub(crate) data: AtomicU64,
    /// Bytes of the frame, or room for one.
    pub(crate) len: AtomicU32,
    /// The number of this request.
    pub(crate) id: AtomicU32,
    _reserved: AtomicU64,
}

/// What came of a request to read.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Completion {
    /// The number of the request.
    pub(crate) id: AtomicU32,
    /// 0 if a frame has come.
    pub(crate) result: AtomicU32,
    /// Its bytes.
    pub(crate) len: AtomicU32,
    _reserved: AtomicU32,
}

/// The indices that one side writes, on a cache line of their own. They count up for ever; an entry's place is the remainder.
#[repr(C, align(64))]
#[derive(Default)]
pub(crate) struct Guests {
    /// Requests made.
    pub(crate) submitted: AtomicU32,
    /// Completions seen.
    pub(crate) seen: AtomicU32,
}

/// As [`Guests`], for what the host writes.
#[repr(C, align(64))]
#[derive(Default)]
pub(crate) struct Hosts {
    /// Requests done with.
    pub(crate) taken: AtomicU32,
    /// Completions made.
    pub(crate) completed: AtomicU32,
    /// Whether the host sleeps and must be woken.
    pub(crate) sleeps: AtomicU32,
}

/// The shared memory.
#[repr(C)]
pub(crate) struct Shared {
    /// Written by the guest.
    pub(crate) guests: Guests,
    /// Written by the host.
    pub(crate) hosts: Hosts,
    /// Written by the guest.
    pub(crate) submissions: [Submission; ENTRIES as usize],
    /// Written by the host.
    pub(crate) completions: [Completion; ENTRIES as usize],
}

const _: () = assert!(size_of::<Submission>() == 32 && size_of::<Completion>() == 16 && size_of::<Shared>() == 49280);
const _: () = assert!(BUFFERS.is_power_of_two() && BUFFERS < ENTRIES);

/// Our side of the ring.
pub(crate) struct Ring {
    shared: &'static Shared,
    /// The frame of request N is in buffer N modulo [`BUFFERS`].
    buffers: &'static mut [[u8; BUFFER_BYTES]; BUFFERS as usize],
}

impl Ring {
    /// The ring in this memory, from which nothing has been asked yet.
    pub(crate) fn new(shared: &'static Shared, buffers: &'static mut [[u8; BUFFER_BYTES]; BUFFERS as usize]) -> Ring {
        Ring { shared, buffers }
    }

    /// Whether a request would find its buffer free: the host is done with all but the last few.
    pub(crate) fn has_room(&self) -> bool {
        let waiting = self.submitted().wrapping_sub(self.shared.hosts.taken.load(Ordering::Acquire));
        waiting < BUFFERS
    }

    /// Asks the host to send a frame of at most [`BUFFER_BYTES`]; the ring must [have room](Ring::has_room). Calls `wake` if
    /// the host sleeps.
    pub(crate) fn write(&mut self, handle: u32, frame: &[u8], wake: impl FnOnce()) {
        let index = (self.submitted() % BUFFERS) as usize;
        let Some((buffer, room)) =
            self.buffers.get_mut(index).and_then(|buffer| Some((buffer.as_ptr(), buffer.get_mut(..frame.len())?)))
        else {
            return;
        };
        room.copy_from_slice(frame);
        self.submit(WRITE, handle, buffer.expose_provenance() as u64, frame.len() as u32, wake);
    }

    /// Asks the host to put the next frame to this address; the ring must [have room](Ring::has_room), and the answer must
    /// be [taken](Ring::completion) before it is asked again.
    pub(crate) fn read(&mut self, handle: u32, data: u64, room: u32, wake: impl FnOnce()) {
        self.submit(READ, handle, data, room, wake);
    }

    /// What came of reading, once the host has answered: the bytes of the frame, or that there is none.
    pub(crate) fn completion(&mut self) -> Option<Option<usize>> {
        let seen = self.shared.guests.seen.load(Ordering::Relaxed);
        if self.shared.hosts.completed.load(Ordering::Acquire) == seen {
            return None;
        }
        let completion = self.shared.completions.get((seen % ENTRIES) as usize)?;
        let len = completion.len.load(Ordering::Relaxed) as usize;
        let came = completion.result.load(Ordering::Relaxed) == OK;
        self.shared.guests.seen.store(seen.wrapping_add(1), Ordering::Release);
        Some(came.then_some(len))
    }

    fn submitted(&self) -> u32 {
        self.shared.guests.submitted.load(Ordering::Relaxed)
    }

    fn submit(&mut self, operation: u32, handle: u32, data: u64, len: u32, wake: impl FnOnce()) {
        let id = self.submitted();
        let Some(entry) = self.shared.submissions.get((id % ENTRIES) as usize) else { return };
        entry.operation.store(operation, Ordering::Relaxed);
        entry.handle.store(handle, Ordering::Relaxed);
        entry.data.store(data, Ordering::Relaxed);
        entry.len.store(len, Ordering::Relaxed);
        entry.id.store(id, Ordering::Relaxed);
        self.shared.guests.submitted.store(id.wrapping_add(1), Ordering::Release);
        // The host says that it sleeps, and then looks once more for requests: whoever comes second sees the other's word.
        fence(Ordering::SeqCst);
        if self.shared.hosts.sleeps.load(Ordering::Relaxed) != 0 {
            wake();
        }
    }
}
