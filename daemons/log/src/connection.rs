//! One client: what it has sent of its next message, what it has not yet read of ours. Both are bounded.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use fulmar_core::limits::{
    EVENT_TEXT_BYTES_MAX, LOG_FRAME_BYTES_MAX, LOG_OUTPUT_BYTES_MAX, LOG_STALL_MS_MAX, LOG_TALK_MS_MAX, NAME_BYTES_MAX,
};
use fulmar_core::scan::{Limits, Scanner};
use fulmar_core::wire::{Header, Message, Payload, Text, encode_frame};
use fulmar_host::socket::Peer;
use mio::net::UnixStream;

use crate::subscription::Subscription;

/// Bytes of any message of ours: an event, and what is around it.
const MESSAGE_BYTES_MAX: usize = LOG_FRAME_BYTES_MAX + NAME_BYTES_MAX + 64;

/// Bytes of output that a connection may keep room for while it has none.
const IDLE_OUTPUT_BYTES_MAX: usize = 4096;

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Role {
    /// It asks, or tells, and is answered.
    Talking,
    /// It is sent events.
    Reading(Box<Subscription>),
    /// It gets what is still to be sent, and is then closed.
    Closing,
}

/// What happened to a connection that wanted to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// All went.
    All,
    /// The rest goes when the other side has read some.
    Some,
    /// The other side is gone.
    Gone,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    pub(crate) scanner: Scanner,
    /// The frame that has begun; no memory before one does.
    pub(crate) head: Vec<u8>,
    pub(crate) role: Role,
    /// Who is on the other side.
    pub(crate) peer: Peer,
    output: Vec<u8>,
    sent: usize,
    /// Whether the last attempt to send was not told to wait.
    writable: bool,
    /// When it is closed unless something moves.
    deadline: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream, peer: Peer) -> Self {
        Self {
            stream,
            scanner: Scanner::new(Limits::HOLD_ALL),
            head: Vec::new(),
            role: Role::Talking,
            peer,
            output: Vec::new(),
            sent: 0,
            writable: true,
            deadline: None,
        }
    }

    /// Reads what has come; nothing is `WouldBlock`, and 0 bytes mean that no more will come.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            self.head = vec![0; LOG_FRAME_BYTES_MAX];
        }
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// What it is sent, where it is a reader; it is one no longer then.
    pub(crate) fn take_subscription(&mut self) -> Option<Box<Subscription>> {
        match std::mem::replace(&mut self.role, Role::Talking) {
            Role::Reading(subscription) => Some(subscription),
            other => {
                self.role = other;
                None
            }
        }
    }

    /// Whether another message may be put into the output.
    pub(crate) fn has_room(&self) -> bool {
        self.output.len() + MESSAGE_BYTES_MAX <= LOG_OUTPUT_BYTES_MAX
    }

    fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Adds a message to what is to be sent.
    pub(crate) fn put(&mut self, header: &Header, payload: Payload<'_>) {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        // It cannot be full: events and texts are bounded.
        if let Ok(frame) = encode_frame(&Message { header: *header, payload }, &mut buffer) {
            self.output.extend_from_slice(frame);
        }
    }

    pub(crate) fn put_failure(&mut self, header: &Header, text: &str) {
        let text = text.as_bytes();
        self.put(header, Payload::Failure(Text(text.get(..EVENT_TEXT_BYTES_MAX).unwrap_or(text))));
    }

    /// Nothing more is read; when all is sent, it is closed.
    pub(crate) fn finish(&mut self) {
        self.role = Role::Closing;
        self.deadline = None;
    }

    /// The system says that it can send again.
    pub(crate) fn set_writable(&mut self) {
        self.writable = true;
    }

    /// Sends what waits, as far as the system takes it now.
    pub(crate) fn send(&mut self) -> Sent {
        while self.waiting() > 0 {
            if !self.writable {
                return Sent::Some;
            }
            match self.stream.write(self.output.get(self.sent..).unwrap_or_default()) {
                Ok(count) => {
                    self.sent += count;
                    // It moves.
                    self.deadline = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return Sent::Gone,
            }
        }
        self.sent = 0;
        self.output.clear();
        self.output.shrink_to(IDLE_OUTPUT_BYTES_MAX);
        Sent::All
    }

    /// A whole message has come: the time for the next one has not begun.
    pub(crate) fn restart_deadline(&mut self) {
        self.deadline = None;
    }

    /// When this connection is to be closed, where something is awaited of it: the rest of a message, or that it reads.
    pub(crate) fn update_deadline(&mut self, now: Instant) {
        let (awaited, within_ms) = match self.role {
            Role::Talking => (self.waiting() > 0 || !self.scanner.is_between_frames(), LOG_TALK_MS_MAX),
            Role::Reading(_) => (self.waiting() > 0, LOG_STALL_MS_MAX),
            Role::Closing => (true, LOG_TALK_MS_MAX),
        };
        self.deadline = match self.deadline {
            _ if !awaited => None,
            None => now.checked_add(Duration::from_millis(within_ms)),
            set => set,
        };
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
