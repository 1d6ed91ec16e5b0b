//! What of a machine decides what it does next, for whoever goes through all its states.
//!
//! A machine that runs on gets ever new numbers: units, the time, slots in another order. Two machines that differ in
//! nothing else do the same from now on; here they are the same. Left out is what is only shown to people and what is
//! always written before it is read. `verification/` holds this against the machine: what is hashed alike must go on alike.

use core::hash::{Hash, Hasher};

use super::block::BlockStage;
use super::table::{Named, Table};
use super::unikernel::{Again, Life, Stop};
use super::{Machine, Waiting};
use crate::limits::{REST_MS_MAX, REST_MS_MIN, RUN_MS_MIN};

/// Failures beyond these make no rest longer.
const FAILURES_MAX: u32 = (REST_MS_MAX / REST_MS_MIN).ilog2().saturating_add(1);

/// A time as what is left until then; what has passed is far away.
fn left(at_ms: u64, now_ms: u64) -> u64 {
    at_ms.wrapping_sub(now_ms)
}

/// A slot by its place in the listing; a free one by when it is given out again.
fn place<T: Named, const N: usize>(table: &Table<T, N>, slot: u16) -> usize {
    let listed = table.all().iter().position(|other| *other == slot);
    listed.unwrap_or_else(|| N.saturating_add(table.turn_of(slot)))
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// Hashes all but the connections, at a time when no effect is left. `rank` puts a new number in the place of a unit's, in
    /// the same order.
    pub fn hash_canonical<H: Hasher>(&self, now_ms: u64, rank: impl Fn(u64) -> usize, state: &mut H) {
        for (_, it) in self.unikernels.iter() {
            (it.name, it.stage, it.life, it.successor, it.restarting, it.over, it.rewriting, it.charged).hash(state);
            (it.shares, it.shared_mb, it.networks, it.shared_networks).hash(state);
            (it.stored, it.digest, it.image_bytes, it.tender, it.memory_mb, it.startup).hash(state);
            (rank(it.unit), self.arguments_der(it), it.failures.min(FAILURES_MAX), it.trouble).hash(state);
            match it.again {
                Again::Launch(at) => (1_u8, left(at, now_ms)).hash(state),
                Again::Drop(at) => (2_u8, left(at, now_ms)).hash(state),
                other => (3_u8, other).hash(state),
            }
            match it.stop {
                Stop::Terminating(at) => (1_u8, left(at, now_ms)).hash(state),
                other => (2_u8, other).hash(state),
            }
            if it.life != Life::None {
                it.account.hash(state);
            }
            now_ms.saturating_sub(it.started_ms).min(RUN_MS_MIN).hash(state);
        }
        self.unikernels.len().hash(state);
        self.ledger.slots().for_each(|(_, account)| account.hash(state));
        for (_, block) in self.blocks.iter() {
            (block.name, block.file, block.transfer, block.size_mb).hash(state);
            block.holder().map(|holder| self.place_of_unikernel(holder)).hash(state);
            match block.stage {
                BlockStage::Undoing(at) => (1_u8, left(at, now_ms)).hash(state),
                other => (2_u8, other).hash(state),
            }
        }
        self.blocks.len().hash(state);
        (self.appending, self.launching, self.storing, self.queued, self.undoing, self.transfers).hash(state);
        (self.tenders, self.zvols, self.strays, self.unsure, &self.releases, self.collect).hash(state);
        self.alarm_ms.map(|at| left(at, now_ms)).hash(state);
    }

    /// What a connection waits for: a kind, and where that stands.
    #[must_use]
    pub fn canonical_wait(&self, connection: u16) -> (u8, usize) {
        match self.connections.get(usize::from(connection)).map(|client| client.waiting) {
            None | Some(Waiting::Nothing) => (0, 0),
            Some(Waiting::Unikernel(slot)) => (1, self.place_of_unikernel(slot)),
            Some(Waiting::Policy(slot)) => (2, self.place_of_policy(slot)),
            Some(Waiting::Block(slot)) => (3, self.place_of_block(slot)),
            Some(Waiting::Chain(levels)) => (4, usize::from(levels)),
        }
    }

    /// Where a unikernel stands in the listing, or when its free slot is given out again.
    #[must_use]
    pub fn place_of_unikernel(&self, slot: u16) -> usize {
        place(&self.unikernels, slot)
    }

    /// The same of a block device.
    #[must_use]
    pub fn place_of_block(&self, slot: u16) -> usize {
        place(&self.blocks, slot)
    }

    /// The same of a policy.
    #[must_use]
    pub fn place_of_policy(&self, slot: u16) -> usize {
        place(self.ledger.table(), slot)
    }
}
