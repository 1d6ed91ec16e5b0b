//! A web server: how long a request takes, and how fast many bytes come.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::figures::{Figures, Unit};
use super::network::{connect, with_servers};
use super::stage::{Side, Stage};
use crate::steps::{Done, Failure};

const REQUESTS: usize = 3000;
const CONNECTIONS: usize = 500;
const DOWNLOADS: usize = 9;
/// Bytes of a large answer.
const LARGE: u64 = 20_000_000;
/// Clients at once.
const CLIENTS: u64 = 4;
const PORT: u16 = 80;

pub(super) fn run(stage: &Stage, figures: &mut Figures) -> Done {
    let kind = stage.kind.name();
    with_servers(stage, "http", || {
        let mut streams =
            stage.sides().iter().map(|side| connect(*side, PORT).map(|it| (*side, it))).collect::<Done<Vec<_>>>()?;
        let [request] = stage.pairs(REQUESTS, |side| {
            let stream = streams.iter_mut().find(|(owner, _)| *owner == side).map(|(_, stream)| stream);
            let stream = stream.ok_or_else(|| Failure("no connection".into()))?;
            let begun = Instant::now();
            ask(stream, "/health", "keep-alive").map_err(|error| failed(&error))?;
            Ok([begun.elapsed().as_secs_f64()])
        })?;
        drop(streams);
        figures.add(&format!("{kind} http: a request on one connection"), Unit::Seconds, request);
        let [request] = stage.pairs(CONNECTIONS, |side| {
            let begun = Instant::now();
            ask(&mut connect(side, PORT)?, "/health", "close").map_err(|error| failed(&error))?;
            Ok([begun.elapsed().as_secs_f64()])
        })?;
        figures.add(&format!("{kind} http: a request with its connection"), Unit::Seconds, request);
        for clients in [1, CLIENTS] {
            let [rate] = stage.pairs(DOWNLOADS, |side| Ok([download(side, clients)?]))?;
            figures.add(&format!("{kind} http: download, {clients} at once"), Unit::Rate, rate);
        }
        Ok(())
    })
}

/// Bytes a second of one large answer, or of as many smaller ones at once.
fn download(side: Side, clients: u64) -> Done<f64> {
    let streams = (0..clients).map(|_| connect(side, PORT)).collect::<Done<Vec<_>>>()?;
    let path = format!("/bytes/{}", LARGE / clients);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let ask = |mut stream: TcpStream| ask(&mut stream, &path, "close").map_err(|error| failed(&error));
        let workers: Vec<_> = streams.into_iter().map(|stream| scope.spawn(move || ask(stream))).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(Failure("a client died".into()))))
    })?;
    Ok(LARGE as f64 / begun.elapsed().as_secs_f64())
}

/// Asks for a page and takes all of it.
fn ask(stream: &mut TcpStream, path: &str, connection: &str) -> io::Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: guest\r\nConnection: {connection}\r\n\r\n").as_bytes())?;
    let mut buffer = [0; 1 << 16];
    let mut len = 0;
    let head = loop {
        len += read(stream, &mut buffer[len..])?;
        if let Some(at) = buffer[..len].windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]);
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    let length = length.filter(|_| text.starts_with("HTTP/1.1 200 ")).ok_or(io::ErrorKind::InvalidData)?;
    let mut left = length.saturating_sub(len - head);
    while left > 0 {
        left = left.saturating_sub(read(stream, &mut buffer)?);
    }
    if connection == "close" && stream.read(&mut buffer)? != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(())
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        len => Ok(len),
    }
}

fn failed(error: &io::Error) -> Failure {
    Failure(format!("a request failed: {error}"))
}
