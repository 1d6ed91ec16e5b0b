//! Destroying, and all the ways in which a slot becomes free.

use super::outcome::JournalError;
use super::refusal::Refusal;
use super::unikernel::{Again, Life, Stage, Stop};
use super::{Change, Done, Effect, Machine, Now, Reply, Waiting};
use crate::halves::Unit;
use crate::limits::{REST_MS_MAX, STOP_MS_MAX};
use crate::name::Name;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    pub(super) fn destroy(&mut self, connection: u16, name: &Name) {
        let Some((slot, unikernel)) = self.find(name) else {
            return self.refuse(connection, Refusal::DestroyNotFound);
        };
        match unikernel.stage {
            Stage::Kept if self.unikernels.find_successor(name).is_some() => self.refuse(connection, Refusal::Busy),
            Stage::Kept => {
                self.end_restart(slot, Reply::Refused(Refusal::Destroyed));
                self.wait(connection, Waiting::Unikernel(slot));
                self.begin_drop(slot);
            }
            Stage::Dropping | Stage::Dropped => self.wait(connection, Waiting::Unikernel(slot)),
            Stage::Free | Stage::Storing | Stage::Waiting | Stage::Creating | Stage::Recording | Stage::Failed(_) => {
                self.refuse(connection, Refusal::Busy);
            }
        }
    }

    /// No longer desired: that is made durable first.
    pub(super) fn begin_drop(&mut self, slot: u16) {
        self.set_again(slot, Again::Never);
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.stage = Stage::Dropping;
            self.effect(Effect::Append(Change::UnikernelGone(slot)));
        }
    }

    /// The removal of the record is durable, or it is not.
    pub(super) fn dropped(&mut self, now: Now, slot: u16, outcome: Result<(), JournalError>) {
        let Some(unikernel) = self.unikernels.get_mut(slot).filter(|it| it.stage == Stage::Dropping) else { return };
        let life = unikernel.life;
        match outcome {
            Ok(()) => {
                unikernel.stage = Stage::Dropped;
                match life {
                    Life::None => self.free(now, slot, Reply::Done(Done::DestroyedUnikernel)),
                    Life::Launching => {}
                    Life::Alive => self.stop(now, slot),
                }
            }
            Err(error) => {
                unikernel.stage = Stage::Kept;
                let over = unikernel.over;
                self.answer_all(Waiting::Unikernel(slot), Reply::Refused(Refusal::Journal(error)));
                if life == Life::None {
                    // It stays desired. One that has ended for good must not run again: only its record is left to go.
                    let at = now.ms.saturating_add(REST_MS_MAX);
                    self.set_again(slot, if over { Again::Drop(at) } else { Again::Launch(at) });
                    self.effect(Effect::Rest { slot });
                }
            }
        }
    }

    /// Asks the process to end, and sets the time after which it is not asked any more.
    pub(super) fn stop(&mut self, now: Now, slot: u16) {
        if let Some(unit) = self.unikernels.get(slot).map(|unikernel| Unit(unikernel.unit)) {
            self.effect(Effect::Signal { unit, kill: false });
            self.await_end(now, slot);
        }
    }

    /// The process has been asked to end: sets the time after which it is not asked any more.
    pub(super) fn await_end(&mut self, now: Now, slot: u16) {
        let at = now.ms.saturating_add(STOP_MS_MAX);
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.stop = Stop::Terminating(at);
            self.set_alarm(at);
        }
    }

    /// Ends the process at once.
    pub(super) fn kill(&mut self, slot: u16) {
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.stop = Stop::Killing;
            let unit = Unit(unikernel.unit);
            self.effect(Effect::Signal { unit, kill: true });
        }
    }

    /// A creation has failed: undo what it did, then say why.
    pub(super) fn fail(&mut self, now: Now, slot: u16, refusal: Refusal) {
        let Some(unikernel) = self.unikernels.get_mut(slot) else { return };
        unikernel.stage = Stage::Failed(refusal);
        match unikernel.life {
            Life::None => self.free(now, slot, Reply::Refused(refusal)),
            Life::Launching | Life::Alive => self.kill(slot),
        }
    }

    /// The slot is free: everything that it held is given back, and whoever waits is told.
    pub(super) fn free(&mut self, now: Now, slot: u16, reply: Reply) {
        self.answer_all(Waiting::Unikernel(slot), reply);
        let Some((name, successor)) = self.unikernels.get(slot).map(|it| (it.name, it.successor)) else { return };
        self.give_back(slot);
        if successor {
            self.resume(now, &name);
        }
    }

    /// Empties a slot and gives back everything that it held.
    pub(super) fn give_back(&mut self, slot: u16) {
        self.set_again(slot, Again::Never);
        let Some(unikernel) = self.unikernels.get(slot) else { return };
        let (name, usage) = (unikernel.name, unikernel.usage());
        let (charged, digest) = (unikernel.charged, unikernel.digest().copied());
        self.let_go_of_blocks(slot);
        self.discard(slot);
        if charged {
            self.ledger.release(&name, usage);
        }
        if let Some(digest) = digest
            && !self.uses(&digest)
            && self.releases.push(digest).is_err()
        {
            self.collect = true;
        }
    }

    /// Empties a slot and its place in the arena.
    pub(super) fn discard(&mut self, slot: u16) {
        let Some(span) = self.unikernels.get(slot).map(|unikernel| unikernel.span) else { return };
        self.unikernels.remove(slot);
        self.arena.remove(span);
        for other in self.unikernels.records_mut() {
            other.span.shift(span);
        }
    }
}
