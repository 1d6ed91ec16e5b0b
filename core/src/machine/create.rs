//! The ladder of a creation, up to the record that makes it true.

use super::arguments::{KeepError, check, check_devices};
use super::ledger::{Charge, Usage};
use super::outcome::{JournalError, StoreError, StoredImage, Trouble};
use super::refusal::Refusal;
use super::refused::NotAdmitted;
use super::table::Named;
use super::unikernel::{Life, Stage, Unikernel};
use super::{Done, Effect, Machine, Now, Reply, Spooled, Waiting};
use crate::halves::Tender;
use crate::limits::STARTUP_DEFAULT;
use crate::name::Name;
use crate::solo5::{ImageError, Target};
use crate::wire::{Arguments, Config, Kind};

const MIB: u64 = 1 << 20;

/// What a new unikernel is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) kind: Kind,
    pub(super) arguments: &'a Arguments<'a>,
    pub(super) image: Option<Spooled>,
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    pub(super) fn create(
        &mut self,
        now: Now,
        connection: u16,
        name: &Name,
        config: &Config<'_>,
        image: Option<Spooled>,
    ) {
        let admitted = match self.unikernels.find(name) {
            Some(_) => Err(Refusal::Exists),
            None => self.admit(name, Wanted { kind: config.kind, arguments: &config.arguments, image }, None),
        };
        self.store_admitted(now, connection, admitted);
    }

    /// The second rung, or a refusal. A virtual machine has no image, so that rung is done.
    pub(super) fn store_admitted(&mut self, now: Now, connection: u16, admitted: Result<u16, Refusal>) {
        match admitted {
            Ok(slot) => {
                self.wait(connection, Waiting::Unikernel(slot));
                if self.is_machine(slot) {
                    return self.launch_in_place(now, slot);
                }
                self.storing = self.storing.saturating_add(1);
                self.effect(Effect::Store { slot });
            }
            Err(refusal) => self.refuse(connection, refusal),
        }
    }

    /// The first rung: everything that can be checked without the image; the charge. It takes the place of `old` in the
    /// end, whose charge and block devices it shares until then.
    pub(super) fn admit(&mut self, name: &Name, wanted: Wanted<'_>, old: Option<u16>) -> Result<u16, Refusal> {
        if name.is_path() {
            return Err(Refusal::Path);
        }
        let Wanted { kind, arguments, image } = wanted;
        let needs = check(self.tenders, kind, name, arguments).map_err(Refusal::Arguments)?;
        let charge = Charge { memory_mb: needs.memory_mb, cpus: &needs.cpus, bridges: &needs.bridges };
        let shared = old.and_then(|old| self.unikernels.get(old)).filter(|old| old.charged).map(Unikernel::usage);
        self.admit_beside(name, &charge, shared).map_err(Refusal::Admission)?;
        let blocks = self.blocks_to_hold(kind, name, arguments, old)?;
        let spool = match (kind, image) {
            (Kind::Bhyve, _) => 0,
            (Kind::Solo5, Some(Spooled { spool })) => spool,
            (Kind::Solo5, None) => return Err(Refusal::NoImage),
        };
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
            successor: old.is_some(),
            charged: true,
            shares: shared.is_some(),
            shared_mb: shared.map_or(0, |old| old.memory_mb.min(needs.memory_mb)),
            networks: needs.networks(),
            shared_networks: shared.map_or(0, |old| old.networks.min(needs.networks())),
            unit: self.last_unit,
            tender: if kind == Kind::Bhyve { Tender::Bhyve } else { Tender::Hvt },
            spool,
            span,
            memory_mb: needs.memory_mb,
            startup: arguments.startup.unwrap_or(STARTUP_DEFAULT),
            ..Unikernel::EMPTY
        };
        let usage = unikernel.usage();
        let slot = self.unikernels.insert(unikernel).map_err(|_| Refusal::UnikernelsFull)?;
        self.ledger.charge(name, usage);
        self.hold_blocks(slot, &blocks);
        Ok(slot)
    }

    /// Whether this is a virtual machine.
    pub(super) fn is_machine(&self, slot: u16) -> bool {
        self.unikernels.get(slot).is_some_and(|unikernel| unikernel.tender == Tender::Bhyve)
    }

    /// Whether the ledger has room for this charge once `shared`, which it takes the place of, is gone.
    fn admit_beside(&mut self, name: &Name, charge: &Charge<'_>, shared: Option<Usage>) -> Result<(), NotAdmitted> {
        let Some(usage) = shared else { return self.ledger.admit(name, charge) };
        self.ledger.release(name, usage);
        let admitted = self.ledger.admit(name, charge);
        self.ledger.charge(name, usage);
        admitted
    }

    /// The image is in the store, or it is not.
    pub(super) fn stored(&mut self, now: Now, slot: u16, outcome: Result<StoredImage<'_>, StoreError>) {
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
                self.launch_in_place(now, slot);
            }
            Err(refusal) => self.fail(now, slot, refusal),
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
        let Some(unikernel) = self.unikernels.get_mut(slot).filter(|it| it.stage == Stage::Recording) else {
            return self.recorded_again(now, slot, outcome);
        };
        match outcome {
            Err(error) => self.fail(now, slot, Refusal::Journal(error)),
            Ok(()) => {
                unikernel.stage = Stage::Kept;
                if unikernel.successor {
                    self.take_place(slot);
                }
                let Some(unikernel) = self.unikernels.get(slot) else { return };
                let (life, trouble) = (unikernel.life, unikernel.trouble);
                self.answer_all(Waiting::Unikernel(slot), Reply::Done(Done::CreatedUnikernel));
                if let (Life::None, Trouble::Ended(exit)) = (life, trouble) {
                    self.ended(now, slot, exit);
                }
            }
        }
    }
}
