//! A host and a port, and the connection to it. Only here something is tried again: nothing was said yet.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::Failure;

/// Where `vmmd_tls` listens unless somebody says otherwise.
const PORT: u16 = 1025;

/// How often a host is called that does not answer, and how long is waited before that.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Connecting to one address may take this long.
const CONNECT: Duration = Duration::from_secs(10);

/// A host and its port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads `HOST[:PORT]`; an IPv6 address with a port stands in brackets.
pub(crate) fn parse(text: &str) -> Result<Address, String> {
    let wrong =
        || format!("'{text}' is no HOST[:PORT]: write example, example:1025, 192.0.2.1:1025 or [2001:db8::1]:1025");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) };
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (host, port)
        }
        None if text.matches(':').count() > 1 => {
            text.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (text, None)
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => PORT,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| wrong())?,
        Some(_) => return Err(wrong()),
    };
    let fits = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if fits && port > 0 { Ok(Address { host: host.to_owned(), port }) } else { Err(wrong()) }
}

impl Address {
    /// Connects to one of the host's addresses.
    pub(crate) fn connect(&self, time_out: Duration) -> Result<TcpStream, Failure> {
        let end = Instant::now() + time_out;
        let mut tries = 1;
        loop {
            let error = match self.try_each(end) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let again = matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut
            );
            if !again || tries == TRIES || Instant::now() >= end {
                return Err(Failure::Reach { place: self.to_string(), error });
            }
            sleep(PAUSE * tries);
            tries += 1;
        }
    }

    fn try_each(&self, end: Instant) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::NotFound.into();
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            let left = end.saturating_duration_since(Instant::now()).min(CONNECT);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    // Frames are small and wait for each other.
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("example", "example:1025"),
            ("example:7", "example:7"),
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("::1", "[::1]:1025"),
            ("[::1]", "[::1]:1025"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        for text in ["", ":1", "a:", "a:0", "a:65536", "a:+1", "a:b", "[::1", "[::1]1", "[a]", "a:b:c", "a b", "a/b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
