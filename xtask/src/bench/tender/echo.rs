//! A server that gives back what it is sent: the way of a datagram there and back, and bytes both ways at once.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::figures::{Figures, Unit};
use super::network::{address, connect, with_servers};
use super::stage::{Side, Stage};
use crate::steps::{Done, Failure};

const DATAGRAMS: usize = 3000;
const DATAGRAM_BYTES: usize = 64;
const STREAMS: usize = 9;
/// Bytes that go there and come back.
const STREAM_BYTES: usize = 10_000_000;
const PORT: u16 = 7;
/// A datagram that has not come back by then is lost.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(stage: &Stage, figures: &mut Figures) -> Done {
    let kind = stage.kind.name();
    with_servers(stage, "echo", || {
        let failed = |error| Failure(format!("a datagram failed: {error}"));
        let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(failed)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let [datagram] = stage.pairs(DATAGRAMS, |side| {
            let begun = Instant::now();
            socket.send_to(&[7; DATAGRAM_BYTES], (address(side), PORT)).map_err(failed)?;
            match socket.recv(&mut [0; DATAGRAM_BYTES]) {
                Ok(DATAGRAM_BYTES) => Ok([begun.elapsed().as_secs_f64()]),
                Ok(len) => Err(Failure(format!("{len} bytes of {DATAGRAM_BYTES} came back"))),
                Err(error) => Err(failed(error)),
            }
        })?;
        figures.add(&format!("{kind} echo: a datagram and back"), Unit::Seconds, datagram);
        let [rate] = stage.pairs(STREAMS, |side| Ok([stream(side)?]))?;
        figures.add(&format!("{kind} echo: a stream both ways, each way"), Unit::Rate, rate);
        Ok(())
    })
}

/// Bytes a second that go there while as many come back.
fn stream(side: Side) -> Done<f64> {
    let failed = |error| Failure(format!("a stream failed: {error}"));
    let stream = connect(side, PORT)?;
    let (mut incoming, mut outgoing) = (&stream, &stream);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || outgoing.write_all(&vec![7; STREAM_BYTES]));
        let (mut buffer, mut came) = (vec![0; 1 << 16], 0);
        while came < STREAM_BYTES {
            match incoming.read(&mut buffer).map_err(failed)? {
                0 => return Err(Failure(format!("a stream ended after {came} bytes"))),
                len => came += len,
            }
        }
        sender.join().unwrap_or(Ok(())).map_err(failed)
    })?;
    Ok(STREAM_BYTES as f64 / begun.elapsed().as_secs_f64())
}
