//! The fifos: each unikernel writes to one that we make, and the console daemon reads it. Of a new one we hold an end until the console
//! daemon has answered, so that the last words of a unikernel that dies at once are not lost.

use std::fs::File;
use std::io;
use std::path::Path;

use fulmar_core::halves::Unit;
use fulmar_core::limits::FIFOS_HELD_MAX;
use fulmar_core::name::Name;
use fulmar_host::folder::Folder;
use fulmar_host::warning;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, mkfifoat, unlinkat};

/// How long the last words of a unikernel wait for a console daemon that is dead, milliseconds.
const LAST_WORDS_MS_MAX: u64 = 10_000;

/// The end of a fifo that is held for a unit.
pub(super) struct Held {
    unit: Unit,
    pub(super) name: Name,
    /// What the console daemon was told with; 0 before it was told.
    pub(super) sequence: u64,
    /// When the unit has ended, milliseconds: its fifo goes when the console daemon has opened it, or is dead too long.
    ended_ms: Option<u64>,
    _end: File,
}

/// All fifos.
pub(super) struct Fifos {
    folder: Folder,
    /// Those that the console daemon has not opened yet, the oldest first.
    pub(super) held: heapless::Vec<Held, FIFOS_HELD_MAX>,
}

impl Fifos {
    /// For this run folder, whose `fifo/` is there.
    pub(super) fn new(run: &Path) -> io::Result<Self> {
        Ok(Self { folder: Folder::open(&run.join("fifo"))?, held: heapless::Vec::new() })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.folder.names().map_or(0, |names| names.len() as u64)
    }

    /// Makes the fifo of a unikernel anew and opens it so that writing neither waits nor fails, whoever reads.
    pub(super) fn make(&mut self, name: &Name) -> io::Result<File> {
        // What an earlier incarnation left behind.
        self.held.retain(|held| held.name != *name);
        self.remove(name);
        let path = name.as_str();
        mkfifoat(&self.folder, path, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP)?;
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(openat(&self.folder, path, flags, Mode::empty())?.into())
    }

    /// Removes the fifo of a unikernel that has ended.
    pub(super) fn remove(&self, name: &Name) {
        match unlinkat(&self.folder, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => warning!(name = name; "could not remove the fifo of {name}: {error}"),
        }
    }

    /// Holds the end of a fifo until the console daemon has it, which was told with this sequence.
    pub(super) fn hold(&mut self, unit: Unit, name: &Name, sequence: u64, end: File) {
        if self.held.is_full() {
            self.release(0);
        }
        let _ = self.held.push(Held { unit, name: *name, sequence, ended_ms: None, _end: end });
    }

    /// Whether an end is held for this unit.
    pub(super) fn holds(&self, unit: Unit) -> bool {
        self.held.iter().any(|held| held.unit == unit)
    }

    /// The console daemon has opened the fifo that it was told of with this sequence, or has refused to.
    pub(super) fn answered(&mut self, sequence: u64) {
        if let Some(at) = self.held.iter().position(|held| held.sequence == sequence) {
            self.release(at);
        }
    }

    /// A unit has ended. Whether an end was held for it: its fifo goes with that.
    pub(super) fn ended(&mut self, unit: Unit, now_ms: u64) -> bool {
        let held = self.held.iter_mut().find(|held| held.unit == unit);
        held.map(|held| held.ended_ms = Some(now_ms)).is_some()
    }

    /// The console daemon is dead: drops the last words that have waited for it too long.
    pub(super) fn drop_old(&mut self, now_ms: u64) {
        let is_old = |held: &Held| held.ended_ms.is_some_and(|ended| now_ms.saturating_sub(ended) >= LAST_WORDS_MS_MAX);
        while let Some(at) = self.held.iter().position(is_old) {
            self.release(at);
        }
    }

    fn release(&mut self, at: usize) {
        let held = self.held.remove(at);
        if held.ended_ms.is_some() {
            self.remove(&held.name);
        }
    }

    /// Removes what is left of unikernels that do not run any more.
    pub(super) fn clear(&self, runs: impl Fn(&Name) -> bool) -> io::Result<()> {
        for file_name in self.folder.names()? {
            // What is no fifo, or is called what no fifo is, is none of ours.
            let of = |text: &str| Name::parse(text).ok().filter(|name| !name.is_path() && name.as_str() == text);
            let Some(name) = of(&file_name).filter(|_| self.folder.is_fifo(&file_name)) else { continue };
            if !runs(&name) {
                self.remove(&name);
            }
        }
        Ok(())
    }
}
