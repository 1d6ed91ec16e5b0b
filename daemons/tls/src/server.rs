//! The event loop. One thread; nothing blocks but the disk, when a list of revoked certificates is taken in. Nobody gets more than a
//! share of a turn, and who has not proved who it is waits for nobody else: when all places are taken, the stranger that has been here
//! longest goes.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fulmar_core::limits::{
    TLS_CONNECTIONS_MAX, TLS_CONNECTIONS_PER_ADDRESS_MAX, TLS_CONNECTIONS_PER_DOMAIN_MAX, TLS_TRANSFERS_PER_DOMAIN_MAX,
    TLS_VMMD_CONNECTIONS_MAX, TLS_VMMD_CONNECTIONS_PER_DOMAIN_MAX,
};
use fulmar_core::name::Name;
use fulmar_host::folder::Folder;
use fulmar_host::service::Service;
use fulmar_host::signals;
use fulmar_host::{error, info, warning};
use mio::net::{TcpListener, TcpStream, UnixStream};
use mio::{Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};

use crate::connection::{Connection, Surroundings, Turn};
use crate::events::Events;
use crate::keys::{Files, Keys};
use crate::revoked::Revoked;
use crate::verdict::{Admitted, Daemon, Refused, Task};

const LISTENER: Token = Token(0);
const ENDS: Token = Token(1);
const RELOADS: Token = Token(2);

/// The first event of the connections: each has two.
const FIRST: usize = 3;

/// Events taken from the system at once.
const EVENTS: usize = 256;

/// When a connection could not be accepted (no file left, say), the next attempt.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Connections that are accepted before others have their turn.
const ACCEPTS_MAX: usize = 64;

/// How often it is looked whether another process has taken in a list of revoked certificates, and what waits is sent again.
const LOOK: Duration = Duration::from_millis(500);

/// The whole program.
pub(crate) struct Server {
    poll: Poll,
    listener: Option<TcpListener>,
    ends: UnixStream,
    reloads: UnixStream,
    sockets: Folder,
    files: Files,
    keys: Keys,
    revoked: Arc<Mutex<Revoked>>,
    events: Events,
    connections: Vec<Option<Box<Connection>>>,
    /// Those with more to do than their share of a turn.
    busy: Vec<usize>,
    accept_at: Option<Instant>,
    look_at: Instant,
    pub(crate) service: Service,
}

impl Server {
    /// With what was read of these files.
    pub(crate) fn new(
        sockets: Folder,
        files: Files,
        keys: Keys,
        revoked: Revoked,
        events: Events,
        service: Service,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let signals = |token, signals: &[i32]| -> io::Result<UnixStream> {
            let mut caught = UnixStream::from_std(signals::catch(signals)?);
            poll.registry().register(&mut caught, token, Interest::READABLE)?;
            Ok(caught)
        };
        let ends = signals(ENDS, &signals::ENDS)?;
        let reloads = signals(RELOADS, &[signals::RELOAD])?;
        Ok(Self {
            poll,
            listener: None,
            ends,
            reloads,
            sockets,
            files,
            keys,
            revoked: Arc::new(Mutex::new(revoked)),
            events,
            connections: Vec::new(),
            busy: Vec::new(),
            accept_at: None,
            look_at: Instant::now() + LOOK,
            service,
        })
    }

    /// Where the certificates are read again.
    #[cfg(target_os = "linux")]
    pub(crate) fn certificate_folders(&self) -> Vec<std::path::PathBuf> {
        self.files.folders()
    }

    /// Says what will not be read again.
    pub(crate) fn tell_doubts(&self) {
        self.files.doubts().for_each(|doubt| warning!("{doubt}"));
    }

    /// Has it accept who comes there.
    pub(crate) fn listen(&mut self, listener: StdTcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Serves until a signal says that it is enough; without a listener until nobody is left.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = mio::Events::with_capacity(EVENTS);
        let mut ready = Vec::new();
        while self.listener.is_some() || self.connections.iter().any(Option::is_some) {
            match self.poll.poll(&mut events, Some(self.wait())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            ready.append(&mut self.busy);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    ENDS => {
                        if self.ends.read(&mut [0; 64]).is_ok_and(|count| count > 0) {
                            return Ok(());
                        }
                    }
                    RELOADS => self.reload(),
                    token => ready.push((token.0 - FIRST) / 2),
                }
            }
            ready.sort_unstable();
            ready.dedup();
            for index in ready.drain(..) {
                self.connection_turn(index);
            }
            self.look();
            self.service.turn();
        }
        Ok(())
    }

    fn wait(&self) -> Duration {
        if !self.busy.is_empty() {
            return Duration::ZERO;
        }
        let deadlines = self.connections.iter().flatten().filter_map(|it| it.deadline());
        let first = deadlines
            .chain(self.accept_at)
            .chain(self.service.alarm())
            .chain([self.look_at])
            .min()
            .unwrap_or(self.look_at);
        // One millisecond more, so that it has passed for certain.
        first.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
    }

    /// What is done from time to time.
    fn look(&mut self) {
        let now = Instant::now();
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept();
        }
        for index in 0..self.connections.len() {
            let Some(connection) = self.connections.get(index).and_then(Option::as_ref) else { continue };
            if connection.deadline().is_some_and(|at| at <= now) {
                let (peer, what) = (connection.peer(), connection.lateness());
                self.tell_refused(Name::ROOT, peer, what);
                self.close(index);
            }
        }
        if self.look_at > now {
            return;
        }
        self.look_at = now + LOOK;
        self.events.send();
        let has_read = self.revoked.lock().unwrap_or_else(PoisonError::into_inner).refresh();
        if has_read {
            self.end_revoked();
        }
    }

    /// Ends the connections whose certificates are revoked now.
    fn end_revoked(&mut self) {
        for index in 0..self.connections.len() {
            let Some(connection) = self.connections.get(index).and_then(Option::as_ref) else { continue };
            let named = {
                let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
                connection.links().iter().find(|link| revoked.names(link)).cloned()
            };
            if let Some(link) = named {
                let peer = connection.peer();
                self.tell_refused(Name::ROOT, peer, "its certificate was revoked: the connection is ended");
                self.end_told(index, &Refused::Revoked(link.serial.to_vec()).to_string());
            }
        }
    }

    /// Ends a connection with a last word, where there is a place for one.
    fn end_told(&mut self, index: usize, reason: &str) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return };
        if connection.interrupt(reason) { self.busy.push(index) } else { self.close(index) }
    }

    /// Reads the keys and certificates again. Connections that are open stay as they are.
    fn reload(&mut self) {
        while self.reloads.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        match Keys::read(&self.files) {
            Ok(keys) => {
                self.keys = keys;
                info!("the certificates were read again");
            }
            Err(error) => error!("the certificates stay as they were: {error}{}", error.remedy()),
        }
    }

    fn accept(&mut self) {
        self.accept_at = None;
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((tcp, peer)) => self.admit(tcp, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client may be gone already, which is its own business.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    error!("could not accept a connection: {error}");
                    break;
                }
            }
        }
        // An edge is told once: there may be more.
        self.accept_at = Some(Instant::now() + ACCEPT_REST);
    }

    /// Takes in a client, if there is room.
    pub(crate) fn admit(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let own = network(peer.ip());
        let of_address = self.connections.iter().flatten().filter(|it| network(it.peer().ip()) == own).count();
        if of_address >= TLS_CONNECTIONS_PER_ADDRESS_MAX {
            return self.tell_refused(Name::ROOT, peer, "there are too many connections of this address");
        }
        if self.connections.iter().flatten().count() >= TLS_CONNECTIONS_MAX {
            let strangers = self.connections.iter().enumerate().filter_map(|(index, it)| Some((index, it.as_ref()?)));
            let oldest = strangers.filter(|(_, it)| it.is_stranger()).min_by_key(|(_, it)| it.since);
            let Some((oldest, _)) = oldest else {
                return self.tell_refused(Name::ROOT, peer, "all connections are in use");
            };
            self.close(oldest);
        }
        // Answers are small and are waited for; who is gone without a word is noticed some time.
        let _ = tcp.set_nodelay(true);
        let _ = setsockopt(&tcp, sockopt::KeepAlive, &true);
        let mut connection = match Connection::new(tcp, peer, &self.keys, &self.revoked) {
            Ok(connection) => Box::new(connection),
            Err(error) => return error!("could not serve {peer}: {error}"),
        };
        let free = self.connections.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        let (client, _) = tokens(index);
        if let Err(error) = self.poll.registry().register(connection.socket(), client, interest) {
            return error!("could not watch a connection: {error}");
        }
        self.connections[index] = Some(connection);
        self.connection_turn(index);
    }

    /// A connection, and what it has to do with.
    fn at(&mut self, index: usize) -> Option<(&mut Connection, Surroundings<'_>)> {
        let connection = self.connections.get_mut(index)?.as_deref_mut()?;
        let around = Surroundings {
            registry: self.poll.registry(),
            token: tokens(index).1,
            sockets: &self.sockets,
            revoked: &self.revoked,
            ca: &self.keys.ca,
            events: &mut self.events,
        };
        Some((connection, around))
    }

    fn connection_turn(&mut self, index: usize) {
        loop {
            let Some((connection, mut around)) = self.at(index) else { return };
            match connection.turn(&mut around) {
                Turn::Waits => return,
                Turn::Goes => return self.busy.push(index),
                Turn::Admitted(admitted) => self.begin(index, *admitted),
                Turn::Refused(refused) => {
                    let peer = connection.peer();
                    connection.fail(&refused.to_string());
                    self.tell_refused(Name::ROOT, peer, &refused.to_string());
                }
                Turn::Revoked => self.end_revoked(),
                Turn::Over(reason) => {
                    if let Some(reason) = reason {
                        let peer = connection.peer();
                        self.tell_refused(Name::ROOT, peer, &reason);
                    }
                    return self.close(index);
                }
            }
        }
    }

    /// Begins what a client wants, if there is room for it beside what others of its domain have.
    fn begin(&mut self, index: usize, admitted: Admitted) {
        let domain = admitted.name.domain().map(str::to_owned);
        let others = || {
            self.connections.iter().enumerate().filter(|(other, _)| *other != index).filter_map(|(_, it)| it.as_deref())
        };
        let of_domain = || others().filter(|it| domain.is_some() && it.domain() == domain.as_deref());
        let is_for_vmmd = matches!(admitted.task, Task::Ask { daemon: Daemon::Vmmd, .. });
        let is_transfer = matches!(admitted.task, Task::Ask { is_transfer: true, .. });
        let at_vmmd = |it: &&Connection| it.talks_to(Daemon::Vmmd);
        let transfers = || of_domain().filter(|it| it.is_transfer()).count();
        let crowded = if of_domain().count() >= TLS_CONNECTIONS_PER_DOMAIN_MAX
            || is_for_vmmd && of_domain().filter(at_vmmd).count() >= TLS_VMMD_CONNECTIONS_PER_DOMAIN_MAX
        {
            Some("there are too many connections of this domain, try again")
        } else if is_transfer && transfers() >= TLS_TRANSFERS_PER_DOMAIN_MAX {
            Some("too many block devices of this domain are being set or dumped, try again")
        } else if is_for_vmmd && others().filter(at_vmmd).count() >= TLS_VMMD_CONNECTIONS_MAX {
            Some("too many connections, try again")
        } else {
            None
        };
        let Some((connection, mut around)) = self.at(index) else { return };
        if let Some(reason) = crowded {
            let peer = connection.peer();
            connection.fail(reason);
            return self.tell_refused(admitted.name, peer, reason);
        }
        connection.begin(admitted, &mut around);
    }

    fn tell_refused(&mut self, name: Name, peer: SocketAddr, reason: &str) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if self.events.refused(name, &format!("{peer}: {reason}")) {
            info!("{peer}: {reason}");
        }
    }

    fn close(&mut self, index: usize) {
        if let Some(place) = self.connections.get_mut(index) {
            *place = None;
        }
    }
}

/// The events of a connection: of its client, of its conversation with a daemon.
fn tokens(index: usize) -> (Token, Token) {
    (Token(FIRST + 2 * index), Token(FIRST + 2 * index + 1))
}

/// The network that counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}
