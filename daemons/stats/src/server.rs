//! The event loop. One thread; nothing blocks but a measurement, which takes some ten microseconds a unikernel. Nobody gets
//! more than a share of a turn, and nobody waits for a subscriber.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fulmar_core::limits::{STATS_CONNECTIONS_MAX, STATS_FRAME_BYTES_MAX};
use fulmar_core::scan::Event;
use fulmar_core::wire::{Frame, decode};
use fulmar_host::meter::Meter;
use fulmar_host::service::Service;
use fulmar_host::socket::Peer;
use fulmar_host::unreadable::Unreadable;
use fulmar_host::{error, info, warning};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};

use crate::connection::{Connection, Role};
use crate::link::Link;
use crate::targets::{Record, Targets};

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
pub(crate) const LINK: Token = Token(2);

/// Events taken from the system at once.
const EVENTS: usize = 256;

/// Reads from one client in a turn.
const READS_PER_TURN: usize = 8;

/// Bytes of a read.
pub(crate) const READ_BYTES: usize = 4096;

/// When a connection could not be accepted (no file left, say), the next attempt.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The whole program.
pub(crate) struct Server<M: Meter> {
    pub(crate) poll: Poll,
    listener: UnixListener,
    signals: UnixStream,
    pub(crate) link: Link,
    pub(crate) targets: Targets<M>,
    pub(crate) connections: HashMap<Token, Connection>,
    /// What was last measured.
    pub(crate) records: Vec<Record>,
    interval: Duration,
    /// When to measure next; nothing while nobody is subscribed.
    measure_at: Option<Instant>,
    /// Those with more to read than their share of a turn.
    busy: Vec<Token>,
    next_token: usize,
    accept_at: Option<Instant>,
    pub(crate) service: Service,
}

impl<M: Meter> Server<M> {
    /// Serves `listener` with what `meter` measures, and hears from `vmmd` what there is.
    pub(crate) fn new(
        signals: StdStream,
        listener: StdListener,
        vmmd: PathBuf,
        meter: M,
        interval: Duration,
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
            link: Link::new(vmmd),
            targets: Targets::new(meter),
            connections: HashMap::new(),
            records: Vec::new(),
            interval,
            measure_at: None,
            busy: Vec::new(),
            next_token: LINK.0 + 1,
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
            self.call_vmmd();
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
                    LINK => self.serve_link(),
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
            self.close_late();
            if self.accept_at.is_some_and(|at| at <= Instant::now()) {
                self.accept();
            }
            if self.measure_at.is_some_and(|at| at <= Instant::now()) {
                self.measure();
            }
        }
    }

    fn wait(&self) -> Option<Duration> {
        if !self.busy.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = self.connections.values().filter_map(Connection::deadline);
        let deadlines =
            deadlines.chain(self.accept_at).chain(self.measure_at).chain(self.link.alarm()).chain(self.service.alarm());
        // One millisecond more, so that it has passed for certain.
        deadlines.min().map(|first| first.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    /// Somebody has subscribed: the first is told at once, others with it at the next time.
    pub(crate) fn expect_measurement(&mut self) {
        if self.measure_at.is_none() {
            self.measure_at = Some(Instant::now());
        }
    }

    /// Measures what is subscribed to, and sends it.
    fn measure(&mut self) {
        // Whoever has ended is not to be measured: hear of it first.
        self.serve_link();
        let wanted: BTreeSet<_> = self.connections.values().filter_map(Connection::subscribed_to).collect();
        self.records.clear();
        if wanted.is_empty() {
            self.records.shrink_to_fit();
            self.measure_at = None;
            return;
        }
        self.records = self.targets.measure(&wanted);
        let now = Instant::now();
        let next = self.measure_at.and_then(|at| at.checked_add(self.interval)).filter(|next| *next > now);
        self.measure_at = next.or_else(|| now.checked_add(self.interval));
        let subscribed = self.connections.iter().filter(|(_, it)| it.subscribed_to().is_some());
        let subscribers: Vec<Token> = subscribed.map(|(token, _)| *token).collect();
        for token in subscribers {
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.restart();
            }
            self.send(token);
        }
    }

    fn accept(&mut self) {
        self.accept_at = None;
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let peer = Peer::of(&stream);
                    let others = self.connections.values().map(|connection| connection.peer);
                    if let Err(crowded) = peer.admit(others, STATS_CONNECTIONS_MAX) {
                        warning!(user = peer.uid; "connection refused: {crowded}");
                        continue;
                    }
                    // No other connection ever had this number: an event that is late finds nobody.
                    let token = Token(self.next_token);
                    self.next_token += 1;
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
            debug_assert_eq!(head.len(), STATS_FRAME_BYTES_MAX);
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
        if !connection.send(&self.records) {
            return self.close(token);
        }
        connection.update_deadline(Instant::now(), self.records.len());
        if was_behind && !connection.is_behind() {
            // What it said meanwhile was not read, and will not be announced again.
            self.busy.push(token);
        }
    }

    /// Ends a connection at once.
    pub(crate) fn close(&mut self, token: Token) {
        let Some(mut connection) = self.connections.remove(&token) else { return };
        // Closing the file would do; where this fails there is nothing to undo.
        let _ = self.poll.registry().deregister(&mut connection.stream);
    }

    fn close_late(&mut self) {
        let now = Instant::now();
        let is_late = |connection: &Connection| connection.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<Token> = self.connections.iter().filter(|(_, it)| is_late(it)).map(|(token, _)| *token).collect();
        for token in late {
            match self.connections.get(&token).and_then(Connection::subscribed_to) {
                Some(name) => {
                    warning!(name = name; "{name}: a subscriber that reads too slowly is closed");
                }
                None => info!("connection closed: its command did not come to an end, or it does not read"),
            }
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
