//! The link to the event log. Events wait here until the log has acknowledged them, and are sent again after a break: each has a
//! number by which the log knows those that it has already. The log may be dead or slow: nothing waits for it, what waits is
//! bounded, and what does not fit is counted and told when there is room.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use fulmar_core::limits::{EVENTS_WAITING_BYTES_MAX, LOG_FRAME_BYTES_MAX, WIRE_INT_MAX};
use fulmar_core::name::Name;
use fulmar_core::scan::{Event as Scanned, Limits, Scanner};
use fulmar_core::wire::{self, Data, Event, Frame, Header, LogEntry, Loss, Message, Payload};
use fulmar_host::folder::Folder;
use fulmar_host::{error, info, warning};
use mio::Interest;
use mio::net::UnixStream;

use super::Control;
use super::turn::LOG;

/// The socket of the event log.
const SOCKET: &str = "log.sock";

/// Times between two attempts to reach the log, milliseconds.
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 5_000;

/// Bytes of an answer: a few words.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;

/// The link, up or down.
pub(super) struct LogLink {
    /// Where the event log is.
    sockets: Folder,
    stream: Option<UnixStream>,
    scanner: Scanner,
    answer: Vec<u8>,
    /// Frames, the oldest first. Its memory is taken at the start, and costs only what is used.
    waiting: VecDeque<u8>,
    /// Bytes of them that were sent since the link came up.
    sent: usize,
    /// The number of the oldest.
    first: u64,
    /// The number of the next one.
    next: u64,
    /// Those whose loss is still to be told, and all since the start.
    lost: u64,
    lost_in_all: u64,
    retry_at_ms: u64,
    retry_ms: u64,
    /// Whether it was said that the log cannot be reached.
    told: bool,
}

impl LogLink {
    /// To the event log that has its socket in this folder. `instance` tells the events of this process from those of every other.
    pub(super) fn new(sockets: Folder, instance: u32) -> Self {
        let first = u64::from(instance) << 32 | 1;
        Self {
            sockets,
            stream: None,
            scanner: Scanner::new(Limits::HOLD_ALL),
            answer: vec![0; ANSWER_BYTES_MAX],
            waiting: VecDeque::with_capacity(EVENTS_WAITING_BYTES_MAX),
            sent: 0,
            first,
            next: first,
            lost: 0,
            lost_in_all: 0,
            retry_at_ms: 0,
            retry_ms: RETRY_MS_MIN,
            told: false,
        }
    }

    /// Has an event sent, as soon as that can be.
    pub(super) fn push(&mut self, unix_ms: i64, event: &Event<'_>) {
        if self.lost > 0 {
            let count = i64::try_from(self.lost).unwrap_or(WIRE_INT_MAX);
            if self.put(unix_ms, &Event::Lost { count, loss: Loss::Away }) {
                self.lost = 0;
            }
        }
        if self.lost > 0 || !self.put(unix_ms, event) {
            self.lose_one();
        }
    }

    fn lose_one(&mut self) {
        if self.lost == 0 {
            warning!(
                "events are being lost: the event log is not there, and there is no more room for what it is to be told"
            );
        }
        self.lost += 1;
        self.lost_in_all += 1;
    }

    /// Bytes of what the log has not acknowledged.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Events that the log never heard of, since the start.
    pub(super) fn lost_in_all(&self) -> u64 {
        self.lost_in_all
    }

    fn put(&mut self, unix_ms: i64, event: &Event<'_>) -> bool {
        let mut buffer = [0; LOG_FRAME_BYTES_MAX];
        let payload = Payload::Data(Data::Log(LogEntry { unix_ms, event: *event }));
        let message = Message { header: Header::new(self.next, Name::ROOT), payload };
        let Ok(frame) = wire::encode_frame(&message, &mut buffer) else { return false };
        if self.waiting.len() + frame.len() > EVENTS_WAITING_BYTES_MAX {
            return false;
        }
        self.waiting.extend(frame);
        self.next += 1;
        true
    }

    /// Sends what waits. `false` when the link is broken.
    fn flush(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return true };
        while self.sent < self.waiting.len() {
            let (front, back) = self.waiting.as_slices();
            let bytes = front.get(self.sent..).filter(|bytes| !bytes.is_empty());
            let bytes = bytes.or_else(|| back.get(self.sent - front.len()..)).unwrap_or_default();
            match stream.write(bytes) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes in answers. `false` when the link is broken.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; ANSWER_BYTES_MAX];
        loop {
            let Some(stream) = &mut self.stream else { return true };
            let mut input = match stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            loop {
                match self.scanner.next(&mut self.answer, &mut input) {
                    Ok(Scanned::Frame { head_len, cut }) => {
                        let message = wire::decode(Frame { head: &self.answer[..head_len], cut });
                        let Ok(Message { header, payload }) = message else { return false };
                        if let Payload::Failure(text) = payload {
                            error!("the event log refused an event: {}", text.0.escape_ascii());
                            self.lose_one();
                        }
                        if !self.acknowledged(header.sequence) {
                            return false;
                        }
                    }
                    Ok(Scanned::More) => break,
                    Ok(_) | Err(_) => return false,
                }
            }
        }
    }

    /// The log has all up to this number. `false` where that cannot be.
    fn acknowledged(&mut self, number: u64) -> bool {
        self.retry_ms = RETRY_MS_MIN;
        while self.first <= number {
            let mut length = [0; LENGTH_BYTES];
            for (place, byte) in length.iter_mut().zip(&self.waiting) {
                *place = *byte;
            }
            let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).saturating_add(LENGTH_BYTES);
            if self.sent < bytes {
                return false;
            }
            self.waiting.drain(..bytes);
            self.sent -= bytes;
            self.first += 1;
        }
        true
    }

    /// Whether the log is there and has not acknowledged everything.
    pub(super) fn is_owed(&self) -> bool {
        self.stream.is_some() && !self.waiting.is_empty()
    }

    /// When to call [`Control::call_log`], milliseconds.
    pub(super) fn alarm_ms(&self) -> u64 {
        if self.stream.is_some() { u64::MAX } else { self.retry_at_ms }
    }

    fn retry_later(&mut self, now_ms: u64) {
        self.stream = None;
        self.retry_at_ms = now_ms + self.retry_ms;
        self.retry_ms = (self.retry_ms * 2).min(RETRY_MS_MAX);
    }
}

impl Control<'_> {
    /// Calls the event log again when it is time.
    pub(super) fn call_log(&mut self) {
        if self.log_link.stream.is_some() || self.log_link.retry_at_ms > self.now.ms {
            return;
        }
        let connected = self.log_link.sockets.connect(SOCKET).map(UnixStream::from_std);
        let connected = connected.and_then(|mut stream| {
            self.poll.registry().register(&mut stream, LOG, Interest::READABLE | Interest::WRITABLE).map(|()| stream)
        });
        let link = &mut self.log_link;
        match connected {
            Ok(stream) => {
                info!("the event log is here");
                link.told = true;
                link.stream = Some(stream);
                link.scanner = Scanner::new(Limits::HOLD_ALL);
                link.sent = 0;
                self.serve_log();
            }
            Err(error) => {
                if !core::mem::replace(&mut link.told, true) {
                    let socket = link.sockets.path_of(SOCKET);
                    let socket = socket.display();
                    warning!("no event log at {socket} ({error}): start vmmd_log to keep what happens");
                }
                link.retry_later(self.now.ms);
            }
        }
    }

    /// Goes on with the link: answers, what waits to be sent.
    pub(super) fn serve_log(&mut self) {
        if self.log_link.hear() {
            self.flush_log();
        } else {
            self.lose_log();
        }
    }

    /// Sends what waits, if something does.
    pub(super) fn flush_log(&mut self) {
        if !self.log_link.flush() {
            self.lose_log();
        }
    }

    fn lose_log(&mut self) {
        warning!("the event log is gone, calling it again");
        self.log_link.retry_later(self.now.ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> LogLink {
        LogLink::new(Folder::open(std::path::Path::new("/")).unwrap(), 7)
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told_when_there_is_room() {
        let mut link = link();
        let capacity = link.waiting.capacity();
        let mut pushed = 0;
        while link.lost == 0 {
            link.push(pushed, &Event::Hup);
            pushed += 1;
        }
        for _ in 0..9 {
            link.push(0, &Event::Hup);
        }
        assert_eq!(link.lost, 10);
        assert!(link.waiting.len() <= EVENTS_WAITING_BYTES_MAX && link.waiting.capacity() == capacity);
        // Half of them are acknowledged, after a part of all was sent.
        link.sent = link.waiting.len() - 3;
        assert!(link.acknowledged(link.first + 1000));
        link.push(0, &Event::Startup);
        assert_eq!(link.lost, 0);
        let queued = link.next - link.first;
        assert_eq!(queued, u64::try_from(pushed).unwrap() - 1 - 1001 + 2);
        // The loss is told before what came after it.
        let bytes: Vec<u8> = link.waiting.iter().copied().collect();
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
            let Payload::Data(Data::Log(entry)) = wire::decode(Frame::whole(frame)).unwrap().payload else { panic!() };
            events.push(format!("{}", entry.event));
            rest = after;
        }
        assert!(events[events.len() - 2].starts_with("10 events are lost"), "{:?}", events.last());
    }

    #[test]
    fn what_was_not_sent_is_not_acknowledged() {
        let mut link = link();
        link.push(0, &Event::Hup);
        assert!(link.acknowledged(link.first - 1));
        assert!(!link.acknowledged(link.first));
        link.sent = link.waiting.len();
        assert!(!link.acknowledged(link.first + 1));
        assert_eq!((link.waiting.len(), link.sent), (0, 0));
    }
}
