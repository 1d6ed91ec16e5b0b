//! The link to `vmmd`: it tells which unikernels run, and when one has ended. When it is gone nothing is known any more, so all
//! is forgotten; `vmmd` is called again until it is there, and tells everything anew.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fulmar_core::limits::{NAME_BYTES_MAX, STATS_FRAME_BYTES_MAX, STATS_OUTPUT_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::scan::{Event, Limits, Scanner};
use fulmar_core::wire::{Command, Frame, Header, Message, Payload, StatsCommand, Success, Text, decode, encode_frame};
use fulmar_host::meter::Meter;
use fulmar_host::socket;
use fulmar_host::{info, warning};
use mio::net::UnixStream;
use mio::{Interest, Token};

use crate::server::Server;

/// Time between two attempts to reach `vmmd`, as the peer has it.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes of a text in an answer, and of an answer.
const TEXT_BYTES_MAX: usize = 256;
const ANSWER_BYTES_MAX: usize = TEXT_BYTES_MAX + NAME_BYTES_MAX + 128;

/// Bytes of a read.
const READ_BYTES: usize = 4096;

/// Reads at a time: more than `vmmd` keeps for us.
const READS_MAX: usize = 1024;

/// What has been heard of `vmmd` since it was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    Nothing,
    /// It takes us for the statistics daemon.
    Consent,
}

/// The link, up or down.
#[derive(Debug)]
pub(crate) struct Link {
    socket: PathBuf,
    token: Token,
    stream: Option<UnixStream>,
    heard: Heard,
    scanner: Scanner,
    head: Vec<u8>,
    output: Vec<u8>,
    retry_at: Option<Instant>,
    /// What was last said of why there is no link.
    told: String,
}

impl Link {
    /// To this socket of `vmmd`, whose events have this token; down.
    pub(crate) fn new(socket: PathBuf, token: Token) -> Self {
        Self {
            socket,
            token,
            stream: None,
            heard: Heard::Nothing,
            scanner: Scanner::new(Limits::HOLD_ALL),
            head: vec![0; STATS_FRAME_BYTES_MAX],
            output: Vec::new(),
            retry_at: None,
            told: String::new(),
        }
    }

    /// Whose turn it is when something happens to it.
    pub(crate) fn token(&self) -> Token {
        self.token
    }

    /// When to call again.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        self.retry_at
    }

    fn put(&mut self, header: Header, payload: Payload<'_>) {
        let mut buffer = [0; ANSWER_BYTES_MAX];
        // It cannot be full: texts are cut, and names are bounded.
        if let Ok(frame) = encode_frame(&Message { header, payload }, &mut buffer) {
            self.output.extend_from_slice(frame);
        }
    }

    /// The link is down; the reason is said once.
    fn rest(&mut self, reason: String) {
        self.stream = None;
        self.retry_at = Instant::now().checked_add(RETRY);
        if self.told != reason {
            warning!("{reason}: calling it again each second");
            self.told = reason;
        }
    }

    /// Sends what waits. `false` when the link is broken.
    fn flush(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return true };
        while !self.output.is_empty() {
            match stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

impl<M: Meter> Server<M> {
    /// Calls `vmmd` when it is time.
    pub(crate) fn call_vmmd(&mut self) {
        if self.link.stream.is_some() || self.link.retry_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        let connected = socket::connect(&self.link.socket).map(UnixStream::from_std).and_then(|mut stream| {
            self.clients.registry().register(&mut stream, self.link.token, interest)?;
            Ok(stream)
        });
        let link = &mut self.link;
        match connected {
            Ok(stream) => {
                link.stream = Some(stream);
                link.heard = Heard::Nothing;
                link.scanner = Scanner::new(Limits::HOLD_ALL);
                link.output.clear();
                link.retry_at = None;
                link.put(Header::new(0, Name::ROOT), Payload::Command(Command::Stats(StatsCommand::Initial)));
                self.serve_link();
            }
            Err(error) => {
                let text = format!("no vmmd at {} ({error})", link.socket.display());
                link.rest(text);
            }
        }
    }

    /// Takes in all that `vmmd` has said by now, and answers.
    pub(crate) fn serve_link(&mut self) {
        let heard = self.hear();
        if let Err(reason) = heard.and_then(|()| if self.link.flush() { Ok(()) } else { Err("it is gone".into()) }) {
            self.link.rest(format!("vmmd: {reason}"));
            self.targets.clear();
        }
    }

    fn hear(&mut self) -> Result<(), String> {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_MAX {
            // Answers that it does not take must not become more and more.
            if self.link.output.len() > STATS_OUTPUT_BYTES_MAX {
                return Ok(());
            }
            let Some(stream) = &mut self.link.stream else { return Ok(()) };
            let mut bytes = match stream.read(&mut buffer) {
                Ok(0) => return Err("it is gone".into()),
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            while !bytes.is_empty() {
                let mut head = std::mem::take(&mut self.link.head);
                let heard = match self.link.scanner.next(&mut head, &mut bytes) {
                    Ok(Event::Frame { head_len, cut }) => {
                        match decode(Frame { head: head.get(..head_len).unwrap_or_default(), cut }) {
                            Ok(message) => self.heard(&message),
                            Err(error) => Err(error.to_string()),
                        }
                    }
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.to_string()),
                };
                self.link.head = head;
                heard?;
            }
        }
        Ok(())
    }

    fn heard(&mut self, message: &Message<'_>) -> Result<(), String> {
        if self.link.heard == Heard::Nothing {
            return match message.payload {
                Payload::Success(Success::Empty) if message.header.sequence == 0 => {
                    info!("vmmd is here");
                    // Whatever was added by others while there was none.
                    self.targets.clear();
                    self.link.heard = Heard::Consent;
                    self.link.told.clear();
                    Ok(())
                }
                Payload::Failure(text) => Err(format!("it refuses: {}", text.0.escape_ascii())),
                _ => Err("it answers something else".into()),
            };
        }
        let answer = self.watch(message).unwrap_or_else(|| Err("unknown command".into()));
        let payload = match &answer {
            Ok(text) => Payload::Success(Success::Text((*text).into())),
            Err(text) => {
                Payload::Failure(Text(text.as_bytes().get(..text.len().min(TEXT_BYTES_MAX)).unwrap_or_default()))
            }
        };
        self.link.put(message.header, payload);
        Ok(())
    }
}
