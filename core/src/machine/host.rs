//! What the machine knows of the host's scarce things.

use super::Machine;
use super::ledger::Usage;
use super::unikernel::Life;
use crate::limits::{TAPS_MAX, TRANSFERS_MAX, UNITS_MAX, WIRE_INT_MAX};
use crate::name::Name;
use crate::policy::Policy;
use crate::wire::{Text, Use};

/// How many uses the machine tells of.
pub const HOST_USES: usize = 9;

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// What is used of what the host has, and of the machine's own room.
    #[must_use]
    pub fn uses_of_host(&self) -> [Use<'static>; HOST_USES] {
        let root = self.ledger.account_at(&Name::ROOT);
        let used = root.map_or(Usage::default(), |account| account.used());
        let nothing = Policy::NOTHING;
        let policy = root.and_then(|account| account.policy()).unwrap_or(&nothing);
        let processes = self.unikernels().filter(|(_, unikernel)| unikernel.life != Life::None).count();
        let policies = self.ledger.slots().count();
        [
            entry("unikernels", used.unikernels, policy.unikernels),
            entry("memory-mb", used.host_memory_mb(), policy.memory_mb),
            entry("block-mb", used.block_mb, policy.block_mb.unwrap_or(0)),
            entry("policies", size(policies), size(P)),
            entry("block-devices", size(self.blocks().count()), size(B)),
            entry("argument-bytes", size(self.arena.len()), size(A)),
            entry("processes", size(processes), size(UNITS_MAX)),
            entry("taps", used.networks, TAPS_MAX),
            entry("transfers", self.transfers.into(), TRANSFERS_MAX.into()),
        ]
    }
}

fn entry(what: &'static str, used: u64, limit: u64) -> Use<'static> {
    let number = |value: u64| i64::try_from(value).unwrap_or(WIRE_INT_MAX).min(WIRE_INT_MAX);
    Use { what: Text(what.as_bytes()), used: number(used), limit: number(limit) }
}

fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
