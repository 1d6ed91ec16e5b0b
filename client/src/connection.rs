//! A conversation with a daemon: frames out, frames in, each wait bounded, each reply bounded.
//!
//! A daemon is not trusted to answer, to answer sense, or to stop answering. What carries the bytes is a [`Transport`],
//! who opens it a [`Door`], so that the commands know neither sockets nor certificates.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fulmar_core::limits::{CONTENT_PIECE_BYTES, FRAME_HEAD_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, Command, Config, Frame, Header, Image, Message, Payload, PolicyCommand, Success, Text, UnikernelCommand,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Failure;

/// Bytes of a reply that is held in memory: lists of everything that a daemon can have, several times over.
pub const REPLY_BYTES_MAX: u64 = 64 << 20;

/// How long a daemon may be silent before we give up.
pub const TIME_OUT: Duration = Duration::from_secs(60);

/// Clients have one command at a time on a connection and need no numbers.
const SEQUENCE: u64 = 0;

/// Who is talked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Daemon {
    /// Runs unikernels.
    Vmmd,
    /// Keeps what they write.
    Console,
    /// Measures them.
    Stats,
    /// Keeps what happens.
    Log,
}

impl Daemon {
    /// Where it listens below the folder of the daemons' sockets.
    #[must_use]
    pub fn socket(self) -> &'static str {
        match self {
            Self::Vmmd => "util/vmmd.sock",
            Self::Console => "util/console.sock",
            Self::Stats => "util/stat.sock",
            Self::Log => "util/log.sock",
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmmd => "vmmd",
            Self::Console => "vmmd_console",
            Self::Stats => "vmmd_stats",
            Self::Log => "vmmd_log",
        })
    }
}

/// What carries the bytes.
pub trait Transport: Read + Write {
    /// How long one read or write may take; nothing for as long as it likes.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_time_out(&self, time_out: Option<Duration>) -> io::Result<()>;

    /// Whether something has come that can be read at once, or the other end is gone.
    fn is_readable(&mut self) -> bool;

    /// What an error of reading or writing says, where it is not one of the operating system.
    fn failure(&self, _error: &io::Error) -> Option<Failure> {
        None
    }
}

impl Transport for UnixStream {
    fn set_time_out(&self, time_out: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(time_out)?;
        self.set_write_timeout(time_out)
    }

    fn is_readable(&mut self) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        // What cannot be known is seen when it is read or written.
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}

/// A way to the daemons.
pub trait Door {
    /// A new conversation.
    ///
    /// # Errors
    /// [`Failure::Connect`].
    fn open(&self, daemon: Daemon) -> Result<Connection, Failure>;

    /// The same way, for another thread.
    fn again(&self) -> Box<dyn Door + Send>;

    /// The path that it leads to: what is there and below can be asked about.
    fn root(&self) -> Name {
        Name::ROOT
    }
}

/// Opens the way when it is known what for: where the command is not sent but stands in a certificate.
pub trait Dialer {
    /// A conversation in which this command has been said. An image that it has is empty, and follows.
    ///
    /// # Errors
    /// As it says.
    fn dial(&mut self, name: Name, command: &Command<'_>) -> Result<Box<dyn Transport>, Failure>;
}

/// The way to the daemons of this machine.
#[derive(Clone, Debug)]
pub struct LocalDoor {
    run: PathBuf,
    time_out: Duration,
}

impl LocalDoor {
    /// The daemons whose sockets are below `run`; none may be silent for longer than `time_out`.
    #[must_use]
    pub fn new(run: &Path, time_out: Duration) -> Self {
        Self { run: run.to_owned(), time_out }
    }
}

impl Door for LocalDoor {
    fn open(&self, daemon: Daemon) -> Result<Connection, Failure> {
        let socket = self.run.join(daemon.socket());
        let place = socket.display().to_string();
        let failure = |error| Failure::Connect { daemon, place: place.clone(), error };
        // Connecting waits while the daemon's queue is full, and has no time-out of its own.
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            // When nobody waits any more, nobody needs the answer.
            let _ = sender.send(UnixStream::connect(&socket));
        });
        let stream = match receiver.recv_timeout(self.time_out) {
            Ok(stream) => stream.map_err(failure)?,
            Err(_) => return Err(failure(io::ErrorKind::TimedOut.into())),
        };
        Connection::new(daemon, Box::new(stream), self.time_out).map_err(failure)
    }

    fn again(&self) -> Box<dyn Door + Send> {
        Box::new(self.clone())
    }
}

/// One conversation.
pub struct Connection {
    daemon: Daemon,
    stream: Box<dyn Transport>,
    time_out: Duration,
    reply: Vec<u8>,
    /// Opens the stream when there is a command.
    dialer: Option<Box<dyn Dialer>>,
    /// The command sets a policy, which is done by its certificates alone: the reply is that of another command.
    sets_policy: bool,
}

/// The stream of a conversation that has not begun.
struct Unopened;

impl Read for Unopened {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

impl Write for Unopened {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for Unopened {
    fn set_time_out(&self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    fn is_readable(&mut self) -> bool {
        true
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("daemon", &self.daemon).finish_non_exhaustive()
    }
}

impl Connection {
    /// A conversation over this stream.
    ///
    /// # Errors
    /// What the operating system says to the time-out.
    pub fn new(daemon: Daemon, stream: Box<dyn Transport>, time_out: Duration) -> io::Result<Self> {
        stream.set_time_out(Some(time_out))?;
        Ok(Self { daemon, stream, time_out, reply: Vec::new(), dialer: None, sets_policy: false })
    }

    /// A conversation that begins when the command is known.
    #[must_use]
    pub fn dialing(daemon: Daemon, dialer: Box<dyn Dialer>, time_out: Duration) -> Self {
        let stream = Box::new(Unopened);
        Self { daemon, stream, time_out, reply: Vec::new(), dialer: Some(dialer), sets_policy: false }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// [`Failure::TooLarge`], [`Failure::Lost`], [`Failure::Silent`].
    pub fn send(&mut self, name: Name, command: Command<'_>) -> Result<(), Failure> {
        self.send_around(name, command, &mut |_| Ok(()))
    }

    /// Sends a command whose image is written by `image` where it belongs.
    ///
    /// # Errors
    /// As [`Connection::send`], and what `image` says.
    pub fn send_around(
        &mut self,
        name: Name,
        command: Command<'_>,
        image: &mut dyn FnMut(&mut dyn Write) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.dialer.is_some() {
            let (command, has_image) = without_image(command);
            self.dial(name, &command)?;
            return if has_image { self.send_chunks(name, CONTENT_PIECE_BYTES, image) } else { Ok(()) };
        }
        let message = Message { header: Header::new(SEQUENCE, name), payload: Payload::Command(command) };
        let mut buffer = vec![0; FRAME_HEAD_BYTES_MAX];
        let Frame { head, cut } = wire::encode_head(&message, &mut buffer).map_err(|_| Failure::TooLarge)?;
        let at = cut.map_or(head.len(), |cut| cut.at);
        let (before, after) = head.split_at_checked(at).unwrap_or((head, &[]));
        let mut stream = self.sink();
        let sent = stream.write_all(before).map_err(Failure::print).and_then(|()| {
            if cut.is_some() {
                image(&mut stream)?;
            }
            stream.write_all(after).and_then(|()| stream.flush()).map_err(Failure::print)
        });
        match (sent, stream.error.take()) {
            (Ok(()), None) => Ok(()),
            (_, Some(error)) => self.sending_failed(error, name),
            (Err(failure), None) => Err(failure),
        }
    }

    /// Opens a conversation in which this command is said, and all that belongs to it.
    ///
    /// # Errors
    /// What the dialer says.
    pub(crate) fn dial(&mut self, name: Name, command: &Command<'_>) -> Result<(), Failure> {
        let Some(dialer) = &mut self.dialer else { return self.send(name, *command) };
        self.sets_policy = matches!(command, Command::Policy(PolicyCommand::Add(_)));
        self.stream = dialer.dial(name, command)?;
        self.stream.set_time_out(Some(self.time_out)).map_err(|error| self.broken(error))
    }

    /// The way out.
    pub(crate) fn sink(&mut self) -> Sink<'_> {
        Sink { stream: self.stream.as_mut(), error: None }
    }

    /// A daemon that refuses a command answers before it has all of it and hangs up: its reason is worth more than ours.
    pub(crate) fn sending_failed(&mut self, error: io::Error, name: Name) -> Result<(), Failure> {
        let hung_up = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if hung_up && let Err(refused @ (Failure::Refused { .. } | Failure::OwnRefused { .. })) = self.receive(name) {
            return Err(refused);
        }
        Err(self.broken(error))
    }

    /// Waits for the reply to a command about `name`.
    ///
    /// # Errors
    /// [`Failure::Refused`] where the daemon says no, and all that can be wrong with a daemon.
    pub fn receive(&mut self, name: Name) -> Result<Success<'_>, Failure> {
        let (daemon, sets_policy) = (self.daemon, self.sets_policy);
        let success = match self.next_payload()? {
            None => return Err(Failure::Closed { daemon }),
            Some(payload) => success(daemon, name, payload)?,
        };
        match success {
            Success::Policies(_) if sets_policy => Ok(Success::Text(Text(b"added policy"))),
            success => Ok(success),
        }
    }

    /// The reply in these bytes.
    pub(crate) fn success<'f>(&self, name: Name, frame: Frame<'f>) -> Result<Success<'f>, Failure> {
        success(self.daemon, name, message(self.daemon, frame)?.payload)
    }

    /// Waits for the next message; nothing when the daemon has closed the connection between two of them.
    ///
    /// # Errors
    /// All that can be wrong with a daemon.
    pub fn next_payload(&mut self) -> Result<Option<Payload<'_>>, Failure> {
        Ok(self.next_message()?.map(|message| message.payload))
    }

    /// As [`Connection::next_payload`], with what the message is about.
    ///
    /// # Errors
    /// All that can be wrong with a daemon.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, Failure> {
        let daemon = self.daemon;
        let Some(bytes) = self.frame_bytes()? else { return Ok(None) };
        if bytes > REPLY_BYTES_MAX {
            return Err(Failure::Oversize { daemon, bytes });
        }
        self.reply.clear();
        // The buffer grows with what comes, not with what is announced.
        let read = self.stream.as_mut().take(bytes).read_to_end(&mut self.reply);
        read.map_err(|error| self.broken(error))?;
        if (self.reply.len() as u64) < bytes {
            return Err(Failure::Closed { daemon });
        }
        message(daemon, Frame::whole(&self.reply)).map(Some)
    }

    /// As [`Connection::next_message`], of what goes on until we have enough.
    ///
    /// # Errors
    /// [`Failure::Ended`] where the daemon has closed it, and all that can be wrong with a daemon.
    pub fn next_of_stream(&mut self) -> Result<Message<'_>, Failure> {
        let daemon = self.daemon;
        match self.next_message() {
            Ok(Some(message)) => Ok(message),
            Ok(None) | Err(Failure::Closed { .. }) => Err(Failure::Ended { daemon }),
            Err(failure) => Err(failure),
        }
    }

    /// The length of the next frame; nothing at the end of the conversation.
    fn frame_bytes(&mut self) -> Result<Option<u64>, Failure> {
        let mut prefix = [0; 4];
        let mut filled = 0;
        while let Some(rest) = prefix.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.stream.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Failure::Closed { daemon: self.daemon }),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        // A length of 0 or less says the same as the end of the stream.
        Ok(u64::try_from(i32::from_be_bytes(prefix)).ok().filter(|bytes| *bytes > 0))
    }

    /// Reads some bytes of a frame, at least one.
    pub(crate) fn read_some<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b mut [u8], Failure> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Failure::Closed { daemon: self.daemon }),
                Ok(count) => return Ok(buffer.get_mut(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// From now on the daemon speaks when it has something to say.
    ///
    /// # Errors
    /// [`Failure::Lost`].
    pub fn wait_for_ever(&mut self) -> Result<(), Failure> {
        self.stream.set_time_out(None).map_err(|error| self.broken(error))
    }

    /// Whether something has come that can be read at once, or the daemon is gone.
    #[must_use]
    pub fn is_readable(&mut self) -> bool {
        self.stream.is_readable()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn daemon(&self) -> Daemon {
        self.daemon
    }

    fn broken(&self, error: io::Error) -> Failure {
        let daemon = self.daemon;
        if let Some(failure) = self.stream.failure(&error) {
            return failure;
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::Silent { daemon, time_out: self.time_out },
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Failure::Closed { daemon },
            _ => Failure::Lost { daemon, error },
        }
    }
}

/// The command as a certificate has it, and whether an image follows it.
fn without_image(command: Command<'_>) -> (Command<'_>, bool) {
    let empty = |config| Config { image: Image::Inline(&[]), ..config };
    match command {
        Command::Unikernel(UnikernelCommand::Create(config)) => {
            (Command::Unikernel(UnikernelCommand::Create(empty(config))), true)
        }
        Command::Unikernel(UnikernelCommand::ForceCreate(config)) => {
            (Command::Unikernel(UnikernelCommand::ForceCreate(empty(config))), true)
        }
        command => (command, false),
    }
}

/// The message in these bytes.
fn message(daemon: Daemon, frame: Frame<'_>) -> Result<Message<'_>, Failure> {
    let message = wire::decode(frame).map_err(|error| Failure::Garbled { daemon, error })?;
    if message.header.sequence != SEQUENCE {
        return Err(Failure::Unexpected { daemon });
    }
    Ok(message)
}

/// That it was done, or why not.
fn success(daemon: Daemon, name: Name, payload: Payload<'_>) -> Result<Success<'_>, Failure> {
    match payload {
        Payload::Success(success) => Ok(success),
        Payload::Failure(text) => Err(refused(name, text)),
        _ => Err(Failure::Unexpected { daemon }),
    }
}

/// The daemon's reason.
pub(crate) fn refused(name: Name, text: Text<'_>) -> Failure {
    Failure::Refused { name: name.to_string(), text: String::from_utf8_lossy(text.0).into_owned() }
}

/// Remembers the stream's own error, so that it is not taken for one of the file that is copied into it.
pub(crate) struct Sink<'a> {
    stream: &'a mut dyn Transport,
    pub(crate) error: Option<io::Error>,
}

impl Sink<'_> {
    /// Whether the daemon has said something, or is gone.
    pub(crate) fn is_answered(&mut self) -> bool {
        self.stream.is_readable()
    }

    fn keep<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.error = Some(error);
            }
            kind.into()
        })
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.stream.write(bytes);
        self.keep(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.stream.flush();
        self.keep(result)
    }
}
