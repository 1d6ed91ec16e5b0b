//! What the journal is told: the record of a change, and all records of what is desired now.

use super::ledger::{Account, Pending};
use super::{BlockStage, Change, Machine, Stage};
use crate::halves::Tender;
use crate::journal::Record;
use crate::limits::{CPUS_MAX, POLICY_BRIDGES_MAX, WIRE_INT_MAX};
use crate::policy::{Bridge, Policy};
use crate::wire::{self, List};

/// Bytes of a policy in DER: each CPU and each bridge with its header, four numbers, the sequences.
pub const POLICY_BYTES_MAX: usize = CPUS_MAX * 4 + POLICY_BRIDGES_MAX * 17 + 64;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// The record of a change whose [`super::Effect::Append`] was given out, or one of [`Machine::live_records`].
    /// A policy is encoded into `buffer`.
    pub fn record<'m>(&'m self, change: Change, buffer: &'m mut [u8; POLICY_BYTES_MAX]) -> Option<Record<'m>> {
        match change {
            Change::Unikernel(slot) => {
                let unikernel = self.unikernel(slot)?;
                Some(Record::Unikernel {
                    name: unikernel.name.as_str(),
                    unit: unikernel.unit,
                    digest: unikernel.digest,
                    image_bytes: unikernel.image_bytes,
                    target: match unikernel.tender {
                        Tender::Hvt => 1,
                        Tender::Spt => 2,
                        Tender::Bhyve => 3,
                    },
                    arguments: self.arguments_der(unikernel),
                })
            }
            Change::UnikernelGone(slot) => Some(Record::UnikernelGone { name: self.unikernel(slot)?.name.as_str() }),
            Change::Policy(slot) => {
                let account = self.ledger.account(slot)?;
                let policy = match account.pending() {
                    Pending::Set(policy) => policy,
                    Pending::None | Pending::Remove => account.policy()?,
                };
                let policy = encode_policy(policy, buffer)?;
                Some(Record::Policy { path: account.path().as_str(), policy })
            }
            Change::PolicyGone(slot) => Some(Record::PolicyGone { path: self.ledger.account(slot)?.path().as_str() }),
            Change::Block(slot) => {
                let block = self.block(slot)?;
                Some(Record::Block { name: block.name.as_str(), size_mb: block.size_mb })
            }
            Change::BlockGone(slot) => Some(Record::BlockGone { name: self.block(slot)?.name.as_str() }),
        }
    }

    /// All that is desired, as changes whose [`Machine::record`]s make a whole journal. Only true while no append is
    /// under way.
    pub fn live_records(&self) -> impl Iterator<Item = Change> {
        let desired = |account: &Account| account.policy().is_some() && !account.path().is_root();
        let policies = self.ledger.slots().filter(move |(_, account)| desired(account));
        let unikernels = self.unikernels().filter(|(_, unikernel)| unikernel.stage == Stage::Kept);
        let blocks = self.blocks().filter(|(_, block)| block.stage == BlockStage::Kept);
        let policies = policies.map(|(slot, _)| Change::Policy(slot));
        let blocks = blocks.map(|(slot, _)| Change::Block(slot));
        policies.chain(blocks).chain(unikernels.map(|(slot, _)| Change::Unikernel(slot)))
    }
}

fn encode_policy<'b>(policy: &Policy, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    with_wire_policy(policy, |policy| policy.encode(buffer).ok())
}

/// Makes the wire's form of a policy and hands it on while what it borrows is alive.
pub(super) fn with_wire_policy<R>(policy: &Policy, hand_on: impl FnOnce(&wire::Policy<'_>) -> R) -> R {
    // Filled in place: a collected one of this size would be moved, which costs more than all the rest.
    let mut cpuids = heapless::Vec::<i64, CPUS_MAX>::new();
    cpuids.extend(policy.cpus.iter());
    let mut bridges = heapless::Vec::<&str, POLICY_BRIDGES_MAX>::new();
    bridges.extend(policy.bridges.as_slice().iter().map(Bridge::as_str));
    // The root policy allows more than the wire can say.
    let number = |value: u64| i64::try_from(value).unwrap_or(WIRE_INT_MAX).min(WIRE_INT_MAX);
    hand_on(&wire::Policy {
        cpuids: List::Items(&cpuids),
        unikernels: number(policy.unikernels),
        memory: number(policy.memory_mb),
        block: policy.block_mb.map(number),
        bridges: List::Items(&bridges),
    })
}
