//! A daemon that says what a test wants it to say, images made by hand, and the client run inside the test.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod authority;
pub(crate) mod machine;
pub(crate) mod server;

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fulmar_client::local::CommandLine;
use fulmar_client::program::{Surroundings, run};
use fulmar_core::name::Name;
use fulmar_core::wire::{self, Header, Message, Payload};

/// 2026-11-21T04:00:00Z: the present of all tests.
pub(crate) const NOW_UNIX_MS: i64 = 1_795_233_600_000;

/// What came of a run of the client.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) errors: String,
}

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fulmar-client-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("util")).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A daemon for one connection.
pub(crate) struct FakeDaemon {
    pub(crate) folder: Folder,
    thread: Option<JoinHandle<Vec<u8>>>,
}

impl FakeDaemon {
    /// Listens as `socket` and does `serve` to the first who comes; what `serve` returns is kept.
    pub(crate) fn new(socket: &str, serve: impl FnOnce(UnixStream) -> Vec<u8> + Send + 'static) -> Self {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.0.join("util").join(socket)).unwrap();
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        Self { folder, thread: Some(thread) }
    }

    /// Reads one frame, answers with these bytes and closes.
    pub(crate) fn answering(socket: &str, answer: Vec<u8>) -> Self {
        Self::new(socket, move |mut stream| {
            let request = read_frame(&mut stream);
            stream.write_all(&answer).unwrap();
            request
        })
    }

    /// As [`FakeDaemon::answering`], on one connection after the other. Returns the requests one behind the other.
    pub(crate) fn answering_each(socket: &str, answers: Vec<Vec<u8>>) -> Self {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.0.join("util").join(socket)).unwrap();
        let answer = move |answer: Vec<u8>| {
            let mut stream = listener.accept().unwrap().0;
            let request = read_frame(&mut stream);
            stream.write_all(&answer).unwrap();
            request
        };
        let thread = std::thread::spawn(move || answers.into_iter().flat_map(answer).collect());
        Self { folder, thread: Some(thread) }
    }

    /// Runs the client with these words.
    pub(crate) fn client(&self, words: &[&str]) -> Ran {
        self.client_within(Duration::from_secs(20), words)
    }

    pub(crate) fn client_within(&self, time_out: Duration, words: &[&str]) -> Ran {
        client(&self.folder.0, time_out, words)
    }

    /// What `serve` returned.
    pub(crate) fn heard(&mut self) -> Vec<u8> {
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Runs the client with these words against the sockets below `run_folder`.
pub(crate) fn client(run_folder: &Path, time_out: Duration, words: &[&str]) -> Ran {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let mut arguments: Vec<OsString> = vec!["vmmc_local".into(), "--run".into(), run_folder.into()];
    arguments.extend(words.iter().map(OsString::from));
    let surroundings =
        Surroundings { time_out, now_unix_ms: NOW_UNIX_MS, end_with_reader: false, out: &mut out, errors: &mut errors };
    let code = run::<CommandLine>(arguments, surroundings);
    Ran { code, out: String::from_utf8(out).unwrap(), errors: String::from_utf8(errors).unwrap() }
}

/// One frame with its length.
pub(crate) fn read_frame(stream: &mut UnixStream) -> Vec<u8> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame).unwrap();
    let len = u32::from_be_bytes(frame[..4].try_into().unwrap());
    frame.resize(4 + len as usize, 0);
    stream.read_exact(&mut frame[4..]).unwrap();
    frame
}

/// A frame of this payload, as an answer to a command about `name`.
pub(crate) fn frame(name: &str, payload: Payload<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 20];
    let message = Message { header: Header::new(0, Name::parse(name).unwrap()), payload };
    wire::encode_frame(&message, &mut buffer).unwrap().to_vec()
}

/// A recorded half of a conversation.
pub(crate) fn capture(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/captures");
    fs::read(folder.join(file)).unwrap()
}

/// A Solo5 image for hvt (target 1) with these devices (kind 1 block, 2 net), and `tail` zero bytes at its end.
pub(crate) fn image(target: u8, devices: &[(&str, u8)], tail: usize) -> Vec<u8> {
    let entries = u32::try_from(devices.len() + 1).unwrap();
    let manifest_bytes = 32 + 104 * u64::from(entries);
    let mut image = vec![0; 0x4000 + tail];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(24, &0x10_0000_u64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 3, 0, 64, 0]);
    let headers: [(u32, u32, [u64; 6]); 3] = [
        (1, 5, [0x1000, 0x10_0000, 0x10_0000, 0x800, 0x800, 0x1000]),
        (4, 4, [0x200, 0, 0, 36, 36, 4]),
        (4, 4, [0x2000, 0, 0, manifest_bytes, manifest_bytes, 4]),
    ];
    for (index, (kind, flags, numbers)) in headers.iter().enumerate() {
        let at = 64 + 56 * index;
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        for (place, number) in numbers.iter().enumerate() {
            put(at + 8 + 8 * place, &number.to_le_bytes());
        }
    }
    for (at, bytes, kind) in [(0x200, 16, 0x3149_4241_u32), (0x2000, 4 + 8 + 104 * entries, 0x3154_464d)] {
        put(at, &6_u32.to_le_bytes());
        put(at + 4, &bytes.to_le_bytes());
        put(at + 8, &kind.to_le_bytes());
        put(at + 12, b"Solo5");
    }
    put(0x200 + 20, &[target, 0, 0, 0, 2, 0, 0, 0]);
    put(0x2000 + 24, &1_u32.to_le_bytes());
    put(0x2000 + 28, &entries.to_le_bytes());
    put(0x2000 + 32 + 68, &0x4000_0000_u32.to_le_bytes());
    for (index, (name, kind)) in devices.iter().enumerate() {
        let at = 0x2000 + 32 + 104 * (index + 1);
        put(at, name.as_bytes());
        put(at + 68, &[*kind]);
    }
    image
}
