//! A real `vmmd_log` in a folder of its own, and clients of it.

#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, Data, Deed, Event, Frame, Header, LogCommand, LogEntry, LogFrom, Message, Note, Payload, Success, Window,
    decode, encode_frame,
};
use fulmar_tests::daemon;
use fulmar_tests::system;
pub(crate) use fulmar_tests::system::PATIENCE;

/// Folders, and the daemon that works there.
pub(crate) struct Daemon(daemon::Daemon);

impl Daemon {
    /// A daemon in a new folder, ready to serve.
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut daemon = Self::prepare(options);
        daemon.serve();
        daemon
    }

    /// A new folder.
    pub(crate) fn prepare(options: &[&str]) -> Self {
        let mut daemon = daemon::Daemon::prepare(env!("CARGO_BIN_EXE_vmmd_log"), "log.sock");
        let state = daemon.folder.join("state");
        daemon.add_options(&["--state", state.to_str().unwrap()]);
        daemon.add_options(options);
        Self(daemon)
    }

    /// Milliseconds of processor time that the daemon has had; nothing where the system does not tell this way.
    pub(crate) fn processor_ms(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        let fields: Vec<u64> = stat.rsplit_once(") ")?.1.split(' ').filter_map(|field| field.parse().ok()).collect();
        Some((fields.get(10)? + fields.get(11)?) * 10)
    }

    /// The segments, from the oldest to the newest.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.join("state/log")).unwrap();
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.file_name().unwrap().len() == 20);
        files.sort();
        files
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// A reader who has been told that he is one.
    pub(crate) fn read(&self, name: &str, from: LogFrom, follow: bool) -> Client {
        let mut client = self.connect();
        client.ask(name, wire::Command::Events(LogCommand { from, follow }));
        assert_eq!(client.next(), Came::Text("subscribed".into()));
        client
    }

    /// What there is for this name, without the numbers; notes but the end included.
    pub(crate) fn all(&self, name: &str, from: LogFrom) -> Vec<Came> {
        let came: Vec<Came> = std::iter::repeat_with({
            let mut client = self.read(name, from, false);
            move || client.next()
        })
        .take_while(|came| *came != Came::End)
        .collect();
        assert!(matches!(came.last(), Some(Came::Note(Note::End { .. }))), "{came:?}");
        came[..came.len() - 1].to_vec()
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        match self.read(":", count(0), false).next() {
            Came::Note(Note::End { last }) => last,
            other => panic!("{other:?}"),
        }
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

pub(crate) fn count(count: i64) -> LogFrom {
    LogFrom::Window(Window::Count(count))
}

pub(crate) fn since(unix_ms: i64) -> LogFrom {
    LogFrom::Window(Window::Since(unix_ms))
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// That this was created.
pub(crate) fn created(text: &str) -> Event<'static> {
    Event::Done { name: name(text), deed: Deed::CreatedUnikernel, user: Some(0) }
}

/// What came from the daemon, for comparing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    Empty,
    Text(String),
    Failure(String),
    /// An event with its number, as people read it.
    Event(u64, String),
    /// The same in the words of wire version 5.
    Historic(String),
    Note(Note),
    End,
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn ask(&mut self, name: &str, command: wire::Command<'_>) {
        let bytes = asked(name, command);
        self.send(&bytes);
    }

    /// Tells of an event as `vmmd` does, and waits until it is taken.
    pub(crate) fn tell(&mut self, number: u64, unix_ms: i64, event: Event<'_>) {
        self.send(&told(number, unix_ms, event));
        assert_eq!(self.next(), Came::Empty);
    }

    pub(crate) fn next(&mut self) -> Came {
        let mut len = [0; 4];
        match self.stream.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing came"),
            Err(_) => return Came::End,
        }
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
        self.stream.read_exact(&mut frame).unwrap();
        match decode(Frame::whole(&frame)).unwrap().payload {
            Payload::Success(Success::Empty) => Came::Empty,
            Payload::Success(Success::Text(text)) => Came::Text(text.to_string()),
            Payload::Failure(text) => Came::Failure(text.to_string()),
            Payload::Data(Data::Event(event)) => Came::Event(event.sequence, event.entry.event.to_string()),
            Payload::Data(Data::Log(entry)) => Came::Historic(entry.event.to_string()),
            Payload::Data(Data::Note(note)) => Came::Note(note),
            other => panic!("{other:?}"),
        }
    }

    /// The next event's number.
    pub(crate) fn next_number(&mut self) -> u64 {
        match self.next() {
            Came::Event(number, _) => number,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn asked(name: &str, command: wire::Command<'_>) -> Vec<u8> {
    let header = Header::new(0, self::name(name));
    encode_frame(&Message { header, payload: Payload::Command(command) }, &mut [0; 1024]).unwrap().to_vec()
}

pub(crate) fn told(number: u64, unix_ms: i64, event: Event<'_>) -> Vec<u8> {
    let payload = Payload::Data(Data::Log(LogEntry { unix_ms, event }));
    encode_frame(&Message { header: Header::new(number, Name::ROOT), payload }, &mut [0; 4096]).unwrap().to_vec()
}

pub(crate) fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(system::wait_until(done), "waited in vain for {what}");
}
