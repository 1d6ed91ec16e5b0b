//! `http` and a real client: over a tap in a network namespace of the test's own, with the kernel's TCP on the other side.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use fulmar_tests::built::Kind;
use fulmar_tests::namespace::inside;
use fulmar_tests::skips::skip;

use crate::tender::{Running, image, kinds, tender};

const SERVER: &str = "10.0.0.2:80";
/// Longer than anything takes where KVM interprets.
const PATIENCE: Duration = Duration::from_secs(40);

/// Runs the test once for each kind, in a network with a tap `guest0`, whose other side is 10.0.0.1, and this unikernel on it.
pub(crate) fn with_guest(test: &str, name: &str, arguments: &[&str], body: impl Fn(Kind, &mut Running) + Send + Sync) {
    inside(test, || {
        for kind in kinds(test) {
            let tap = "ip link set lo up; ip tuntap del dev guest0 mode tap; ip tuntap add dev guest0 mode tap && \
                       ip addr add 10.0.0.1/24 dev guest0 && ip link set guest0 up";
            if !Command::new("sh").args(["-c", tap]).output().is_ok_and(|output| output.status.success()) {
                return skip(test, "no tap can be made here with `ip`");
            }
            let mut command = tender(kind);
            command.args(["--mem=2", "--net:service=guest0"]).arg(image(kind, name));
            let mut child = Running::start(command.arg("--ipv4=10.0.0.2/24").args(arguments));
            child.console(" port ");
            body(kind, &mut child);
            child.finish();
        }
    });
}

pub(crate) fn connect(server: &str) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads one answer: its first line, and its body.
fn answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head.lines().next().unwrap().to_owned(), body)
}

fn ask(stream: &mut TcpStream, path: &str) -> (String, Vec<u8>) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: guest\r\n\r\n").unwrap();
    answer(stream)
}

/// Sends bytes over a connection of their own, and gives back everything that comes until the end.
fn exchange(bytes: &[u8]) -> String {
    let mut stream = connect(SERVER);
    stream.write_all(bytes).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    String::from_utf8(all).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK";

#[test]
fn pages_are_served_over_one_connection() {
    with_guest("pages_are_served_over_one_connection", "http", &["--name=w<e>b"], |kind, _| {
        let mut stream = connect(SERVER);
        for request in 1..4 {
            let (status, body) = ask(&mut stream, "/");
            let page = String::from_utf8(body).unwrap();
            assert_eq!(status, OK);
            assert!(page.starts_with("<!DOCTYPE html><title>w?e?b</title><h1>w?e?b</h1><p>up "), "{page}");
            assert!(page.ends_with(&format!(" s, request {request}\n")), "{page}");
        }
        assert_eq!(ask(&mut stream, "/health"), (OK.into(), b"ok\n".to_vec()));
        assert_eq!(ask(&mut stream, "/nothing").0, "HTTP/1.1 404 Not Found");
        assert_eq!(ask(&mut stream, "/bytes/-1").0, "HTTP/1.1 404 Not Found");
        let large = if kind == Kind::Hvt { 20_000 } else { 5_000_000 };
        for bytes in [0, 1, 1460, large] {
            assert_eq!(ask(&mut stream, &format!("/bytes/{bytes}")), (OK.into(), vec![b'x'; bytes]));
        }
        // Several at once, the last in two pieces.
        let request = b"GET /health HTTP/1.1\r\nHost: guest\r\n\r\n";
        stream.write_all(&request.repeat(12)).unwrap();
        stream.write_all(&request[..20]).unwrap();
        for _ in 0..12 {
            assert_eq!(answer(&mut stream).1, b"ok\n");
        }
        stream.write_all(&request[20..]).unwrap();
        assert_eq!(answer(&mut stream).1, b"ok\n");
    });
}

#[test]
fn clients_at_once_do_not_wait_for_each_other() {
    with_guest("clients_at_once_do_not_wait_for_each_other", "http", &[], |kind, _| {
        // Half a head, nothing at all, and an answer that nobody takes.
        let (mut half, _mute, mut stuck) = (connect(SERVER), connect(SERVER), connect(SERVER));
        half.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
        stuck.write_all(b"GET /bytes/1000000000000 HTTP/1.1\r\nHost: guest\r\n\r\n").unwrap();
        let mut streams: Vec<_> = (0..5).map(|_| connect(SERVER)).collect();
        for _ in 0..3 {
            for stream in &mut streams {
                write!(stream, "GET /bytes/3000 HTTP/1.1\r\nHost: guest\r\n\r\n").unwrap();
            }
            for stream in streams.iter_mut().rev() {
                assert_eq!(answer(stream).1.len(), 3000);
            }
        }
        half.write_all(b"st: guest\r\n\r\n").unwrap();
        assert_eq!(answer(&mut half).0, OK);
        drop((half, stuck, streams));
        // One after the other, more than there are sockets: each is used again at once, whoever closed first.
        for number in 0..if kind == Kind::Hvt { 12 } else { 100 } {
            let close = if number % 2 == 0 { "Connection: close\r\n" } else { "" };
            let mut stream = patient_connect();
            write!(stream, "GET /health HTTP/1.1\r\nHost: guest\r\n{close}\r\n").unwrap();
            assert_eq!(answer(&mut stream).1, b"ok\n");
            if number % 2 == 0 {
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            }
        }
    });
}

/// A connection, as soon as a socket is free: those that were just closed take a moment.
fn patient_connect() -> TcpStream {
    let mut stream = None;
    fulmar_tests::system::wait_until(|| {
        stream = TcpStream::connect(SERVER).ok();
        stream.is_some()
    });
    let stream = stream.expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn what_is_no_request_is_refused() {
    let many = "A: b\r\n".repeat(400);
    let long = "a".repeat(3000);
    let wrong: Vec<(String, &str)> = [
        ("\r\n\r\n", "400"),
        ("GET\r\n\r\n", "400"),
        ("GET / HTTP/1.1 \r\nHost: g\r\n\r\n", "400"),
        ("GET / HTTP/2\r\nHost: g\r\n\r\n", "400"),
        ("GET http:/ HTTP/1.1\r\nHost: g\r\n\r\n", "400"),
        ("G\0T / HTTP/1.1\r\nHost: g\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: g\n\n", "400"),
        ("GET / HTTP/1.1\r\nHost : g\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: g\r\n folded: x\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: g\r\nhost: h\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\0\u{1}", "400"),
        ("POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("DELETE / HTTP/1.0\r\n\r\n", "405"),
        ("GET /no HTTP/1.0\r\n\r\n", "404"),
        ("GET /health HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200"),
    ]
    .into_iter()
    .map(|(text, status)| (text.to_owned(), status))
    .chain([
        (format!("GET / HTTP/1.1\r\nHost: g\r\n{many}\r\n"), "431"),
        (format!("GET /{long} HTTP/1.1\r\nHost: g\r\n\r\n"), "431"),
        (long.clone(), "431"),
    ])
    .collect();
    with_guest("what_is_no_request_is_refused", "http", &[], |_, _| {
        for (text, status) in &wrong {
            let mut stream = patient_connect();
            // It may be refused before all of it was sent.
            let _ = stream.write_all(text.as_bytes());
            let mut said = Vec::new();
            let mut bytes = [0; 512];
            while let Ok(len @ 1..) = stream.read(&mut bytes) {
                said.extend_from_slice(&bytes[..len]);
            }
            let said = String::from_utf8(said).unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{text:?}: {said:?}");
        }
        assert!(exchange(b"HEAD / HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(exchange(b"GET /health HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nok\n"));
    });
}

#[test]
fn a_page_of_another_server_is_fetched() {
    with_guest("a_page_of_another_server_is_fetched", "http", &["--fetch=10.0.0.1:8080"], |_, child| {
        child.console("http: 10.0.0.1:8080 says: refused\n");
        let listener = TcpListener::bind("10.0.0.1:8080").unwrap();
        for (bytes, said) in [
            (&b"HTTP/1.0 200 Splendid\r\n\r\nhello"[..], "HTTP/1.0 200 Splendid\n"),
            (b"", "an empty answer\n"),
            (&[b'z'; 5000], &format!("{}\n", "z".repeat(64))),
            (b"\x1b[2Jboo", "an empty answer\n"),
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut request = [0; 14];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"GET / HTTP/1.1");
            stream.write_all(bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            child.console(&format!("http: 10.0.0.1:8080 says: {said}"));
        }
    });
}
