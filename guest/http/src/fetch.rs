//! Asks another server for its page once a second and says what came: the first line of its answer, or that there was none.

use fulmar_guest::{Ipv4, clock, random, say};
use fulmar_stack::Stack;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

/// How long an answer may take.
const PATIENCE_S: u64 = 10;
/// The ports that clients take, and how many there are.
const PORTS: (u16, u16) = (49152, 16384);

/// A server that is asked.
pub(crate) struct Fetch {
    handle: SocketHandle,
    server: ([u8; 4], u16),
    port: u16,
    stage: Stage,
    /// When the next step is due, whatever comes.
    due_ns: u64,
    line: [u8; 64],
    len: usize,
}

enum Stage {
    Resting,
    Asking,
    Reading,
}

impl Fetch {
    /// Asks this server over this socket.
    pub(crate) fn new(handle: SocketHandle, server: ([u8; 4], u16)) -> Fetch {
        let port = PORTS.0 + (random() % u64::from(PORTS.1)) as u16;
        Fetch { handle, server, port, stage: Stage::Resting, due_ns: 0, line: [0; 64], len: 0 }
    }

    /// Does what can be done now, and says when to be called again if nothing comes before.
    pub(crate) fn go_on(&mut self, stack: &mut Stack<'_>) -> u64 {
        let late = clock::monotonic_ns() >= self.due_ns;
        match self.stage {
            Stage::Resting if late => self.begin(stack),
            Stage::Resting => {}
            _ if late => self.end(stack, b"no answer in time"),
            Stage::Asking => self.ask(stack),
            Stage::Reading => self.read(stack),
        }
        self.due_ns
    }

    fn begin(&mut self, stack: &mut Stack<'_>) {
        self.port = if self.port == u16::MAX { PORTS.0 } else { self.port + 1 };
        self.due_ns = clock::in_seconds(PATIENCE_S);
        self.len = 0;
        self.stage = Stage::Asking;
        if !stack.connect(self.handle, self.server, self.port) {
            self.end(stack, b"I have no address");
        }
    }

    fn ask(&mut self, stack: &mut Stack<'_>) {
        let socket = stack.sockets().get_mut::<tcp::Socket<'_>>(self.handle);
        if !socket.is_active() {
            self.end(stack, b"refused");
        } else if socket.may_send() {
            // The buffer is empty and larger than this.
            let _ = socket.send_slice(b"GET / HTTP/1.1\r\nHost: a-unikernel\r\nConnection: close\r\n\r\n");
            self.stage = Stage::Reading;
        }
    }

    fn read(&mut self, stack: &mut Stack<'_>) {
        let socket = stack.sockets().get_mut::<tcp::Socket<'_>>(self.handle);
        let (line, start) = (&mut self.line, &mut self.len);
        while socket.can_recv() {
            let taken = socket.recv(|bytes| {
                for (place, byte) in line.iter_mut().skip(*start).zip(bytes.iter()) {
                    *place = *byte;
                    *start += 1;
                }
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
        }
        if !socket.may_recv() {
            let line = self.line;
            let first = line.get(..self.len).unwrap_or_default().split(|byte| *byte < b' ').next().unwrap_or_default();
            self.end(stack, if first.is_empty() { b"an empty answer" } else { first });
        }
    }

    /// Says what came and rests for a second.
    fn end(&mut self, stack: &mut Stack<'_>, said: &[u8]) {
        let (address, port) = self.server;
        say!("http: ", Ipv4(address), ":", port, " says: ", said);
        let socket = stack.sockets().get_mut::<tcp::Socket<'_>>(self.handle);
        // He has closed, or shall not be waited for.
        socket.abort();
        self.stage = Stage::Resting;
        self.due_ns = clock::in_seconds(1);
    }
}
