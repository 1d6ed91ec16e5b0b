//! What a service manager and a daemon say to each other, as systemd has it (sd_notify(3), sd_listen_fds(3)): that it is ready,
//! that it lives, that it ends; and a listening socket that it is handed. Nothing of this is needed: without the variables
//! a daemon says nothing and makes its socket itself.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};

use crate::{sys, warning};

/// The first descriptor that is handed over.
pub(crate) const FIRST_FD: RawFd = 3;

/// How long the service manager may take over being told that a daemon is ready. Later it is told what fits its queue.
const READY_MAX: Duration = Duration::from_secs(1);

/// Why a daemon does not start: who started it asks for what cannot be.
#[derive(Debug)]
pub enum ServiceError {
    /// `NOTIFY_SOCKET` names no socket.
    Address(String, io::Error),
    /// A variable that is no number; its value.
    Number(&'static str, String),
    /// So many sockets were handed over, with these names.
    Count(u32, String),
    /// What was handed over is not what is needed: its number, its name, what it is instead.
    Socket(RawFd, String, &'static str),
    /// It cannot be looked at.
    Io(RawFd, String, io::Error),
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, error) => {
                write!(f, "NOTIFY_SOCKET is '{address}', neither a path nor @NAME of a socket: {error}")
            }
            Self::Number(variable, value) => write!(f, "{variable} is '{value}', which is no number"),
            Self::Count(count, names) => {
                write!(f, "{count} sockets were handed over ({names}): hand over one, with one ListenStream=")
            }
            Self::Socket(fd, name, what) => {
                write!(
                    f,
                    "descriptor {fd} ({name}) that was handed over {what}: hand over one that ListenStream= makes"
                )
            }
            Self::Io(fd, name, error) => write!(f, "descriptor {fd} ({name}) that was handed over: {error}"),
        }
    }
}

impl std::error::Error for ServiceError {}

/// Which socket a daemon can be handed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// A Unix socket.
    Unix,
    /// One for TCP.
    Inet,
}

/// The service manager, who may not be there.
#[derive(Debug, Default)]
pub struct Service {
    notify: Option<(UnixDatagram, SocketAddr)>,
    /// How long it may hear nothing.
    patience: Option<Duration>,
    beat_at: Option<Instant>,
}

impl Service {
    /// The one that the environment names.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn find() -> Result<Self, ServiceError> {
        let Some(address) = variable("NOTIFY_SOCKET") else { return Ok(Self::default()) };
        let fail = |error| ServiceError::Address(address.clone(), error);
        let notify = (UnixDatagram::unbound().map_err(fail)?, address_of(&address).map_err(fail)?);
        let is_for_us = number("WATCHDOG_PID")?.is_none_or(|pid| pid == u64::from(std::process::id()));
        let patience = number("WATCHDOG_USEC")?.filter(|it| is_for_us && *it > 0).map(Duration::from_micros);
        Ok(Self { notify: Some(notify), patience, beat_at: None })
    }

    /// How long it may hear nothing before it takes this process for hung; nothing where it does not look.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// The daemon serves.
    pub fn ready(&mut self, status: fmt::Arguments<'_>) {
        if let Some((socket, _)) = &self.notify {
            // The one message that is worth waiting for: without it the start has failed.
            let _ = socket.set_write_timeout(Some(READY_MAX));
            self.tell(format_args!("READY=1\nSTATUS={status}"));
        }
        if let Some((socket, _)) = &self.notify {
            let _ = socket.set_nonblocking(true);
        }
        self.beat_at = self.patience.map(|_| Instant::now());
    }

    /// What it does, for people.
    pub fn status(&self, status: fmt::Arguments<'_>) {
        self.tell(format_args!("STATUS={status}"));
    }

    /// It is ending.
    pub fn stopping(&mut self) {
        self.beat_at = None;
        self.tell(format_args!("STOPPING=1\nSTATUS=ending"));
    }

    /// It lives, wherever the call comes from.
    pub fn beat(&self) {
        if self.patience.is_some() {
            self.tell(format_args!("WATCHDOG=1"));
        }
    }

    /// When [`Service::turn`] has something to say.
    #[must_use]
    pub fn alarm(&self) -> Option<Instant> {
        self.beat_at
    }

    /// To be called in each turn of an event loop: tells that it goes round, twice as often as is asked for.
    pub fn turn(&mut self) {
        let now = Instant::now();
        if self.beat_at.is_some_and(|at| at <= now) {
            self.beat_at = self.patience.and_then(|patience| now.checked_add(patience / 2));
            self.beat();
        }
    }

    /// What it does not take at once is lost: nothing here is worth a daemon that hangs.
    fn tell(&self, message: fmt::Arguments<'_>) {
        if let Some((socket, address)) = &self.notify {
            let _ = socket.send_to_addr(message.to_string().as_bytes(), address);
        }
    }
}

/// A path, or `@` and the name of an abstract socket.
fn address_of(text: &str) -> io::Result<SocketAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = text.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    if !text.starts_with('/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    SocketAddr::from_pathname(text)
}

/// The socket that was handed over, if one was.
///
/// # Errors
/// [`ServiceError`], where it is not one listening socket of this kind.
pub fn handed_over(door: Door) -> Result<Option<OwnedFd>, ServiceError> {
    let is_for_us = number("LISTEN_PID")? == Some(u64::from(std::process::id()));
    let count = number("LISTEN_FDS")?.filter(|_| is_for_us).unwrap_or(0);
    let names = variable("LISTEN_FDNAMES").unwrap_or_else(|| "without names".to_owned());
    match count {
        0 => Ok(None),
        1 => take_socket(FIRST_FD, names, door).map(Some),
        _ => Err(ServiceError::Count(u32::try_from(count).unwrap_or(u32::MAX), names)),
    }
}

/// This descriptor, which who started this process left open for it, where it is a listening socket of this kind. It does not wait and
/// is nobody else's afterwards.
///
/// # Errors
/// [`ServiceError`], as it says.
pub fn take_socket(fd: RawFd, name: String, door: Door) -> Result<OwnedFd, ServiceError> {
    let fail = |error: io::Error| ServiceError::Io(fd, name.clone(), error);
    let socket = sys::inherited(fd).map_err(fail)?;
    if let Some(what) = what_is_wrong(&socket, door) {
        return Err(ServiceError::Socket(fd, name, what));
    }
    let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&socket, flags).map_err(|errno| fail(errno.into()))?;
    nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
        .map_err(|errno| fail(errno.into()))?;
    Ok(socket)
}

fn what_is_wrong(socket: &impl AsFd, door: Door) -> Option<&'static str> {
    let fd = socket.as_fd();
    let Ok(kind) = getsockopt(&fd, sockopt::SockType) else { return Some("is no socket") };
    let family = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok().and_then(|address| address.family());
    let fits = match door {
        Door::Unix => family == Some(AddressFamily::Unix),
        Door::Inet => matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6)),
    };
    match (door, fits) {
        (Door::Unix, false) => return Some("is no Unix socket"),
        (Door::Inet, false) => return Some("is no socket for TCP"),
        (_, true) => {}
    }
    if kind != SockType::Stream {
        return Some("is no stream socket");
    }
    (!getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false)).then_some("does not listen")
}

/// Warns where clients look at another place than where the socket that was handed over is.
pub fn expect_place(listener: &std::os::unix::net::UnixListener, path: &std::path::Path) {
    let bound = listener.local_addr().ok();
    let bound = bound.as_ref().and_then(SocketAddr::as_pathname);
    if bound != Some(path) {
        let bound = bound.map_or("without a path".into(), |it| it.display().to_string());
        warning!("the socket that was handed over is {bound}: clients look at {}", path.display());
    }
}

fn variable(name: &'static str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

fn number(name: &'static str) -> Result<Option<u64>, ServiceError> {
    variable(name).map(|value| value.parse().map_err(|_| ServiceError::Number(name, value))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn hear(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn what_is_said_and_when() {
        let folder = std::env::temp_dir().join(format!("fulmar-service-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let address = address_of(path.to_str().unwrap()).unwrap();
        let mut service = Service { notify: Some((UnixDatagram::unbound().unwrap(), address)), ..Service::default() };
        service.turn();
        assert_eq!(service.alarm(), None);
        service.ready(format_args!("serving on {}", "x"));
        assert_eq!(hear(&manager), "READY=1\nSTATUS=serving on x");
        service.turn();
        service.beat();
        service.status(format_args!("idle"));
        assert_eq!(hear(&manager), "STATUS=idle");
        service.patience = Some(Duration::from_secs(3600));
        service.ready(format_args!("again"));
        assert!(hear(&manager).starts_with("READY=1"));
        service.turn();
        service.turn();
        assert_eq!(hear(&manager), "WATCHDOG=1");
        assert!(service.alarm().unwrap() > Instant::now() + Duration::from_secs(1700));
        service.stopping();
        service.turn();
        assert_eq!(hear(&manager), "STOPPING=1\nSTATUS=ending");
        // Nobody reads: nobody waits.
        for _ in 0..100_000 {
            service.beat();
        }
        drop(manager);
        service.beat();
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn sockets_have_paths_or_names() {
        assert!(address_of("/run/notify").is_ok());
        for wrong in ["", "notify", "vsock:2:1"] {
            assert!(address_of(wrong).is_err(), "{wrong}");
        }
        #[cfg(target_os = "linux")]
        assert!(address_of("@fulmar").unwrap().as_pathname().is_none());
    }

    #[test]
    fn only_a_listening_socket_of_the_right_kind_is_taken() {
        let folder = std::env::temp_dir().join(format!("fulmar-doors-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let unix = UnixListener::bind(folder.join("s")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(what_is_wrong(&unix, Door::Unix), None);
        assert_eq!(what_is_wrong(&tcp, Door::Inet), None);
        assert_eq!(what_is_wrong(&tcp, Door::Unix), Some("is no Unix socket"));
        assert_eq!(what_is_wrong(&unix, Door::Inet), Some("is no socket for TCP"));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(what_is_wrong(&udp, Door::Inet), Some("is no stream socket"));
        assert_eq!(what_is_wrong(&UnixDatagram::unbound().unwrap(), Door::Unix), Some("is no stream socket"));
        assert_eq!(what_is_wrong(&UnixStream::pair().unwrap().0, Door::Unix), Some("does not listen"));
        assert_eq!(what_is_wrong(&std::fs::File::open("/dev/null").unwrap(), Door::Unix), Some("is no socket"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
