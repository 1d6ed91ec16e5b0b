//! A conversation with a daemon of this host.

use std::io::{self, Read as _, Write as _};

use fulmar_core::limits::REPLY_BYTES_MAX;
use fulmar_host::folder::Folder;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

/// The socket of `vmmd`.
pub(crate) const VMMD: &str = "vmmd.sock";

/// Bytes of the length before a frame.
const LENGTH_BYTES: usize = 4;

/// Bytes of the longest answer that is held.
const ANSWER_BYTES_MAX: usize = REPLY_BYTES_MAX;

/// A connection to a daemon.
#[derive(Debug)]
pub(crate) struct Local {
    stream: UnixStream,
    out: Vec<u8>,
    sent: usize,
    /// What has come of an answer that is taken as a whole.
    answer: Vec<u8>,
}

impl Local {
    /// Connects to this socket, and has the event loop say when it can go on.
    pub(crate) fn connect(sockets: &Folder, socket: &str, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut stream = UnixStream::from_std(sockets.connect(socket)?);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, out: Vec::new(), sent: 0, answer: Vec::new() })
    }

    /// Has these bytes sent.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Whether everything is sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.sent == self.out.len()
    }

    /// Sends what can be sent without waiting; says whether something was. A daemon that does not read any more may still have an
    /// answer: what was to be sent to it is forgotten.
    pub(crate) fn flush(&mut self) -> bool {
        let before = self.sent;
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.sent > before,
                Err(_) => break,
            }
        }
        let had_any = !self.out.is_empty();
        self.out.clear();
        self.sent = 0;
        had_any
    }

    /// Reads something; `None` where nothing has come, 0 at the end.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Option<usize> {
        loop {
            match self.stream.read(into) {
                Ok(count) => return Some(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => return Some(0),
            }
        }
    }

    /// Reads an answer as a whole and nothing behind it; `None` while it has not come. It is empty where the daemon has ended the
    /// conversation, or says more than can be held.
    pub(crate) fn answer(&mut self) -> Option<Vec<u8>> {
        loop {
            let wanted = match self.answer.first_chunk::<LENGTH_BYTES>() {
                None => LENGTH_BYTES,
                Some(length) => match usize::try_from(i32::from_be_bytes(*length)) {
                    Ok(length) if length <= ANSWER_BYTES_MAX => LENGTH_BYTES + length,
                    _ => return Some(Vec::new()),
                },
            };
            if self.answer.len() == wanted && wanted > LENGTH_BYTES {
                return Some(std::mem::take(&mut self.answer).split_off(LENGTH_BYTES));
            }
            if self.answer.len() == wanted {
                return Some(Vec::new());
            }
            let begin = self.answer.len();
            self.answer.resize(wanted, 0);
            let read = {
                let mut answer = std::mem::take(&mut self.answer);
                let read = self.read(answer.get_mut(begin..).unwrap_or_default());
                self.answer = answer;
                read
            };
            self.answer.truncate(begin + read.unwrap_or(0));
            match read {
                None => return None,
                Some(0) => return Some(Vec::new()),
                Some(_) => {}
            }
        }
    }
}
