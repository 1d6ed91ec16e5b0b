//! One client: what it has sent of its next command, what it has not yet read of our replies. Both are bounded.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use fulmar_core::console::{Cursor, LINE_BYTES_STORED_MAX, Next};
use fulmar_core::limits::{CONSOLE_FRAME_BYTES_MAX, CONSOLE_OUTPUT_BYTES_MAX, CONSOLE_TALK_MS_MAX, NAME_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::scan::{Limits, Scanner};
use fulmar_core::wire::{Data, Header, Message, Payload, Success, Text, encode_frame};
use fulmar_host::socket::Peer;
use mio::net::UnixStream;

use crate::consoles::Consoles;

/// Bytes of any message but a list: a line or a text, a name, and what is around them.
const MESSAGE_BYTES_MAX: usize = LINE_BYTES_STORED_MAX + NAME_BYTES_MAX + 128;

/// Bytes of output that a connection may keep room for while it has none.
const IDLE_OUTPUT_BYTES_MAX: usize = 4096;

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Role {
    /// It asks and is answered.
    Talking,
    /// It gets the lines of a console.
    Subscribed {
        /// Of the command, and so of each line.
        header: Box<Header>,
        /// What it has read.
        cursor: Cursor,
    },
    /// It gets what is still to be sent, and is then closed.
    Closing,
}

/// What happened to a connection that wanted to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// It goes on.
    Open,
    /// The other side is gone, or all is said.
    Over,
    /// It reads so slowly that lines were dropped before it got them.
    Slow,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    /// Who is on the other side.
    pub(crate) peer: Peer,
    pub(crate) scanner: Scanner,
    /// The frame that has begun; no memory before one does.
    pub(crate) head: Vec<u8>,
    pub(crate) role: Role,
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
            peer,
            scanner: Scanner::new(Limits::HOLD_ALL),
            head: Vec::new(),
            role: Role::Talking,
            output: Vec::new(),
            sent: 0,
            writable: true,
            deadline: None,
        }
    }

    /// Reads what has come; nothing is `WouldBlock`, and 0 bytes mean that no more will come.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            self.head = vec![0; CONSOLE_FRAME_BYTES_MAX];
        }
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// The console that it is subscribed to.
    pub(crate) fn subscribed_to(&self) -> Option<Name> {
        match &self.role {
            Role::Subscribed { header, .. } => Some(header.name),
            _ => None,
        }
    }

    /// Bytes of memory that wait to be sent.
    pub(crate) fn output_bytes(&self) -> usize {
        self.output.capacity()
    }

    /// Whether so much waits to be sent that no further command should be read.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting() > CONSOLE_OUTPUT_BYTES_MAX
    }

    fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Adds a message to what is to be sent.
    pub(crate) fn put(&mut self, header: &Header, payload: Payload<'_>) {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        // It cannot be full: texts that come from elsewhere are lines and names, and both are bounded.
        if let Ok(frame) = encode_frame(&Message { header: *header, payload }, &mut buffer) {
            self.output.extend_from_slice(frame);
        }
    }

    pub(crate) fn put_text(&mut self, header: &Header, text: &str) {
        self.put(header, Payload::Success(Success::Text(text.into())));
    }

    pub(crate) fn put_failure(&mut self, header: &Header, text: &str) {
        // Texts are ours; only a folder's name in one could be this long.
        let end = text.len().min(LINE_BYTES_STORED_MAX);
        self.put(header, Payload::Failure(Text(&text.as_bytes()[..end])));
    }

    /// Adds a frame to what is to be sent.
    pub(crate) fn put_frame(&mut self, frame: &[u8]) {
        self.output.extend_from_slice(frame);
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

    /// Sends what waits and the lines that it has not got, as far as the system takes them now.
    pub(crate) fn send(&mut self, consoles: &Consoles<'_>) -> Sent {
        loop {
            let filled = self.fill(consoles);
            if filled == Sent::Slow {
                return Sent::Slow;
            }
            if self.waiting() == 0 {
                return if matches!(self.role, Role::Closing) { Sent::Over } else { Sent::Open };
            }
            if !self.writable {
                return Sent::Open;
            }
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return Sent::Over,
            }
            if self.waiting() == 0 {
                self.sent = 0;
                self.output.clear();
                self.output.shrink_to(IDLE_OUTPUT_BYTES_MAX);
            }
        }
    }

    /// Takes lines from the ring while there is place for them.
    fn fill(&mut self, consoles: &Consoles<'_>) -> Sent {
        let Role::Subscribed { header, cursor } = &mut self.role else { return Sent::Open };
        let (header, mut at) = (**header, *cursor);
        let Some(console) = consoles.get(&header.name) else { return Sent::Open };
        let ring = console.history.ring();
        let mut buffer = [0; LINE_BYTES_STORED_MAX];
        if self.sent > CONSOLE_OUTPUT_BYTES_MAX / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        while self.output.len() + MESSAGE_BYTES_MAX <= CONSOLE_OUTPUT_BYTES_MAX {
            match ring.next_line(consoles.blocks(), &mut at, &mut buffer) {
                Next::Line { unix_ms, text } => {
                    self.put(&header, Payload::Data(Data::Console { unix_ms, line: Text(text) }));
                }
                Next::End => break,
                Next::Lost => return Sent::Slow,
            }
        }
        if let Role::Subscribed { cursor, .. } = &mut self.role {
            *cursor = at;
        }
        if ring.holds(&at) { Sent::Open } else { Sent::Slow }
    }

    /// A whole command has come: the time for the next one has not begun.
    pub(crate) fn restart_deadline(&mut self) {
        self.deadline = None;
    }

    /// When this connection is to be closed, where something is awaited of it: the rest of a command, or that it reads.
    pub(crate) fn update_deadline(&mut self, now: Instant) {
        let awaited = match self.role {
            Role::Talking => self.waiting() > 0 || !self.scanner.is_between_frames(),
            Role::Subscribed { .. } => false,
            Role::Closing => true,
        };
        self.deadline = match self.deadline {
            _ if !awaited => None,
            None => now.checked_add(Duration::from_millis(CONSOLE_TALK_MS_MAX)),
            set => set,
        };
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
