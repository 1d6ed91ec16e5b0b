//! A conversation with one of the daemons, over its Unix socket: frames out, frames in, each wait and each frame bounded.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use fulmar_core::name::Name;
use fulmar_core::wire::{self, Command, Frame, Header, Malformed, Message, Payload, Success};

/// Bytes of a frame: a listing of all that `vmmd` can have, several times over.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Bytes of a command: a name and a tag.
const COMMAND_BYTES_MAX: usize = 1024;

/// How long a daemon may be silent that was asked something.
const ANSWER: Duration = Duration::from_secs(30);

/// Between two attempts to reach a daemon that is not there.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

/// Why a conversation ended.
#[derive(Debug)]
pub(crate) enum DaemonError {
    /// Its socket: it is not there, or it hung up.
    Io(io::Error),
    /// It announced a frame of so many bytes.
    TooLong(usize),
    /// It said what nobody understands.
    Malformed(Malformed),
    /// It said no.
    Refused(String),
    /// It answered something else than was asked.
    Unexpected,
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::TooLong(bytes) => write!(f, "it announced a message of {bytes} bytes"),
            Self::Malformed(error) => error.fmt(f),
            Self::Refused(reason) => f.write_str(reason),
            Self::Unexpected => f.write_str("it answered something else than was asked"),
        }
    }
}

impl std::error::Error for DaemonError {}

impl From<io::Error> for DaemonError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection, and the memory for what comes.
pub(crate) struct Conversation {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl Conversation {
    /// Connects and asks.
    ///
    /// # Errors
    /// [`DaemonError::Io`].
    pub(crate) fn begin(socket: &Path, command: Command<'_>) -> Result<Self, DaemonError> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut buffer = [0; COMMAND_BYTES_MAX];
        let message = Message { header: Header::new(0, Name::ROOT), payload: Payload::Command(command) };
        let frame = wire::encode_frame(&message, &mut buffer).map_err(|_| DaemonError::Unexpected)?;
        (&stream).write_all(frame)?;
        Ok(Self { stream, bytes: Vec::new() })
    }

    /// From now on silence is no reason to hang up.
    ///
    /// # Errors
    /// [`DaemonError::Io`].
    pub(crate) fn be_patient(&self) -> Result<(), DaemonError> {
        Ok(self.stream.set_read_timeout(None)?)
    }

    /// The next message; a refusal is an error.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub(crate) fn receive(&mut self) -> Result<Message<'_>, DaemonError> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(DaemonError::TooLong(length));
        }
        // What was announced is not believed before it comes.
        self.bytes.clear();
        let expected = length as u64;
        if (&self.stream).take(expected).read_to_end(&mut self.bytes)? < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let message = wire::decode(Frame::whole(&self.bytes)).map_err(DaemonError::Malformed)?;
        match message.payload {
            Payload::Failure(reason) => Err(DaemonError::Refused(String::from_utf8_lossy(reason.0).into_owned())),
            _ => Ok(message),
        }
    }

    /// The reply to a command that is answered once.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub(crate) fn reply(&mut self) -> Result<Success<'_>, DaemonError> {
        match self.receive()?.payload {
            Payload::Success(success) => Ok(success),
            _ => Err(DaemonError::Unexpected),
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_tests::recorded::{self, Malformed};

    use super::*;

    /// What comes of these bytes, after which the daemon hangs up.
    fn hear(bytes: &[u8]) -> Result<(), DaemonError> {
        let (stream, mut daemon) = UnixStream::pair().unwrap();
        let said = bytes.to_vec();
        let saying = std::thread::spawn(move || {
            // What is refused is not read to its end.
            let _ = daemon.write_all(&said);
        });
        let mut conversation = Conversation { stream, bytes: Vec::new() };
        let heard = conversation.reply().map(drop);
        drop(conversation);
        saying.join().unwrap();
        heard
    }

    /// Whatever a daemon says that it should not, the conversation ends with a reason.
    #[test]
    fn what_no_daemon_says() {
        let mut malformed = 0;
        for Malformed { name, bytes, .. } in recorded::malformed() {
            let frame = [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
            assert!(hear(&frame).is_err(), "{name}");
            malformed += 1;
        }
        assert!(malformed > 100, "{malformed}");
        for length in [u32::MAX, 1 << 31, (FRAME_BYTES_MAX + 1).try_into().unwrap()] {
            assert!(matches!(hear(&length.to_be_bytes()), Err(DaemonError::TooLong(_))), "{length}");
        }
        let message = Message {
            header: Header::new(0, Name::ROOT),
            payload: Payload::Success(Success::Text("subscribed".into())),
        };
        let mut buffer = [0; 256];
        let whole = wire::encode_frame(&message, &mut buffer).unwrap();
        hear(whole).unwrap();
        for cut in 0..whole.len() {
            assert!(matches!(hear(&whole[..cut]), Err(DaemonError::Io(_))), "{cut}");
        }
        let message = Message { header: Header::new(0, Name::ROOT), payload: Payload::Failure("no".into()) };
        let refused = hear(wire::encode_frame(&message, &mut buffer).unwrap());
        assert!(matches!(refused, Err(DaemonError::Refused(text)) if text == "no"));
    }
}
