//! What is worth an event, and who asked for it. Each is a line of the daemon's own log and goes to the event log, by one way:
//! [`Control::tell`]. Nothing here changes what is done.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use fulmar_core::halves::{Texts, Unit};
use fulmar_core::journal::Record;
use fulmar_core::limits::{
    CONNECTIONS_MAX, DEVICES_MAX, EVENT_REFUSALS_PER_MINUTE_MAX, EVENT_TEXT_BYTES_MAX, UNITS_MAX,
};
use fulmar_core::machine::{Again, Change, Exit, Life, Refusal, Stage, Unikernel};
use fulmar_core::name::Name;
use fulmar_core::wire::{
    BlockCommand, Command, Deed, Event, List, Loss, Next, PolicyCommand, RunEnd, Text, UnikernelCommand,
};
use fulmar_host::debug;
use fulmar_host::log::{Level, keys, line};
use fulmar_host::socket::peer_uid;

use super::Control;
use super::connections::Connection;

const MINUTE_MS: u64 = 60_000;

/// Commands under way that are remembered; a client that is gone leaves one behind until the same is asked for again.
const ASKED_MAX: usize = 2 * CONNECTIONS_MAX;

/// A change that a client has asked for.
struct Asked {
    connection: u16,
    serial: u32,
    name: Name,
    deed: Deed,
    uid: Option<u32>,
    /// Whether the client is gone: nobody will be answered.
    is_gone: bool,
}

/// What is kept for the sake of events.
pub(super) struct Events {
    asked: VecDeque<Asked>,
    /// Processes by their units.
    pids: HashMap<u64, u32>,
    /// The minute in which refusals are counted, and how many there were.
    minute_ms: u64,
    refusals: u64,
}

impl Events {
    /// Takes all the memory that it will ever have.
    pub(super) fn new() -> Self {
        Self {
            asked: VecDeque::with_capacity(ASKED_MAX),
            pids: HashMap::with_capacity(UNITS_MAX),
            minute_ms: 0,
            refusals: 0,
        }
    }

    /// This process is that of a unit.
    pub(super) fn note_pid(&mut self, unit: Unit, pid: u32) {
        if self.pids.len() < UNITS_MAX {
            self.pids.insert(unit.0, pid);
        }
    }

    /// A client asks for this.
    pub(super) fn note_command(&mut self, index: u16, of: &Connection, name: &Name, command: &Command<'_>) {
        let Some(deed) = deed_of(command) else { return };
        // One that asked for the same, is gone, and came to nothing.
        self.asked.retain(|asked| !(asked.is_gone && asked.deed == deed && asked.name == *name));
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        let uid = of.stream.as_ref().and_then(|stream| peer_uid(stream).ok());
        let (connection, serial) = (index, of.serial);
        self.asked.push_back(Asked { connection, serial, name: *name, deed, uid, is_gone: false });
    }

    /// A client is gone; what it asked for goes on.
    pub(super) fn note_gone(&mut self, index: u16, serial: u32) {
        for asked in &mut self.asked {
            asked.is_gone |= asked.connection == index && asked.serial == serial;
        }
    }

    /// Who had asked for this, if somebody had.
    fn take_asked(&mut self, name: &Name, deed: Deed) -> Option<Asked> {
        let at = self.asked.iter().position(|asked| asked.deed == deed && asked.name == *name)?;
        self.asked.remove(at)
    }
}

/// A text as long as an event's can be.
type EventText = heapless::String<EVENT_TEXT_BYTES_MAX>;

fn text(arguments: fmt::Arguments<'_>) -> EventText {
    let mut text = EventText::new();
    // What does not fit is cut.
    let _ = fmt::write(&mut text, arguments);
    text
}

/// What a command is to change, if it is to change something.
fn deed_of(command: &Command<'_>) -> Option<Deed> {
    match command {
        Command::Unikernel(
            UnikernelCommand::Create(_) | UnikernelCommand::ForceCreate(_) | UnikernelCommand::Restart(Some(_)),
        ) => Some(Deed::CreatedUnikernel),
        Command::Unikernel(UnikernelCommand::Restart(None)) => Some(Deed::RestartedUnikernel),
        Command::Unikernel(UnikernelCommand::Destroy) => Some(Deed::DestroyedUnikernel),
        Command::Policy(PolicyCommand::Add(_) | PolicyCommand::Chain(_)) => Some(Deed::AddedPolicy),
        Command::Policy(PolicyCommand::Remove) => Some(Deed::RemovedPolicy),
        Command::Block(BlockCommand::Add { .. } | BlockCommand::OldAdd { .. }) => Some(Deed::AddedBlock),
        Command::Block(BlockCommand::Remove) => Some(Deed::RemovedBlock),
        Command::Block(BlockCommand::Set { .. } | BlockCommand::OldSet { .. }) => Some(Deed::SetBlock),
        _ => None,
    }
}

/// An end as the log has it.
pub(super) fn run_end(exit: Exit) -> RunEnd {
    match exit {
        Exit::Code(code) => RunEnd::Code(code.into()),
        Exit::Signal(signal) => RunEnd::Signal(signal.into()),
        Exit::OutOfMemory => RunEnd::OutOfMemory,
        Exit::Unknown => RunEnd::Unknown,
    }
}

/// A line of the daemon's own log.
fn tell_people(event: &Event<'_>) {
    let level = match event {
        Event::Trouble { .. } | Event::Lost { .. } => Level::Error,
        Event::Ended { asked: false, .. } | Event::Decided { .. } => Level::Warning,
        _ => Level::Info,
    };
    match event.name() {
        Some(name) => line(level, &[(keys::name, &name)], format_args!("{event}")),
        None => line(level, &[], format_args!("{event}")),
    }
}

impl Control<'_> {
    /// Something has happened.
    pub(super) fn tell(&mut self, event: &Event<'_>) {
        tell_people(event);
        self.record(event);
    }

    /// As [`Control::tell`] where the daemon's own log has said it in other words.
    pub(super) fn record(&mut self, event: &Event<'_>) {
        self.begin_minute();
        self.log_link.push(self.now.wall_ms, event);
    }

    /// Where another minute has begun, tells how many refusals of the last one were not told.
    fn begin_minute(&mut self) {
        let (unix_ms, now_ms) = (self.now.wall_ms, self.now.ms);
        if now_ms.saturating_sub(self.events.minute_ms) < MINUTE_MS {
            return;
        }
        self.events.minute_ms = now_ms;
        let refusals = std::mem::take(&mut self.events.refusals);
        if let Some(more) = refusals.checked_sub(EVENT_REFUSALS_PER_MINUTE_MAX).filter(|more| *more > 0) {
            let count = i64::try_from(more).unwrap_or(i64::MAX);
            self.log_link.push(unix_ms, &Event::Lost { count, loss: Loss::Refusals });
        }
    }

    /// That `vmmd` has come up, or ends.
    pub(super) fn tell_daemon(&mut self, up: bool) {
        self.tell(&Event::Daemon { program: "vmmd", version: env!("CARGO_PKG_VERSION"), up });
    }

    /// What a client asked for, now that it is answered; nothing where that was no change, or one that was told of.
    fn take_answered(&mut self, index: u16) -> Option<Asked> {
        let serial = self.connections.get(index).serial;
        let is_its = |asked: &Asked| asked.connection == index && asked.serial == serial;
        let at = self.events.asked.iter().position(is_its)?;
        self.events.asked.remove(at)
    }

    /// A client is told that it is done. Changes were told of when they were durable; a restart changes nothing that is.
    pub(super) fn tell_done(&mut self, index: u16) {
        if let Some(Asked { name, deed: Deed::RestartedUnikernel, uid, .. }) = self.take_answered(index) {
            self.tell(&Event::Done { name, deed: Deed::RestartedUnikernel, user: uid.map(i64::from) });
        }
    }

    /// A client is told that it is refused. Refused questions are no events.
    pub(super) fn tell_refused(&mut self, index: u16, name: &Name, refusal: &Refusal) {
        let reason = text(format_args!("{}", refusal.to_whom(name)));
        match self.take_answered(index) {
            Some(asked) => self.tell_refusal(name, &reason, asked.uid),
            None => debug!(name = name; "{name}: refused: {reason}"),
        }
    }

    /// What a client sent with its command is refused, before the machine was asked.
    pub(super) fn tell_image_refused(&mut self, index: u16, name: &Name, error: &dyn fmt::Display) {
        let uid = self.connections.get(index).stream.as_ref().and_then(|stream| peer_uid(stream).ok());
        self.tell_refusal(name, &text(format_args!("{error}")), uid);
    }

    fn tell_refusal(&mut self, name: &Name, reason: &str, uid: Option<u32>) {
        let event = Event::Refused { name: *name, reason: reason.into(), user: uid.map(i64::from) };
        self.begin_minute();
        self.events.refusals += 1;
        if self.events.refusals <= EVENT_REFUSALS_PER_MINUTE_MAX {
            self.tell(&event);
        } else {
            tell_people(&event);
        }
    }

    /// A change is durable: who had asked for it?
    pub(super) fn tell_appended(&mut self, change: Change) {
        let Some(record) = self.machine.record(change, &mut self.appends.policy) else { return };
        let (name, deed) = match record {
            Record::Unikernel { name, .. } => (name, Deed::CreatedUnikernel),
            Record::UnikernelGone { name } => (name, Deed::DestroyedUnikernel),
            Record::Policy { path, .. } => (path, Deed::AddedPolicy),
            Record::PolicyGone { path } => (path, Deed::RemovedPolicy),
            Record::Block { name, .. } => (name, Deed::AddedBlock),
            Record::BlockGone { name } => (name, Deed::RemovedBlock),
        };
        let Ok(name) = Name::parse(name) else { return };
        self.tell_deed(name, deed);
    }

    /// A block device has its new content.
    pub(super) fn tell_content_set(&mut self, slot: u16) {
        if let Some(name) = self.machine.block(slot).map(|block| *block.name()) {
            self.tell_deed(name, Deed::SetBlock);
        }
    }

    /// What nobody had asked for is no deed: the record of a unikernel that has ended goes too.
    fn tell_deed(&mut self, name: Name, deed: Deed) {
        if let Some(asked) = self.events.take_asked(&name, deed) {
            self.tell(&Event::Done { name, deed, user: asked.uid.map(i64::from) });
        }
    }

    /// A unit was launched.
    pub(super) fn tell_launched(&mut self, unit: Unit, pid: u32, taps: Texts<'_>) {
        self.events.note_pid(unit, pid);
        let Some(name) = self.machine.find_unit(unit).map(|(_, unikernel)| *unikernel.name()) else { return };
        let taps = taps.iter().filter_map(|tap| std::str::from_utf8(tap).ok());
        let taps: heapless::Vec<&str, DEVICES_MAX> = taps.take(DEVICES_MAX).collect();
        self.tell(&Event::Start { name, pid: pid.into(), taps: List::Items(&taps), block: None });
    }

    /// A unit has ended; to be said before the machine is told.
    pub(super) fn tell_ended(&mut self, unit: Unit, exit: Exit) {
        let pid = self.events.pids.remove(&unit.0).unwrap_or(0);
        let Some((_, unikernel)) = self.machine.find_unit(unit) else { return };
        let (name, asked) = (*unikernel.name(), unikernel.is_stopping());
        self.tell(&Event::Ended { name, pid: pid.into(), end: run_end(exit), asked });
    }

    /// Whether what follows from the end of this unit is decided by the next input.
    pub(super) fn is_undecided(&self, unit: Unit) -> bool {
        let unikernel = self.machine.find_unit(unit).map(|(_, unikernel)| unikernel);
        unikernel.is_some_and(|it| matches!(it.stage(), Stage::Kept | Stage::Recording) && !it.is_stopping())
    }

    /// What the machine has decided about a unit that has ended. A rest is told by [`Control::tell_rest`].
    pub(super) fn tell_decision(&mut self, unit: Unit) {
        let Some((_, unikernel)) = self.machine.find_unit(unit) else { return };
        let next = match (unikernel.stage(), unikernel.life(), unikernel.again()) {
            (Stage::Dropping, Life::None, _) => Next::Never,
            (Stage::Kept, Life::Launching, _) | (Stage::Kept, Life::None, Again::Queued) => {
                Next::Again { restarts: unikernel.restarts().into() }
            }
            _ => return,
        };
        let (name, reason) = (*unikernel.name(), text(format_args!("{}", unikernel.trouble())));
        self.tell(&Event::Decided { name, next, reason: reason.as_str().into() });
    }

    /// A desired unikernel does not run now.
    pub(super) fn tell_rest(&mut self, slot: u16) {
        let Some(unikernel) = self.machine.unikernel(slot) else { return };
        let next = self.rest_of(unikernel);
        let (name, reason) = (*unikernel.name(), text(format_args!("{}", unikernel.trouble())));
        self.tell(&Event::Decided { name, next, reason: reason.as_str().into() });
    }

    fn rest_of(&self, unikernel: &Unikernel) -> Next {
        match unikernel.again() {
            Again::Launch(at) | Again::Drop(at) => {
                let seconds = at.saturating_sub(self.now.ms).div_ceil(1000);
                Next::Rest {
                    seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
                    failures: unikernel.failures().into(),
                }
            }
            Again::Never | Again::Queued | Again::Undecided => Next::Stays,
        }
    }

    /// Something about a unit went wrong.
    pub(super) fn tell_unit_trouble(&mut self, unit: Unit, arguments: fmt::Arguments<'_>) {
        if let Some(name) = self.machine.find_unit(unit).map(|(_, unikernel)| *unikernel.name()) {
            self.tell_trouble(name, arguments);
        }
    }

    /// Something went wrong.
    pub(super) fn tell_trouble(&mut self, name: Name, arguments: fmt::Arguments<'_>) {
        let reason = text(arguments);
        self.tell(&Event::Trouble { name, reason: Text(reason.as_bytes()) });
    }
}
