//! Lines on their way: from fifos into rings, from rings to subscribers. Subscribers are served after each small piece of
//! what a unikernel wrote, and nobody waits for one who is slow: when the ring has passed it, it is told so and closed.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use fulmar_core::limits::CONSOLE_PUSH_BYTES_MAX;
use fulmar_core::name::Name;
use fulmar_host::clients::{Client, Serve as _};
use fulmar_host::{error, warning};
use mio::Token;
use mio::unix::SourceFd;

use crate::consoles::State;
use crate::server::Server;
use crate::subscription::Subscription;

/// Bytes of a read.
const READ_BYTES: usize = 4096;

/// Reads from one fifo in a turn.
const READS_PER_TURN: usize = 16;

/// Reads from a fifo that is replaced by another: more than any system keeps in one.
const READS_TO_DRAIN: usize = 1024 * 1024 / READ_BYTES;

/// The last line that a slow subscriber gets.
const SLOW: &str = "[the console goes on, but this subscriber reads too slowly: subscribe again]";

/// What is left in a fifo after some reads.
#[derive(PartialEq, Eq)]
enum Left {
    Nothing,
    Perhaps,
    Ended,
}

impl Server<'_> {
    /// Reads what a unikernel wrote, as far as its share goes.
    pub(crate) fn fifo_turn(&mut self, token: Token) {
        match self.read_fifo(token, READS_PER_TURN) {
            Left::Nothing => {}
            Left::Perhaps => self.clients.note_busy(token),
            Left::Ended => self.end_fifo(token),
        }
    }

    /// Reads what is left in a fifo to which nobody will write any more, and gives it up.
    pub(crate) fn drain(&mut self, token: Token) {
        self.read_fifo(token, READS_TO_DRAIN);
        self.end_fifo(token);
    }

    fn read_fifo(&mut self, token: Token, reads: usize) -> Left {
        let Some(name) = self.fifos.get(&token).copied() else { return Left::Nothing };
        let mut buffer = [0; READ_BYTES];
        for _ in 0..reads {
            let Some(State::Running { fifo, .. }) = self.consoles.get(&name).map(|console| &console.state) else {
                return Left::Nothing;
            };
            let count = match fifo.read(&mut buffer) {
                Ok(0) => return Left::Ended,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Left::Nothing,
                Err(error) => {
                    error!(name = name; "console of {name}: cannot read it: {error}");
                    return Left::Ended;
                }
            };
            let unix_ms = now_ms();
            for piece in buffer.get(..count).unwrap_or_default().chunks(CONSOLE_PUSH_BYTES_MAX) {
                self.consoles.push(&name, piece, unix_ms);
                self.serve_subscribers(&name);
            }
        }
        Left::Perhaps
    }

    /// The last writer is gone.
    fn end_fifo(&mut self, token: Token) {
        let Some(name) = self.fifos.remove(&token) else { return };
        self.consoles.finish(&name, now_ms());
        if let Some(State::Running { fifo, .. }) = self.consoles.deactivate(&name) {
            // Closing the file would do; where this fails there is nothing to undo.
            let _ = self.clients.registry().deregister(&mut SourceFd(&fifo.raw_fd()));
        }
        self.serve_subscribers(&name);
    }

    fn serve_subscribers(&mut self, name: &Name) {
        let mut index = 0;
        // By index, because serving one may end it and so change the list.
        while let Some(token) = self.consoles.get(name).and_then(|console| console.subscribers.get(index)).copied() {
            self.send(token);
            let stays = self.consoles.get(name).is_some_and(|console| console.subscribers.get(index) == Some(&token));
            index += usize::from(stays);
        }
    }

    /// Tells a subscriber that it was too slow, and closes it when it has read that.
    pub(crate) fn drop_slow(&mut self, token: Token) {
        if let Some(Subscription { header, .. }) = self.clients.get(token).and_then(Client::subscription) {
            warning!(name = header.name; "console of {}: a subscriber that reads too slowly is closed", header.name);
        }
        self.end_subscription(token, SLOW);
    }
}

/// The wall clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
