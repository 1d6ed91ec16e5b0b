//! A real `vmmd_log` in a folder of its own, and clients of it.

#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, Data, Deed, Event, Frame, Header, LogCommand, LogEntry, LogFrom, Message, Note, Payload, Success, Window,
    decode, encode_frame,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// After this long a test has failed. It is never what a test measures.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Folders, and the daemon that works there.
pub(crate) struct Daemon {
    pub(crate) folder: PathBuf,
    options: Vec<&'static str>,
    child: Option<Child>,
}

impl Daemon {
    /// A daemon in a new folder, ready to serve.
    pub(crate) fn start(options: &[&'static str]) -> Self {
        let mut daemon = Self::prepare(options);
        daemon.start_again();
        daemon
    }

    /// A new folder.
    pub(crate) fn prepare(options: &[&'static str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fulmar-log-{}-{count}", std::process::id()));
        std::fs::create_dir_all(folder.join("run/util")).unwrap();
        std::fs::create_dir_all(folder.join("state")).unwrap();
        Self { folder, options: options.to_vec(), child: None }
    }

    /// The program with these folders.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmmd_log"));
        command.arg("--run").arg(self.folder.join("run")).arg("--state").arg(self.folder.join("state"));
        command.args(&self.options);
        command
    }

    pub(crate) fn start_again(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("text")).unwrap();
        self.child = Some(self.command().stdin(Stdio::null()).stderr(log).spawn().unwrap());
        wait_until("the socket", || UnixStream::connect(self.socket()).is_ok());
    }

    /// Ends the daemon by this signal.
    pub(crate) fn stop(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        child.wait().unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// KiB of memory that the daemon has; nothing where the system does not tell this way.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.as_ref()?.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Milliseconds of processor time that the daemon has had; nothing where the system does not tell this way.
    pub(crate) fn processor_ms(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.as_ref()?.id())).ok()?;
        let fields: Vec<u64> = stat.rsplit_once(") ")?.1.split(' ').filter_map(|field| field.parse().ok()).collect();
        Some((fields.get(10)? + fields.get(11)?) * 10)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("run/util/log.sock")
    }

    /// What it has said.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.folder.join("text")).unwrap()
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

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
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

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
