//! Processes come and go: launches and their outcome, exits, rests, and the alarms of all that.

use super::outcome::{End, Exit, Trouble};
use super::refusal::Refusal;
use super::unikernel::{Again, Life, Stage, Stop, Unikernel};
use super::{Change, DUE_MAX, Done, Effect, LaunchError, Machine, Now, Reply};
use crate::halves::Unit;
use crate::limits::{LAUNCHES_MAX, REST_MS_MAX, REST_MS_MIN, RUN_MS_MIN};

/// The exit code of a unikernel that does not know one of its arguments.
const EXIT_ARGUMENTS: u8 = 64;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// Changes what is to be done later, and keeps the count of those that are queued.
    pub(super) fn set_again(&mut self, slot: u16, again: Again) {
        let Some(unikernel) = self.unikernels.get_mut(slot) else { return };
        let before = core::mem::replace(&mut unikernel.again, again);
        if before == Again::Queued {
            self.queued = self.queued.saturating_sub(1);
        }
        match again {
            Again::Queued => self.queued = self.queued.saturating_add(1),
            Again::Launch(at) | Again::Drop(at) => self.set_alarm(at),
            Again::Never | Again::Undecided => {}
        }
    }

    /// Launches what waits for that, lower startup first, as many as the host half may have at once.
    pub(super) fn launch_queued(&mut self) {
        while self.queued > 0 && self.launching < LAUNCHES_MAX {
            let queued = self.unikernels.iter().filter(|(_, unikernel)| unikernel.again == Again::Queued);
            let Some((slot, _)) = queued.min_by_key(|(_, unikernel)| unikernel.startup) else { return };
            self.set_again(slot, Again::Never);
            self.launch(slot);
        }
    }

    /// Asks for the process of a slot.
    pub(super) fn launch(&mut self, slot: u16) {
        let account = self.free_account();
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.account = account;
            unikernel.life = Life::Launching;
            unikernel.over = false;
            unikernel.stop = Stop::No;
            self.launching = self.launching.saturating_add(1);
            self.effect(Effect::Launch { slot });
        }
    }

    fn unit_mut(&mut self, unit: Unit) -> Option<(u16, &mut Unikernel)> {
        let slot = self.find_unit(unit)?.0;
        Some((slot, self.unikernels.get_mut(slot)?))
    }

    pub(super) fn launched(&mut self, now: Now, unit: Unit, outcome: Result<(), LaunchError>) {
        let Some((slot, unikernel)) = self.unit_mut(unit) else { return };
        if unikernel.life != Life::Launching {
            return;
        }
        match outcome {
            Ok(()) => {
                unikernel.life = Life::Alive;
                unikernel.started_ms = now.ms;
                unikernel.started_wall_ms = now.wall_ms;
                let stage = unikernel.stage;
                self.launching = self.launching.saturating_sub(1);
                match stage {
                    Stage::Creating => {
                        self.set_stage(slot, Stage::Recording);
                        self.effect(Effect::Append(Change::Unikernel(slot)));
                    }
                    Stage::Kept => {
                        self.end_restart(slot, Reply::Done(Done::CreatedUnikernel));
                        if self.has_waiting_successor(slot) {
                            self.stop(now, slot);
                        }
                    }
                    Stage::Dropped => self.stop(now, slot),
                    Stage::Failed(_) => self.kill(slot),
                    Stage::Free | Stage::Storing | Stage::Waiting | Stage::Recording | Stage::Dropping => {}
                }
            }
            Err(error) => {
                unikernel.life = Life::None;
                unikernel.trouble = Trouble::Launch(error);
                let stage = unikernel.stage;
                self.launching = self.launching.saturating_sub(1);
                match stage {
                    Stage::Creating => self.fail(now, slot, Refusal::Launch(error)),
                    Stage::Kept => {
                        self.end_restart(slot, Reply::Refused(Refusal::Launch(error)));
                        if !self.make_way(now, slot) {
                            self.rest(now, slot);
                        }
                    }
                    Stage::Dropped => self.free(now, slot, Reply::Done(Done::DestroyedUnikernel)),
                    Stage::Failed(refusal) => self.free(now, slot, Reply::Refused(refusal)),
                    Stage::Free | Stage::Storing | Stage::Waiting | Stage::Recording | Stage::Dropping => {}
                }
            }
        }
    }

    pub(super) fn set_stage(&mut self, slot: u16, stage: Stage) {
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.stage = stage;
        }
    }

    pub(super) fn exited(&mut self, now: Now, unit: Unit, exit: Exit) {
        let Some((slot, unikernel)) = self.unit_mut(unit) else { return };
        if unikernel.life != Life::Alive {
            return;
        }
        unikernel.life = Life::None;
        let asked = core::mem::replace(&mut unikernel.stop, Stop::No) != Stop::No;
        unikernel.trouble = if asked { Trouble::Stopped } else { Trouble::Ended(exit) };
        unikernel.last_end = if asked { End::Stopped } else { End::Exit(exit) };
        unikernel.ended_wall_ms = now.wall_ms;
        let (stage, charged) = (unikernel.stage, unikernel.charged);
        match stage {
            Stage::Kept if self.make_way(now, slot) => {}
            Stage::Kept if asked && charged => self.run_again(now, slot),
            // Before the start nothing is charged, and the start brings it up.
            Stage::Kept if asked => {}
            Stage::Kept => self.ended(now, slot, exit),
            Stage::Dropped => self.free(now, slot, Reply::Done(Done::DestroyedUnikernel)),
            Stage::Failed(refusal) => self.free(now, slot, Reply::Refused(refusal)),
            // What follows is decided when the record, or its removal, is durable.
            Stage::Dropping if !asked => {
                self.note_over(slot, exit);
            }
            Stage::Free | Stage::Storing | Stage::Waiting | Stage::Creating | Stage::Recording | Stage::Dropping => {}
        }
    }

    /// A desired unikernel has ended without being asked: run it again, or record that it is done.
    pub(super) fn ended(&mut self, now: Now, slot: u16, exit: Exit) {
        if self.note_over(slot, exit) {
            return self.begin_drop(slot);
        }
        let renamed = exit == Exit::Code(EXIT_ARGUMENTS) && self.take_label(slot);
        if renamed {
            // Should that fail, it will end in the same way after the next start, and again be run without.
            self.effect(Effect::Append(Change::Unikernel(slot)));
        }
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.restarts = unikernel.restarts.saturating_add(1);
            if unikernel.charged && renamed {
                return self.set_again(slot, Again::Queued);
            }
            // Before the start it is not charged yet, and nothing that is not charged may be launched.
            if unikernel.charged && now.ms.saturating_sub(unikernel.started_ms) >= RUN_MS_MIN {
                unikernel.failures = 0;
                return self.set_again(slot, Again::Queued);
            }
        }
        self.rest(now, slot);
    }

    /// Decides whether it is not to run again after this exit, once: what follows may change its arguments.
    fn note_over(&mut self, slot: u16, exit: Exit) -> bool {
        let over = self.is_over(slot, exit);
        if let Some(unikernel) = self.unikernels.get_mut(slot) {
            unikernel.over = over;
        }
        over
    }

    /// Whether it is not to run again after this exit. One that does not know its arguments gets a second try without
    /// its label among them, whatever else it asked for.
    fn is_over(&self, slot: u16, exit: Exit) -> bool {
        let Some(arguments) = self.arguments(slot) else { return true };
        let second_try = arguments.add_name && exit == Exit::Code(EXIT_ARGUMENTS);
        !second_try && !Unikernel::runs_again(arguments.fail_behaviour, exit)
    }

    /// A desired unikernel does not run: try again after a rest, twice as long each time.
    pub(super) fn rest(&mut self, now: Now, slot: u16) {
        let Some(unikernel) = self.unikernels.get_mut(slot) else { return };
        let rest_ms = REST_MS_MIN.checked_shl(unikernel.failures.min(32)).map_or(REST_MS_MAX, |ms| ms.min(REST_MS_MAX));
        unikernel.failures = unikernel.failures.saturating_add(1);
        self.set_again(slot, Again::Launch(now.ms.saturating_add(rest_ms)));
        self.effect(Effect::Rest { slot });
    }

    /// Does what is due, and finds the next alarm.
    pub(super) fn tick(&mut self, now: Now) {
        if self.alarm_ms.is_none_or(|alarm| alarm > now.ms) {
            return;
        }
        self.alarm_ms = None;
        self.tick_blocks(now);
        for index in 0..self.unikernels.len() {
            let Some(slot) = self.unikernels.all().get(index).copied() else { continue };
            let Some(unikernel) = self.unikernels.get(slot) else { continue };
            match unikernel.alarm_ms() {
                // One input causes a bounded number of effects: the rest is due at once again.
                Some(at) if at <= now.ms && self.effects.len() < DUE_MAX => self.due(now, slot),
                Some(at) => self.set_alarm(at),
                None => {}
            }
        }
    }

    fn due(&mut self, now: Now, slot: u16) {
        let Some(unikernel) = self.unikernels.get(slot) else { return };
        match (unikernel.stop, unikernel.again) {
            (Stop::Terminating(_), _) => self.kill(slot),
            (_, Again::Launch(_)) if unikernel.charged => self.set_again(slot, Again::Queued),
            (_, Again::Launch(_)) => self.admit_restored(now, slot),
            (_, Again::Drop(_)) => self.begin_drop(slot),
            _ => {}
        }
    }
}
