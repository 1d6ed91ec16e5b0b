//! The system's log daemon: a datagram a line, `<PRIORITY>program[pid]: text`, the oldest form of it, which every such daemon takes. It
//! is never waited for: what it does not take is counted, and the count is the next thing that it is told.

use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{LINE_BYTES_MAX, Level};

/// Where the daemon listens: Linux, FreeBSD.
const PATHS: [&str; 2] = ["/dev/log", "/var/run/log"];

/// The facility of system daemons, at its place in a priority.
const DAEMON: u8 = 3 << 3;

/// Bytes before a line: a priority, a name, a process id.
const HEAD_BYTES_MAX: usize = 64;

/// Where one listens here.
pub(crate) fn find() -> Option<&'static Path> {
    PATHS.iter().map(Path::new).find(|path| path.exists())
}

pub(super) struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    lost: AtomicU64,
}

impl Syslog {
    /// The one of this system. It need not be there yet.
    pub(super) fn new() -> io::Result<Self> {
        Self::at(find().unwrap_or(Path::new(PATHS[0])))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.to_owned(), lost: AtomicU64::new(0) })
    }

    pub(super) fn send(&self, level: Level, program: &str, text: &[u8]) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && !self.put(Level::Warning, program, format!("{lost} lines were lost here").as_bytes()) {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
            return;
        }
        if !self.put(level, program, text) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it was taken. The path is looked up each time: a log daemon that was started anew is found.
    fn put(&self, level: Level, program: &str, text: &[u8]) -> bool {
        let mut bytes = [0; HEAD_BYTES_MAX + LINE_BYTES_MAX];
        let mut free = &mut bytes[..];
        // The name as the log daemon wants it: what follows it in brackets is the process.
        let tag = program.split('[').next().unwrap_or_default();
        let head = write!(free, "<{}>{tag}[{}]: ", DAEMON | level as u8, std::process::id());
        let written = head.and_then(|()| free.write_all(text));
        let left = free.len();
        let packet = bytes.get(..bytes.len() - left).unwrap_or_default();
        written.is_ok() && self.socket.send_to(packet, &self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 2048];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_log_daemon_that_is_away_or_full_is_not_waited_for_and_told_what_it_missed() {
        let folder = std::env::temp_dir().join(format!("fulmar-syslog-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let syslog = Syslog::at(&path).unwrap();
        syslog.send(Level::Info, "vmmd[host]", b"nobody hears this");
        syslog.send(Level::Info, "vmmd[host]", b"nor this");
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.send(Level::Error, "vmmd[host]", b"third");
        let pid = std::process::id();
        assert_eq!(receive(&daemon), format!("<28>vmmd[{pid}]: 2 lines were lost here"));
        assert_eq!(receive(&daemon), format!("<27>vmmd[{pid}]: third"));
        // It does not read: lines go until its queue is full, and the rest is counted.
        let mut sent = 0_u64;
        while syslog.lost.load(Ordering::Relaxed) == 0 {
            syslog.send(Level::Info, "vmmd", &[b'x'; LINE_BYTES_MAX]);
            sent += 1;
            assert!(sent < 1_000_000);
        }
        daemon.set_nonblocking(true).unwrap();
        let taken = std::iter::from_fn(|| daemon.recv(&mut [0; 2048]).ok()).count();
        assert_eq!(u64::try_from(taken).unwrap(), sent - 1);
        // Another one takes its place.
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.send(Level::Debug, "vmmd", b"again");
        assert_eq!(receive(&daemon), format!("<28>vmmd[{pid}]: 1 lines were lost here"));
        assert_eq!(receive(&daemon), format!("<31>vmmd[{pid}]: again"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
