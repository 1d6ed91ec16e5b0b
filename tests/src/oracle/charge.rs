//! What is charged at a path, counted anew from what runs: the ledger's numbers are not looked at.

use std::collections::BTreeSet;

use fulmar_core::machine::Usage;
use fulmar_core::name::Name;
use fulmar_core::policy::{Bridge, CpuSet};

use crate::world::World;

/// What counts of these guests' memory at the root policy: 4 MB for each tender, a 256th for page tables, a 16th for each tap.
fn host_mb(used: Usage) -> u64 {
    used.memory_mb + 4 * used.unikernels + used.memory_mb.div_ceil(256) + used.networks.div_ceil(16)
}

/// What counts at this path.
#[must_use]
pub fn memory_mb(path: &Name, used: Usage) -> u64 {
    if path.is_root() { host_mb(used) } else { used.memory_mb }
}

/// The networks of a slot.
pub(super) fn networks<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    slot: u16,
) -> u64 {
    world.machine.arguments(slot).map_or(0, |arguments| arguments.bridges.iter().count() as u64)
}

/// What runs at a path and below it, counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Number, memory and block storage.
    pub used: Usage,
    /// CPUs.
    pub cpus: CpuSet,
    /// Bridges.
    pub bridges: BTreeSet<Bridge>,
}

/// Counts what is charged at a path and below it.
pub fn count<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    path: &Name,
) -> Counted {
    let mut counted = Counted { used: Usage::default(), cpus: CpuSet::EMPTY, bridges: BTreeSet::new() };
    for (slot, unikernel) in world.machine.unikernels() {
        if !unikernel.is_charged() || !path.contains(unikernel.name()) {
            continue;
        }
        // One that is to take the place of another shares its charge: only what it wants beyond that is its own.
        let old = if unikernel.is_successor() { world.machine.find(unikernel.name()) } else { None };
        match old.filter(|(_, old)| old.is_charged()) {
            Some((place, old)) => {
                counted.used.memory_mb += unikernel.memory_mb().saturating_sub(old.memory_mb());
                counted.used.networks += networks(world, slot).saturating_sub(networks(world, place));
            }
            None => {
                counted.used.unikernels += 1;
                counted.used.memory_mb += unikernel.memory_mb();
                counted.used.networks += networks(world, slot);
            }
        }
        if let Some(arguments) = world.machine.arguments(slot) {
            arguments.cpuids.iter().for_each(|cpu| counted.cpus.insert(cpu).unwrap_or(()));
            let bridges = arguments.bridges.iter().filter_map(|bridge| Bridge::new(bridge.host().as_bytes()).ok());
            counted.bridges.extend(bridges);
        }
    }
    let blocks = world.machine.blocks().filter(|(_, block)| path.contains(block.name()));
    counted.used.block_mb = blocks.map(|(_, block)| block.size_mb()).sum();
    counted
}
