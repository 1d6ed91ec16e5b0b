//! The channel to the host half. What does not fit the channel now waits in the order in which it was asked for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use fulmar_core::halves::{Answer, Request, Signal, SignalOutcome, Status, Unit};
use fulmar_core::limits::CHANNEL_BYTES_MAX;
use fulmar_core::machine::{Exit, Input, Life};
use fulmar_core::name::Name;
use fulmar_core::policy::{Bridge, Bridges};
use fulmar_host::channel::{Channel, ReceivedFds};
use fulmar_host::error;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::Control;

/// Something to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asking {
    /// The launch of this slot.
    Launch(u16),
    /// A signal.
    Signal(Unit, Signal),
    /// Which bridges there are.
    Bridges,
    /// To keep nothing more of a unit that has ended.
    Forget(Unit),
    /// How many files it has open.
    Files,
    /// To note that we serve.
    Serving,
}

/// Our end of the channel.
pub(super) struct HostLink {
    pub(super) channel: Channel,
    pub(super) waiting: VecDeque<Asking>,
    /// Where requests are made, and where answers arrive.
    pub(super) packet: Vec<u8>,
    pub(super) answer: Vec<u8>,
}

impl HostLink {
    pub(super) fn new(channel: Channel) -> Self {
        let packet = || vec![0; CHANNEL_BYTES_MAX];
        Self { channel, waiting: VecDeque::with_capacity(256), packet: packet(), answer: packet() }
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&self.channel.as_fd().as_raw_fd()), token, interest)
    }

    /// Sends a request without fds. Whether it went; nothing where the host half is gone (its end is seen when reading).
    fn send(&mut self, request: &Request<'_>) -> bool {
        let Ok(packet) = request.encode(&mut self.packet) else { return true };
        !matches!(self.channel.send(packet, &[]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Control<'_> {
    /// Asks, in order, as much as the channel takes.
    pub(super) fn ask(&mut self, asking: Asking) {
        self.host.waiting.push_back(asking);
        self.ask_on();
    }

    /// As [`Control::ask`], of what waits.
    pub(super) fn ask_on(&mut self) {
        while let Some(asking) = self.host.waiting.front().copied() {
            let went = match asking {
                Asking::Launch(slot) => self.launch(slot),
                Asking::Signal(unit, signal) => self.host.send(&Request::Signal { unit, signal }),
                Asking::Bridges => self.host.send(&Request::Bridges),
                Asking::Files => self.host.send(&Request::Files),
                Asking::Serving => {
                    let (running, desired) = self.count_unikernels();
                    self.host.send(&Request::Serving { running, desired })
                }
                Asking::Forget(unit) => self.host.send(&Request::Forget { unit }),
            };
            if !went {
                return;
            }
            self.host.waiting.pop_front();
        }
    }

    /// How many unikernels run, and how many are to.
    fn count_unikernels(&self) -> (u16, u16) {
        let (mut running, mut desired) = (0_u16, 0_u16);
        for (_, unikernel) in self.machine.unikernels() {
            desired += 1;
            running += u16::from(unikernel.life() == Life::Alive);
        }
        (running, desired)
    }

    /// Takes in all that the host half says. `false` when it is gone.
    pub(super) fn hear(&mut self) -> io::Result<bool> {
        let mut fds = ReceivedFds::default();
        // Out of `self` while the answer borrows it.
        let mut buffer = std::mem::take(&mut self.host.answer);
        let gone = loop {
            match self.host.channel.receive(&mut buffer, &mut fds) {
                Ok(Some(packet)) => match Answer::decode(packet) {
                    Ok(answer) => self.answer(answer),
                    Err(error) => break Err(io::Error::other(error)),
                },
                Ok(None) => break Ok(false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.host.answer = buffer;
        gone
    }

    fn answer(&mut self, answer: Answer<'_>) {
        match answer {
            Answer::Launched { unit, pid, started, taps } => {
                self.tell_launched(unit, pid, taps);
                self.add_stats(unit, pid, started, taps);
                self.handle(Input::Launched { unit, outcome: Ok(()) });
            }
            Answer::LaunchFailed { unit, error } => {
                self.tell_unit_trouble(unit, format_args!("could not be launched: {error}"));
                self.drop_fifo(unit);
                self.handle(Input::Launched { unit, outcome: Err(error) });
            }
            Answer::Exited { unit, status, record } => {
                let exit = exit_of(record.complete(status));
                self.tell_ended(unit, exit);
                self.drop_fifo(unit);
                self.drop_stats(unit);
                let undecided = self.is_undecided(unit);
                self.handle(Input::Exited { unit, exit });
                if undecided {
                    self.tell_decision(unit);
                }
                self.forget(unit);
            }
            Answer::Signalled { unit, outcome: SignalOutcome::Failed(error) } => {
                self.tell_unit_trouble(unit, format_args!("{error}"));
            }
            Answer::Signalled { .. } => {}
            Answer::Bridges(bridges) => {
                let bridges = collect_bridges(bridges.iter());
                if bridges != self.root.bridges {
                    self.root.bridges = bridges;
                    let (root, tenders) = (self.root.clone(), self.tenders);
                    self.handle(Input::Host { root: &root, tenders });
                }
            }
            Answer::Files { open, limit } => self.tell_of_host(open, limit),
            Answer::SurveyFailed(error) => self.tell_trouble(Name::ROOT, format_args!("{error}")),
            Answer::Adopted { .. } | Answer::Ended { .. } | Answer::Host(_) => {
                error!("the host half answered what was not asked")
            }
        }
    }

    /// Lets the host half forget how this unit ended, once the machine knows nothing of it any more: what followed from its end
    /// is durable then.
    pub(super) fn forget(&mut self, unit: Unit) {
        if self.machine.find_unit(unit).is_none() {
            self.ask(Asking::Forget(unit));
        }
    }
}

/// An end as the machine knows it.
pub(super) fn exit_of(status: Status) -> Exit {
    match status {
        Status::Code(code) => Exit::Code(code),
        Status::Signal(signal) => Exit::Signal(signal),
        Status::OutOfMemory => Exit::OutOfMemory,
        Status::Unknown => Exit::Unknown,
    }
}

/// The bridges that a policy can name, as many as it can.
pub(super) fn collect_bridges<'a>(names: impl Iterator<Item = &'a [u8]>) -> Bridges {
    let mut bridges = Bridges::EMPTY;
    for bridge in names.filter_map(|name| Bridge::new(name).ok()) {
        if bridges.insert(bridge).is_err() {
            break;
        }
    }
    bridges
}
