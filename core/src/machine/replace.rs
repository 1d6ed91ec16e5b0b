//! One unikernel takes the place of another of the same name, and unikernels are started anew.
//!
//! Until the record of the new one is durable the old one is what is desired: whatever fails before, the old one runs
//! again. So everything that can be checked is checked while the old one still runs; then it is stopped, the new one is
//! launched and recorded, and only then is the old one forgotten.
//!
//! ```text
//!  new:  Storing ── Waiting ────────────── Creating ── Recording ── Kept
//!  old:  Kept, Alive ── SIGTERM ── exit ───────────────────────────── gone
//! ```
//! The two share the charge of the old one and its block devices: at no time do they take more than the larger of them.

use super::bhyve::kind_of;
use super::create::Wanted;
use super::outcome::{JournalError, Trouble};
use super::refusal::Refusal;
use super::unikernel::{Again, Life, Stage, Stop, Unikernel};
use super::{Effect, Machine, Now, Reply, Spooled, Waiting};
use crate::name::Name;
use crate::wire::{Arguments, Config};

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// Creates a unikernel in place of the one that may be there.
    pub(super) fn force_create(
        &mut self,
        now: Now,
        connection: u16,
        name: &Name,
        config: &Config<'_>,
        image: Option<Spooled>,
    ) {
        let Some(old) = self.unikernels.find(name) else { return self.create(now, connection, name, config, image) };
        let wanted = Wanted { kind: config.kind, arguments: &config.arguments, image };
        let admitted = self.admit_successor(name, wanted, old);
        self.store_admitted(now, connection, admitted);
    }

    /// Starts a unikernel anew with other arguments.
    pub(super) fn restart_with(&mut self, now: Now, connection: u16, name: &Name, arguments: &Arguments<'_>) {
        let Some((old, unikernel)) = self.find(name) else {
            return self.refuse(connection, if name.is_path() { Refusal::Path } else { Refusal::RestartNotFound });
        };
        let (digest, image_bytes) = (unikernel.digest, unikernel.image_bytes);
        // The image is in the store: what is not spooled needs no spool.
        let wanted = Wanted { kind: kind_of(unikernel.tender), arguments, image: Some(Spooled { spool: 0 }) };
        match self.admit_successor(name, wanted, old) {
            Ok(slot) if self.is_machine(slot) => self.store_admitted(now, connection, Ok(slot)),
            Ok(slot) => {
                if let Some(unikernel) = self.unikernels.get_mut(slot) {
                    unikernel.stored = true;
                    unikernel.digest = digest;
                    unikernel.image_bytes = image_bytes;
                }
                self.wait(connection, Waiting::Unikernel(slot));
                self.storing = self.storing.saturating_add(1);
                self.effect(Effect::Inspect { slot });
            }
            Err(refusal) => self.refuse(connection, refusal),
        }
    }

    /// Whether nothing else is being done about a unikernel that is desired.
    fn is_settled(&self, slot: u16) -> bool {
        let settled = self.unikernels.get(slot).filter(|it| it.stage == Stage::Kept && !it.restarting);
        settled.is_some_and(|unikernel| self.unikernels.find_successor(&unikernel.name).is_none())
    }

    fn admit_successor(&mut self, name: &Name, wanted: Wanted<'_>, old: u16) -> Result<u16, Refusal> {
        if !self.is_settled(old) {
            return Err(Refusal::Busy);
        }
        let slot = self.admit(name, wanted, Some(old))?;
        // If it does not run now, it does not begin to any more: what is queued would only have to be stopped. But one that
        // has ended for good must not run again either.
        let over = self.unikernels.get(old).is_some_and(|unikernel| matches!(unikernel.again, Again::Drop(_)));
        self.set_again(old, if over { Again::Undecided } else { Again::Never });
        Ok(slot)
    }

    /// Starts a unikernel anew as it is.
    pub(super) fn restart(&mut self, now: Now, connection: u16, name: &Name) {
        let Some((slot, unikernel)) = self.find(name) else {
            return self.refuse(connection, if name.is_path() { Refusal::Path } else { Refusal::RestartNotFound });
        };
        if !unikernel.restarting && !self.is_settled(slot) {
            return self.refuse(connection, Refusal::Busy);
        }
        self.wait(connection, Waiting::Unikernel(slot));
        let Some(unikernel) = self.unikernels.get_mut(slot) else { return };
        unikernel.restarting = true;
        unikernel.over = false;
        unikernel.failures = 0;
        match (unikernel.life, unikernel.stop) {
            (Life::Alive, Stop::No) => self.stop(now, slot),
            (Life::None, _) => self.run_again(now, slot),
            // It is being started, or stopped to be started.
            (Life::Alive | Life::Launching, _) => {}
        }
    }

    /// Whoever waits for a unikernel to be started anew is told.
    pub(super) fn end_restart(&mut self, slot: u16, reply: Reply) {
        let Some(unikernel) = self.unikernels.get_mut(slot) else { return };
        if core::mem::replace(&mut unikernel.restarting, false) {
            self.answer_all(Waiting::Unikernel(slot), reply);
        }
    }

    /// The record of a desired unikernel was written once more, perhaps because the journal was not sure: a client that waits
    /// for it to be started anew is not made to wait for an alarm as well.
    pub(super) fn recorded_again(&mut self, now: Now, slot: u16, outcome: Result<(), JournalError>) {
        self.set_rewriting(slot, false);
        let waits = |it: &&Unikernel| it.stage == Stage::Kept && it.restarting && it.life == Life::None && !it.charged;
        if self.unikernels.get(slot).filter(waits).is_none() {
            return;
        }
        match outcome {
            Ok(()) => self.admit_restored(now, slot),
            Err(error) => self.end_restart(slot, Reply::Refused(Refusal::Journal(error))),
        }
    }

    /// Lets a desired unikernel that does not run run now.
    pub(super) fn run_again(&mut self, now: Now, slot: u16) {
        match self.unikernels.get(slot) {
            Some(unikernel) if unikernel.charged => self.set_again(slot, Again::Queued),
            _ => self.admit_restored(now, slot),
        }
    }

    /// The image and the arguments of this slot are right: launch it, as soon as the one whose place it takes is not in
    /// its way.
    pub(super) fn launch_in_place(&mut self, now: Now, slot: u16) {
        let Some(unikernel) = self.unikernels.get(slot) else { return };
        let old = if unikernel.successor { self.find(&unikernel.name) } else { None };
        match old.map(|(old, unikernel)| (old, unikernel.life)) {
            None | Some((_, Life::None)) => {
                self.set_stage(slot, Stage::Creating);
                self.launch(slot);
            }
            Some((old, Life::Alive)) => {
                self.set_stage(slot, Stage::Waiting);
                self.stop(now, old);
            }
            Some((_, Life::Launching)) => self.set_stage(slot, Stage::Waiting),
        }
    }

    /// Whether a successor waits for the process of this slot to end.
    pub(super) fn has_waiting_successor(&self, slot: u16) -> bool {
        let successor = self.unikernels.get(slot).and_then(|unikernel| self.find_successor(&unikernel.name));
        successor.is_some_and(|(_, unikernel)| unikernel.stage == Stage::Waiting)
    }

    /// The process of a desired unikernel is gone: where one is to take its place, that one is next. If it is still being
    /// stored, what becomes of this one is decided when that has succeeded or failed.
    pub(super) fn make_way(&mut self, now: Now, slot: u16) -> bool {
        let successor = self.unikernels.get(slot).and_then(|unikernel| self.find_successor(&unikernel.name));
        let Some((successor, stage)) = successor.map(|(slot, unikernel)| (slot, unikernel.stage)) else { return false };
        match stage {
            Stage::Waiting => self.launch_in_place(now, successor),
            _ => self.set_again(slot, Again::Undecided),
        }
        true
    }

    /// The record of a successor is durable: the old one is forgotten.
    pub(super) fn take_place(&mut self, slot: u16) {
        let Some(name) = self.unikernels.get(slot).map(|unikernel| unikernel.name) else { return };
        if let Some(old) = self.unikernels.find(&name) {
            self.give_back(old);
        }
        let Some(unikernel) = self.unikernels.get_mut(slot) else { return };
        let shared = unikernel.usage();
        (unikernel.successor, unikernel.shares) = (false, false);
        (unikernel.shared_mb, unikernel.shared_networks) = (0, 0);
        let whole = unikernel.usage();
        self.ledger.release(&name, shared);
        self.ledger.charge(&name, whole);
        self.hold_named_blocks(slot);
    }

    /// A successor has failed and is gone: the one whose place it was to take goes on as it would have.
    pub(super) fn resume(&mut self, now: Now, name: &Name) {
        let Some((slot, unikernel)) = self.find(name) else { return };
        match (unikernel.life, unikernel.again, unikernel.trouble) {
            (Life::Launching | Life::Alive, ..) => {}
            (Life::None, Again::Undecided, Trouble::Ended(exit)) => {
                self.set_again(slot, Again::Never);
                self.ended(now, slot, exit);
            }
            (Life::None, ..) => self.run_again(now, slot),
        }
    }
}
