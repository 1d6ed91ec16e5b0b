//! One client: what it has sent of its next message, what it has not yet read of ours. Both are bounded.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use fulmar_core::scan::{Limits, Scanner};
use fulmar_core::wire::{Header, Message, Payload, Success, Text, encode_frame};
use mio::net::UnixStream;

use crate::info;
use crate::socket::Peer;
use crate::unreadable::Unreadable;

/// Bytes of output that a client may keep room for while it has none.
const IDLE_OUTPUT_BYTES_MAX: usize = 4096;

/// Bytes of the longest message that any daemon puts.
const MESSAGE_BYTES_MAX: usize = 4096;

/// How far a daemon goes for its clients.
#[derive(Debug)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a message to us.
    pub frame_bytes: usize,
    /// Bytes of a message of ours that [`Client::put`] takes, at most 4096.
    pub message_bytes: usize,
    /// Bytes of a text in one.
    pub text_bytes: usize,
    /// Bytes that may wait to be read.
    pub output_bytes: usize,
    /// For the rest of a message that has begun, and to read what is said, milliseconds.
    pub talk_ms: u64,
}

/// What a connection is for.
#[derive(Debug)]
pub enum Role<S> {
    /// It asks, or tells, and is answered.
    Talking,
    /// It is sent things, and what it says is not read any more.
    Subscribed(S),
    /// It gets what is still to be sent, and is then closed.
    Closing,
}

/// What happened to what waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// All went.
    All,
    /// The rest goes when the other side has read some.
    Some,
    /// The other side is gone.
    Gone,
}

/// Where a client stands that was sent what there is for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// It goes on.
    Open,
    /// The other side is gone, or all is said.
    Over,
    /// It reads so slowly that it has missed something.
    Late,
}

/// A client.
#[derive(Debug)]
pub struct Client<S> {
    pub(super) stream: UnixStream,
    /// Who is on the other side.
    pub peer: Peer,
    pub(super) scanner: Scanner,
    /// The frame that has begun; no memory before one does.
    pub(super) head: Vec<u8>,
    /// What it is there for.
    pub role: Role<S>,
    bounds: &'static Bounds,
    output: Vec<u8>,
    sent: usize,
    /// Whether the last attempt to send was not told to wait.
    writable: bool,
    /// When it is closed unless something moves.
    deadline: Option<Instant>,
}

impl<S> Client<S> {
    pub(super) fn new(stream: UnixStream, peer: Peer, bounds: &'static Bounds) -> Self {
        debug_assert!(bounds.message_bytes <= MESSAGE_BYTES_MAX);
        Self {
            stream,
            peer,
            scanner: Scanner::new(Limits::HOLD_ALL),
            head: Vec::new(),
            role: Role::Talking,
            bounds,
            output: Vec::new(),
            sent: 0,
            writable: true,
            deadline: None,
        }
    }

    /// Reads what has come; nothing is `WouldBlock`, and 0 bytes mean that no more will come.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            self.head = vec![0; self.bounds.frame_bytes];
        }
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Bytes of memory that are kept for what waits to be sent.
    #[must_use]
    pub fn output_capacity(&self) -> usize {
        self.output.capacity()
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether there is no room for another message: nothing more should be read, or put.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.waiting() + self.bounds.message_bytes > self.bounds.output_bytes
    }

    /// The output, to put a frame into, of at most `bytes`; what was sent makes room.
    pub fn output(&mut self, bytes: usize) -> &mut Vec<u8> {
        if self.sent > self.bounds.output_bytes / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        self.output.reserve(bytes);
        &mut self.output
    }

    /// Adds a message to what is to be sent.
    pub fn put(&mut self, header: &Header, payload: Payload<'_>) {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let buffer = buffer.get_mut(..self.bounds.message_bytes).unwrap_or_default();
        // It cannot be full: what is said is bounded by the daemon's kind, texts are cut.
        if let Ok(frame) = encode_frame(&Message { header: *header, payload }, buffer) {
            self.output(frame.len()).extend_from_slice(frame);
        }
    }

    /// Adds a success in words.
    pub fn put_text(&mut self, header: &Header, text: &str) {
        self.put(header, Payload::Success(Success::Text(text.into())));
    }

    /// Adds a failure in words.
    pub fn put_failure(&mut self, header: &Header, text: &str) {
        let text = text.as_bytes();
        self.put(header, Payload::Failure(Text(text.get(..self.bounds.text_bytes).unwrap_or(text))));
    }

    /// Tells it why it is sent away, where it said what it wanted an answer to. `head` is what it said.
    pub(super) fn refuse(&mut self, head: &[u8], why: Unreadable) {
        info!("connection closed: {why}");
        let known = self.scanner.head_len().min(head.len());
        if let Some(header) = why.header(head.get(..known).unwrap_or_default()) {
            self.put_failure(&header, &why.to_string());
        }
        self.finish();
    }

    /// Nothing more is read; when all is sent, it is closed.
    pub fn finish(&mut self) {
        self.role = Role::Closing;
        self.deadline = None;
    }

    /// What it is sent, where it is a subscriber; it is one no longer then.
    pub fn take_subscription(&mut self) -> Option<S> {
        match std::mem::replace(&mut self.role, Role::Talking) {
            Role::Subscribed(subscription) => Some(subscription),
            other => {
                self.role = other;
                None
            }
        }
    }

    /// What it is sent, where it is a subscriber.
    #[must_use]
    pub fn subscription(&self) -> Option<&S> {
        match &self.role {
            Role::Subscribed(subscription) => Some(subscription),
            _ => None,
        }
    }

    /// The system says that it can send again.
    pub(super) fn set_writable(&mut self) {
        self.writable = true;
    }

    /// Sends what waits, as far as the system takes it now.
    pub fn flush(&mut self) -> Sent {
        while self.waiting() > 0 {
            if !self.writable {
                return Sent::Some;
            }
            match self.stream.write(self.output.get(self.sent..).unwrap_or_default()) {
                Ok(count) => self.sent += count,
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

    /// Sends what waits and what `fill` puts into the output where there is room, as far as the system takes it now. `fill` says whether
    /// the client has kept up.
    pub fn serve(&mut self, mut fill: impl FnMut(&mut Self) -> bool) -> Served {
        loop {
            if !fill(self) {
                return Served::Late;
            }
            if self.waiting() == 0 {
                return if matches!(self.role, Role::Closing) { Served::Over } else { Served::Open };
            }
            match self.flush() {
                Sent::All => {}
                Sent::Some => return Served::Open,
                Sent::Gone => return Served::Over,
            }
        }
    }

    /// It moves: the time for the next step has not begun.
    pub fn restart_deadline(&mut self) {
        self.deadline = None;
    }

    /// When this connection is to be closed, where something is awaited of it: the rest of a message, or that it reads. Of a subscriber
    /// what the daemon awaits within so many milliseconds, if anything.
    pub(super) fn update_deadline(&mut self, now: Instant, of_subscriber_ms: Option<u64>) {
        let awaited_ms = match self.role {
            Role::Talking => (self.waiting() > 0 || !self.scanner.is_between_frames()).then_some(self.bounds.talk_ms),
            Role::Subscribed(_) => of_subscriber_ms,
            Role::Closing => Some(self.bounds.talk_ms),
        };
        self.deadline = match (awaited_ms, self.deadline) {
            (None, _) => None,
            (Some(ms), None) => now.checked_add(Duration::from_millis(ms)),
            (Some(_), set) => set,
        };
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
