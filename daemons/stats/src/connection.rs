//! One client: what it has sent of its next command, what it has not yet read of our replies. Both are bounded.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use fulmar_core::limits::{
    DEVICES_MAX, NAME_BYTES_MAX, STATS_FRAME_BYTES_MAX, STATS_OUTPUT_BYTES_MAX, STATS_TALK_MS_MAX,
};
use fulmar_core::name::Name;
use fulmar_core::scan::{Limits, Scanner};
use fulmar_core::wire::{Counter, Data, Header, Interface, List, Message, Payload, Success, Text, Usage, encode_frame};
use fulmar_host::socket::Peer;
use mio::net::UnixStream;

use crate::targets::{Record, covers};

/// Bytes of a text in a reply.
const TEXT_BYTES_MAX: usize = 512;

/// Bytes of a reply: a text, a name, and what is around them.
const REPLY_BYTES_MAX: usize = TEXT_BYTES_MAX + NAME_BYTES_MAX + 128;

/// Bytes of what is measured of one unikernel with all interfaces that it can have: 200 for each besides its name, whose bytes
/// came in one message.
const USAGE_BYTES_MAX: usize = DEVICES_MAX * 200 + STATS_FRAME_BYTES_MAX + 2048;

const _: () = assert!(USAGE_BYTES_MAX < STATS_OUTPUT_BYTES_MAX);

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Role {
    /// It asks and is answered.
    Talking,
    /// It gets what is measured.
    Subscribed {
        /// Of the command, and so of all that is sent.
        header: Box<Header>,
        /// How many records of the last measurement it has taken or passed.
        at: usize,
    },
    /// It gets what is still to be sent, and is then closed.
    Closing,
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
    /// When it is closed unless it has caught up.
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
            self.head = vec![0; STATS_FRAME_BYTES_MAX];
        }
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// What it is subscribed to.
    pub(crate) fn subscribed_to(&self) -> Option<Name> {
        match &self.role {
            Role::Subscribed { header, .. } => Some(header.name),
            _ => None,
        }
    }

    /// Whether so much waits to be sent that no further command should be read.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting() > STATS_OUTPUT_BYTES_MAX
    }

    fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Adds a message to what is to be sent.
    pub(crate) fn put(&mut self, header: &Header, payload: Payload<'_>) {
        let mut buffer = [0; REPLY_BYTES_MAX];
        // It cannot be full: texts are cut, and names are bounded.
        if let Ok(frame) = encode_frame(&Message { header: *header, payload }, &mut buffer) {
            self.output.extend_from_slice(frame);
        }
    }

    pub(crate) fn put_text(&mut self, header: &Header, text: &str) {
        self.put(header, Payload::Success(Success::Text(text.into())));
    }

    pub(crate) fn put_failure(&mut self, header: &Header, text: &str) {
        let end = text.len().min(TEXT_BYTES_MAX);
        self.put(header, Payload::Failure(Text(text.as_bytes().get(..end).unwrap_or_default())));
    }

    /// It gets what is measured from now on. What it says is not read any more.
    pub(crate) fn subscribe(&mut self, header: &Header, records: usize) {
        self.role = Role::Subscribed { header: Box::new(*header), at: records };
        self.put_text(header, "subscribed");
    }

    /// There are new records. What it has not taken of those before is lost to it.
    pub(crate) fn restart(&mut self) {
        if let Role::Subscribed { at, .. } = &mut self.role {
            *at = 0;
        }
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

    /// Sends what waits and the records that it has not got, as far as the system takes them now. Whether it goes on.
    pub(crate) fn send(&mut self, records: &[Record]) -> bool {
        loop {
            self.fill(records);
            if self.waiting() == 0 {
                return !matches!(self.role, Role::Closing);
            }
            if !self.writable {
                return true;
            }
            match self.stream.write(self.output.get(self.sent..).unwrap_or_default()) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return false,
            }
            if self.waiting() == 0 {
                self.sent = 0;
                self.output.clear();
            }
        }
    }

    /// Takes records while there is place for them.
    fn fill(&mut self, records: &[Record]) {
        let Role::Subscribed { header, at } = &mut self.role else { return };
        if self.sent > STATS_OUTPUT_BYTES_MAX / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        while let Some(record) = records.get(*at) {
            if covers(&header.name, &record.name) {
                if self.output.len() + USAGE_BYTES_MAX > STATS_OUTPUT_BYTES_MAX {
                    return;
                }
                put_record(&mut self.output, header, record);
            }
            *at += 1;
        }
        if self.output.is_empty() {
            self.output.shrink_to(0);
        }
    }

    /// A whole command has come: the time for the next one has not begun.
    pub(crate) fn restart_deadline(&mut self) {
        self.deadline = None;
    }

    /// When this connection is to be closed, where something is awaited of it: the rest of a command, or that it reads.
    pub(crate) fn update_deadline(&mut self, now: Instant, records: usize) {
        let awaited = match self.role {
            Role::Talking => self.waiting() > 0 || !self.scanner.is_between_frames(),
            Role::Subscribed { at, .. } => self.waiting() > 0 || at < records,
            Role::Closing => true,
        };
        self.deadline = match self.deadline {
            _ if !awaited => None,
            None => now.checked_add(Duration::from_millis(STATS_TALK_MS_MAX)),
            set => set,
        };
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Adds what was measured of one unikernel, whose name is as seen from the path that was subscribed to.
fn put_record(output: &mut Vec<u8>, header: &Header, record: &Record) {
    let sample = &record.sample;
    let interfaces: Vec<Interface<'_>> = sample
        .interfaces
        .iter()
        .filter_map(|(place, counters)| {
            Some(Interface { bridge: record.devices.get(*place)?.as_str().into(), ..*counters })
        })
        .collect();
    let counters = sample.counters.as_ref().map(|counters| {
        counters.iter().map(|(name, value)| Counter { name: name.as_str().into(), value: *value }).collect::<Vec<_>>()
    });
    let usage = Usage {
        rusage: sample.rusage,
        interfaces: List::Items(&interfaces),
        counters: counters.as_deref().map(List::Items),
        memory: sample.memory,
    };
    let header = Header::new(header.sequence, record.name.relative_to(&header.name.path()));
    let mut buffer = [0; USAGE_BYTES_MAX];
    // The bound is that of as many interfaces as can be added.
    if let Ok(frame) = encode_frame(&Message { header, payload: Payload::Data(Data::Stats(usage)) }, &mut buffer) {
        output.extend_from_slice(frame);
    }
}
