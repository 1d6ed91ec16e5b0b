//! The clients of a daemon that serves on a Unix socket: who is accepted, whose turn it is, who is late. One thread, nothing blocks, and
//! nobody gets more than a share of a turn: who has more waits for the next one.

mod client;

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::time::{Duration, Instant};

use fulmar_core::scan::Event;
use fulmar_core::wire::{Frame, Message, decode};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token};

pub use self::client::{Bounds, Client, Role, Sent, Served};
use crate::daemon::{BeginError, Made};
use crate::service::Service;
use crate::socket::Peer;
use crate::unreadable::Unreadable;
use crate::{error, info, warning};

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);

/// Events taken from the system at once.
const EVENTS: usize = 256;

/// Reads from one client in a turn.
const READS_PER_TURN: usize = 8;

/// Bytes of a read.
const READ_BYTES: usize = 4096;

/// When a connection could not be accepted (no file left, say), the next attempt.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// All clients, and what else the event loop waits for. `S` is what a daemon keeps of a client that is sent things from now on.
#[derive(Debug)]
pub struct Clients<S> {
    poll: Poll,
    events: Events,
    listener: UnixListener,
    signals: UnixStream,
    bounds: &'static Bounds,
    connections: HashMap<Token, Client<S>>,
    /// Those with more to do than their share of a turn.
    busy: Vec<Token>,
    next_token: usize,
    accept_at: Option<Instant>,
    /// The service manager, which is told at each turn that this goes on.
    pub service: Service,
}

impl<S> Clients<S> {
    /// Nobody yet. `signals` has something to read when it is enough.
    ///
    /// # Errors
    /// What the system says: no room for a poll.
    pub fn new(
        bounds: &'static Bounds,
        signals: StdStream,
        listener: StdListener,
        service: Service,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = UnixListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut signals = UnixStream::from_std(signals);
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            listener,
            signals,
            bounds,
            connections: HashMap::new(),
            busy: Vec::new(),
            next_token: SIGNALS.0 + 1,
            accept_at: None,
            service,
        })
    }

    /// Waits until something happens, at most until the first of `alarms`, and gives those whose turn it is, each once. `false` when a
    /// signal says that it is enough.
    ///
    /// # Errors
    /// What the system says of waiting.
    pub fn wait(&mut self, ready: &mut Vec<Token>, alarms: &[Option<Instant>]) -> io::Result<bool> {
        self.service.turn();
        let timeout = self.timeout(alarms);
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        ready.append(&mut self.busy);
        let mut has_news = self.accept_at.is_some_and(|at| at <= Instant::now());
        for event in &self.events {
            match event.token() {
                LISTENER => has_news = true,
                SIGNALS => {
                    if self.signals.read(&mut [0; 64]).is_ok_and(|count| count > 0) {
                        return Ok(false);
                    }
                }
                token => {
                    if event.is_writable()
                        && let Some(client) = self.connections.get_mut(&token)
                    {
                        client.set_writable();
                    }
                    ready.push(token);
                }
            }
        }
        if has_news {
            self.accept();
        }
        ready.sort_unstable();
        ready.dedup();
        Ok(true)
    }

    fn timeout(&self, alarms: &[Option<Instant>]) -> Option<Duration> {
        if !self.busy.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = self.connections.values().filter_map(Client::deadline);
        let deadlines = deadlines.chain(self.accept_at).chain(self.service.alarm());
        let first = deadlines.chain(alarms.iter().copied().flatten()).min()?;
        // One millisecond more, so that it has passed for certain.
        Some(first.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn accept(&mut self) {
        self.accept_at = None;
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let peer = Peer::of(&stream);
                    let others = self.connections.values().map(|client| client.peer);
                    if let Err(crowded) = peer.admit(others, self.bounds.connections) {
                        warning!(user = peer.uid; "connection refused: {crowded}");
                        continue;
                    }
                    let token = self.new_token();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    match self.poll.registry().register(&mut stream, token, interest) {
                        Ok(()) => drop(self.connections.insert(token, Client::new(stream, peer, self.bounds))),
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

    /// A number that nobody ever had: an event that is late finds nobody.
    pub fn new_token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    /// Where a daemon says what else it waits for.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// It has more to do, in the next turn.
    pub fn note_busy(&mut self, token: Token) {
        self.busy.push(token);
    }

    /// A client that is still there.
    #[must_use]
    pub fn get(&self, token: Token) -> Option<&Client<S>> {
        self.connections.get(&token)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut Client<S>> {
        self.connections.get_mut(&token)
    }

    /// All clients.
    pub fn all(&self) -> impl Iterator<Item = &Client<S>> {
        self.connections.values()
    }

    /// All that are sent things.
    #[must_use]
    pub fn subscribed(&self) -> Vec<Token> {
        let subscribed = self.connections.iter().filter(|(_, client)| matches!(client.role, Role::Subscribed(_)));
        subscribed.map(|(token, _)| *token).collect()
    }

    /// Those that have not done in time what was awaited of them.
    fn late(&self) -> Vec<Token> {
        let now = Instant::now();
        let is_late = |client: &Client<S>| client.deadline().is_some_and(|deadline| deadline <= now);
        self.connections.iter().filter(|(_, client)| is_late(client)).map(|(token, _)| *token).collect()
    }

    /// After a client was sent what there is for it: until when something is awaited of it (of a subscriber within so many milliseconds, if
    /// anything), and whether it has its turn again at once, because it has more to do or because it was behind: what it said meanwhile
    /// was not read, and will not be announced again.
    pub fn settle(&mut self, token: Token, was_behind: bool, has_more: bool, of_subscriber_ms: Option<u64>) {
        let Some(client) = self.connections.get_mut(&token) else { return };
        client.update_deadline(Instant::now(), of_subscriber_ms);
        if has_more || was_behind && !client.is_behind() {
            self.busy.push(token);
        }
    }

    fn remove(&mut self, token: Token) -> Option<Client<S>> {
        let mut client = self.connections.remove(&token)?;
        // Closing the file would do; where this fails there is nothing to undo.
        let _ = self.poll.registry().deregister(&mut client.stream);
        Some(client)
    }
}

/// What a daemon does for its clients.
pub trait Serve {
    /// What it keeps of a client that is sent things from now on.
    type Subscription;

    /// Its clients.
    fn clients(&mut self) -> &mut Clients<Self::Subscription>;

    /// Does what a message says, and answers.
    fn message(&mut self, token: Token, message: &Message<'_>);

    /// Sends what a client is owed, and closes it where that is all.
    fn send(&mut self, token: Token);

    /// Goes on until a signal says that it is enough.
    ///
    /// # Errors
    /// The event loop's.
    fn run(&mut self) -> io::Result<()>;

    /// Tells people and the service manager that clients are served on `path`, and serves them until a signal says that it is enough.
    /// The socket that was made is gone then.
    ///
    /// # Errors
    /// [`BeginError::Loop`].
    fn serve(&mut self, path: &Path, made: Option<Made>) -> Result<(), BeginError> {
        info!("serving on {}", path.display());
        self.clients().service.ready(format_args!("serving on {}", path.display()));
        let ended = self.run();
        self.clients().service.stopping();
        drop(made);
        ended.map_err(BeginError::Loop)
    }

    /// A client is gone that was sent things.
    fn unsubscribed(&mut self, _token: Token, _subscription: Self::Subscription) {}

    /// Reads what a client says, as far as its share goes, and sends what it is owed.
    fn client_turn(&mut self, token: Token) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_PER_TURN {
            let Some(client) = self.clients().get_mut(token) else { return };
            if matches!(client.role, Role::Closing) || client.is_behind() {
                return self.send(token);
            }
            match client.read(&mut buffer) {
                Ok(0) if matches!(client.role, Role::Talking) => client.finish(),
                // Whatever a subscriber says ends its subscription.
                Ok(_) if matches!(client.role, Role::Subscribed(_)) => return self.close(token),
                Ok(count) => self.take_bytes(token, buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.send(token),
                Err(_) => return self.close(token),
            }
        }
        self.clients().note_busy(token);
        self.send(token);
    }

    /// Finds the messages in what came, and has them done.
    fn take_bytes(&mut self, token: Token, mut bytes: &[u8]) {
        loop {
            let Some(client) = self.clients().get_mut(token) else { return };
            match client.role {
                Role::Talking => {}
                // It subscribed and went on to speak in the same breath.
                Role::Subscribed(_) if !bytes.is_empty() => return self.close(token),
                _ => return,
            }
            let mut head = std::mem::take(&mut client.head);
            let refusal = match client.scanner.next(&mut head, &mut bytes) {
                Ok(Event::Frame { head_len, cut }) => {
                    client.restart_deadline();
                    match decode(Frame { head: head.get(..head_len).unwrap_or_default(), cut }) {
                        Ok(message) => {
                            self.message(token, &message);
                            None
                        }
                        Err(error) => Some(Unreadable::Malformed(error)),
                    }
                }
                Ok(_) => {
                    client.head = head;
                    return;
                }
                Err(error) => Some(Unreadable::Scan(error)),
            };
            let Some(client) = self.clients().get_mut(token) else { return };
            if let Some(refusal) = refusal {
                client.refuse(&head, refusal);
            }
            client.head = head;
        }
    }

    /// Ends a connection at once.
    fn close(&mut self, token: Token) {
        let Some(client) = self.clients().remove(token) else { return };
        if let Role::Subscribed(subscription) = client.role {
            self.unsubscribed(token, subscription);
        }
    }

    /// A client that is sent things is late with taking them.
    fn close_slow(&mut self, token: Token) {
        self.close(token);
    }

    /// Ends those that are late with what they say or take.
    fn close_late(&mut self) {
        for token in self.clients().late() {
            if self.clients().get(token).is_some_and(|client| client.subscription().is_some()) {
                self.close_slow(token);
            } else {
                info!("connection closed: its message did not come to an end, or it does not read");
                self.close(token);
            }
        }
    }
}
