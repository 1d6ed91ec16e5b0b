//! The endpoint that Prometheus asks: HTTP/1.1, `GET /metrics` and nothing else. Who is slow, says too much or comes too often hurts
//! himself alone.

use fulmar_host::error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Request, Status};

use crate::metrics::exposition;
use crate::queue::Queue;
use crate::snapshot::Shared;

/// Conversations at once.
const CONVERSATIONS_MAX: usize = 16;

/// Bytes of a request, and its headers.
const REQUEST_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;

/// How long a whole conversation may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// After a failure to accept, no descriptor being left say.
const REST: Duration = Duration::from_millis(100);

/// What the format is called (OpenMetrics 1.0, "Text Format").
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The endpoint.
pub(crate) struct Endpoint {
    listener: TcpListener,
}

/// What is answered.
struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn refusal(status: &'static str, words: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{words}\n") }
    }
}

impl Endpoint {
    /// Listens.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address)? })
    }

    /// Listens on what was handed over.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn of(socket: OwnedFd) -> io::Result<Self> {
        let listener = TcpListener::from(socket);
        // Its own thread waits for nothing else.
        listener.set_nonblocking(false)?;
        Ok(Self { listener })
    }

    /// Serves for ever.
    pub(crate) fn serve(self, shared: &Arc<Shared>, queues: &[Arc<Queue>]) {
        let running = Arc::new(AtomicUsize::new(0));
        for stream in self.listener.incoming() {
            let Ok(stream) = stream else {
                sleep(REST);
                continue;
            };
            if running.load(Ordering::Relaxed) >= CONVERSATIONS_MAX {
                // Closing is an answer too, and costs nothing.
                continue;
            }
            running.fetch_add(1, Ordering::Relaxed);
            let (count, shared, queues) = (Arc::clone(&running), Arc::clone(shared), queues.to_vec());
            let talk = move || {
                // Who hangs up has had enough.
                let _ = converse(&stream, &shared, &queues);
                count.fetch_sub(1, Ordering::Relaxed);
            };
            if let Err(error) = Builder::new().name("scrape".to_owned()).spawn(talk) {
                running.fetch_sub(1, Ordering::Relaxed);
                error!("metrics: {error}");
            }
        }
    }
}

fn converse(mut stream: &TcpStream, shared: &Arc<Shared>, queues: &[Arc<Queue>]) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let answer = match request(stream, deadline)? {
        Ok(()) => match exposition(shared, queues) {
            Ok(body) => Answer { status: "200 OK", content_type: OPEN_METRICS, body },
            Err(_) => Answer::refusal("500 Internal Server Error", "the metrics could not be written"),
        },
        Err(refusal) => refusal,
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.content_type,
        answer.body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(answer.body.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Until the other side has read it: closing over unread bytes would take the answer away.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    while Instant::now() < deadline && stream.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

/// Reads a request, and says what is wrong with it.
fn request(mut stream: &TcpStream, deadline: Instant) -> io::Result<Result<(), Answer>> {
    let mut bytes = [0; REQUEST_BYTES_MAX];
    let mut len = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[len..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => len += read,
        }
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut request = Request::new(&mut headers);
        match request.parse(&bytes[..len]) {
            Ok(Status::Complete(_)) => return Ok(judge(request.method, request.path)),
            Ok(Status::Partial) if len == bytes.len() => {
                return Ok(Err(Answer::refusal("431 Request Header Fields Too Large", "the request is too long")));
            }
            Ok(Status::Partial) => {}
            Err(error) => return Ok(Err(Answer::refusal("400 Bad Request", &error.to_string()))),
        }
    }
}

fn judge(method: Option<&str>, path: Option<&str>) -> Result<(), Answer> {
    if path.is_none_or(|path| path.split('?').next() != Some("/metrics")) {
        return Err(Answer::refusal("404 Not Found", "ask for /metrics"));
    }
    if method != Some("GET") {
        return Err(Answer::refusal("405 Method Not Allowed", "ask with GET"));
    }
    Ok(())
}
