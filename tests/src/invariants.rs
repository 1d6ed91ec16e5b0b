//! What must be true after every step, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_core::limits::STOP_MS_MAX;
use fulmar_core::machine::{Again, BlockStage, Change, Life, Stage, Transfer, Trouble};
use fulmar_core::name::Name;

use crate::oracle::{block_names, count, memory_mb, policy_of};
use crate::world::{Violation, World, content};

/// Checks all of them.
///
/// # Errors
/// The first that does not hold.
pub fn check<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    check_usage(world)?;
    check_containment(world)?;
    check_processes(world)?;
    check_blocks(world)?;
    content::check(world)?;
    check_transfers(world)?;
    check_deadline(world)?;
    check_appends(world)?;
    check_durable(world)?;
    if world.is_quiet() { check_quiet(world) } else { Ok(()) }
}

/// What is charged is what is counted, and within every policy; the root policy can be exceeded once the host has less.
fn check_usage<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    for (_, account) in world.machine.ledger().slots() {
        let (path, counted) = (account.path(), count(world, account.path()));
        if counted.used != account.used() {
            return Err(format!("{path} is charged {:?}, counted {:?}", account.used(), counted.used));
        }
        if path.is_root() && world.shrunk {
            continue;
        }
        for policy in account.in_force() {
            let within = counted.used.unikernels <= policy.unikernels
                && memory_mb(path, counted.used) <= policy.memory_mb
                && counted.used.block_mb <= policy.block_mb.unwrap_or(0)
                && policy.cpus.contains(&counted.cpus)
                && counted.bridges.iter().all(|bridge| policy.bridges.has(bridge));
            if !within {
                return Err(format!("{path} uses {counted:?}, more than {policy:?}"));
            }
        }
    }
    Ok(())
}

/// Every policy is contained in those above it.
fn check_containment<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    let accounts: Vec<_> = world.machine.ledger().slots().map(|(_, account)| account).collect();
    for above in accounts.iter().filter(|above| !(above.path().is_root() && world.shrunk)) {
        let below = accounts.iter().filter(|below| below.path() != above.path() && above.path().contains(below.path()));
        for below in below {
            if above.in_force().any(|policy| below.in_force().any(|sub| policy.contains(sub).is_err())) {
                return Err(format!("the policy of {} is not within that of {}", below.path(), above.path()));
            }
        }
    }
    Ok(())
}

/// Every process belongs to one slot or is being ended; no two, nor one and a launch, share a unit or an account. A fifo has the
/// name of its unikernel: no two of one name run or are launched.
fn check_processes<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    let (mut units, mut fifos) = (BTreeMap::new(), BTreeSet::new());
    for (slot, unikernel) in world.machine.unikernels() {
        if let Some(other) = units.insert(unikernel.unit(), slot) {
            return Err(format!("slots {other} and {slot} are both unit {}", unikernel.unit()));
        }
        if unikernel.life() != Life::None && !fifos.insert(unikernel.name()) {
            return Err(format!("two of the name {} run", unikernel.name()));
        }
        let runs = world.processes.contains_key(&unikernel.unit());
        let launching = world.launches.iter().any(|launch| launch.unit == unikernel.unit());
        let expected = (unikernel.life() == Life::Alive, unikernel.life() == Life::Launching);
        if (runs, launching) != expected {
            return Err(format!("{} is {:?}: runs {runs}, launching {launching}", unikernel.name(), unikernel.life()));
        }
    }
    let mut accounts = BTreeSet::new();
    for (unit, process) in &world.processes {
        if !units.contains_key(unit) && !process.killed {
            return Err(format!("process {unit} belongs to nobody"));
        }
        if !accounts.insert(process.account) {
            return Err(format!("two processes run under account {}", process.account));
        }
    }
    let mut launching = BTreeSet::new();
    for launch in &world.launches {
        if world.processes.contains_key(&launch.unit) || !launching.insert(launch.unit) {
            return Err(format!("unit {} is launched twice", launch.unit));
        }
        if !accounts.insert(launch.account) {
            return Err(format!("account {} is given twice", launch.account));
        }
    }
    Ok(())
}

/// Every block device that is named by a unikernel is held by that one and by no other; no two processes have the same.
fn check_blocks<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    let mut named = BTreeMap::new();
    for (slot, unikernel) in world.machine.unikernels() {
        let arguments = world.machine.arguments(slot).ok_or("no arguments")?;
        let old = if unikernel.is_successor() { world.machine.find(unikernel.name()) } else { None };
        for name in block_names(unikernel.name(), &arguments) {
            // What the one whose place it takes has, it has from that one.
            if old.is_some_and(|(old, _)| named.get(&name) == Some(&old)) {
                continue;
            }
            if let Some(other) = named.insert(name, slot) {
                return Err(format!("slots {other} and {slot} both have block device {name}"));
            }
        }
    }
    let held = world.machine.blocks().filter_map(|(_, block)| Some((*block.name(), block.holder()?)));
    let held: BTreeMap<Name, u16> = held.collect();
    if held != named {
        return Err(format!("block devices {held:?} are held, {named:?} are named"));
    }
    let mut taken = BTreeSet::new();
    for name in world.processes.values().flat_map(|process| &process.blocks) {
        if !taken.insert(name) {
            return Err(format!("two processes have block device {name}"));
        }
    }
    Ok(())
}

/// What counts towards the bound of sets and dumps is under way.
fn check_transfers<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    let under_way = |transfer| match transfer {
        Transfer::None => 0,
        Transfer::Set => 1,
        Transfer::Dumps(clients) => i64::from(clients),
    };
    let expected: i64 = world.machine.blocks().map(|(_, block)| under_way(block.transfer())).sum();
    let uses = world.machine.uses_of_host();
    let counted = uses.iter().find(|it| it.what.0 == b"transfers").map(|it| it.used);
    if counted == Some(expected) {
        Ok(())
    } else {
        Err(format!("{counted:?} transfers count, {expected} are under way"))
    }
}

/// The deadline is not later than what is due first.
fn check_deadline<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    let rests = world.machine.unikernels().filter_map(|(_, unikernel)| match unikernel.again() {
        Again::Launch(at) | Again::Drop(at) => Some(at),
        Again::Never | Again::Queued | Again::Undecided => None,
    });
    let stops = world.processes.values().filter(|process| !process.killed);
    let stops = stops.filter_map(|process| process.terminated_ms).map(|at| at + STOP_MS_MAX);
    let undoing = world.machine.blocks().filter_map(|(_, block)| match block.stage() {
        BlockStage::Undoing(at) => Some(at),
        _ => None,
    });
    match (rests.chain(stops).chain(undoing).min(), world.machine.deadline()) {
        (Some(due), deadline) if deadline.is_none_or(|deadline| deadline > due) => {
            Err(format!("{due} ms is due, the deadline is {deadline:?}"))
        }
        _ => Ok(()),
    }
}

/// However long the journal takes, no more waits for it than there are changes: of each one, and of a unikernel its label beside
/// a record that makes the journal sure.
fn check_appends<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    for append in &world.appends {
        let same = world.appends.iter().filter(|other| other.change == append.change).count();
        if same > if matches!(append.change, Change::Unikernel(_)) { 2 } else { 1 } {
            return Err(format!("{:?} waits {same} times to be written", append.change));
        }
    }
    Ok(())
}

/// What is durable can be brought about: its images are there, and it is what the machine has where nothing is under way.
fn check_durable<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    for state in world.journal.state_if_unknown_is_kept()? {
        let lost = state.unikernels.iter().find(|(_, kept)| !world.images.contains(&kept.digest));
        if let Some((name, _)) = lost {
            return Err(format!("the image of {name} is gone, its record is not"));
        }
        if let Some((name, _)) = state.blocks.iter().find(|(name, size)| world.block_files.get(*name) != Some(size)) {
            return Err(format!("the file of block device {name} is gone or of another size, its record is not"));
        }
    }
    for (_, unikernel) in world.machine.unikernels() {
        if unikernel.digest().is_some_and(|digest| !world.images.contains(digest)) {
            return Err(format!("the image of {} is gone", unikernel.name()));
        }
    }
    if !world.appends.is_empty() {
        return Ok(());
    }
    let state = world.journal.state();
    let kept = world.machine.unikernels().filter(|(_, unikernel)| unikernel.stage() == Stage::Kept);
    let kept: BTreeMap<Name, u64> = kept.map(|(_, unikernel)| (*unikernel.name(), unikernel.unit())).collect();
    let durable: BTreeMap<Name, u64> = state.unikernels.iter().map(|(name, kept)| (*name, kept.unit)).collect();
    if kept != durable {
        return Err(format!("{kept:?} are kept, {durable:?} are durable"));
    }
    let accounts = world.machine.ledger().slots().filter(|(_, account)| !account.path().is_root());
    let stand: BTreeMap<Name, _> = accounts.map(|(_, account)| (*account.path(), account.policy().cloned())).collect();
    let durable: BTreeMap<Name, _> = state.policies.iter().map(|(path, policy)| (*path, policy_of(policy))).collect();
    if stand != durable {
        return Err(format!("policies {stand:?} stand, {durable:?} are durable"));
    }
    let kept = world.machine.blocks().filter(|(_, block)| block.stage() == BlockStage::Kept);
    let kept: BTreeMap<Name, u64> = kept.map(|(_, block)| (*block.name(), block.size_mb())).collect();
    if kept != state.blocks {
        return Err(format!("block devices {kept:?} are kept, {:?} are durable", state.blocks));
    }
    check_live_records(world)
}

/// A journal that is written anew from the machine says the same.
fn check_live_records<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    let mut state = crate::world::State::default();
    for change in world.machine.live_records() {
        let mut buffer = [0; fulmar_core::machine::POLICY_BYTES_MAX];
        let record = world.machine.record(change, &mut buffer).ok_or("a live record that is none")?;
        state.take(&record)?;
    }
    if state.unnamed() == world.journal.state().unnamed() { Ok(()) } else { Err(format!("live records say {state:?}")) }
}

/// Nothing is under way: everybody was answered, everything is desired and runs or rests, nothing is left over.
fn check_quiet<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> Result<(), Violation> {
    if let Some(question) = world.clients.iter().flatten().next() {
        return Err(format!("nothing is under way, and nobody answers {question:?}"));
    }
    for (_, unikernel) in world.machine.unikernels() {
        let well = match (unikernel.life(), unikernel.again()) {
            (Life::Alive, Again::Never) => unikernel.is_charged(),
            (Life::None, Again::Launch(_) | Again::Drop(_)) => {
                unikernel.is_charged() || matches!(unikernel.trouble(), Trouble::Refused(_) | Trouble::Ended(_))
            }
            _ => false,
        };
        if unikernel.stage() != Stage::Kept || !well {
            let (stage, life, again) = (unikernel.stage(), unikernel.life(), unikernel.again());
            return Err(format!("{} is left in {stage:?}, {life:?}, {again:?}", unikernel.name()));
        }
    }
    for (_, block) in world.machine.blocks() {
        let well = match block.stage() {
            BlockStage::Kept => true,
            BlockStage::Undoing(_) => world.append_failed,
            _ => false,
        };
        if !well {
            return Err(format!("block device {} is left in {:?}", block.name(), block.stage()));
        }
    }
    if let Some(name) = world.block_files.keys().find(|name| world.machine.find_block(name).is_none()) {
        return Err(format!("the file of block device {name} is left over"));
    }
    let unnamed = world.images.iter().find(|digest| !world.machine.uses(digest));
    match unnamed {
        Some(digest) if !world.append_failed => Err(format!("image {:?} is left over", digest.first())),
        _ => Ok(()),
    }
}
