//! What the event log is told: who has come for what, who was refused, what was revoked. The log may be dead or slow: nobody waits
//! for it, what waits is bounded, and what does not fit is counted.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar_core::limits::{
    EVENT_TEXT_BYTES_MAX, LOG_FRAME_BYTES_MAX, LOG_OUTPUT_BYTES_MAX, TLS_EVENTS_PER_MINUTE_MAX, WIRE_INT_MAX,
};
use fulmar_core::name::Name;
use fulmar_core::wire::{self, Data, Event, Header, LogEntry, Login, Loss, Message, Payload};
use fulmar_host::folder::Folder;

use crate::revoked::{Link, hex};

/// The socket of the event log.
const SOCKET: &str = "log.sock";

/// Time between two attempts to reach the log.
const RETRY: Duration = Duration::from_secs(1);

/// Time over which events are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// The link to the event log.
#[derive(Debug)]
pub(crate) struct Events {
    /// Where the event log is.
    sockets: Folder,
    stream: Option<UnixStream>,
    try_at: Instant,
    /// Frames, the oldest first, of which the first has been sent in part.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    sent: usize,
    next: u64,
    lost: i64,
    /// Of this minute.
    minute: Instant,
    told: u64,
    untold: i64,
}

impl Events {
    /// To the event log that has its socket in this folder. `instance` tells the events of this process from those of every other.
    pub(crate) fn new(sockets: Folder, instance: u32) -> Self {
        let now = Instant::now();
        Self {
            sockets,
            stream: None,
            try_at: now,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: 0,
            next: u64::from(instance) << 32 | 1,
            lost: 0,
            minute: now,
            told: 0,
            untold: 0,
        }
    }

    /// Somebody was let in, by these certificates.
    pub(crate) fn login(&mut self, name: Name, from: SocketAddr, links: &[Link]) {
        let login = Login { name, address: from.ip().to_canonical(), port: i64::from(from.port()) };
        if self.may_tell() {
            self.tell(&Event::Login(login));
            let serials: Vec<String> = links.iter().map(|link| hex(&link.serial)).collect();
            self.tell(&Event::Proof { name, serials: as_much_as_fits(&serials.join(", ")).into() });
        }
    }

    /// Somebody was refused. Says whether it is worth a line in the daemon's own log.
    pub(crate) fn refused(&mut self, name: Name, reason: &str) -> bool {
        let is_told = self.may_tell();
        if is_told {
            self.tell(&Event::Refused { name, reason: as_much_as_fits(reason).into(), user: None });
        }
        is_told
    }

    /// Something else has happened.
    pub(crate) fn tell(&mut self, event: &Event<'_>) {
        if self.lost > 0 && self.put(&Event::Lost { count: self.lost, loss: Loss::Away }) {
            self.lost = 0;
        }
        if self.lost > 0 || !self.put(event) {
            self.lost = self.lost.saturating_add(1).min(WIRE_INT_MAX);
        }
        self.send();
    }

    /// Whether this minute has room for one more that anybody can cause.
    fn may_tell(&mut self) -> bool {
        if self.minute.elapsed() >= MINUTE {
            let count = std::mem::take(&mut self.untold);
            (self.minute, self.told) = (Instant::now(), 0);
            if count > 0 {
                self.tell(&Event::Lost { count, loss: Loss::Refusals });
            }
        }
        self.told = self.told.saturating_add(1);
        let may = self.told <= TLS_EVENTS_PER_MINUTE_MAX;
        self.untold = self.untold.saturating_add(i64::from(!may));
        may
    }

    fn put(&mut self, event: &Event<'_>) -> bool {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let entry = LogEntry { unix_ms: i64::try_from(unix_ms).unwrap_or(i64::MAX), event: *event };
        let message = Message { header: Header::new(self.next, Name::ROOT), payload: Payload::Data(Data::Log(entry)) };
        let mut buffer = [0; LOG_FRAME_BYTES_MAX];
        let Ok(frame) = wire::encode_frame(&message, &mut buffer) else { return false };
        if self.waiting_bytes + frame.len() > LOG_OUTPUT_BYTES_MAX {
            return false;
        }
        self.next += 1;
        self.waiting_bytes += frame.len();
        self.waiting.push_back(frame.to_vec());
        true
    }

    /// Sends what can be sent without waiting.
    pub(crate) fn send(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.stream.is_none() {
            if Instant::now() < self.try_at {
                return;
            }
            self.try_at = Instant::now() + RETRY;
            self.stream = self.sockets.connect(SOCKET).ok();
            self.sent = 0;
        }
        let Some(stream) = &mut self.stream else { return };
        // Acknowledgements: only that there is room for them matters here.
        while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        while let Some(frame) = self.waiting.front() {
            match stream.write(frame.get(self.sent..).unwrap_or_default()) {
                Ok(count) if self.sent + count < frame.len() => self.sent += count,
                Ok(_) => {
                    self.waiting_bytes -= frame.len();
                    self.waiting.pop_front();
                    self.sent = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.stream = None;
                    return;
                }
            }
        }
    }
}

/// The text of an event. Who signs certificates chooses the length of their numbers: what does not fit is cut, so that no event is lost.
fn as_much_as_fits(text: &str) -> &str {
    text.get(..text.floor_char_boundary(EVENT_TEXT_BYTES_MAX)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use fulmar_core::wire::Frame;

    use super::*;
    use crate::revoked::KeyId;

    #[test]
    fn numbers_of_certificates_of_any_length_lose_no_event() {
        let mut events = Events::new(Folder::open(&std::env::temp_dir()).unwrap(), 7);
        events.try_at = Instant::now() + MINUTE;
        let (name, from) = (Name::parse("a:one").unwrap(), "127.0.0.1:1".parse().unwrap());
        let link = |bytes| Link { issuer: KeyId::of(b"key"), serial: vec![0x5a; bytes].into() };
        events.login(name, from, &[link(20), link(40_000)]);
        events.refused(name, &"é".repeat(EVENT_TEXT_BYTES_MAX));
        assert_eq!((events.waiting.len(), events.lost), (3, 0));
        let texts = events.waiting.iter().map(|frame| match wire::decode(Frame::whole(&frame[4..])).unwrap().payload {
            Payload::Data(Data::Log(entry)) => entry.event.to_string(),
            other => panic!("{other:?}"),
        });
        let texts: Vec<String> = texts.collect();
        assert!(texts[1].starts_with(&format!("a:one: by the certificates {}, 5a5a", "5a".repeat(20))), "{texts:?}");
        assert!(texts[2].ends_with('é') && !texts[2].contains('\u{fffd}'), "{texts:?}");
    }
}
