//! One connection after the other over one socket: a request comes, its answer goes, and again.

use fulmar_guest::clock;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

use crate::answer::{Answer, Site};
use crate::request;

/// How long a client may take for one head, for taking a part of an answer, and for closing.
const SILENCE_S: u64 = 15;
/// As above, for one whose machine is gone while we have something for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one client that are answered before it is another's turn.
const REQUESTS_AT_ONCE: u32 = 4;

/// A socket that serves.
pub(crate) struct Connection {
    pub(crate) handle: SocketHandle,
    port: u16,
    /// What has come of the next head.
    head: &'static mut [u8],
    len: usize,
    stage: Stage,
    /// When we give up, unless the client gets on: a byte now and then is not enough.
    deadline_ns: u64,
}

#[expect(clippy::large_enum_variant, reason = "nothing is allocated, and a connection has room for the largest anyhow")]
enum Stage {
    /// A head is coming, or nobody has connected.
    Reading,
    Answering(Answer),
    /// All was said; what still comes is not looked at.
    Closing,
}

impl Connection {
    /// Serves this port over the socket; a head is put together in `head`.
    pub(crate) fn new(handle: SocketHandle, port: u16, head: &'static mut [u8]) -> Connection {
        Connection { handle, port, head, len: 0, stage: Stage::Reading, deadline_ns: u64::MAX }
    }

    /// Does what can be done now, and says when to be called again if nothing comes before.
    pub(crate) fn serve(&mut self, socket: &mut tcp::Socket<'_>, site: &mut Site) -> u64 {
        match socket.state() {
            tcp::State::Closed | tcp::State::TimeWait => {
                self.listen(socket);
                return u64::MAX;
            }
            tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived => return u64::MAX,
            _ => {}
        }
        let now_ns = clock::monotonic_ns();
        if self.deadline_ns == u64::MAX {
            self.deadline_ns = clock::in_seconds(SILENCE_S);
        }
        for _ in 0..REQUESTS_AT_ONCE {
            if !self.step(socket, site) {
                if now_ns >= self.deadline_ns {
                    socket.abort();
                }
                return self.deadline_ns;
            }
        }
        now_ns
    }

    /// Waits for the next client.
    fn listen(&mut self, socket: &mut tcp::Socket<'_>) {
        // The other side of one that waits for its time to pass has closed too: nothing is lost.
        socket.abort();
        socket.set_timeout(Some(TIMEOUT));
        (self.len, self.stage, self.deadline_ns) = (0, Stage::Reading, u64::MAX);
        // The port is not 0 and the socket is closed: this cannot fail.
        let _ = socket.listen(self.port);
    }

    /// One step; whether there may be another one.
    fn step(&mut self, socket: &mut tcp::Socket<'_>, site: &mut Site) -> bool {
        match &mut self.stage {
            Stage::Reading => {
                if let Some(room) = self.head.get_mut(self.len..)
                    && let Ok(len) = socket.recv_slice(room)
                {
                    self.len += len;
                }
                let answer = match request::read(self.head.get(..self.len).unwrap_or_default()) {
                    Ok(Some(request)) => {
                        let answer = site.answer(&request);
                        let used = request.head_bytes;
                        self.head.copy_within(used..self.len, 0);
                        self.len -= used;
                        answer
                    }
                    Ok(None) if socket.may_recv() => return false,
                    // Who has closed asks nothing more.
                    Ok(None) => {
                        socket.close();
                        self.stage = Stage::Closing;
                        return false;
                    }
                    Err(refused) => Answer::refusal(refused),
                };
                self.stage = Stage::Answering(answer);
                true
            }
            Stage::Answering(answer) => {
                let before = answer.left();
                let sent = answer.send(socket);
                if answer.left() != before {
                    self.deadline_ns = clock::in_seconds(SILENCE_S);
                }
                if !sent {
                    return false;
                }
                if answer.keep_alive {
                    self.stage = Stage::Reading;
                } else {
                    socket.close();
                    self.stage = Stage::Closing;
                }
                true
            }
            Stage::Closing => {
                // Else his last words would fill our window, and his end never come.
                while socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|len| len > 0) {}
                false
            }
        }
    }
}
