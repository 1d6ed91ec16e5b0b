//! A link to a daemon that we call. It may be dead or slow: nothing waits for it, and it is called again, less and less often.

use std::io::{self, Read as _, Write as _};
use std::mem;

use fulmar_core::scan::{Event, Limits, Scanner};
use fulmar_core::wire::{self, Frame, Header, Message, Payload};
use fulmar_host::folder::Folder;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

/// Times between two calls, milliseconds.
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 5_000;

/// Bytes of an answer: a few words.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// The other side is gone, or says what it cannot say: why makes no difference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

/// What comes of a call.
pub(super) enum Called {
    /// There was none: the link is up, or it is not time.
    NotNow,
    /// The daemon is here.
    Here,
    /// It is not. In words where and why, if nothing was said of it yet.
    Missing(Option<String>),
}

/// The link, up or down.
pub(super) struct Link {
    /// Where the daemon is: a folder, and the socket in it.
    sockets: Folder,
    socket: &'static str,
    token: Token,
    stream: Option<UnixStream>,
    scanner: Scanner,
    answer: Vec<u8>,
    retry_at_ms: u64,
    retry_ms: u64,
    /// Whether it was said that the daemon is here, or cannot be reached.
    told: bool,
}

impl Link {
    /// To the daemon that has this socket in this folder, whose events have this token; down.
    pub(super) fn new(sockets: Folder, socket: &'static str, token: Token) -> Self {
        Self {
            sockets,
            socket,
            token,
            stream: None,
            scanner: Scanner::new(Limits::HOLD_ALL),
            answer: vec![0; ANSWER_BYTES_MAX],
            retry_at_ms: 0,
            retry_ms: RETRY_MS_MIN,
            told: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.stream.is_some()
    }

    /// When to call, milliseconds.
    pub(super) fn alarm_ms(&self) -> u64 {
        if self.is_up() { u64::MAX } else { self.retry_at_ms }
    }

    /// Calls when it is time.
    pub(super) fn call(&mut self, registry: &Registry, now_ms: u64) -> Called {
        if self.is_up() || self.retry_at_ms > now_ms {
            return Called::NotNow;
        }
        let connected = self.sockets.connect(self.socket).map(UnixStream::from_std).and_then(|mut stream| {
            registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        let told = mem::replace(&mut self.told, true);
        match connected {
            Ok(stream) => {
                self.stream = Some(stream);
                self.scanner = Scanner::new(Limits::HOLD_ALL);
                Called::Here
            }
            Err(error) => {
                self.hang_up(now_ms);
                let place = || format!("{} ({error})", self.sockets.path_of(self.socket).display());
                Called::Missing((!told).then(place))
            }
        }
    }

    /// The link is down, until the next call.
    pub(super) fn hang_up(&mut self, now_ms: u64) {
        self.stream = None;
        self.retry_at_ms = now_ms + self.retry_ms;
        self.retry_ms = (self.retry_ms * 2).min(RETRY_MS_MAX);
    }

    /// The daemon is well: should it go, it is called again soon.
    pub(super) fn note_well(&mut self) {
        self.retry_ms = RETRY_MS_MIN;
    }

    /// The daemon may have come since the last call: the next one is not later than now.
    pub(super) fn call_soon(&mut self, now_ms: u64) {
        self.retry_at_ms = self.retry_at_ms.min(now_ms);
    }

    /// As [`send`], to this daemon.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        send(&mut self.stream, bytes)
    }

    /// Gives `each` all answers that have come: whom it is for, and why something was refused.
    pub(super) fn hear(
        &mut self,
        mut each: impl FnMut(&Header, Option<&[u8]>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let mut buffer = [0; ANSWER_BYTES_MAX];
        loop {
            let read = receive(&mut self.stream, &mut buffer)?;
            let mut input = &buffer[..read];
            if input.is_empty() {
                return Ok(());
            }
            loop {
                match self.scanner.next(&mut self.answer, &mut input) {
                    Ok(Event::Frame { head_len, cut }) => {
                        let message = wire::decode(Frame { head: &self.answer[..head_len], cut });
                        let Message { header, payload } = message.map_err(|_| Broken)?;
                        match payload {
                            Payload::Failure(text) => each(&header, Some(text.0))?,
                            _ => each(&header, None)?,
                        }
                    }
                    Ok(Event::More) => break,
                    Ok(_) | Err(_) => return Err(Broken),
                }
            }
        }
    }
}

/// Sends what can be sent without waiting: so many bytes, 0 where it is nothing now.
pub(super) fn send(stream: &mut Option<UnixStream>, bytes: &[u8]) -> Result<usize, Broken> {
    or_nothing(stream, |stream| stream.write(bytes))
}

/// Reads what has come: so many bytes, 0 where it is nothing yet.
pub(super) fn receive(stream: &mut Option<UnixStream>, buffer: &mut [u8]) -> Result<usize, Broken> {
    or_nothing(stream, |stream| match stream.read(buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        done => done,
    })
}

fn or_nothing(
    stream: &mut Option<UnixStream>,
    mut move_bytes: impl FnMut(&mut UnixStream) -> io::Result<usize>,
) -> Result<usize, Broken> {
    let Some(stream) = stream else { return Ok(0) };
    loop {
        match move_bytes(stream) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Broken),
        }
    }
}
