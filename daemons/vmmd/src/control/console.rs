//! The console daemon and the fifos. Each unikernel writes to a fifo that we make; the console daemon is told of it and reads it. It
//! may be dead or slow: nothing waits for it, it is called again and then told of all that runs. Of a new fifo we hold an end until the
//! console daemon has answered, so that the last words of one that dies at once are not lost.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use fulmar_core::halves::Unit;
use fulmar_core::limits::{FIFOS_HELD_MAX, SLOTS_MAX, WIRE_INT_MAX};
use fulmar_core::machine::Life;
use fulmar_core::name::Name;
use fulmar_core::scan::{Event, Limits, Scanner};
use fulmar_core::wire::{self, Command, ConsoleCommand, Frame, Header, Message, Payload};
use fulmar_host::folder::Folder;
use fulmar_host::{info, warning};
use mio::Interest;
use mio::net::UnixStream;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, mkfifoat, unlinkat};

use super::Control;
use super::turn::CONSOLE;

/// The socket of the console daemon.
const SOCKET: &str = "console.sock";

/// Times between two attempts to reach the console daemon, milliseconds.
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 5_000;

/// How long the last words of a unikernel wait for a console daemon that is dead, milliseconds.
const LAST_WORDS_MS_MAX: u64 = 10_000;

/// Bytes that wait to be sent, and of an answer.
const OUT_BYTES_MAX: usize = 16 * 1024;
const ADD_BYTES_MAX: usize = 512;
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// The end of a fifo that is held for a unit.
struct Held {
    unit: Unit,
    name: Name,
    /// What the console daemon was told with; 0 before it was told.
    sequence: u64,
    /// When the unit has ended, milliseconds: its fifo goes when the console daemon has opened it, or is dead too long.
    ended_ms: Option<u64>,
    _end: File,
}

/// The link, up or down.
pub(super) struct Console {
    /// Where the console daemon is.
    sockets: Folder,
    /// Where the fifos are.
    folder: Folder,
    stream: Option<UnixStream>,
    scanner: Scanner,
    answer: Vec<u8>,
    out: Vec<u8>,
    sequence: u64,
    /// The next slot to be told after the link came up.
    announce: usize,
    retry_at_ms: u64,
    retry_ms: u64,
    /// Whether it was said that the daemon cannot be reached.
    told: bool,
    held: heapless::Vec<Held, FIFOS_HELD_MAX>,
}

impl Console {
    /// How many fifos there are.
    pub(super) fn count_fifos(&self) -> u64 {
        self.folder.names().map_or(0, |names| names.len() as u64)
    }

    /// For this run folder, whose `fifo/` is there.
    pub(super) fn new(run: &Path) -> io::Result<Self> {
        Ok(Self {
            sockets: Folder::open(&run.join("util"))?,
            folder: Folder::open(&run.join("fifo"))?,
            stream: None,
            scanner: Scanner::new(Limits::HOLD_ALL),
            answer: vec![0; ANSWER_BYTES_MAX],
            out: Vec::with_capacity(OUT_BYTES_MAX),
            sequence: 0,
            announce: 0,
            retry_at_ms: 0,
            retry_ms: RETRY_MS_MIN,
            told: false,
            held: heapless::Vec::new(),
        })
    }

    /// Makes the fifo of a unikernel anew and opens it so that writing neither waits nor fails, whoever reads.
    pub(super) fn make_fifo(&mut self, name: &Name) -> io::Result<File> {
        // What an earlier incarnation left behind.
        self.held.retain(|held| held.name != *name);
        self.remove_fifo(name);
        let path = name.as_str();
        mkfifoat(&self.folder, path, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP)?;
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(openat(&self.folder, path, flags, Mode::empty())?.into())
    }

    fn remove_fifo(&self, name: &Name) {
        match unlinkat(&self.folder, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
            Err(error) => warning!(name = name; "could not remove the fifo of {name}: {error}"),
        }
    }

    /// Holds the end of a fifo until the console daemon has it.
    fn hold(&mut self, unit: Unit, name: &Name, sequence: u64, end: File) {
        if self.held.is_full() {
            let oldest = self.held.remove(0);
            if oldest.ended_ms.is_some() {
                self.remove_fifo(&oldest.name);
            }
        }
        let _ = self.held.push(Held { unit, name: *name, sequence, ended_ms: None, _end: end });
    }

    /// Tells of one unikernel, if the link is up and there is room. Returns the sequence, 0 if it was not told.
    fn add(&mut self, name: &Name, unikernels: i64) -> u64 {
        if self.stream.is_none() || self.out.len() + ADD_BYTES_MAX > OUT_BYTES_MAX {
            return 0;
        }
        let header = Header::new(self.sequence + 1, *name);
        let payload = Payload::Command(Command::Console(ConsoleCommand::Add { unikernels }));
        let mut buffer = [0; ADD_BYTES_MAX];
        match wire::encode_frame(&Message { header, payload }, &mut buffer) {
            Ok(frame) => self.out.extend_from_slice(frame),
            Err(error) => {
                warning!(name = name; "console: {error:?}");
                return 0;
            }
        }
        self.sequence += 1;
        self.sequence
    }

    /// Sends what waits. `false` when the link is broken.
    fn flush(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return true };
        while !self.out.is_empty() {
            match stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes in answers. `false` when the link is broken.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; ANSWER_BYTES_MAX];
        loop {
            let Some(stream) = &mut self.stream else { return true };
            let mut input = match stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            loop {
                match self.scanner.next(&mut self.answer, &mut input) {
                    Ok(Event::Frame { head_len, cut }) => {
                        let Ok(message) = wire::decode(Frame { head: &self.answer[..head_len], cut }) else {
                            return false;
                        };
                        let Message { header, payload } = message;
                        if let Payload::Failure(text) = payload {
                            warning!(name = header.name; "{}: the console daemon refused: {}", header.name, text.0.escape_ascii());
                        }
                        self.answered(header.sequence);
                    }
                    Ok(Event::More) => break,
                    Ok(_) | Err(_) => return false,
                }
            }
        }
    }

    fn answered(&mut self, sequence: u64) {
        if let Some(at) = self.held.iter().position(|held| held.sequence == sequence) {
            let held = self.held.remove(at);
            if held.ended_ms.is_some() {
                self.remove_fifo(&held.name);
            }
        }
    }

    /// When to call [`Control::call_console`], milliseconds.
    pub(super) fn alarm_ms(&self) -> u64 {
        if self.stream.is_some() { u64::MAX } else { self.retry_at_ms }
    }

    fn retry_later(&mut self, now_ms: u64) {
        while let Some(at) = self
            .held
            .iter()
            .position(|held| held.ended_ms.is_some_and(|ended| now_ms.saturating_sub(ended) >= LAST_WORDS_MS_MAX))
        {
            let held = self.held.remove(at);
            self.remove_fifo(&held.name);
        }
        self.stream = None;
        self.retry_at_ms = now_ms + self.retry_ms;
        self.retry_ms = (self.retry_ms * 2).min(RETRY_MS_MAX);
    }
}

impl Control<'_> {
    /// Calls the console daemon again when it is time.
    pub(super) fn call_console(&mut self) {
        if self.console.stream.is_some() || self.console.retry_at_ms > self.now.ms {
            return;
        }
        let connected = self.console.sockets.connect(SOCKET).map(UnixStream::from_std);
        let connected = connected.and_then(|mut stream| {
            self.poll
                .registry()
                .register(&mut stream, CONSOLE, Interest::READABLE | Interest::WRITABLE)
                .map(|()| stream)
        });
        let console = &mut self.console;
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                if !core::mem::replace(&mut console.told, true) {
                    let socket = console.sockets.path_of(SOCKET);
                    let socket = socket.display();
                    warning!(
                        "no console daemon at {socket} ({error}): unikernels run, start vmmd_console to keep their output"
                    );
                }
                return console.retry_later(self.now.ms);
            }
        };
        info!("the console daemon is here");
        console.told = true;
        console.stream = Some(stream);
        console.scanner = Scanner::new(Limits::HOLD_ALL);
        console.out.clear();
        console.announce = 0;
        console.retry_ms = RETRY_MS_MIN;
        for held in &mut console.held {
            held.sequence = 0;
        }
        self.serve_console();
    }

    /// Goes on with the link: answers, what is still to be told, what waits to be sent.
    pub(super) fn serve_console(&mut self) {
        let whole = self.console.hear() && {
            self.announce();
            self.console.flush()
        };
        if !whole {
            warning!("the console daemon is gone, calling it again");
            self.console.told = true;
            self.console.retry_later(self.now.ms);
        }
    }

    fn announce(&mut self) {
        // Those whose fifo is held first: they may have ended.
        for at in 0..self.console.held.len() {
            let Held { name, sequence: 0, .. } = self.console.held[at] else { continue };
            let sequence = self.console.add(&name, self.consoles_at(&name));
            self.console.held[at].sequence = sequence;
        }
        while self.console.announce < SLOTS_MAX && self.console.stream.is_some() {
            let slot = u16::try_from(self.console.announce).unwrap_or(u16::MAX);
            if let Some(unikernel) = self.machine.unikernel(slot).filter(|it| it.life() != Life::None) {
                let (unit, name) = (Unit(unikernel.unit()), *unikernel.name());
                let held = self.console.held.iter().any(|held| held.unit == unit);
                if !held && self.console.add(&name, self.consoles_at(&name)) == 0 {
                    return;
                }
            }
            self.console.announce += 1;
        }
    }

    /// How many consoles of its path are to be kept: what the policy there allows, as the peer has it.
    fn consoles_at(&self, name: &Name) -> i64 {
        let path = name.path();
        if path.is_root() {
            return WIRE_INT_MAX;
        }
        let policy = self.machine.ledger().account_at(&path).and_then(|account| account.policy());
        policy.map_or(0, |policy| i64::try_from(policy.unikernels).unwrap_or(WIRE_INT_MAX).min(WIRE_INT_MAX))
    }

    /// A unit is being launched with this fifo.
    pub(super) fn add_console(&mut self, unit: Unit, name: &Name, end: File) {
        // It may have come since the last attempt, and this one is cheap.
        self.console.retry_at_ms = self.now.ms.min(self.console.retry_at_ms);
        self.call_console();
        let sequence = self.console.add(name, self.consoles_at(name));
        self.console.hold(unit, name, sequence, end);
        if !self.console.flush() {
            self.serve_console();
        }
    }

    /// A unit has ended: its fifo goes now where the console daemon has opened it, else as soon as it has.
    pub(super) fn drop_fifo(&mut self, unit: Unit) {
        match self.console.held.iter().position(|held| held.unit == unit) {
            Some(at) => self.console.held[at].ended_ms = Some(self.now.ms),
            None => {
                if let Some((_, unikernel)) = self.machine.find_unit(unit) {
                    self.console.remove_fifo(unikernel.name());
                }
            }
        }
    }

    /// At the start: removes the fifos of those that do not run any more.
    pub(super) fn clear_fifos(&self) -> io::Result<()> {
        for file_name in self.console.folder.names()? {
            // What is no fifo, or is called what no fifo is, is none of ours.
            let of = |text: &str| Name::parse(text).ok().filter(|name| !name.is_path() && name.as_str() == text);
            let Some(name) = of(&file_name).filter(|_| self.console.folder.is_fifo(&file_name)) else { continue };
            if !self.machine.find(&name).is_some_and(|(_, unikernel)| unikernel.life() == Life::Alive) {
                self.console.remove_fifo(&name);
            }
        }
        Ok(())
    }
}
