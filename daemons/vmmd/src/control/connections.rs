//! The memory of connections, all of it taken at the start: a place is used again and again, and its buffers cost memory only where
//! they were written. The lowest free place is taken first, so a quiet daemon touches few.

use std::fs::File;

use fulmar_core::chunks::Chunks;
use fulmar_core::limits::{
    CONNECTIONS_MAX, DIVERT_BYTES_MIN, FRAME_HEAD_BYTES_MAX, IMAGE_BYTES_MAX, LONG_REPLIES_MAX, REPLY_BYTES_MAX,
};
use fulmar_core::scan::{Limits, Scanner};
use fulmar_core::wire;
use fulmar_host::disk::Content;
use fulmar_host::spool::Spool;
use mio::net::UnixStream;

use super::content::Turn;
use super::transfers::{Dumping, Setting};
use super::worker::Images;

/// Bytes that are read at once, and of the memory that a connection has beside the head of its message.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

const LIMITS: Limits = Limits { divert_bytes_min: DIVERT_BYTES_MIN as u64, diverted_bytes_max: IMAGE_BYTES_MAX };

/// Where a conversation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// A message is coming, or may come.
    Reading,
    /// The chunks of a new content are coming; a thread may be working on some.
    Receiving,
    /// The chunks of an image are coming, after the create that has none.
    Imaging,
    /// The machine has its command, or a thread works on its reply.
    Waiting,
    /// Its long reply waits for a buffer.
    Deferred,
    /// Its reply is being sent.
    Writing,
    /// It was refused and may still be sending.
    Lingering,
}

/// Where the bytes are that are still to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    Nothing,
    /// In the connection's own memory.
    Own {
        begin: usize,
        end: usize,
    },
    /// In one of the long buffers.
    Long {
        buffer: usize,
        begin: usize,
    },
}

/// The octets of an image that follow a reply.
pub(super) enum Octets {
    Stored(File),
    Compressed(Spool<Images>),
}

impl Octets {
    pub(super) fn read_at(&self, into: &mut [u8], offset: u64) -> Option<usize> {
        match self {
            Self::Stored(file) => Content::read_at(file, into, offset).ok(),
            Self::Compressed(spool) => spool.read_at(into, offset).ok(),
        }
    }
}

/// An image on its way to a client.
pub(super) struct Sending {
    pub(super) octets: Octets,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// One connection, or room for one.
pub(super) struct Connection {
    pub(super) stream: Option<UnixStream>,
    /// Told apart from the connection that had this place before.
    pub(super) serial: u32,
    /// Whether the event loop watches it; then `uid` is known.
    pub(super) watched: bool,
    pub(super) uid: u32,
    /// Bytes that have arrived since the message last made progress.
    pub(super) arrived_bytes: u64,
    pub(super) stage: Stage,
    pub(super) scanner: Scanner,
    /// What arrives that is too large to be held.
    pub(super) spool: Option<Spool<Images>>,
    /// The image that comes in chunks, and the bytes of the create before it.
    pub(super) imaging: (Chunks, usize),
    /// Whether the image of the create, or the new content, is a zlib stream.
    pub(super) compressed: bool,
    pub(super) rest: Rest,
    pub(super) sending: Option<Sending>,
    /// The content that it sends, while no thread works on it.
    pub(super) setting: Option<Box<Setting>>,
    /// The content that it is sent, while no thread works on it.
    pub(super) dumping: Option<Box<Dumping>>,
    /// What it is to send or take of a content.
    pub(super) turn: Turn,
    /// Whether another command may follow the reply.
    pub(super) keep: bool,
    /// Whether it may still be sending when it has been refused.
    pub(super) linger: bool,
    /// Bytes at the beginning of its own memory that came after the message.
    pub(super) early_bytes: usize,
    /// When it is closed if nothing happens, milliseconds; `u64::MAX` while it waits for us.
    pub(super) deadline_ms: u64,
}

impl Connection {
    fn new() -> Self {
        Self {
            stream: None,
            serial: 0,
            watched: false,
            uid: 0,
            arrived_bytes: 0,
            stage: Stage::Reading,
            scanner: Scanner::new(LIMITS),
            spool: None,
            imaging: (Chunks::new(), 0),
            compressed: false,
            rest: Rest::Nothing,
            sending: None,
            setting: None,
            dumping: None,
            turn: Turn::default(),
            keep: false,
            linger: false,
            early_bytes: 0,
            deadline_ms: u64::MAX,
        }
    }

    /// Begins to read a message.
    pub(super) fn listen(&mut self) {
        self.stage = Stage::Reading;
        self.spool = None;
        self.compressed = false;
        self.keep = false;
        self.linger = false;
    }
}

/// All connections and their buffers.
pub(super) struct Connections {
    pub(super) all: Vec<Connection>,
    /// The head of each connection's message.
    heads: Vec<u8>,
    /// Each connection's own memory: what came too early, and then what could not be sent yet.
    own: Vec<u8>,
    /// Where bytes arrive.
    pub(super) input: Vec<u8>,
    /// Where replies are made.
    pub(super) reply: Vec<u8>,
    /// Long replies that are not read at once.
    pub(super) long: [Vec<u8>; LONG_REPLIES_MAX],
    pub(super) long_taken: [bool; LONG_REPLIES_MAX],
    /// Connections that can go on although no event says so.
    pub(super) ready: heapless::Deque<u16, CONNECTIONS_MAX>,
    /// Not later than the first deadline.
    pub(super) alarm_ms: u64,
}

impl Connections {
    pub(super) fn new() -> Self {
        // Zeroed memory of this size comes from the system untouched.
        Self {
            all: (0..CONNECTIONS_MAX).map(|_| Connection::new()).collect(),
            heads: vec![0; CONNECTIONS_MAX * FRAME_HEAD_BYTES_MAX],
            own: vec![0; CONNECTIONS_MAX * PIECE_BYTES],
            input: vec![0; PIECE_BYTES],
            reply: vec![0; REPLY_BYTES_MAX],
            long: std::array::from_fn(|_| vec![0; REPLY_BYTES_MAX]),
            long_taken: [false; LONG_REPLIES_MAX],
            ready: heapless::Deque::new(),
            alarm_ms: u64::MAX,
        }
    }

    /// Takes the lowest free place for this stream; gives it back where there is none.
    pub(super) fn take(&mut self, stream: UnixStream, deadline_ms: u64) -> Result<u16, UnixStream> {
        let Some((index, connection)) =
            self.all.iter_mut().enumerate().find(|(_, connection)| connection.stream.is_none())
        else {
            return Err(stream);
        };
        connection.stream = Some(stream);
        connection.serial = connection.serial.wrapping_add(1);
        connection.watched = false;
        connection.scanner = Scanner::new(LIMITS);
        connection.early_bytes = 0;
        connection.listen();
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        self.set_deadline(index, deadline_ms);
        Ok(index)
    }

    pub(super) fn get(&mut self, index: u16) -> &mut Connection {
        &mut self.all[usize::from(index)]
    }

    /// A connection with its head and its own memory.
    pub(super) fn parts(&mut self, index: u16) -> (&mut Connection, &mut [u8], &mut [u8]) {
        let index = usize::from(index);
        let head = &mut self.heads[index * FRAME_HEAD_BYTES_MAX..][..FRAME_HEAD_BYTES_MAX];
        (&mut self.all[index], head, &mut self.own[index * PIECE_BYTES..][..PIECE_BYTES])
    }

    pub(super) fn set_deadline(&mut self, index: u16, at_ms: u64) {
        self.get(index).deadline_ms = at_ms;
        self.alarm_ms = self.alarm_ms.min(at_ms);
    }

    /// All connections.
    pub(super) fn count(&self) -> usize {
        self.all.iter().filter(|connection| connection.stream.is_some()).count()
    }

    /// Bytes of the images that arrive from this user.
    pub(super) fn spooled_by(&self, uid: u32) -> u64 {
        let spools = self
            .all
            .iter()
            .filter(|connection| connection.uid == uid)
            .filter_map(|connection| connection.spool.as_ref());
        spools.map(|spool| spool.bytes()).sum()
    }

    /// Bytes of the images that arrive from this user for this domain.
    pub(super) fn spooled_for(&self, uid: u32, domain: &str) -> u64 {
        let is_for = |connection: &Connection, head: &[u8]| {
            let so_far = &head[..connection.scanner.head_len().min(head.len())];
            wire::peek_header(so_far).is_some_and(|header| header.name.domain() == Some(domain))
        };
        let all = self.all.iter().zip(self.heads.chunks(FRAME_HEAD_BYTES_MAX));
        let arriving = all.filter(|(connection, head)| {
            connection.uid == uid && connection.spool.is_some() && is_for(connection, head)
        });
        arriving.filter_map(|(connection, _)| connection.spool.as_ref()).map(|spool| spool.bytes()).sum()
    }

    /// Connections of this user that are watched.
    pub(super) fn count_of(&self, uid: u32) -> usize {
        self.all
            .iter()
            .filter(|connection| connection.stream.is_some() && connection.watched && connection.uid == uid)
            .count()
    }

    /// Lets this one go on in the next turn.
    pub(super) fn wake(&mut self, index: u16) {
        if !self.ready.iter().any(|ready| *ready == index) {
            // There is room for each of them once.
            let _ = self.ready.push_back(index);
        }
    }

    /// Takes a long buffer.
    pub(super) fn take_long(&mut self) -> Option<usize> {
        let buffer = self.long_taken.iter().position(|taken| !taken)?;
        self.long_taken[buffer] = true;
        Some(buffer)
    }

    /// Gives a long buffer back.
    pub(super) fn release(&mut self, rest: Rest) {
        if let Rest::Long { buffer, .. } = rest {
            self.long_taken[buffer] = false;
            self.wake_deferred();
        }
    }

    /// One connection that waits for a long buffer tries again.
    pub(super) fn wake_deferred(&mut self) {
        let waiting =
            self.all.iter().position(|connection| connection.stream.is_some() && connection.stage == Stage::Deferred);
        if let Some(index) = waiting.and_then(|index| u16::try_from(index).ok()) {
            self.wake(index);
        }
    }

    /// Frees a place and closes its stream.
    pub(super) fn free(&mut self, index: u16) {
        let connection = self.get(index);
        let rest = std::mem::replace(&mut connection.rest, Rest::Nothing);
        connection.stream = None;
        connection.sending = None;
        connection.deadline_ms = u64::MAX;
        connection.listen();
        self.release(rest);
    }
}
