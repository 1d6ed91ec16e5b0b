//! The event loop. One thread, nothing blocks, and nobody gets more than a share of a turn: who has more waits for the
//! next one, so a unikernel that writes without end delays the others by microseconds.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::time::{Duration, Instant};

use fulmar_core::limits::{CONSOLE_CONNECTIONS_MAX, CONSOLE_FRAME_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::scan::Event;
use fulmar_core::wire::{Frame, decode};
use fulmar_host::folder::Folder;
use fulmar_host::service::Service;
use fulmar_host::socket::Peer;
use fulmar_host::unreadable::Unreadable;
use fulmar_host::{error, info, warning};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};

use crate::connection::{Connection, Role, Sent};
use crate::consoles::{Consoles, State};

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);

/// Events taken from the system at once.
const EVENTS: usize = 256;

/// Reads from one client in a turn.
const READS_PER_TURN: usize = 8;

/// Bytes of a read.
pub(crate) const READ_BYTES: usize = 4096;

/// When a connection could not be accepted (no file left, say), the next attempt.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The whole program.
pub(crate) struct Server<'m> {
    pub(crate) poll: Poll,
    listener: UnixListener,
    signals: UnixStream,
    pub(crate) fifo_folder: Folder,
    pub(crate) consoles: Consoles<'m>,
    pub(crate) connections: HashMap<Token, Connection>,
    /// Which console a fifo belongs to.
    pub(crate) fifos: HashMap<Token, Name>,
    /// Those with more to read than their share of a turn.
    pub(crate) busy: Vec<Token>,
    next_token: usize,
    accept_at: Option<Instant>,
    pub(crate) service: Service,
}

impl<'m> Server<'m> {
    /// Serves `listener`, with fifos in `fifo_folder` and lines in `memory`.
    pub(crate) fn new(
        signals: StdStream,
        listener: StdListener,
        fifo_folder: Folder,
        memory: &'m mut [u8],
        service: Service,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = UnixListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut signals = UnixStream::from_std(signals);
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            signals,
            fifo_folder,
            consoles: Consoles::new(memory),
            connections: HashMap::new(),
            fifos: HashMap::new(),
            busy: Vec::new(),
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
                if self.fifos.contains_key(&token) {
                    self.fifo_turn(token);
                } else {
                    self.connection_turn(token);
                }
            }
            self.close_late();
            if self.accept_at.is_some_and(|at| at <= Instant::now()) {
                self.accept();
            }
        }
    }

    /// A number that no connection or fifo ever had: an event that is late finds nobody.
    pub(crate) fn new_token(&mut self) -> Token {
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
                    if let Err(crowded) = peer.admit(others, CONSOLE_CONNECTIONS_MAX) {
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
            if matches!(connection.role, Role::Closing) || connection.is_behind() {
                return self.send(token);
            }
            match connection.read(&mut buffer) {
                Ok(0) if matches!(connection.role, Role::Talking) => connection.finish(),
                // Whatever a subscriber says ends its subscription.
                Ok(_) if matches!(connection.role, Role::Subscribed { .. }) => return self.close(token),
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
                // It subscribed and went on to speak in the same breath.
                Role::Subscribed { .. } if !bytes.is_empty() => return self.close(token),
                _ => return,
            }
            let mut head = std::mem::take(&mut connection.head);
            debug_assert_eq!(head.len(), CONSOLE_FRAME_BYTES_MAX);
            let refusal = match connection.scanner.next(&mut head, &mut bytes) {
                Ok(Event::Frame { head_len, cut }) => {
                    connection.restart_deadline();
                    let frame = Frame { head: head.get(..head_len).unwrap_or_default(), cut };
                    match decode(frame) {
                        Ok(message) => {
                            self.command(token, &message);
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
    pub(crate) fn send(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let was_behind = connection.is_behind();
        match connection.send(&self.consoles) {
            Sent::Open => {}
            Sent::Over => return self.close(token),
            Sent::Slow => return self.drop_slow(token),
        }
        connection.update_deadline(Instant::now());
        if was_behind && !connection.is_behind() {
            // What it said meanwhile was not read, and will not be announced again.
            self.busy.push(token);
        }
    }

    /// Ends a connection at once.
    pub(crate) fn close(&mut self, token: Token) {
        let Some(mut connection) = self.connections.remove(&token) else { return };
        if let Some(name) = connection.subscribed_to() {
            self.unsubscribe(token, &name);
        }
        // Closing the file would do; where this fails there is nothing to undo.
        let _ = self.poll.registry().deregister(&mut connection.stream);
    }

    /// Forgets that a connection gets the lines of a console, and a console that only it waited for.
    pub(crate) fn unsubscribe(&mut self, token: Token, name: &Name) {
        let Some(console) = self.consoles.get_mut(name) else { return };
        console.subscribers.retain(|subscriber| *subscriber != token);
        if matches!(console.state, State::Awaited) && console.subscribers.is_empty() {
            self.consoles.remove(name);
        }
    }

    fn close_late(&mut self) {
        let now = Instant::now();
        let is_late = |connection: &Connection| connection.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<Token> = self.connections.iter().filter(|(_, it)| is_late(it)).map(|(token, _)| *token).collect();
        for token in late {
            info!("connection closed: its command did not come to an end, or it does not read");
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
