//! Clients: accepting them, reading their messages, handing commands to the machine. Whatever a client sends or fails to send, it costs a
//! bounded amount of memory and time, and is answered in words where its header could be read.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use fulmar_core::chunks::Chunks;
use fulmar_core::limits::{
    CONNECTIONS_PER_USER_MAX, IDLE_MS_MAX, IMAGE_BYTES_MAX, PROGRESS_BYTES_MIN, PROGRESS_MS_MAX,
    SPOOL_BYTES_PER_USER_MAX,
};
use fulmar_core::machine::{Input, Spooled};
use fulmar_core::name::Name;
use fulmar_core::scan::{Event, ScanError};
use fulmar_core::wire::{
    self, BlockCommand, Command, Cut, Frame, Header, Message, Payload, StatsCommand, UnikernelCommand,
};
use fulmar_host::socket::{Peer, peer_uid};
use fulmar_host::spool::SpoolError;
use fulmar_host::{error, info, warning};
use mio::Interest;
use mio::net::UnixStream;

use super::Control;
use super::arrivals::{is_followed_by_image, spool_inline};
use super::connections::Stage;
use super::replies::Written;
use super::turn::token_of;

/// Connections that are accepted before others have their turn.
const ACCEPTS_MAX: usize = 64;

/// Steps of one connection before others have their turn: one reads, answers or sends at most 64 KiB or one message.
const STEPS_MAX: usize = 32;

/// Bytes of a refusal that we word ourselves.
const REFUSAL_BYTES_MAX: usize = 1024;

/// How reading went.
pub(super) enum Reading {
    /// Nothing more has come.
    Blocked,
    /// The conversation is over.
    Over,
    /// Something was read, or done about a message.
    Acted,
}

impl Control<'_> {
    /// Accepts those who wait, and serves each at once: most have their question ready and their answer fits.
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else {
                self.accepting = false;
                return;
            };
            match listener.accept() {
                Ok((stream, _)) => match self.connections.take(stream, self.now.ms + IDLE_MS_MAX) {
                    Ok(index) => self.serve(index),
                    Err(stream) => self.turn_away(stream),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accepting = false;
                    return;
                }
                // The client may be gone already, which is its own business.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    error!("could not accept a connection: {error}");
                    self.accepting = false;
                    return;
                }
            }
        }
    }

    /// All places are taken: says so, without waiting.
    fn turn_away(&mut self, mut stream: UnixStream) {
        warning!("connection refused: all are in use");
        let read = stream.read(&mut self.connections.input).unwrap_or(0);
        let header = self.connections.input.get(4..read).and_then(wire::peek_header);
        let header = header.unwrap_or_else(|| Header::new(0, Name::ROOT));
        let payload = Payload::Failure("too many connections, try again".into());
        if let Ok(frame) = wire::encode_frame(&Message { header, payload }, &mut self.connections.reply) {
            let _ = stream.write(frame);
        }
    }

    /// Goes on with a connection until it has to wait, or has had its share of this turn: one that talks without end does not
    /// keep others waiting.
    pub(super) fn serve(&mut self, index: u16) {
        self.serving = Some(index);
        let goes_on = (0..STEPS_MAX).all(|_| self.step(index));
        self.serving = None;
        if goes_on {
            self.connections.wake(index);
        }
    }

    /// One step of a connection; `false` when it has to wait or is gone.
    fn step(&mut self, index: u16) -> bool {
        let connection = self.connections.get(index);
        if connection.stream.is_none() {
            return false;
        }
        match connection.stage {
            Stage::Reading => match self.read(index) {
                Reading::Acted => return true,
                Reading::Blocked => self.watch(index),
                Reading::Over => self.close(index),
            },
            Stage::Receiving => match self.receive_content(index) {
                Reading::Acted => return true,
                Reading::Blocked => self.watch(index),
                Reading::Over => self.close(index),
            },
            Stage::Imaging => match self.receive_image(index) {
                Reading::Acted => return true,
                Reading::Blocked => self.watch(index),
                Reading::Over => self.close(index),
            },
            Stage::Lingering => match self.discard(index) {
                Reading::Acted => return true,
                Reading::Blocked => self.watch(index),
                Reading::Over => self.close(index),
            },
            Stage::Waiting => self.watch(index),
            Stage::Deferred => {
                self.send_reply(index);
                if self.connections.get(index).stage != Stage::Deferred {
                    // It may not have needed the buffer in the end.
                    self.connections.wake_deferred();
                    return true;
                }
                self.watch(index);
            }
            Stage::Writing => match self.write(index) {
                Written::Blocked => self.watch(index),
                Written::Failed => self.close(index),
                Written::All => {
                    let deadline_ms = self.now.ms + IDLE_MS_MAX;
                    let connection = self.connections.get(index);
                    if connection.linger {
                        connection.stage = Stage::Lingering;
                        if let Some(stream) = &connection.stream {
                            let _ = stream.shutdown(Shutdown::Write);
                        }
                    } else if connection.keep {
                        connection.listen();
                        self.connections.set_deadline(index, deadline_ms);
                    } else {
                        self.close(index);
                        return false;
                    }
                    return true;
                }
            },
        }
        false
    }

    /// Lets the event loop watch a connection that has to wait, unless its user has too many.
    fn watch(&mut self, index: u16) {
        let connection = self.connections.get(index);
        let Some(stream) = connection.stream.as_mut().filter(|_| !connection.watched) else { return };
        connection.watched = true;
        let watched = self.poll.registry().register(stream, token_of(index), Interest::READABLE | Interest::WRITABLE);
        if let Err(error) = watched {
            error!(connection = index; "could not watch a connection: {error}");
            return self.close(index);
        }
        let uid = self.uid_of(index);
        if !Self::trusts(uid) && self.connections.count_of(uid) > CONNECTIONS_PER_USER_MAX {
            warning!(user = uid, connection = index; "connection refused: user {uid} has {CONNECTIONS_PER_USER_MAX} already");
            if self.connections.get(index).stage == Stage::Reading {
                let header = self.header_so_far(index).unwrap_or_else(|| Header::new(0, Name::ROOT));
                self.refuse(index, &header, "too many connections of this user, try again");
            }
            self.close(index);
        }
    }

    /// Who is on the other side, noted for the count of its connections.
    pub(super) fn uid_of(&mut self, index: u16) -> u32 {
        let connection = self.connections.get(index);
        connection.uid = connection.stream.as_ref().and_then(|stream| peer_uid(stream).ok()).unwrap_or(u32::MAX);
        connection.uid
    }

    /// Whether nothing is kept from this user for the sake of others.
    pub(super) fn trusts(uid: u32) -> bool {
        Peer::with(uid).is_for_many
    }

    /// Ends a connection. What it asked for goes on.
    pub(super) fn close(&mut self, index: u16) {
        let was_waiting = matches!(self.connections.get(index).stage, Stage::Waiting | Stage::Receiving);
        if was_waiting {
            let serial = self.connections.get(index).serial;
            self.events.note_gone(index, serial);
        }
        self.drop_content(index);
        self.connections.free(index);
        if was_waiting {
            self.handle(Input::HangUp { connection: index });
        }
    }

    fn read(&mut self, index: u16) -> Reading {
        let read = match self.receive(index) {
            Ok(0) => {
                if !self.connections.get(index).scanner.is_between_frames() {
                    info!(connection = index; "a connection ended within a message");
                }
                return Reading::Over;
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Reading::Blocked,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Reading::Acted,
            Err(_) => return Reading::Over,
        };
        let begins = self.connections.get(index).scanner.is_between_frames();
        self.scan(index, read).unwrap_or_else(|| {
            self.progress(index, read, begins);
            Reading::Acted
        })
    }

    /// Some more of a message has arrived. Whoever sends a little again and again keeps its connection, and what it makes us hold,
    /// no longer than whoever sends nothing.
    pub(super) fn progress(&mut self, index: u16, read: usize, begins: bool) {
        let connection = self.connections.get(index);
        connection.arrived_bytes = connection.arrived_bytes.saturating_add(read as u64);
        if begins || connection.arrived_bytes >= PROGRESS_BYTES_MIN {
            connection.arrived_bytes = 0;
            self.connections.set_deadline(index, self.now.ms + PROGRESS_MS_MAX);
        }
    }

    /// Fills the input: with what came early, or with what has come now.
    pub(super) fn receive(&mut self, index: u16) -> io::Result<usize> {
        let mut input = std::mem::take(&mut self.connections.input);
        let (connection, _, own) = self.connections.parts(index);
        let received = match std::mem::take(&mut connection.early_bytes) {
            0 => connection.stream.as_mut().map_or(Ok(0), |stream| stream.read(&mut input)),
            early => {
                input[..early].copy_from_slice(&own[..early]);
                Ok(early)
            }
        };
        self.connections.input = input;
        received
    }

    /// Scans so many bytes of the input. Nothing while the message goes on.
    fn scan(&mut self, index: u16, read: usize) -> Option<Reading> {
        let input = std::mem::take(&mut self.connections.input);
        let mut rest = &input[..read];
        let spooled = if self.connections.get(index).spool.is_some() { self.spooled_by_user(index) } else { 0 };
        let scanned = loop {
            let (connection, head, own) = self.connections.parts(index);
            match connection.scanner.next(head, &mut rest) {
                Ok(Event::More) => break None,
                Ok(Event::DivertBegin { .. }) => match self.spools.create(IMAGE_BYTES_MAX) {
                    Ok(spool) => connection.spool = Some(spool),
                    Err(error) => break Some(Err(error)),
                },
                Ok(Event::Diverted(piece)) if spooled + piece.len() as u64 > SPOOL_BYTES_PER_USER_MAX => {
                    break Some(Err(SpoolError::UserQuota));
                }
                Ok(Event::Diverted(piece)) => {
                    if let Some(Err(error)) = connection.spool.as_mut().map(|spool| spool.append(piece)) {
                        break Some(Err(error));
                    }
                }
                Ok(Event::Frame { head_len, cut }) => {
                    own[..rest.len()].copy_from_slice(rest);
                    connection.early_bytes = rest.len();
                    break Some(Ok(Ok((head_len, cut))));
                }
                Err(error) => break Some(Ok(Err(error))),
            }
        };
        self.connections.input = input;
        Some(match scanned? {
            Ok(Ok((head_len, cut))) => {
                self.dispatch(index, head_len, cut);
                Reading::Acted
            }
            Ok(Err(error)) => self.refuse_stream(index, read, error),
            Err(error) => self.refuse_spool(index, &error),
        })
    }

    /// The header of the message that is coming, as far as it has come.
    pub(super) fn header_so_far(&mut self, index: u16) -> Option<Header> {
        let (connection, head, _) = self.connections.parts(index);
        wire::peek_header(&head[..connection.scanner.head_len().min(head.len())])
    }

    fn refuse_stream(&mut self, index: u16, read: usize, error: ScanError) -> Reading {
        info!(connection = index; "malformed message: {error}");
        let so_far = self.header_so_far(index);
        // A frame whose length is refused has no head yet: what follows the length may still tell.
        let header = so_far.or_else(|| wire::peek_header(self.connections.input.get(4..read)?));
        let Some(header) = header else { return Reading::Over };
        self.refuse_and_linger(index, &header, format_args!("{error}"))
    }

    /// Refuses while the client may still be sending: it gets to read the reason only if it can send on for a while.
    pub(super) fn refuse_and_linger(&mut self, index: u16, header: &Header, text: std::fmt::Arguments<'_>) -> Reading {
        self.connections.get(index).spool = None;
        let mut words = heapless::String::<REFUSAL_BYTES_MAX>::new();
        let _ = std::fmt::write(&mut words, text);
        self.refuse(index, header, &words);
        self.connections.get(index).linger = true;
        self.connections.set_deadline(index, self.now.ms + PROGRESS_MS_MAX);
        Reading::Acted
    }

    /// Reads and forgets what a refused client still sends, until it has read the reason and closes, or its time is over.
    fn discard(&mut self, index: u16) -> Reading {
        let mut input = std::mem::take(&mut self.connections.input);
        let connection = self.connections.get(index);
        connection.early_bytes = 0;
        let read = connection.stream.as_mut().map_or(Ok(0), |stream| stream.read(&mut input));
        self.connections.input = input;
        match read {
            Ok(0) => Reading::Over,
            Ok(_) => Reading::Acted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Reading::Blocked,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Reading::Acted,
            Err(_) => Reading::Over,
        }
    }

    /// Does something about a whole message.
    pub(super) fn dispatch(&mut self, index: u16, head_len: usize, cut: Option<Cut>) {
        let now = self.now;
        let (connection, head, _) = self.connections.parts(index);
        let message = match wire::decode(Frame { head: &head[..head_len], cut }) {
            Ok(message) => message,
            Err(error) => {
                let header = wire::peek_header(&head[..head_len]);
                info!(connection = index; "malformed message: {error}");
                let mut words = heapless::String::<REFUSAL_BYTES_MAX>::new();
                let _ = std::fmt::write(&mut words, format_args!("{error}"));
                return match header {
                    Some(header) => self.refuse(index, &header, &words),
                    None => self.give_up(index),
                };
            }
        };
        let Message { header, payload } = message;
        let Payload::Command(command) = &payload else {
            return self.refuse(index, &header, "unknown command");
        };
        if matches!(command, Command::Stats(StatsCommand::Initial)) && header.name.is_root() {
            let uid = self.uid_of(index);
            return match Peer::with(uid).may_measure {
                true => self.link_stats(index, &header),
                false => self.refuse(index, &header, "only root and the user of the daemons may measure"),
            };
        }
        if connection.stage == Stage::Reading && is_followed_by_image(&payload) {
            connection.stage = Stage::Imaging;
            connection.imaging = (Chunks::new(), head_len);
            return self.connections.set_deadline(index, now.ms + PROGRESS_MS_MAX);
        }
        // Chunks follow at once, whatever is said to it.
        connection.linger = matches!(command, Command::Block(BlockCommand::Set { .. }));
        connection.compressed = is_compressed(command);
        if let Some(octets) = payload.image()
            && let Err(error) = spool_inline(octets, &self.spools, &mut connection.spool)
        {
            self.tell_image_refused(index, &header.name, &error);
            let mut words = heapless::String::<REFUSAL_BYTES_MAX>::new();
            let _ = std::fmt::write(&mut words, format_args!("{error}"));
            return self.refuse(index, &header, &words);
        }
        connection.stage = Stage::Waiting;
        connection.deadline_ms = u64::MAX;
        let image = connection.spool.as_ref().map(|_| Spooled { spool: u32::from(index) });
        self.events.note_command(index, connection, &header.name, command);
        self.machine.handle(now, Input::Command { connection: index, header: &header, command, image });
        self.drain();
        // What was admitted has taken it.
        self.connections.get(index).spool = None;
    }
}

/// Whether the octets that come with a command, or after it, are a zlib stream.
fn is_compressed(command: &Command<'_>) -> bool {
    match command {
        Command::Unikernel(UnikernelCommand::Create(config) | UnikernelCommand::ForceCreate(config)) => {
            config.compressed
        }
        Command::Block(
            BlockCommand::Set { compressed }
            | BlockCommand::OldSet { compressed, .. }
            | BlockCommand::OldAdd { compressed, .. },
        ) => *compressed,
        _ => false,
    }
}
