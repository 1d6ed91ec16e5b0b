//! A client that says whatever bytes it likes, and takes what comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, Arguments, Bridge, Command, Config, FailBehaviour, Frame, Header, Image, Kind, List, Message, Payload,
    Success, UnikernelCommand,
};

use crate::system::PATIENCE;

/// Asks for the end of a unikernel.
pub const DESTROY: Command<'static> = Command::Unikernel(UnikernelCommand::Destroy);

/// Asks what runs.
pub const INFO: Command<'static> = Command::Unikernel(UnikernelCommand::Info);

/// A connection.
#[derive(Debug)]
pub struct Raw(pub UnixStream);

/// What came back, as far as tests look at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done, in words.
    Done(String),
    /// Refused, in words.
    Refused(String),
    /// An image of so many bytes.
    Image(usize),
    /// Anything else.
    Other(String),
    /// The connection was closed.
    Closed,
}

impl Raw {
    /// Connects; reads and writes fail after a while rather than wait for ever.
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()))
    }

    /// As [`Raw::connect`].
    ///
    /// # Errors
    /// The system's.
    pub fn try_connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends bytes; whether all were taken.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Sends one whole message with these bytes.
    pub fn send_framed(&mut self, bytes: &[u8]) -> bool {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        self.send(&[&length, bytes].concat())
    }

    /// Sends a command and takes the reply.
    pub fn ask(&mut self, name: &str, command: Command<'_>) -> Answer {
        self.send(&frame(name, command));
        self.receive()
    }

    /// The bytes of the next message, without their length; nothing where the connection was closed.
    pub fn receive_bytes(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    /// The next message.
    pub fn receive(&mut self) -> Answer {
        self.receive_bytes().map_or(Answer::Closed, |bytes| Answer::of(&bytes))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the daemon said nothing for {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }
}

impl Answer {
    /// What a message says.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let message = wire::decode(Frame::whole(bytes)).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match message.payload {
            Payload::Success(Success::Text(said)) => Self::Done(text(said.0)),
            Payload::Failure(said) => Self::Refused(text(said.0)),
            Payload::Success(Success::Image { image, .. }) => Self::Image(usize::try_from(image.len()).unwrap()),
            other => {
                let mut words = format!("{other:?}");
                words.truncate(4096);
                Self::Other(words)
            }
        }
    }

    /// The reason of a refusal.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(text) => text,
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// A message with its length.
#[must_use]
pub fn frame(name: &str, command: Command<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let header = Header::new(7, Name::parse(name).unwrap());
    let message = Message { header, payload: Payload::Command(command) };
    if let Some(Image::Inline(octets)) = message.payload.image() {
        buffer.resize(octets.len() + (1 << 16), 0);
    }
    wire::encode_frame(&message, &mut buffer).unwrap().to_vec()
}

/// What a creation asks for, unless a test says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The image's octets.
    pub image: &'a [u8],
    /// Whether they are said to be a zlib stream.
    pub compressed: bool,
    /// MB of memory.
    pub memory: i64,
    /// The CPUs, ascending.
    pub cpus: &'a [i64],
    /// The networks.
    pub bridges: &'a [Bridge<'a>],
}

impl<'a> Wish<'a> {
    /// This image, in 32 MB on CPU 0.
    #[must_use]
    pub fn of(image: &'a [u8]) -> Self {
        Self { image, compressed: false, memory: 32, cpus: &[0], bridges: &[] }
    }

    /// The command.
    #[must_use]
    pub fn command(self) -> Command<'a> {
        let arguments = Arguments {
            fail_behaviour: FailBehaviour::Quit,
            startup: None,
            add_name: true,
            cpuids: List::Items(self.cpus),
            memory: self.memory,
            block_devices: List::EMPTY,
            bridges: List::Items(self.bridges),
            argv: None,
            numcpus: 1,
            linux_boot: None,
        };
        let image = Image::Inline(self.image);
        Command::Unikernel(UnikernelCommand::Create(Config {
            kind: Kind::Solo5,
            compressed: self.compressed,
            image,
            arguments,
        }))
    }
}
