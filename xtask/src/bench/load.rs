//! A client for benchmarks: frames out, frames in, nothing else.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, Arguments, Command, Config, FailBehaviour, Frame, Header, Image, Kind, List, Message, Payload, Text,
};

use crate::steps::{Done, Failure};

/// Bytes of the largest frame that a benchmark sends or gets.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// A connection to one of the daemons.
pub(crate) struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// The bytes of a command's frame.
pub(crate) fn frame(name: &str, command: Command<'_>) -> Done<Vec<u8>> {
    let name = Name::parse(name).map_err(|error| Failure(error.to_string()))?;
    let message = Message { header: Header::new(0, name), payload: Payload::Command(command) };
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let bytes = wire::encode_frame(&message, &mut buffer).map_err(|error| Failure(error.to_string()))?;
    Ok(bytes.to_vec())
}

/// The arguments of a unikernel without devices.
pub(crate) fn arguments<'a>(memory: i64, argv: &'a [Text<'a>]) -> Arguments<'a> {
    Arguments {
        fail_behaviour: FailBehaviour::Quit,
        startup: None,
        add_name: true,
        cpuids: List::Items(&[0]),
        memory,
        block_devices: List::EMPTY,
        bridges: List::EMPTY,
        argv: Some(List::Items(argv)),
        numcpus: 1,
        linux_boot: None,
    }
}

/// A unikernel with an image.
pub(crate) fn config<'a>(image: &'a [u8], arguments: Arguments<'a>) -> Config<'a> {
    Config { kind: Kind::Solo5, compressed: false, image: Image::Inline(image), arguments }
}

impl Connection {
    /// Connects.
    pub(crate) fn open(socket: &Path) -> Done<Self> {
        let stream = UnixStream::connect(socket).map_err(|error| Failure(format!("{}: {error}", socket.display())))?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Done {
        self.stream.write_all(frame).map_err(|error| Failure(format!("cannot send: {error}")))
    }

    /// Receives a frame.
    pub(crate) fn receive(&mut self) -> Done<&[u8]> {
        let mut length = [0; 4];
        let failed = |error| Failure(format!("cannot receive: {error}"));
        self.stream.read_exact(&mut length).map_err(failed)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0).min(FRAME_BYTES_MAX);
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer).map_err(failed)?;
        Ok(&self.buffer)
    }

    /// Receives a reply that must be a success.
    pub(crate) fn success(&mut self) -> Done {
        match wire::decode(Frame::whole(self.receive()?)) {
            Ok(Message { payload: Payload::Success(_) | Payload::Data(_), .. }) => Ok(()),
            Ok(Message { payload: Payload::Failure(text), .. }) => Err(Failure(format!("refused: {text}"))),
            other => Err(Failure(format!("unexpected reply: {other:?}"))),
        }
    }
}

/// One command on a connection of its own.
pub(crate) fn ask(socket: &Path, frame: &[u8]) -> Done {
    let mut connection = Connection::open(socket)?;
    connection.send(frame)?;
    connection.success()
}
