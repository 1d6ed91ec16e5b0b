//! What the machine wants done, and what comes of it. Nothing here has an opinion.

use fulmar_core::halves::{Attempt, LaunchError, OsError, Request, Signal, Tender, Unit};
use fulmar_core::limits::CHANNEL_FDS_MAX;
use fulmar_core::machine::{Change, Digest, Effect, Input, Life, Stage, StoredImage, Unikernel};
use fulmar_core::name::Name;
use fulmar_host::error;
use fulmar_host::store;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Control;
use super::host::Asking;
use super::worker::{FileJob, Outcome, errno};

impl Control<'_> {
    /// Tells the machine and does what it says.
    pub(super) fn handle(&mut self, input: Input<'_>) {
        self.machine.handle(self.now, input);
        self.drain();
    }

    /// Does what the machine says.
    pub(super) fn drain(&mut self) {
        loop {
            while let Some(effect) = self.machine.next_effect() {
                self.act(effect);
            }
            let Some((unit, error)) = self.stillborn.pop_front() else { return };
            self.machine.handle(self.now, Input::Launched { unit, outcome: Err(error) });
        }
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { connection } => self.reply(connection),
            Effect::Store { slot } => self.store(slot),
            Effect::Inspect { slot } => {
                if let Some(digest) = self.machine.unikernel(slot).and_then(|unikernel| unikernel.digest()) {
                    self.worker.file(FileJob::Inspect { slot, digest: *digest });
                }
            }
            Effect::Release { digest } => self.worker.file(FileJob::Release(digest)),
            Effect::Collect => {
                let mut wanted: Vec<Digest> =
                    self.machine.unikernels().filter_map(|(_, unikernel)| unikernel.digest().copied()).collect();
                wanted.sort_unstable();
                self.worker.file(FileJob::Collect(wanted));
            }
            Effect::MakeBlock { slot, content: Some(content) } => self.make_block_of(slot, content),
            Effect::SetContent { slot, source } => self.set_content(slot, source),
            Effect::MakeBlock { slot, content: None } => {
                if let Some(block) = self.machine.block(slot) {
                    self.worker.file(FileJob::MakeBlock { slot, name: *block.name(), bytes: block.bytes() });
                }
            }
            Effect::RemoveBlock { slot } => {
                if let Some(block) = self.machine.block(slot) {
                    self.worker.file(FileJob::RemoveBlock { slot, name: *block.name() });
                }
            }
            Effect::Launch { slot } => self.ask(Asking::Launch(slot)),
            Effect::Append(change) => self.append(change),
            Effect::Signal { unit, kill } => {
                self.ask(Asking::Signal(unit, if kill { Signal::Kill } else { Signal::Terminate }));
            }
            Effect::Rest { slot } => {
                self.tell_rest(slot);
            }
        }
    }

    fn store(&mut self, slot: u16) {
        let Some(unikernel) = self.machine.unikernel(slot) else { return };
        let connection = u16::try_from(unikernel.spool()).unwrap_or(u16::MAX);
        let client = self.connections.get(connection);
        // The machine was given it by this connection in the input that it now answers.
        if let Some(spool) = client.spool.take() {
            let compressed = client.compressed;
            self.worker.file(FileJob::Store { slot, spool, compressed });
        }
    }

    fn append(&mut self, change: Change) {
        let Some(record) = self.machine.record(change, &mut self.appends.policy) else {
            return error!("a change without a record: {change:?}");
        };
        match self.appends.filling.push(&record) {
            Ok(()) => {
                self.appends.changes.push(change);
                self.retire_block(change);
            }
            Err(error) => error!("{error}"),
        }
    }

    /// Sends the records of this turn to the disk, all at once, unless others are still under way.
    pub(super) fn commit(&mut self) {
        if self.appends.filling.is_empty() {
            return;
        }
        if let Some(spare) = self.appends.spare.take() {
            let batch = std::mem::replace(&mut self.appends.filling, spare);
            std::mem::swap(&mut self.appends.changes, &mut self.appends.under_way);
            self.worker.append(batch);
        }
    }

    /// Takes in what the disk's thread has done.
    pub(super) fn collect_outcomes(&mut self) {
        while let Some(outcome) = self.worker.next_outcome() {
            match outcome {
                Outcome::Appended(batch, outcome) => {
                    self.appends.spare = Some(batch);
                    let mut changes = std::mem::take(&mut self.appends.under_way);
                    for change in changes.drain(..) {
                        let gone = match change {
                            Change::UnikernelGone(slot) => self.machine.unikernel(slot),
                            // The one whose place this takes, if there is one.
                            Change::Unikernel(slot) => {
                                self.machine.unikernel(slot).and_then(|it| self.desired(it.name()))
                            }
                            _ => None,
                        };
                        let gone = gone.map(|unikernel| Unit(unikernel.unit()));
                        match outcome {
                            Ok(()) => self.tell_appended(change),
                            Err(_) => self.reinstate_block(change),
                        }
                        // One that ended before it was recorded: what follows is decided now.
                        let created = match change {
                            Change::Unikernel(slot) => self.machine.unikernel(slot),
                            _ => None,
                        };
                        let ended = created.filter(|it| it.stage() == Stage::Recording && it.life() == Life::None);
                        let ended = ended.map(|unikernel| Unit(unikernel.unit()));
                        self.handle(Input::Appended { change, outcome });
                        if let Some(unit) = ended {
                            self.tell_decision(unit);
                        }
                        if let Some(unit) = gone {
                            self.forget(unit);
                        }
                    }
                    self.appends.under_way = changes;
                }
                Outcome::Stored(slot, Ok(stored)) => {
                    let image = StoredImage { digest: stored.digest, bytes: stored.bytes, facts: &stored.facts };
                    self.handle(Input::Stored { slot, outcome: Ok(image) });
                }
                Outcome::Stored(slot, Err(error)) => self.handle(Input::Stored { slot, outcome: Err(error) }),
                Outcome::BlockMade(slot, outcome) => self.handle(Input::BlockMade { slot, outcome }),
                Outcome::BlockRemoved(slot) => self.handle(Input::BlockRemoved { slot }),
                Outcome::Compressed(connection, serial, compressed) => self.compressed(connection, serial, compressed),
                Outcome::Transferred(transferred) => self.transferred(transferred),
            }
        }
    }

    fn desired(&self, name: &Name) -> Option<&Unikernel> {
        self.machine.find(name).map(|(_, unikernel)| unikernel)
    }

    /// Asks for the launch of this slot. `false` when the channel is full: to be called again.
    pub(super) fn launch(&mut self, slot: u16) -> bool {
        let Some(unikernel) = self.machine.unikernel(slot) else { return true };
        let (unit, name) = (Unit(unikernel.unit()), *unikernel.name());
        let opened = match unikernel.digest() {
            // It boots from its disk.
            None if unikernel.tender() == Tender::Bhyve => Ok(None),
            None => Err(store::StoreError::Missing),
            Some(digest) => store::open(&*self.images, digest).map(Some),
        };
        let image = match opened {
            Ok(image) => image,
            Err(error) => {
                error!(name = name, unit = unit.0; "{name}: {error}");
                let missing = nix::errno::Errno::ENOENT as i32;
                self.stillborn(unit, if let store::StoreError::Io(_, error) = error { errno(&error) } else { missing });
                return true;
            }
        };
        let blocks = match self.open_blocks(slot) {
            Ok(blocks) => blocks,
            Err(error) => {
                self.stillborn.push_back((unit, error));
                return true;
            }
        };
        let console = match self.console.fifos.make(&name) {
            Ok(fifo) => fifo,
            Err(error) => {
                error!(name = name, unit = unit.0; "{name}: could not make its fifo: {error}");
                self.stillborn(unit, errno(&error));
                return true;
            }
        };
        let Some(plan) = self.machine.launch_plan(slot, &mut self.plan) else { return true };
        let Ok(packet) = Request::Launch(plan).encode(&mut self.host.packet) else {
            self.stillborn.push_back((unit, LaunchError::Arguments));
            return true;
        };
        let mut fds = heapless::Vec::<BorrowedFd<'_>, CHANNEL_FDS_MAX>::new();
        // The bound is that of a plan with all its devices.
        let _ = fds.push(console.as_fd());
        fds.extend(image.iter().map(AsFd::as_fd));
        fds.extend(blocks.iter().map(AsFd::as_fd));
        let sent = self.host.channel.send(packet, &fds);
        drop(fds);
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // Too many descriptors on their way, say: nobody will answer what did not go.
            Err(error) if !is_gone(&error) => {
                error!(name = name, unit = unit.0; "{name}: could not ask the host half to launch it: {error}");
                self.drop_fifo(unit);
                self.stillborn(unit, errno(&error));
                true
            }
            // When the host half is gone that is seen when it is read from.
            _ => {
                self.add_console(unit, &name, console);
                true
            }
        }
    }

    fn stillborn(&mut self, unit: Unit, errno: i32) {
        self.stillborn.push_back((unit, LaunchError::Os(OsError { attempt: Attempt::PrepareProcess, errno })));
    }
}

/// Whether this says that the other half is gone.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}
