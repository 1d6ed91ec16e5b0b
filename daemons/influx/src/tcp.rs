//! Lines over a TCP connection. Whether the other side keeps them it does not say; what was being written when the connection broke
//! is sent once more.

use fulmar_host::{info, warning};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::config::addresses;
use crate::daemon::RETRY;
use crate::queue::Queue;

/// How long connecting, and one write, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends for ever.
pub(crate) fn send(address: &str, queue: &Queue) {
    let mut said = String::new();
    loop {
        let error = match connect(address) {
            Ok(stream) => {
                info!("tcp: connected to {address}");
                queue.note_connected(true);
                said.clear();
                send_over(&stream, queue)
            }
            Err(error) => error,
        };
        queue.note_connected(false);
        let text = format!("tcp: {address}: {error}, tried again every {} s", RETRY.as_secs());
        if text != said {
            warning!("{text}");
            said = text;
        }
        sleep(RETRY);
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("it has no address");
    for address in addresses(address)? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn send_over(mut stream: &TcpStream, queue: &Queue) -> io::Error {
    loop {
        let batch = queue.take();
        // Who closed is not written to: the system would take what nobody reads.
        let sent = is_open(stream).and_then(|()| stream.write_all(batch.text.as_bytes()));
        match sent {
            Ok(()) => queue.note_sent(batch.count),
            Err(error) => {
                queue.put_back(batch);
                return error;
            }
        }
    }
}

fn is_open(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false)?;
    match read {
        Ok(0) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
