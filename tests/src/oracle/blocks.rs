//! What the machine must answer about block devices, worked out the slow way: which unikernel uses one is looked up in all
//! arguments, what is used is summed up again.

use std::collections::BTreeSet;

use fulmar_core::limits::TRANSFERS_MAX;
use fulmar_core::machine::{BlockFileError, BlockRefused, BlockStage, Done, NotAdmitted, Refusal, Refused, Reply};
use fulmar_core::name::Name;
use fulmar_core::wire::{Arguments, BlockInfo, Info, List};

use super::{Verdict, absolute, count};
use crate::ask::{Octets, Wish};
use crate::world::{Question, Violation, World};

/// The names of the block devices that these arguments of a unikernel mean.
#[must_use]
pub fn block_names(unikernel: &Name, arguments: &Arguments<'_>) -> Vec<Name> {
    let (path, _) = unikernel.as_str().rsplit_once(':').unwrap_or_default();
    let named =
        arguments.block_devices.iter().map(|device| format!("{path}:{}", device.host_device.unwrap_or(device.name)));
    named.filter_map(|text| Name::parse(&text).ok()).collect()
}

/// Whether a unikernel of any stage names this block device, beside the one in slot `but`.
pub(super) fn is_used<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    block: &Name,
    but: Option<u16>,
) -> bool {
    world.machine.unikernels().any(|(slot, unikernel)| {
        let arguments = world.machine.arguments(slot).filter(|_| Some(slot) != but);
        arguments.is_some_and(|arguments| block_names(unikernel.name(), &arguments).contains(block))
    })
}

/// What the machine must say to the wish for one of this size.
pub(super) fn judge_add<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
    size: i64,
) -> Verdict {
    let refused = |refused| Verdict::Exactly(Reply::Refused(Refusal::Block(refused)));
    if name.is_path() {
        return refused(BlockRefused::Path);
    }
    if size <= 0 {
        return refused(BlockRefused::Size(size));
    }
    if size.checked_mul(1 << 20).is_none() {
        return refused(BlockRefused::Overflow);
    }
    match world.machine.find_block(name).map(|(_, block)| block.stage()) {
        Some(BlockStage::Kept) => return refused(BlockRefused::Exists),
        Some(_) => return refused(BlockRefused::Busy),
        None => {}
    }
    let asked_mb = size.unsigned_abs();
    for (above, path) in (0..).zip(name.ancestors()) {
        let not_admitted =
            |refused| Verdict::Exactly(Reply::Refused(Refusal::Admission(NotAdmitted { refused, above })));
        let Some(account) = world.machine.ledger().account_at(&path) else { continue };
        let used_mb = count(world, &path).used.block_mb;
        for policy in account.in_force() {
            match policy.block_mb {
                None => return not_admitted(Refused::NoBlocks),
                Some(allowed_mb) if used_mb + asked_mb > allowed_mb => {
                    return not_admitted(Refused::Blocks { allowed_mb, used_mb, asked_mb });
                }
                Some(_) => {}
            }
        }
    }
    let full = world.machine.blocks().count() == B;
    if full { refused(BlockRefused::Full) } else { Verdict::Later(Done::AddedBlock) }
}

/// What the machine must say to the wish to remove one.
pub(super) fn judge_remove<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
) -> Verdict {
    let refused = |refused| Verdict::Exactly(Reply::Refused(Refusal::Block(refused)));
    match world.machine.find_block(name).map(|(_, block)| block.stage()) {
        None => refused(BlockRefused::RemoveNotFound),
        Some(BlockStage::Kept) if is_used(world, name, None) => refused(BlockRefused::RemoveInUse),
        Some(BlockStage::Kept) if is_in_transfer(world, name) => refused(BlockRefused::Transfer),
        Some(BlockStage::Kept | BlockStage::Dropping) => Verdict::Later(Done::RemovedBlock),
        Some(_) => refused(BlockRefused::Busy),
    }
}

/// Whether a block device is being set or dumped.
pub(super) fn is_in_transfer<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
) -> bool {
    world.settings.iter().any(|setting| setting.name == *name) || world.dumps.iter().any(|dump| dump.name == *name)
}

fn is_full<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
) -> bool {
    world.settings.len() + world.dumps.len() == usize::from(TRANSFERS_MAX)
}

/// What the machine must say to the wish for another content.
pub(super) fn judge_set<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
) -> Verdict {
    let refused = |refused| Verdict::Exactly(Reply::Refused(Refusal::Block(refused)));
    match world.machine.find_block(name).map(|(_, block)| block.stage()) {
        None => refused(BlockRefused::SetNotFound),
        Some(BlockStage::Kept) if is_used(world, name, None) => refused(BlockRefused::SetInUse),
        Some(BlockStage::Kept) if is_in_transfer(world, name) => refused(BlockRefused::Transfer),
        Some(BlockStage::Kept) if is_full(world) => refused(BlockRefused::TransfersFull),
        Some(BlockStage::Kept) => Verdict::Later(Done::SetBlock),
        Some(_) => refused(BlockRefused::Busy),
    }
}

/// The same, where it comes with the command.
pub(super) fn judge_old_set<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
    octets: Octets,
) -> Verdict {
    match octets {
        Octets::EmptyCompressed if world.machine.find_block(name).is_some() => no_stream(),
        _ => judge_set(world, name),
    }
}

/// What the machine must say to the wish for one with a content.
pub(super) fn judge_old_add<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
    size: i64,
    octets: Octets,
) -> Verdict {
    if octets == Octets::EmptyCompressed && size > 0 { no_stream() } else { judge_add(world, name, size) }
}

fn no_stream() -> Verdict {
    Verdict::Exactly(Reply::Refused(Refusal::Block(BlockRefused::File(BlockFileError::Compression))))
}

/// What the machine must say to the wish for the content.
pub(super) fn judge_dump<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
    level: i64,
    whole: bool,
) -> Verdict {
    let refused = |refused| Verdict::Exactly(Reply::Refused(Refusal::Block(refused)));
    let Some((slot, block)) = world.machine.find_block(name) else { return refused(BlockRefused::DumpNotFound) };
    match block.stage() {
        BlockStage::Kept if is_used(world, name, None) => refused(BlockRefused::DumpInUse),
        BlockStage::Kept if world.settings.iter().any(|it| it.name == *name) => refused(BlockRefused::Transfer),
        BlockStage::Kept if is_full(world) => refused(BlockRefused::TransfersFull),
        BlockStage::Kept => {
            let level = u8::try_from(level.clamp(0, 9)).unwrap_or(0);
            Verdict::Exactly(Reply::Dump { slot, level, whole })
        }
        _ => refused(BlockRefused::Busy),
    }
}

/// What the machine must say to the wish to see some.
pub(super) fn judge_info<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
) -> Verdict {
    if name.is_path() || world.machine.find_block(name).is_some_and(|(_, block)| block.is_listed()) {
        return Verdict::Exactly(Reply::Blocks);
    }
    Verdict::Exactly(Reply::Refused(Refusal::Block(BlockRefused::InfoNotFound)))
}

/// Whether a unikernel is listed with the block devices that it was given.
pub(super) fn same<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    unikernel: &Name,
    info: &Info<'_>,
    arguments: &Arguments<'_>,
) -> bool {
    let sizes = block_names(unikernel, arguments).into_iter().map(|name| world.known.blocks.get(&name).copied());
    let sizes = sizes.map(|size| i64::try_from(size.unwrap_or(0)).unwrap_or(0));
    let given = arguments.block_devices.iter().zip(sizes);
    let given =
        given.map(|(it, size)| (it.name, it.host_device.unwrap_or(it.name), it.sector_size.unwrap_or(512), size));
    let listed = info.block_devices.iter();
    let given: BTreeSet<_> = given.collect();
    listed.map(|it| (it.device.as_str(), it.host.as_str(), it.sector_size, it.size)).collect::<BTreeSet<_>>()
        == given.into_iter().map(|(device, host, sector, size)| (Some(device), Some(host), sector, size)).collect()
}

/// Whether the list of block devices is the one that clients must see.
///
/// # Errors
/// What is missing, wrong or too much.
pub fn check_blocks<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    question: &Question,
    list: List<'_, BlockInfo>,
) -> Result<(), Violation> {
    let asked = &question.ask.name;
    let named = list.iter().map(|entry| Some((absolute(asked, &entry.name)?, entry.size, entry.active)));
    let listed: Vec<_> = named.collect::<Option<_>>().ok_or("a name that is none")?;
    if !listed.is_sorted_by(|(one, ..), (other, ..)| one < other) {
        return Err("the list is not in order".into());
    }
    let changing = |name: &Name, wanted: fn(Wish) -> bool| world.is_asked(name, |question| wanted(question.ask.wish));
    for (name, size_mb) in world.known.blocks.iter().filter(|(name, _)| asked == *name || asked.contains(name)) {
        match listed.iter().find(|(listed, ..)| listed == name) {
            Some((_, size, active))
                if (i64::try_from(*size_mb), is_used(world, name, None)) == (Ok(*size), *active) => {}
            None if changing(name, |wish| wish == Wish::BlockRemove) => {}
            found => return Err(format!("block device {name} is listed as {found:?}")),
        }
    }
    let unknown = |name: &Name| {
        let adds = |wish: Wish| matches!(wish, Wish::BlockAdd(_) | Wish::BlockOldAdd(..));
        !world.known.blocks.contains_key(name) && !changing(name, adds)
    };
    match listed.iter().find(|(name, ..)| unknown(name)) {
        Some((name, ..)) => Err(format!("block device {name} is listed, and nobody has it")),
        None => Ok(()),
    }
}
