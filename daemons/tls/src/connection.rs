//! One client: the handshake, then between it and a daemon of this host. What it sends goes on only where its command takes chunks,
//! and no further than their end; what comes for it waits in the daemon until it has taken what came before.

mod frames;
mod steps;

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fulmar_core::chunks::Chunks;
use fulmar_core::limits::{TLS_BUFFER_BYTES, TLS_HANDSHAKE_MS_MAX, TLS_LIST_MS_MAX, TLS_STALL_MS_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{self, Header, Message, Payload};
use fulmar_host::folder::Folder;
use mio::net::TcpStream;
use mio::{Registry, Token};
use rustls::ServerConnection;

use self::frames::Frames;
use crate::events::Events;
use crate::keys::{Ca, Keys};
use crate::local::{Local, VMMD};
use crate::removal::Removal;
use crate::revoked::{Link, Revoked};
use crate::verdict::{Admitted, Daemon, Refused, Revocation, Task, Verifier};

/// Bytes that go between a client and a daemon at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Steps before others have their turn.
const STEPS_MAX: usize = 32;

/// Bytes of a text and of the message around it.
const SAY_BYTES: usize = 4096;

/// What a connection has to do with.
pub(crate) struct Surroundings<'a> {
    pub(crate) registry: &'a Registry,
    /// The event loop's name of the conversation with a daemon.
    pub(crate) token: Token,
    /// The folder of the daemons' sockets.
    pub(crate) sockets: &'a Folder,
    pub(crate) revoked: &'a Mutex<Revoked>,
    pub(crate) ca: &'a Ca,
    pub(crate) events: &'a mut Events,
}

/// How a turn has ended.
pub(crate) enum Turn {
    /// It waits for somebody.
    Waits,
    /// It has had its share and can go on.
    Goes,
    /// It has proved who it is: is there room for what it asks for?
    Admitted(Box<Admitted>),
    /// It has proved who it is, and that does not help.
    Refused(Refused),
    /// A list of revoked certificates was taken in.
    Revoked,
    /// It is over; why, where that is worth telling.
    Over(Option<String>),
}

/// Where a conversation is.
#[derive(Debug)]
enum Stage {
    /// It is being found out who it is.
    Handshake,
    /// `vmmd` is to set the policies of the chain; the command waits behind them.
    Policies { follows: bool, has_chunks: bool },
    /// The daemon has the command.
    Relaying { chunks: Option<Chunks>, follows: bool, answered: bool, frames: Frames },
    /// A list of revoked certificates is coming.
    List(Box<Listing>),
    /// What was revoked is being removed.
    Removing(Box<Removal>),
    /// Everything was said; it is being sent.
    Ending,
    /// It was told that this is the end, and has yet to go.
    Lingering,
}

#[derive(Debug)]
struct Listing {
    chunks: Chunks,
    bytes: Vec<u8>,
    revocation: Box<Revocation>,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Connection {
    tcp: TcpStream,
    tls: ServerConnection,
    verifier: Arc<Verifier>,
    peer: SocketAddr,
    stage: Stage,
    local: Option<Local>,
    name: Name,
    daemon: Option<Daemon>,
    is_transfer: bool,
    links: Vec<Link>,
    /// When it came.
    pub(crate) since: Instant,
    /// When it must have done what its stage is about.
    stage_until: Option<Instant>,
    /// When it must have taken something of what waits for it.
    write_until: Option<Instant>,
    /// Whether it has closed its side, politely or not.
    has_closed: bool,
    is_gone: bool,
    /// Bytes of it that are not yet used.
    unread: usize,
}

impl Connection {
    pub(crate) fn new(
        tcp: TcpStream,
        peer: SocketAddr,
        keys: &Keys,
        revoked: &Arc<Mutex<Revoked>>,
    ) -> Result<Self, rustls::Error> {
        let verifier = Arc::new(Verifier::new(Arc::clone(&keys.ca), Arc::clone(revoked)));
        let mut tls = ServerConnection::new(keys.config(Arc::clone(&verifier))?)?;
        tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        let now = Instant::now();
        Ok(Self {
            tcp,
            tls,
            verifier,
            peer,
            stage: Stage::Handshake,
            local: None,
            name: Name::ROOT,
            daemon: None,
            is_transfer: false,
            links: Vec::new(),
            since: now,
            stage_until: Some(now + Duration::from_millis(TLS_HANDSHAKE_MS_MAX)),
            write_until: None,
            has_closed: false,
            is_gone: false,
            unread: 0,
        })
    }

    /// Its socket, for the event loop.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether it has not yet proved who it is.
    pub(crate) fn is_stranger(&self) -> bool {
        matches!(self.stage, Stage::Handshake)
    }

    /// The first label of the path that its certificates are of; nothing of the root's.
    pub(crate) fn domain(&self) -> Option<&str> {
        self.name.domain()
    }

    /// Whether it talks to this daemon.
    pub(crate) fn talks_to(&self, daemon: Daemon) -> bool {
        self.daemon == Some(daemon) && self.local.is_some()
    }

    /// Whether it sets or dumps a block device.
    pub(crate) fn is_transfer(&self) -> bool {
        self.is_transfer && self.local.is_some()
    }

    /// What revokes it. Who is only being told the last word has nothing any more that could be.
    pub(crate) fn links(&self) -> &[Link] {
        if matches!(self.stage, Stage::Ending | Stage::Lingering) { &[] } else { &self.links }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stage_until.into_iter().chain(self.write_until).min()
    }

    /// What it has not done in time.
    pub(crate) fn lateness(&self) -> &'static str {
        match self.stage {
            Stage::Handshake => "it has not proved in time who it is",
            Stage::List(_) => "it has not sent its list in time",
            _ => "it has not read in time what was sent to it",
        }
    }

    /// Begins what was asked for.
    pub(crate) fn begin(&mut self, admitted: Admitted, around: &mut Surroundings<'_>) {
        self.name = admitted.name;
        self.links = admitted.links;
        if admitted.is_told {
            around.events.login(self.name, self.peer, &self.links);
        }
        match admitted.task {
            Task::Revoke(revocation) => {
                let listing = Listing { chunks: Chunks::new(), bytes: Vec::new(), revocation };
                self.stage = Stage::List(Box::new(listing));
                self.stage_until = Some(Instant::now() + Duration::from_millis(TLS_LIST_MS_MAX));
            }
            Task::Ask { daemon, policies, command, has_chunks, is_transfer, follows } => {
                self.stage_until = None;
                let (socket, program) = match daemon {
                    Daemon::Vmmd => (VMMD, "vmmd"),
                    Daemon::Console => ("console.sock", "vmmd_console"),
                    Daemon::Stats => ("stat.sock", "vmmd_stats"),
                    Daemon::Log => ("log.sock", "vmmd_log"),
                };
                let mut local = match Local::connect(around.sockets, socket, around.registry, around.token) {
                    Ok(local) => local,
                    Err(error) => {
                        return self
                            .fail(&format!("{program} cannot be reached on the host, try again later: {error}"));
                    }
                };
                self.stage = match &policies {
                    Some(policies) => {
                        local.queue(policies);
                        Stage::Policies { follows, has_chunks }
                    }
                    None => relaying(has_chunks, follows),
                };
                local.queue(&command);
                self.daemon = Some(daemon);
                self.is_transfer = is_transfer;
                self.local = Some(local);
            }
        }
    }

    /// Says that it was not done and why, as the last word.
    pub(crate) fn fail(&mut self, reason: &str) {
        self.say(Payload::Failure(reason.into()));
    }

    /// As [`Self::fail`], to who may be in the middle of something; whether there is a place for it.
    pub(crate) fn interrupt(&mut self, reason: &str) -> bool {
        let is_place = match &self.stage {
            Stage::Relaying { frames, .. } => frames.is_between(),
            _ => true,
        };
        if is_place {
            self.fail(reason);
        }
        is_place
    }

    fn say(&mut self, payload: Payload<'_>) {
        let message = Message { header: Header::new(0, self.name), payload };
        let mut buffer = [0; SAY_BYTES];
        if let Ok(frame) = wire::encode_frame(&message, &mut buffer) {
            // There is room: nothing is taken from a daemon before everything is sent.
            let _ = self.tls.writer().write_all(frame);
        }
        self.end();
    }

    fn end(&mut self) {
        self.local = None;
        self.stage = Stage::Ending;
        self.stage_until = None;
    }

    /// Goes on as far as it can without waiting, or as its share of a turn allows.
    pub(crate) fn turn(&mut self, around: &mut Surroundings<'_>) -> Turn {
        for _ in 0..STEPS_MAX {
            let sent = match self.send() {
                Ok(sent) => sent,
                Err(_) => return Turn::Over(None),
            };
            let read = match self.receive() {
                Ok(read) => read,
                Err(reason) => {
                    // The alert that says why.
                    let _ = self.send();
                    return Turn::Over(Some(reason));
                }
            };
            match self.step(around) {
                Turn::Waits if !sent && !read => return Turn::Waits,
                Turn::Waits | Turn::Goes => {}
                other => return other,
            }
        }
        Turn::Goes
    }

    /// Sends what TLS has to send.
    fn send(&mut self) -> io::Result<bool> {
        let mut sent = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {
                    sent = true;
                    self.write_until = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let until = Instant::now() + Duration::from_millis(TLS_STALL_MS_MAX);
                    self.write_until.get_or_insert(until);
                    return Ok(sent);
                }
                Err(error) => return Err(error),
            }
        }
        self.write_until = None;
        Ok(sent)
    }

    /// Takes in what has come, unless what came before is not used yet.
    fn receive(&mut self) -> Result<bool, String> {
        if self.is_gone || self.unread > 0 {
            return Ok(false);
        }
        match self.tls.read_tls(&mut self.tcp) {
            Ok(0) => {
                self.is_gone = true;
                Ok(true)
            }
            Ok(_) => {
                let state = self.tls.process_new_packets().map_err(|error| match self.stage {
                    Stage::Handshake => format!("no handshake: {error}"),
                    _ => format!("{error}"),
                })?;
                self.has_closed |= state.peer_has_closed();
                self.unread = state.plaintext_bytes_to_read();
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(_) => {
                self.is_gone = true;
                Ok(true)
            }
        }
    }

    /// What the client has sent, as far as it fits.
    fn bytes<'p>(&mut self, piece: &'p mut [u8; PIECE_BYTES]) -> &'p [u8] {
        let count = self.tls.reader().read(piece).unwrap_or(0);
        self.unread = self.unread.saturating_sub(count);
        piece.get(..count).unwrap_or_default()
    }

    fn step(&mut self, around: &mut Surroundings<'_>) -> Turn {
        match self.stage {
            Stage::Handshake => self.shake(),
            Stage::Policies { .. } => self.settle_policies(),
            Stage::Relaying { .. } => self.relay(),
            Stage::List(_) => self.take_list(around),
            Stage::Removing(_) => self.remove(around),
            Stage::Ending => self.finish(),
            Stage::Lingering => self.linger(),
        }
    }
}

fn relaying(has_chunks: bool, follows: bool) -> Stage {
    Stage::Relaying { chunks: has_chunks.then(Chunks::new), follows, answered: false, frames: Frames::default() }
}
