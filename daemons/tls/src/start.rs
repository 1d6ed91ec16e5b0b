//! How both programs begin and end.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use fulmar_core::limits::TLS_FILES_MAX;
use fulmar_host::check::Findings;
use fulmar_host::daemon::{self, BeginError};
use fulmar_host::folder::Folder;
use fulmar_host::info;
use fulmar_host::service::{self, Door, Service};
use fulmar_host::socket::TLS_USER;
use mio::net::TcpStream;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::events::Events;
use crate::keys::{Files, Keys, KeysError};
use crate::options::{LISTENING, ONE, Options};
use crate::revoked::{Revoked, RevokedError};
use crate::server::Server;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Why nothing is served.
#[derive(Debug)]
enum StartError {
    /// As for every daemon.
    Begin(BeginError),
    /// The keys and certificates cannot be used.
    Keys(KeysError),
    /// The lists of revoked certificates cannot be used.
    Revoked(RevokedError),
    /// The folder of the daemons' sockets cannot be opened.
    Sockets(PathBuf, io::Error),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The standard input is no connection.
    NoClient(io::Error),
    /// The program could not be confined.
    #[cfg(target_os = "linux")]
    Confine(fulmar_shim_linux::sandbox::NotConfined),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Revoked(error) => error.fmt(f),
            Self::Sockets(path, error) => write!(f, "cannot open {}: {error}", path.display()),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::NoClient(error) => {
                write!(f, "the standard input is no TCP connection ({error}): this is started by inetd or systemd")
            }
            #[cfg(target_os = "linux")]
            Self::Confine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BeginError> for StartError {
    fn from(error: BeginError) -> Self {
        Self::Begin(error)
    }
}

/// `vmmd_tls`.
#[must_use]
pub fn listening() -> ExitCode {
    let check = |options: &Options, findings: &mut Findings| {
        if let Some(files) = check(options, findings) {
            files.doubts().for_each(|doubt| findings.doubt(doubt));
        }
    };
    LISTENING.main(check, |options| -> Result<(), StartError> {
        let service = Service::find().map_err(BeginError::from)?;
        let handed_over = service::handed_over(Door::Inet).map_err(BeginError::from)?;
        let mut server = begin(options, service)?;
        let listener = match handed_over {
            Some(socket) => TcpListener::from(socket),
            None => listen(options.address).map_err(|error| StartError::Listen(options.address, error))?,
        };
        let address = listener.local_addr().unwrap_or(options.address);
        server.listen(listener).map_err(BeginError::Loop)?;
        server.tell_doubts();
        confine(options, &server)?;
        daemon::confine()?;
        info!("serving on {address}");
        server.service.ready(format_args!("serving on {address}"));
        let ended = server.run();
        server.service.stopping();
        ended.map_err(BeginError::Loop)?;
        info!("ended by a signal");
        Ok(())
    })
}

/// `vmmd_tls_inetd`.
#[must_use]
pub fn one() -> ExitCode {
    // It is gone before anything could change.
    let check = |options: &Options, findings: &mut Findings| drop(check(options, findings));
    ONE.main(check, |options| -> Result<(), StartError> {
        let client = take_client().map_err(StartError::NoClient)?;
        let peer = client.peer_addr().map_err(StartError::NoClient)?;
        let mut server = begin(options, Service::default())?;
        confine(options, &server)?;
        daemon::confine()?;
        server.admit(client, peer);
        Ok(server.run().map_err(BeginError::Loop)?)
    })
}

/// What a start needs; the files that it reads, where they can be had.
fn check(options: &Options, findings: &mut Findings) -> Option<Files> {
    let util = options.run.join("util");
    if let Some(()) = findings.expect(daemon::expect_folder(&util, "--run"))
        && let Some(descent) = findings.expect(daemon::descend(&util, options.user, TLS_USER))
    {
        findings.expect(descent.finish());
    }
    let files = findings.expect(Files::of(&options.paths));
    if let Some(files) = &files {
        findings.expect(Keys::read(files));
    }
    if options.revoked.is_dir() {
        findings.check_writable(&options.revoked);
        findings.expect(Revoked::open(&options.revoked));
    } else {
        let above = options.revoked.parent().filter(|above| !above.as_os_str().is_empty());
        findings.check_writable(above.unwrap_or(Path::new(".")));
    }
    files
}

fn begin(options: &Options, service: Service) -> Result<Server, StartError> {
    let util = options.run.join("util");
    daemon::expect_folder(&util, "--run")?;
    daemon::descend(&util, options.user, TLS_USER)?.finish()?;
    daemon::raise_files(TLS_FILES_MAX);
    let files = Files::of(&options.paths).map_err(StartError::Keys)?;
    let keys = Keys::read(&files).map_err(StartError::Keys)?;
    let revoked = Revoked::open(&options.revoked).map_err(StartError::Revoked)?;
    let sockets = || Folder::open(&util).map_err(|error| StartError::Sockets(util.clone(), error));
    let events = Events::new(sockets()?, instance());
    Ok(Server::new(sockets()?, files, keys, revoked, events, service).map_err(BeginError::Loop)?)
}

/// From here on nothing is asked of the kernel but what serving needs, and nothing else is reached. What is listened on is so now.
#[cfg(target_os = "linux")]
fn confine(options: &Options, server: &Server) -> Result<(), StartError> {
    use fulmar_shim_linux::sandbox::{Enclosure, Program, confine, enclose};
    let certificates = server.certificate_folders();
    enclose(Enclosure::Tls { certificates: &certificates, revoked: &options.revoked }).map_err(StartError::Confine)?;
    confine(Program::Tls).map_err(StartError::Confine)
}

#[cfg(not(target_os = "linux"))]
fn confine(_options: &Options, _server: &Server) -> Result<(), StartError> {
    Ok(())
}

/// A number that no other process of these programs has.
fn instance() -> u32 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    nanos ^ std::process::id().rotate_left(16)
}

/// Listens there. The system may have been told that IPv6 is for itself: here `::` is IPv4 too.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(fd))
}

/// The connection that the standard input is. Nothing else may be written to it: where the standard output or the standard error is
/// the same connection, it is nothing from now on.
fn take_client() -> io::Result<TcpStream> {
    let own: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let client = nix::sys::stat::fstat(&own)?;
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let is_same = |stat: nix::Result<nix::sys::stat::FileStat>| {
        stat.is_ok_and(|it| (it.st_dev, it.st_ino) == (client.st_dev, client.st_ino))
    };
    if is_same(nix::sys::stat::fstat(io::stdout())) {
        nix::unistd::dup2_stdout(&nothing)?;
    }
    if is_same(nix::sys::stat::fstat(io::stderr())) {
        nix::unistd::dup2_stderr(&nothing)?;
    }
    nix::unistd::dup2_stdin(&nothing)?;
    let client = std::net::TcpStream::from(own);
    client.peer_addr()?;
    client.set_nonblocking(true)?;
    Ok(TcpStream::from_std(client))
}
