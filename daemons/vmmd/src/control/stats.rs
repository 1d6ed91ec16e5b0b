//! The statistics daemon calls us, once, and is told from then on which process runs which unikernel. It may be dead or slow:
//! nothing waits for it. Where it does not take what is to be said it is hung up on; it calls again and is told everything.

use std::collections::BTreeMap;

use fulmar_core::halves::{Tender, Texts, Unit, machine_name};
use fulmar_core::limits::{DEVICES_MAX, STATS_FRAME_BYTES_MAX, STATS_LINK_BYTES_MAX, UNITS_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{self, Command, Header, List, Message, Payload, StatsCommand, Success, Tap};
use fulmar_host::meter::device_text;
use fulmar_host::{error, info, warning};
use mio::Interest;
use mio::net::UnixStream;

use super::Control;
use super::link::{Broken, receive, send};
use super::turn::STATS;

/// Bytes that are read at once; what is read is not looked at.
const ANSWER_BYTES: usize = 4 * 1024;

/// Reads in a turn.
const READS_MAX: usize = 256;

/// The process of a unit.
struct Process {
    pid: u32,
    started: u64,
    /// Its taps, in the order of its networks, as [`Texts`] have them.
    taps: Box<[u8]>,
}

/// The link, up or down.
#[derive(Default)]
struct Link {
    stream: Option<UnixStream>,
    out: Vec<u8>,
    sequence: u64,
}

/// The link, and what it is told of.
#[derive(Default)]
pub(super) struct Stats {
    link: Link,
    /// What runs.
    processes: BTreeMap<Unit, Process>,
    /// All units below this one have been told since the link came up.
    told: u64,
}

impl Link {
    /// Puts a message into what is to be sent. `false` where there is no room.
    fn put(&mut self, message: &Message<'_>) -> bool {
        let mut buffer = [0; STATS_FRAME_BYTES_MAX];
        // What is said of one unikernel fits: so `limits` has it.
        let Ok(frame) = wire::encode_frame(message, &mut buffer) else { return false };
        let fits = self.out.len() + frame.len() <= STATS_LINK_BYTES_MAX;
        if fits {
            self.out.extend_from_slice(frame);
        }
        fits
    }

    /// As [`Link::put`], of a command.
    fn say(&mut self, name: Name, command: StatsCommand<'_>) -> bool {
        let header = Header::new(self.sequence.wrapping_add(1), name);
        let said = self.put(&Message { header, payload: Payload::Command(Command::Stats(command)) });
        self.sequence = self.sequence.wrapping_add(u64::from(said));
        said
    }

    /// Sends what waits.
    fn flush(&mut self) -> Result<(), Broken> {
        while !self.out.is_empty() {
            match send(&mut self.stream, &self.out)? {
                0 => return Ok(()),
                sent => drop(self.out.drain(..sent)),
            }
        }
        self.out.shrink_to(ANSWER_BYTES);
        Ok(())
    }

    /// Reads what was answered, which changes nothing.
    fn hear(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; ANSWER_BYTES];
        for _ in 0..READS_MAX {
            if receive(&mut self.stream, &mut buffer)? == 0 {
                return Ok(());
            }
        }
        // More than it can have to answer.
        Err(Broken)
    }
}

impl Stats {
    /// Whether this unit is to be told of now; if not, it will be, or nobody listens.
    fn is_due(&self, unit: Unit) -> bool {
        self.link.stream.is_some() && unit.0 < self.told
    }

    fn hang_up(&mut self) {
        self.link = Link::default();
        self.told = 0;
    }
}

impl Control<'_> {
    /// This client is the statistics daemon: it leaves the clients, and takes the place of one before.
    pub(super) fn link_stats(&mut self, index: u16, header: &Header) {
        let connection = self.connections.get(index);
        let watched = connection.watched;
        let stream = connection.stream.take();
        self.connections.free(index);
        let Some(mut stream) = stream else { return };
        if self.stats.link.stream.is_some() {
            warning!("another statistics daemon takes the place of the one that was here");
        }
        self.stats.hang_up();
        let (registry, interest) = (self.poll.registry(), Interest::READABLE | Interest::WRITABLE);
        let registered = match watched {
            true => registry.reregister(&mut stream, STATS, interest),
            false => registry.register(&mut stream, STATS, interest),
        };
        if let Err(error) = registered {
            return error!("could not watch the statistics daemon: {error}");
        }
        info!("the statistics daemon is here");
        self.stats.link.stream = Some(stream);
        self.stats.link.out.reserve(ANSWER_BYTES);
        self.stats.link.put(&Message { header: *header, payload: Payload::Success(Success::Empty) });
        self.serve_stats();
    }

    /// Goes on with the link: answers, what is still to be told, what waits to be sent.
    pub(super) fn serve_stats(&mut self) {
        if self.stats.link.hear().and_then(|()| self.go_on_with_stats()).is_err() {
            self.hang_up_on_stats();
        }
    }

    fn go_on_with_stats(&mut self) -> Result<(), Broken> {
        while self.announce_stats() {
            self.stats.link.flush()?;
            // What is left goes on when the system says so.
            if !self.stats.link.out.is_empty() {
                break;
            }
        }
        self.stats.link.flush()
    }

    fn hang_up_on_stats(&mut self) {
        if self.stats.link.stream.is_some() {
            warning!("the statistics daemon is gone, or does not take what it is told");
        }
        self.stats.hang_up();
    }

    /// Puts into what is to be sent what was not told yet, as far as there is room. Whether anything was put there.
    fn announce_stats(&mut self) -> bool {
        let mut any = false;
        while self.stats.link.stream.is_some()
            && let Some((unit, _)) = self.stats.processes.range(Unit(self.stats.told)..).next()
        {
            let unit = *unit;
            if !self.tell_stats(unit) {
                break;
            }
            self.stats.told = unit.0.saturating_add(1);
            any = true;
        }
        any
    }

    /// Says which process runs a unit. `false` where there is no room to say it.
    fn tell_stats(&mut self, unit: Unit) -> bool {
        let Stats { link, processes, .. } = &mut self.stats;
        let Some(process) = processes.get(&unit) else { return true };
        // One that nothing says should run is being ended.
        let Some((slot, unikernel)) = self.machine.find_unit(unit) else { return true };
        let name = *unikernel.name();
        let machine = self.abilities.bhyve.filter(|_| unikernel.tender() == Tender::Bhyve);
        let machine = machine.map(|tag| machine_name(tag, unit));
        let device = device_text(process.started, machine.as_deref());
        let taps = Texts::new(&process.taps).unwrap_or_default();
        let taps = taps.iter().map(|tap| std::str::from_utf8(tap).unwrap_or_default());
        let networks = self.machine.arguments(slot).into_iter().flat_map(|arguments| arguments.bridges.iter());
        let taps = networks.zip(taps).map(|(network, tap)| Tap { bridge: network.name, tap });
        let taps: heapless::Vec<Tap<'_>, DEVICES_MAX> = taps.take(DEVICES_MAX).collect();
        let add = StatsCommand::Add { device: &device, pid: process.pid.into(), taps: List::Items(&taps) };
        link.say(name, add)
    }

    /// A unit runs.
    pub(super) fn add_stats(&mut self, unit: Unit, pid: u32, started: u64, taps: Texts<'_>) {
        if self.stats.processes.len() >= UNITS_MAX {
            return warning!(unit = unit.0; "unit {}: there are {UNITS_MAX} processes already, this one is not measured", unit.0);
        }
        let taps = taps.as_bytes().into();
        self.stats.processes.insert(unit, Process { pid, started, taps });
        if self.stats.is_due(unit) && !self.tell_stats(unit) {
            return self.hang_up_on_stats();
        }
        self.serve_stats();
    }

    /// A unit has ended.
    pub(super) fn drop_stats(&mut self, unit: Unit) {
        if self.stats.processes.remove(&unit).is_none() || !self.stats.is_due(unit) {
            return;
        }
        let name = self.machine.find_unit(unit).map(|(_, unikernel)| *unikernel.name());
        if name.is_some_and(|name| !self.stats.link.say(name, StatsCommand::Remove)) {
            return self.hang_up_on_stats();
        }
        self.serve_stats();
    }
}
