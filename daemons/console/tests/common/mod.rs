//! A real `vmmd_console` in a folder of its own, unikernels that are files held open for writing, and clients.

#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, ConsoleCommand, Data, Frame, Header, Message, Payload, Success, Text, Window, decode, encode_frame,
};
use fulmar_tests::daemon;
use fulmar_tests::system;
pub(crate) use fulmar_tests::system::PATIENCE;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// A run folder, and the daemon that serves it.
pub(crate) struct Daemon(daemon::Daemon);

impl Daemon {
    /// A daemon in a new folder, ready to serve.
    pub(crate) fn start() -> Self {
        let mut daemon = daemon::Daemon::prepare(env!("CARGO_BIN_EXE_vmmd_console"), "console.sock");
        daemon.serve();
        Self(daemon)
    }

    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        self.folder.join("run/fifo").join(Name::parse(name).unwrap().as_str())
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.socket())
    }

    /// A fifo for this unikernel, held open as `vmmd` does, before the console is told of it.
    pub(crate) fn unikernel(&self, name: &str) -> File {
        let path = self.fifo(name);
        let _ = std::fs::remove_file(&path);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        open_writer(&path)
    }

    /// A unikernel whose console has been added.
    pub(crate) fn add(&self, name: &str, unikernels: i64) -> File {
        let file = self.unikernel(name);
        let mut client = self.connect();
        client.ask(name, 7, ConsoleCommand::Add { unikernels });
        assert_eq!(client.reply(), Reply::Empty);
        file
    }

    /// Follows a console from this window on.
    pub(crate) fn follow(&self, name: &str, window: Window, expected: &str) -> Client {
        let mut client = self.connect();
        client.ask(name, 0, ConsoleCommand::Subscribe(window));
        assert_eq!(client.reply(), Reply::Text(expected.into()));
        client
    }

    pub(crate) fn inactive(&self, path: &str) -> Vec<String> {
        let mut client = self.connect();
        client.ask(path, 0, ConsoleCommand::ListInactive);
        match client.reply() {
            Reply::Consoles(names) => names,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until this console's unikernel is known to be gone.
    pub(crate) fn wait_for_inactive(&self, path: &str, names: &[&str]) {
        wait_until("inactive consoles", || self.inactive(path) == names);
    }
}

impl Deref for Daemon {
    type Target = daemon::Daemon;

    fn deref(&self) -> &daemon::Daemon {
        &self.0
    }
}

impl DerefMut for Daemon {
    fn deref_mut(&mut self) -> &mut daemon::Daemon {
        &mut self.0
    }
}

/// What came from the daemon, for comparing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Empty,
    Text(String),
    Consoles(Vec<String>),
    Failure(String),
    Line(Vec<u8>),
    End,
}

pub(crate) fn line(text: &str) -> Reply {
    Reply::Line(text.into())
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn ask(&mut self, name: &str, sequence: u64, command: ConsoleCommand) {
        let header = Header::new(sequence, Name::parse(name).unwrap());
        let payload = Payload::Command(wire::Command::Console(command));
        self.send(encode_frame(&Message { header, payload }, &mut [0; 1024]).unwrap());
    }

    /// The next frame without its length; nothing at the end.
    pub(crate) fn frame(&mut self) -> Option<Vec<u8>> {
        let mut len = [0; 4];
        match self.stream.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing came"),
            Err(_) => return None,
        }
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
        self.stream.read_exact(&mut frame).unwrap();
        Some(frame)
    }

    pub(crate) fn stamped(&mut self) -> (i64, Reply) {
        let Some(frame) = self.frame() else { return (0, Reply::End) };
        let text = |text: Text<'_>| String::from_utf8(text.0.to_vec()).unwrap();
        match decode(Frame::whole(&frame)).unwrap().payload {
            Payload::Success(Success::Empty) => (0, Reply::Empty),
            Payload::Success(Success::Text(it)) => (0, Reply::Text(text(it))),
            Payload::Success(Success::Consoles(names)) => {
                (0, Reply::Consoles(names.iter().map(|name| name.to_string()).collect()))
            }
            Payload::Failure(it) => (0, Reply::Failure(text(it))),
            Payload::Data(Data::Console { unix_ms, line }) => (unix_ms, Reply::Line(line.0.to_vec())),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn reply(&mut self) -> Reply {
        self.stamped().1
    }

    /// The next lines, which must be these.
    pub(crate) fn expect_lines(&mut self, lines: &[&str]) {
        for text in lines {
            assert_eq!(self.reply(), line(text));
        }
    }
}

/// Opens a fifo for writing as `vmmd` does, so that neither opening nor writing ever waits.
pub(crate) fn open_writer(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).unwrap()
}

/// Writes all, waiting for the reader where the fifo is full.
pub(crate) fn write_all(mut file: &File, mut bytes: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "nobody reads the fifo");
    }
}

pub(crate) fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(system::wait_until(done), "waited in vain for {what}");
}
