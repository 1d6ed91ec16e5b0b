//! The link to the console daemon: it is told which unikernels run, and opens their fifos. When it is called again it is told of all
//! that runs.

use std::fs::File;
use std::io;
use std::path::Path;

use fulmar_core::halves::Unit;
use fulmar_core::limits::{SLOTS_MAX, WIRE_INT_MAX};
use fulmar_core::machine::Life;
use fulmar_core::name::Name;
use fulmar_core::wire::{self, Command, ConsoleCommand, Header, Message, Payload};
use fulmar_host::folder::Folder;
use fulmar_host::{info, warning};

use super::Control;
use super::fifos::{Fifos, Held};
use super::link::{Broken, Called, Link};
use super::turn::CONSOLE;

/// The socket of the console daemon.
const SOCKET: &str = "console.sock";

/// Bytes that wait to be sent, and of one message.
const OUT_BYTES_MAX: usize = 16 * 1024;
const ADD_BYTES_MAX: usize = 512;

/// The link, and what it is told of.
pub(super) struct Console {
    pub(super) link: Link,
    pub(super) fifos: Fifos,
    out: Vec<u8>,
    sequence: u64,
    /// The next slot to be told after the link came up.
    announce: usize,
}

impl Console {
    /// For this run folder, whose `util/` and `fifo/` are there.
    pub(super) fn new(run: &Path) -> io::Result<Self> {
        Ok(Self {
            link: Link::new(Folder::open(&run.join("util"))?, SOCKET, CONSOLE),
            fifos: Fifos::new(run)?,
            out: Vec::with_capacity(OUT_BYTES_MAX),
            sequence: 0,
            announce: 0,
        })
    }

    /// Tells of one unikernel, if the link is up and there is room. Returns the sequence, 0 if it was not told.
    fn add(&mut self, name: &Name, unikernels: i64) -> u64 {
        if !self.link.is_up() || self.out.len() + ADD_BYTES_MAX > OUT_BYTES_MAX {
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

    /// Sends what waits.
    fn flush(&mut self) -> Result<(), Broken> {
        while !self.out.is_empty() {
            match self.link.send(&self.out)? {
                0 => break,
                sent => drop(self.out.drain(..sent)),
            }
        }
        Ok(())
    }

    /// Takes in answers.
    fn hear(&mut self) -> Result<(), Broken> {
        self.link.hear(|header, refusal| {
            if let Some(text) = refusal {
                let name = header.name;
                warning!(name = name; "{name}: the console daemon refused: {}", text.escape_ascii());
            }
            self.fifos.answered(header.sequence);
            Ok(())
        })
    }
}

impl Control<'_> {
    /// Calls the console daemon again when it is time.
    pub(super) fn call_console(&mut self) {
        let console = &mut self.console;
        match console.link.call(self.poll.registry(), self.now.ms) {
            Called::NotNow => {}
            Called::Here => {
                info!("the console daemon is here");
                console.link.note_well();
                console.out.clear();
                console.announce = 0;
                for held in &mut console.fifos.held {
                    held.sequence = 0;
                }
                self.serve_console();
            }
            Called::Missing(news) => {
                console.fifos.drop_old(self.now.ms);
                if let Some(place) = news {
                    warning!("no console daemon at {place}: unikernels run, start vmmd_console to keep their output");
                }
            }
        }
    }

    /// Goes on with the link: answers, what is still to be told, what waits to be sent.
    pub(super) fn serve_console(&mut self) {
        let served = self.console.hear().and_then(|()| {
            self.announce();
            self.console.flush()
        });
        if served.is_err() {
            warning!("the console daemon is gone, calling it again");
            self.console.fifos.drop_old(self.now.ms);
            self.console.link.hang_up(self.now.ms);
        }
    }

    fn announce(&mut self) {
        // Those whose fifo is held first: they may have ended.
        for at in 0..self.console.fifos.held.len() {
            let Held { name, sequence: 0, .. } = self.console.fifos.held[at] else { continue };
            let sequence = self.console.add(&name, self.consoles_at(&name));
            self.console.fifos.held[at].sequence = sequence;
        }
        while self.console.announce < SLOTS_MAX && self.console.link.is_up() {
            let slot = u16::try_from(self.console.announce).unwrap_or(u16::MAX);
            if let Some(unikernel) = self.machine.unikernel(slot).filter(|it| it.life() != Life::None) {
                let (unit, name) = (Unit(unikernel.unit()), *unikernel.name());
                if !self.console.fifos.holds(unit) && self.console.add(&name, self.consoles_at(&name)) == 0 {
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
        self.console.link.call_soon(self.now.ms);
        self.call_console();
        let sequence = self.console.add(name, self.consoles_at(name));
        self.console.fifos.hold(unit, name, sequence, end);
        if self.console.flush().is_err() {
            self.serve_console();
        }
    }

    /// A unit has ended: its fifo goes now where the console daemon has opened it, else as soon as it has.
    pub(super) fn drop_fifo(&mut self, unit: Unit) {
        if !self.console.fifos.ended(unit, self.now.ms)
            && let Some((_, unikernel)) = self.machine.find_unit(unit)
        {
            self.console.fifos.remove(unikernel.name());
        }
    }

    /// At the start: removes the fifos of those that do not run any more.
    pub(super) fn clear_fifos(&self) -> io::Result<()> {
        let runs = |name: &Name| self.machine.find(name).is_some_and(|(_, it)| it.life() == Life::Alive);
        self.console.fifos.clear(runs)
    }
}
