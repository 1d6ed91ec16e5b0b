//! The ladder of a creation, up to the record that makes it true.

use super::arguments::{KeepError, check, check_devices};
use super::ledger::Charge;
use super::outcome::{JournalError, StoreError, StoredImage, Trouble};
use super::refusal::Refusal;
use super::table::Named;
use super::unikernel::{Life, Stage, Unikernel};
use super::{Done, Effect, Machine, Now, Reply, Spooled, Waiting};
use crate::halves::Tender;
use crate::limits::STARTUP_DEFAULT;
use crate::name::Name;
use crate::solo5::{ImageError, Target};
use crate::wire::Config;

const MIB: u64 = 1 << 20;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    pub(super) fn create(&mut self, connection: u16, name: &Name, config: &Config<'_>, image: Option<Spooled>) {
        match self.admit(name, config, image) {
            Ok(slot) => {
                self.wait(connection, Waiting::Unikernel(slot));
                self.storing = self.storing.saturating_add(1);
                self.effect(Effect::Store { slot });
            }
            Err(refusal) => self.refuse(connection, refusal),
        }
    }

    /// The first rung: everything that can be checked without the image; the charge.
    fn admit(&mut self, name: &Name, config: &Config<'_>, image: Option<Spooled>) -> Result<u16, Refusal> {
        if name.is_path() {
            return Err(Refusal::Path);
        }
        if self.unikernels.find(name).is_some() {
            return Err(Refusal::Exists);
        }
        let arguments = &config.arguments;
        let needs = check(config.kind, name, arguments).map_err(Refusal::Arguments)?;
        let charge = Charge { memory_mb: needs.memory_mb, cpus: &needs.cpus, bridges: &needs.bridges };
        self.ledger.admit(name, &charge).map_err(Refusal::Admission)?;
        let blocks = self.blocks_to_hold(name, arguments)?;
        let Some(Spooled { spool }) = image else { return Err(Refusal::NoImage) };
        if self.unikernels.len() == U {
            return Err(Refusal::UnikernelsFull);
        }
        let span = self.keep_arguments(arguments).map_err(|error| match error {
            KeepError::TooLong => Refusal::Arguments(super::arguments::ArgumentsFault::TooLong),
            KeepError::ArenaFull => Refusal::ArgumentsFull,
        })?;
        self.last_unit = self.last_unit.saturating_add(1);
        let unikernel = Unikernel {
            name: *name,
            stage: Stage::Storing,
            charged: true,
            unit: self.last_unit,
            spool,
            span,
            memory_mb: needs.memory_mb,
            startup: arguments.startup.unwrap_or(STARTUP_DEFAULT),
            ..Unikernel::EMPTY
        };
        let slot = self.unikernels.insert(unikernel).map_err(|_| Refusal::UnikernelsFull)?;
        self.ledger.charge(name, needs.memory_mb);
        self.hold_blocks(slot, &blocks);
        Ok(slot)
    }

    /// The image is in the store, or it is not.
    pub(super) fn stored(&mut self, slot: u16, outcome: Result<StoredImage<'_>, StoreError>) {
        let Some(unikernel) = self.unikernels.get_mut(slot).filter(|it| it.stage == Stage::Storing) else { return };
        unikernel.stage = Stage::Creating;
        self.storing = self.storing.saturating_sub(1);
        let checked = match outcome {
            Ok(image) => {
                unikernel.stored = true;
                unikernel.digest = image.digest;
                unikernel.image_bytes = image.bytes;
                self.check_image(slot, &image)
            }
            Err(error) => Err(Refusal::Store(error)),
        };
        match checked {
            Ok(tender) => {
                if let Some(unikernel) = self.unikernels.get_mut(slot) {
                    unikernel.tender = tender;
                }
                self.launch(slot);
            }
            Err(refusal) => self.fail(slot, refusal),
        }
    }

    /// Whether this image can run here with the arguments of this slot.
    fn check_image(&self, slot: u16, image: &StoredImage<'_>) -> Result<Tender, Refusal> {
        let facts = image.facts;
        facts.check_runnable().map_err(|error| Refusal::Store(StoreError::Image(error)))?;
        let tender = match facts.abi.target {
            Target::Hvt if self.tenders.hvt => Tender::Hvt,
            Target::Spt if self.tenders.spt => Tender::Spt,
            Target::Hvt => return Err(Refusal::NoTender(Tender::Hvt)),
            Target::Spt => return Err(Refusal::NoTender(Tender::Spt)),
            target => return Err(Refusal::Store(StoreError::Image(ImageError::TargetForeign { target }))),
        };
        let given_mb = self.unikernels.get(slot).map_or(0, |unikernel| unikernel.memory_mb);
        if facts.memory_end >= given_mb.saturating_mul(MIB) {
            // The segments end below this, and the stack needs some more.
            let needed_mb = (facts.memory_end / MIB).saturating_add(1);
            return Err(Refusal::MemoryForImage { needed_mb, given_mb });
        }
        if let Some(arguments) = self.arguments(slot) {
            check_devices(&arguments, &facts.manifest).map_err(Refusal::Arguments)?;
        }
        Ok(tender)
    }

    /// The record is durable: the creation is acknowledged. Or it is not, and is undone.
    pub(super) fn recorded(&mut self, now: Now, slot: u16, outcome: Result<(), JournalError>) {
        let Some(unikernel) = self.unikernels.get_mut(slot).filter(|it| it.stage == Stage::Recording) else { return };
        match outcome {
            Err(error) => self.fail(slot, Refusal::Journal(error)),
            Ok(()) => {
                unikernel.stage = Stage::Kept;
                let (life, trouble) = (unikernel.life, unikernel.trouble);
                self.answer_all(Waiting::Unikernel(slot), Reply::Done(Done::CreatedUnikernel));
                if let (Life::None, Trouble::Ended(exit)) = (life, trouble) {
                    self.ended(now, slot, exit);
                }
            }
        }
    }
}
