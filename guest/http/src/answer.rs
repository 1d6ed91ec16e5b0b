//! What is answered: the page, a word, many bytes, or why not.

use fulmar_guest::{Piece, Text, clock, decimal};
use smoltcp::socket::tcp;

use crate::request::{Refused, Request};

/// Bytes of our name on the page, at most.
const NAME_BYTES_MAX: usize = 64;
const LARGE: &[u8] = b"/bytes/";

/// What the answers tell.
pub(crate) struct Site {
    pub(crate) name: &'static [u8],
    pub(crate) begun_ns: u64,
    pub(crate) requests: u64,
}

/// An answer that is being sent: a head, a text, and then so many equal bytes.
pub(crate) struct Answer {
    parts: [Text; 2],
    sent: usize,
    fill_bytes: u64,
    /// Whether the connection goes on after it.
    pub(crate) keep_alive: bool,
}

impl Site {
    /// Answers a request.
    pub(crate) fn answer(&mut self, request: &Request<'_>) -> Answer {
        self.requests += 1;
        let mut body = Text::new();
        let (mut status, mut kind, mut fill_bytes) = ("200 OK", "text/plain", 0);
        match (request.method, request.path) {
            (b"GET" | b"HEAD", b"/") => {
                kind = "text/html";
                self.page(&mut body);
            }
            (b"GET" | b"HEAD", b"/health") => body.push(b"ok\n"),
            (b"GET" | b"HEAD", path) => match path.strip_prefix(LARGE).and_then(decimal) {
                Some(bytes) => fill_bytes = bytes,
                None => {
                    status = "404 Not Found";
                    body.push(b"There are /, /health and /bytes/N.\n");
                }
            },
            _ => {
                status = "405 Method Not Allowed";
                body.push(b"Only GET and HEAD.\n");
            }
        }
        let mut answer = Answer::new(status, kind, body, fill_bytes, request.keep_alive);
        if request.method == b"HEAD" {
            answer.leave_out_body();
        }
        answer
    }

    fn page(&self, body: &mut Text) {
        let up_s = clock::monotonic_ns().saturating_sub(self.begun_ns) / clock::SECOND_NS;
        "<!DOCTYPE html><title>".add_to(body);
        self.add_name(body);
        "</title><h1>".add_to(body);
        self.add_name(body);
        "</h1><p>up ".add_to(body);
        up_s.add_to(body);
        " s, request ".add_to(body);
        self.requests.add_to(body);
        "\n".add_to(body);
    }

    /// Our name, in which nothing can be taken for a tag.
    fn add_name(&self, body: &mut Text) {
        for byte in self.name.iter().take(NAME_BYTES_MAX) {
            body.push(if byte.is_ascii_alphanumeric() || b".:-_".contains(byte) {
                core::slice::from_ref(byte)
            } else {
                b"?"
            });
        }
    }
}

impl Answer {
    fn new(status: &str, kind: &str, body: Text, fill_bytes: u64, keep_alive: bool) -> Answer {
        let mut head = Text::new();
        for part in ["HTTP/1.1 ", status, "\r\nContent-Type: ", kind, "\r\nContent-Length: "] {
            part.add_to(&mut head);
        }
        (body.bytes().len() as u64 + fill_bytes).add_to(&mut head);
        let connection = if keep_alive { "keep-alive" } else { "close" };
        for part in ["\r\nConnection: ", connection, "\r\n"] {
            part.add_to(&mut head);
        }
        if status.starts_with("405") {
            head.push(b"Allow: GET, HEAD\r\n");
        }
        head.push(b"\r\n");
        Answer { parts: [head, body], sent: 0, fill_bytes, keep_alive }
    }

    /// The answer to a head that is none; the connection cannot go on, for nobody knows where the next one begins.
    pub(crate) fn refusal(refused: Refused) -> Answer {
        let status = match refused {
            Refused::Malformed => "400 Bad Request",
            Refused::TooLong => "431 Request Header Fields Too Large",
        };
        let mut body = Text::new();
        status.add_to(&mut body);
        body.push(b"\n");
        Answer::new(status, "text/plain", body, 0, false)
    }

    fn leave_out_body(&mut self) {
        let [_, body] = &mut self.parts;
        *body = Text::new();
        self.fill_bytes = 0;
    }

    /// What the socket has not taken: equal as long as it takes nothing.
    pub(crate) fn left(&self) -> (usize, u64) {
        (usize::MAX - self.sent, self.fill_bytes)
    }

    /// Gives the socket as much as it takes; whether that was all.
    pub(crate) fn send(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut before = 0;
        for part in &self.parts {
            let rest = part.bytes().get(self.sent.saturating_sub(before)..).unwrap_or_default();
            let Ok(len) = socket.send_slice(rest) else { return false };
            self.sent += len;
            if len < rest.len() {
                return false;
            }
            before += part.bytes().len();
        }
        while self.fill_bytes > 0 {
            let most = self.fill_bytes;
            let filled = socket.send(|room| {
                let len = usize::try_from(most).unwrap_or(usize::MAX).min(room.len());
                room.iter_mut().take(len).for_each(|byte| *byte = b'x');
                (len, len)
            });
            match filled {
                Ok(len @ 1..) => self.fill_bytes -= len as u64,
                _ => return false,
            }
        }
        true
    }
}
