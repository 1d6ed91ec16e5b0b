//! The event loop. One thread, which waits for nobody but the disk when it writes or reads there, and nobody gets more than a
//! share of a turn: who has more waits for the next one.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::time::{Duration, Instant};

use fulmar_core::limits::{LOG_CONNECTIONS_MAX, LOG_FRAME_BYTES_MAX, LOG_READ_BYTES};
use fulmar_core::scan::Event as Scanned;
use fulmar_core::wire::{Event, Frame, decode};
use fulmar_host::service::Service;
use fulmar_host::socket::Peer;
use fulmar_host::unreadable::Unreadable;
use fulmar_host::{error, info, warning};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};

use crate::connection::{Connection, Role, Sent};
use crate::store::Store;
use crate::subscription::Served;

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);

/// Events taken from the system at once.
const EVENTS: usize = 256;

/// Reads from one client in a turn.
const READS_PER_TURN: usize = 8;

/// Times that one reader's output is filled in a turn.
const FILLS_PER_TURN: u32 = 4;

/// Bytes of a read from a client.
const READ_BYTES: usize = 4096;

/// When a connection could not be accepted (no file left, say), the next attempt.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The whole program.
pub(crate) struct Server {
    poll: Poll,
    listener: UnixListener,
    signals: UnixStream,
    pub(crate) store: Store,
    pub(crate) connections: HashMap<Token, Connection>,
    /// Whether there are events that readers have not been shown yet.
    pub(crate) appended: bool,
    /// Those with more to do than their share of a turn.
    busy: Vec<Token>,
    /// Where the log is read.
    buffer: Vec<u8>,
    next_token: usize,
    accept_at: Option<Instant>,
    pub(crate) service: Service,
}

impl Server {
    /// Serves what is in `store` on `listener`.
    pub(crate) fn new(signals: StdStream, listener: StdListener, store: Store, service: Service) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = UnixListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut signals = UnixStream::from_std(signals);
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            signals,
            store,
            connections: HashMap::new(),
            appended: false,
            busy: Vec::new(),
            buffer: vec![0; LOG_READ_BYTES],
            next_token: SIGNALS.0 + 1,
            accept_at: None,
            service,
        })
    }

    /// Serves until a signal says that it is enough.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut ready = Vec::new();
        loop {
            self.service.turn();
            match self.poll.poll(&mut events, self.wait()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            ready.append(&mut self.busy);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    SIGNALS => {
                        if self.signals.read(&mut [0; 64]).is_ok_and(|count| count > 0) {
                            return Ok(());
                        }
                    }
                    token => {
                        if event.is_writable()
                            && let Some(connection) = self.connections.get_mut(&token)
                        {
                            connection.set_writable();
                        }
                        ready.push(token);
                    }
                }
            }
            ready.sort_unstable();
            ready.dedup();
            for token in ready.drain(..) {
                self.connection_turn(token);
            }
            if std::mem::take(&mut self.appended) {
                self.serve_readers();
            }
            self.close_late();
            if self.accept_at.is_some_and(|at| at <= Instant::now()) {
                self.accept();
            }
        }
    }

    /// Shows all readers what is new.
    fn serve_readers(&mut self) {
        let readers = self.connections.iter().filter(|(_, it)| matches!(it.role, Role::Reading(_)));
        let readers: Vec<Token> = readers.map(|(token, _)| *token).collect();
        for token in readers {
            self.send(token);
        }
    }

    /// Keeps a last event and gives all readers what there is, as far as they take it at once.
    pub(crate) fn finish(&mut self, event: &Event<'_>) {
        self.store.keep_own(event);
        self.serve_readers();
        self.store.finish();
    }

    /// A number that no connection ever had: an event that is late finds nobody.
    fn new_token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    fn wait(&self) -> Option<Duration> {
        if !self.busy.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = self
            .connections
            .values()
            .filter_map(Connection::deadline)
            .chain(self.accept_at)
            .chain(self.service.alarm());
        // One millisecond more, so that it has passed for certain.
        deadlines.min().map(|first| first.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn accept(&mut self) {
        self.accept_at = None;
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let peer = Peer::of(&stream);
                    let others = self.connections.values().map(|connection| connection.peer);
                    if let Err(crowded) = peer.admit(others, LOG_CONNECTIONS_MAX) {
                        warning!(user = peer.uid; "connection refused: {crowded}");
                        continue;
                    }
                    let token = self.new_token();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    match self.poll.registry().register(&mut stream, token, interest) {
                        Ok(()) => drop(self.connections.insert(token, Connection::new(stream, peer))),
                        Err(error) => warning!("connection refused: {error}"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    error!("cannot accept connections for now: {error}");
                    self.accept_at = Instant::now().checked_add(ACCEPT_REST);
                    return;
                }
            }
        }
    }

    /// Reads what a client says, as far as its share goes, and sends what it is owed.
    fn connection_turn(&mut self, token: Token) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            if matches!(connection.role, Role::Closing) || !connection.has_room() {
                return self.send(token);
            }
            match connection.read(&mut buffer) {
                Ok(0) if matches!(connection.role, Role::Talking) => connection.finish(),
                // Whatever a reader says ends its reading.
                Ok(_) if matches!(connection.role, Role::Reading(_)) => return self.close(token),
                Ok(count) => self.take_bytes(token, buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.send(token),
                Err(_) => return self.close(token),
            }
        }
        self.busy.push(token);
        self.send(token);
    }

    /// Finds the commands in what came, and has them done.
    fn take_bytes(&mut self, token: Token, mut bytes: &[u8]) {
        loop {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            match connection.role {
                Role::Talking => {}
                // It asked and went on to speak in the same breath.
                Role::Reading(_) if !bytes.is_empty() => return self.close(token),
                _ => return,
            }
            let mut head = std::mem::take(&mut connection.head);
            debug_assert_eq!(head.len(), LOG_FRAME_BYTES_MAX);
            let refusal = match connection.scanner.next(&mut head, &mut bytes) {
                Ok(Scanned::Frame { head_len, cut }) => {
                    connection.restart_deadline();
                    let frame = Frame { head: head.get(..head_len).unwrap_or_default(), cut };
                    match decode(frame) {
                        Ok(message) => {
                            self.message(token, &message);
                            None
                        }
                        Err(error) => Some(Unreadable::Malformed(error)),
                    }
                }
                Ok(_) => {
                    connection.head = head;
                    return;
                }
                Err(error) => Some(Unreadable::Scan(error)),
            };
            let Some(connection) = self.connections.get_mut(&token) else { return };
            if let Some(refusal) = refusal {
                refuse(connection, &head, refusal);
            }
            connection.head = head;
        }
    }

    /// Sends what a connection is owed, and closes it where it is over.
    fn send(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let had_room = connection.has_room();
        for fills in 1.. {
            let mut served = Served::Rests;
            // Out of the connection while it fills the output there.
            if let Some(mut subscription) = connection.take_subscription() {
                served = subscription.serve(connection, &self.store, &mut self.buffer);
                connection.role = Role::Reading(subscription);
            }
            let filled = !connection.has_room();
            match (connection.send(), served) {
                (Sent::Gone, _) => return self.close(token),
                (Sent::All, Served::Over) => return self.close(token),
                (Sent::All, _) if matches!(connection.role, Role::Closing) => return self.close(token),
                (Sent::Some, Served::Over) => connection.finish(),
                // There was no room for all of it, and now there is.
                (Sent::All, Served::Rests) if filled && fills < FILLS_PER_TURN => continue,
                (Sent::All, Served::Rests) if filled => self.busy.push(token),
                (Sent::All, Served::Busy) => self.busy.push(token),
                (Sent::All | Sent::Some, _) => {}
            }
            break;
        }
        connection.update_deadline(Instant::now());
        if !had_room && connection.has_room() {
            // What it said meanwhile was not read, and will not be announced again.
            self.busy.push(token);
        }
    }

    /// Ends a connection at once.
    fn close(&mut self, token: Token) {
        let Some(mut connection) = self.connections.remove(&token) else { return };
        // Closing the file would do; where this fails there is nothing to undo.
        let _ = self.poll.registry().deregister(&mut connection.stream);
    }

    fn close_late(&mut self) {
        let now = Instant::now();
        let is_late = |connection: &Connection| connection.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<Token> = self.connections.iter().filter(|(_, it)| is_late(it)).map(|(token, _)| *token).collect();
        for token in late {
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            if let Some(subscription) = connection.take_subscription() {
                warning!("a reader that reads too slowly is closed");
                subscription.put_slow(connection);
                connection.finish();
                self.send(token);
                continue;
            }
            info!("connection closed: its message did not come to an end, or it does not read");
            self.close(token);
        }
    }
}

/// Tells a client why it is sent away, where it said what it wanted an answer to.
fn refuse(connection: &mut Connection, head: &[u8], why: Unreadable) {
    info!("connection closed: {why}");
    let known = connection.scanner.head_len().min(head.len());
    if let Some(header) = why.header(head.get(..known).unwrap_or_default()) {
        connection.put_failure(&header, &why.to_string());
    }
    connection.finish();
}
