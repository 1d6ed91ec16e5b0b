//! The link to the event log. Events wait here until the log has acknowledged them, and are sent again after a break: each has a
//! number by which the log knows those that it has already. The log may be dead or slow: nothing waits for it, what waits is
//! bounded, and what does not fit is counted and told when there is room.

use std::collections::VecDeque;

use fulmar_core::limits::{EVENTS_WAITING_BYTES_MAX, LOG_FRAME_BYTES_MAX, WIRE_INT_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{self, Data, Event, Header, LogEntry, Loss, Message, Payload};
use fulmar_host::folder::Folder;
use fulmar_host::{error, info, warning};

use super::Control;
use super::link::{Broken, Called, Link};
use super::turn::LOG;

/// The socket of the event log.
const SOCKET: &str = "log.sock";

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;

/// The link, and what waits for it.
pub(super) struct LogLink {
    link: Link,
    waiting: Waiting,
}

/// What the log has not acknowledged.
struct Waiting {
    /// Frames, the oldest first. Its memory is taken at the start, and costs only what is used.
    frames: VecDeque<u8>,
    /// Bytes of them that were sent since the link came up.
    sent: usize,
    /// The number of the oldest.
    first: u64,
    /// The number of the next one.
    next: u64,
    /// Those whose loss is still to be told, and all since the start.
    lost: u64,
    lost_in_all: u64,
}

impl Waiting {
    /// Nothing. `instance` tells the events of this process from those of every other.
    fn new(instance: u32) -> Self {
        let first = u64::from(instance) << 32 | 1;
        let frames = VecDeque::with_capacity(EVENTS_WAITING_BYTES_MAX);
        Self { frames, sent: 0, first, next: first, lost: 0, lost_in_all: 0 }
    }

    fn push(&mut self, unix_ms: i64, event: &Event<'_>) {
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

    fn put(&mut self, unix_ms: i64, event: &Event<'_>) -> bool {
        let mut buffer = [0; LOG_FRAME_BYTES_MAX];
        let payload = Payload::Data(Data::Log(LogEntry { unix_ms, event: *event }));
        let message = Message { header: Header::new(self.next, Name::ROOT), payload };
        let Ok(frame) = wire::encode_frame(&message, &mut buffer) else { return false };
        if self.frames.len() + frame.len() > EVENTS_WAITING_BYTES_MAX {
            return false;
        }
        self.frames.extend(frame);
        self.next += 1;
        true
    }

    /// What is to be sent next, or the first part of it.
    fn unsent(&self) -> &[u8] {
        let (front, back) = self.frames.as_slices();
        let bytes = front.get(self.sent..).filter(|bytes| !bytes.is_empty());
        bytes.or_else(|| back.get(self.sent.saturating_sub(front.len())..)).unwrap_or_default()
    }

    /// The log has all up to this number, unless that cannot be.
    fn acknowledged(&mut self, number: u64) -> Result<(), Broken> {
        while self.first <= number {
            let mut length = [0; LENGTH_BYTES];
            for (place, byte) in length.iter_mut().zip(&self.frames) {
                *place = *byte;
            }
            let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).saturating_add(LENGTH_BYTES);
            if self.sent < bytes {
                return Err(Broken);
            }
            self.frames.drain(..bytes);
            self.sent -= bytes;
            self.first += 1;
        }
        Ok(())
    }
}

impl LogLink {
    /// To the event log that has its socket in this folder. `instance` tells the events of this process from those of every other.
    pub(super) fn new(sockets: Folder, instance: u32) -> Self {
        Self { link: Link::new(sockets, SOCKET, LOG), waiting: Waiting::new(instance) }
    }

    /// Has an event sent, as soon as that can be.
    pub(super) fn push(&mut self, unix_ms: i64, event: &Event<'_>) {
        self.waiting.push(unix_ms, event);
    }

    /// Bytes of what the log has not acknowledged.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting.frames.len() as u64
    }

    /// Events that the log never heard of, since the start.
    pub(super) fn lost_in_all(&self) -> u64 {
        self.waiting.lost_in_all
    }

    /// Whether the log is there and has not acknowledged everything.
    pub(super) fn is_owed(&self) -> bool {
        self.link.is_up() && !self.waiting.frames.is_empty()
    }

    /// When to call [`Control::call_log`], milliseconds.
    pub(super) fn alarm_ms(&self) -> u64 {
        self.link.alarm_ms()
    }

    /// Sends what waits.
    fn flush(&mut self) -> Result<(), Broken> {
        while self.waiting.sent < self.waiting.frames.len() {
            match self.link.send(self.waiting.unsent())? {
                0 => break,
                sent => self.waiting.sent += sent,
            }
        }
        Ok(())
    }

    /// Takes in answers.
    fn hear(&mut self) -> Result<(), Broken> {
        let mut is_well = false;
        let heard = self.link.hear(|header, refusal| {
            if let Some(text) = refusal {
                error!("the event log refused an event: {}", text.escape_ascii());
                self.waiting.lose_one();
            }
            is_well = true;
            self.waiting.acknowledged(header.sequence)
        });
        if is_well {
            self.link.note_well();
        }
        heard
    }
}

impl Control<'_> {
    /// Calls the event log again when it is time.
    pub(super) fn call_log(&mut self) {
        match self.log_link.link.call(self.poll.registry(), self.now.ms) {
            Called::NotNow | Called::Missing(None) => {}
            Called::Here => {
                info!("the event log is here");
                self.log_link.waiting.sent = 0;
                self.serve_log();
            }
            Called::Missing(Some(place)) => {
                warning!("no event log at {place}: start vmmd_log to keep what happens");
            }
        }
    }

    /// Goes on with the link: answers, what waits to be sent.
    pub(super) fn serve_log(&mut self) {
        let served = self.log_link.hear().and_then(|()| self.log_link.flush());
        self.expect_log(served);
    }

    /// Sends what waits, if something does.
    pub(super) fn flush_log(&mut self) {
        let flushed = self.log_link.flush();
        self.expect_log(flushed);
    }

    fn expect_log(&mut self, done: Result<(), Broken>) {
        if done.is_err() {
            warning!("the event log is gone, calling it again");
            self.log_link.link.hang_up(self.now.ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_core::wire::Frame;

    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_told_when_there_is_room() {
        let mut waiting = Waiting::new(7);
        let capacity = waiting.frames.capacity();
        let mut pushed = 0;
        while waiting.lost == 0 {
            waiting.push(pushed, &Event::Hup);
            pushed += 1;
        }
        for _ in 0..9 {
            waiting.push(0, &Event::Hup);
        }
        assert_eq!(waiting.lost, 10);
        assert!(waiting.frames.len() <= EVENTS_WAITING_BYTES_MAX && waiting.frames.capacity() == capacity);
        // Half of them are acknowledged, after a part of all was sent.
        waiting.sent = waiting.frames.len() - 3;
        waiting.acknowledged(waiting.first + 1000).unwrap();
        waiting.push(0, &Event::Startup);
        assert_eq!(waiting.lost, 0);
        let queued = waiting.next - waiting.first;
        assert_eq!(queued, u64::try_from(pushed).unwrap() - 1 - 1001 + 2);
        // The loss is told before what came after it.
        let bytes: Vec<u8> = waiting.frames.iter().copied().collect();
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
        let mut waiting = Waiting::new(7);
        waiting.push(0, &Event::Hup);
        waiting.acknowledged(waiting.first - 1).unwrap();
        waiting.acknowledged(waiting.first).unwrap_err();
        waiting.sent = waiting.frames.len();
        waiting.acknowledged(waiting.first + 1).unwrap_err();
        assert_eq!((waiting.frames.len(), waiting.sent), (0, 0));
    }
}
