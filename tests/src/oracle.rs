//! What the machine must answer, worked out the slow way from what can be seen of it: no sums are kept, everything is
//! counted again for each question.

mod blocks;
mod charge;
mod conditions;
mod policies;

use fulmar_core::halves::Tender;
use fulmar_core::mac;
use fulmar_core::machine::{
    Account, ArgumentsFault, BlockRefused, BlockStage, DeviceName, Done, Exit, NotAdmitted, Pending, PolicyRefused,
    Refusal, Refused, Reply, Stage, StoreError, Unikernel, Usage,
};
use fulmar_core::name::Name;
use fulmar_core::policy::{Bridge, Policy};
use fulmar_core::solo5::{DeviceKind, Target};
use fulmar_core::wire::{self, Arguments, FailBehaviour, InfoForm, List, NamedInfo};

pub use self::blocks::{block_names, check_blocks};
use self::charge::networks;
pub use self::charge::{Counted, count, memory_mb};
pub use self::conditions::check_conditions;
pub use self::policies::check_policies;
use crate::ask::{Ask, BLOCK_DEVICES, Flaw, Spec, Wish};
use crate::images::IMAGES;
use crate::world::{Question, Violation, World};

/// What the machine must say to a command.
#[derive(Clone, Hash, Debug)]
pub enum Verdict {
    /// At once, exactly this.
    Exactly(Reply),
    /// At once, a refusal because of a policy below.
    PolicyBelow,
    /// At once, a refusal because of one of several bridges.
    PolicyRunningBridge,
    /// Later: created, or refused because of the image.
    Create {
        /// Refused so if nothing fails before.
        refusal: Option<Refusal>,
        /// Refused so where the host cannot run it, which can change while the image is stored.
        tender: Option<Tender>,
    },
    /// At once or later: started anew, or not.
    Restart,
    /// Later: this is done.
    Later(Done),
}

impl Verdict {
    /// Whether there need not be a reply at once.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Restart | Self::Later(_))
    }

    /// Compares a reply; `faulted` where something was made to fail.
    ///
    /// # Errors
    /// What should have been said.
    pub fn check(&self, reply: &Reply, faulted: bool) -> Result<(), String> {
        let right = match (self, reply) {
            (Self::Exactly(expected), _) => expected == reply,
            (Self::PolicyBelow, Reply::Refused(Refusal::Policy(PolicyRefused::Below(_)))) => true,
            (Self::PolicyRunningBridge, Reply::Refused(Refusal::Policy(PolicyRefused::RunningBridge(_)))) => true,
            (Self::Create { refusal: None, .. }, Reply::Done(Done::CreatedUnikernel)) => true,
            (Self::Create { tender, .. }, Reply::Refused(Refusal::NoTender(refused))) => *tender == Some(*refused),
            (Self::Create { .. }, Reply::Refused(Refusal::Launch(_) | Refusal::Journal(_))) => faulted,
            (Self::Create { refusal: Some(expected), .. }, Reply::Refused(refusal)) if expected == refusal => true,
            (Self::Create { .. }, Reply::Refused(Refusal::Store(StoreError::DiskFull))) => faulted,
            (Self::Restart, Reply::Done(Done::CreatedUnikernel)) => true,
            (Self::Restart, Reply::Refused(Refusal::Launch(_) | Refusal::Journal(_))) => faulted,
            (Self::Restart, Reply::Refused(Refusal::Admission(_) | Refusal::Destroyed)) => true,
            (Self::Later(Done::AddedBlock | Done::SetBlock), Reply::Refused(Refusal::Block(BlockRefused::File(_)))) => {
                true
            }
            (Self::Later(Done::SetBlock), Reply::Refused(_)) => false,
            (Self::Later(expected), Reply::Done(done)) => expected == done,
            // Which append has failed is not followed here.
            (Self::Later(_), Reply::Refused(Refusal::Journal(_))) => true,
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("{self:?} was expected")) }
    }
}

/// Whether a unikernel runs again after an end that nobody asked for.
#[must_use]
pub fn runs_again(fail: Option<&[i64]>, exit: Exit) -> bool {
    match (fail, exit) {
        (None, _) | (_, Exit::Code(1 | 60..=64)) => false,
        (Some(codes), Exit::Code(code)) => codes.is_empty() || codes.contains(&i64::from(code)),
        (Some(_), Exit::Signal(_) | Exit::OutOfMemory | Exit::Unknown) => true,
    }
}

/// The same, by arguments in DER.
#[must_use]
pub fn runs_again_by(arguments: &[u8], exit: Exit) -> bool {
    match Arguments::decode(arguments).map(|arguments| arguments.fail_behaviour) {
        Ok(FailBehaviour::Restart(codes)) => runs_again(Some(&codes.iter().collect::<Vec<_>>()), exit),
        _ => false,
    }
}

/// These arguments in DER, but the label is not among them.
#[must_use]
pub fn unnamed(arguments: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; arguments.len()];
    match Arguments::decode(arguments) {
        Ok(decoded) => Arguments { add_name: false, ..decoded }.encode(&mut buffer).unwrap_or_default().to_vec(),
        Err(_) => Vec::new(),
    }
}

/// The policy in this DER.
#[must_use]
pub fn policy_of(der: &[u8]) -> Option<Policy> {
    Policy::try_from(&wire::Policy::decode(der).ok()?).ok()
}

/// What the machine must say to this command now.
pub fn judge<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    ask: &Ask,
) -> Verdict {
    let refused = |refusal| Verdict::Exactly(Reply::Refused(refusal));
    let listed = world.machine.find(&ask.name).map(|(_, unikernel)| unikernel).filter(|it| it.is_listed());
    match ask.wish {
        Wish::Create(spec) => match admission(world, &ask.name, &spec, None) {
            Err(refusal) => refused(refusal),
            Ok(()) => judge_image(&spec),
        },
        Wish::ForceCreate(spec) => {
            let old = world.machine.find(&ask.name);
            match old.map(|(_, old)| is_settled(world, old)) {
                Some(false) => refused(Refusal::Busy),
                _ => match admission(world, &ask.name, &spec, old) {
                    Err(refusal) => refused(refusal),
                    Ok(()) => judge_image(&spec),
                },
            }
        }
        Wish::Restart | Wish::RestartWith(_) if ask.name.is_path() => refused(Refusal::Path),
        Wish::Restart => match world.machine.find(&ask.name) {
            None => refused(Refusal::RestartNotFound),
            Some((_, old)) if !old.is_restarting() && !is_settled(world, old) => refused(Refusal::Busy),
            Some(_) => Verdict::Restart,
        },
        Wish::RestartWith(spec) => match world.machine.find(&ask.name) {
            None => refused(Refusal::RestartNotFound),
            Some((_, old)) if !is_settled(world, old) => refused(Refusal::Busy),
            Some((slot, old)) => {
                let image = IMAGES.iter().position(|image| Some(&image.digest) == old.digest());
                // There is no word of an image in it.
                let flaw = if matches!(spec.flaw, Flaw::Bhyve | Flaw::NoImage) { Flaw::None } else { spec.flaw };
                let spec = Spec { image: image.unwrap_or(0), flaw, ..spec };
                match admission(world, &ask.name, &spec, Some((slot, old))) {
                    Err(refusal) => refused(refusal),
                    Ok(()) => judge_image(&spec),
                }
            }
        },
        Wish::Destroy => match (world.machine.find(&ask.name), listed) {
            (None, _) => refused(Refusal::DestroyNotFound),
            _ if world.machine.find_successor(&ask.name).is_some() => refused(Refusal::Busy),
            (_, None) => refused(Refusal::Busy),
            _ => Verdict::Later(Done::DestroyedUnikernel),
        },
        Wish::Info if ask.name.is_path() || listed.is_some() => Verdict::Exactly(Reply::Infos(InfoForm::Current)),
        Wish::Condition if ask.name.is_path() || listed.is_some() => Verdict::Exactly(Reply::Conditions(world.now)),
        Wish::Info | Wish::Condition => refused(Refusal::InfoNotFound),
        Wish::Get(level) => match listed.and_then(|it| Some((it.digest()?, it.image_bytes()))) {
            Some((digest, bytes)) => {
                let level = u8::try_from(level.clamp(0, 9)).unwrap_or(0);
                Verdict::Exactly(Reply::Image { digest: *digest, bytes, level })
            }
            None => refused(Refusal::GetNotFound),
        },
        Wish::PolicyInfo => Verdict::Exactly(Reply::Policies),
        Wish::PolicyAdd(spec) => policies::judge_add(world, &ask.name.path(), &spec),
        Wish::PolicyRemove => {
            let path = ask.name.path();
            let account = world.machine.ledger().account_at(&path);
            match account {
                _ if path.is_root() => refused(Refusal::Policy(PolicyRefused::Root)),
                None => refused(Refusal::Policy(PolicyRefused::Unknown)),
                Some(account) if is_changing(account) => refused(Refusal::Policy(PolicyRefused::Busy)),
                Some(_) => Verdict::Later(Done::RemovedPolicy),
            }
        }
        Wish::BlockAdd(size) => blocks::judge_add(world, &ask.name, size),
        Wish::BlockRemove => blocks::judge_remove(world, &ask.name),
        Wish::BlockInfo => blocks::judge_info(world, &ask.name),
        Wish::BlockSet => blocks::judge_set(world, &ask.name),
        Wish::BlockOldSet(octets) => blocks::judge_old_set(world, &ask.name, octets),
        Wish::BlockOldAdd(size, octets) => blocks::judge_old_add(world, &ask.name, size, octets),
        Wish::BlockDump(level, whole) => blocks::judge_dump(world, &ask.name, level, whole),
        Wish::Unknown => refused(Refusal::UnknownCommand),
    }
}

/// Whether nothing else is being done about a unikernel that is desired.
fn is_settled<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    unikernel: &Unikernel,
) -> bool {
    let alone = world.machine.find_successor(unikernel.name()).is_none();
    unikernel.stage() == Stage::Kept && !unikernel.is_restarting() && alone
}

fn is_changing(account: &Account) -> bool {
    *account.pending() != Pending::None
}

fn admission<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    name: &Name,
    spec: &Spec,
    old: Option<(u16, &Unikernel)>,
) -> Result<(), Refusal> {
    let wrong = |fault| Err(Refusal::Arguments(fault));
    if name.is_path() {
        return Err(Refusal::Path);
    }
    if world.machine.find(name).is_some() && old.is_none() {
        return Err(Refusal::Exists);
    }
    match spec.flaw {
        Flaw::None | Flaw::NoImage => {}
        Flaw::NoMemory => return wrong(ArgumentsFault::Memory(0)),
        Flaw::NoCpu => return wrong(ArgumentsFault::NoCpu),
        Flaw::Bhyve => return wrong(ArgumentsFault::Bhyve),
        Flaw::Sector => return wrong(ArgumentsFault::Sector(513)),
        Flaw::Twice => return wrong(ArgumentsFault::DeviceTwice(DeviceName::cut(b"service"))),
        Flaw::Nul => return wrong(ArgumentsFault::Nul),
    }
    for (above, path) in (0..).zip(name.ancestors()) {
        let Some(account) = world.machine.ledger().account_at(&path) else { continue };
        let mut used = count(world, &path).used;
        if let Some((slot, old)) = old.filter(|(_, old)| old.is_charged()) {
            used.unikernels -= 1;
            used.memory_mb -= old.memory_mb();
            used.networks -= networks(world, slot);
        }
        let coming = Usage {
            unikernels: used.unikernels + 1,
            memory_mb: used.memory_mb + u64::try_from(spec.memory_mb).unwrap_or(0),
            networks: used.networks + u64::from(spec.bridge.is_some()),
            ..used
        };
        let (used_mb, coming_mb) = (memory_mb(&path, used), memory_mb(&path, coming));
        for policy in account.in_force() {
            let refused = |refused| Err(Refusal::Admission(NotAdmitted { refused, above }));
            if used.unikernels + 1 > policy.unikernels {
                return refused(Refused::Unikernels { allowed: policy.unikernels });
            }
            if coming_mb > policy.memory_mb {
                let (allowed_mb, asked_mb) = (policy.memory_mb, coming_mb - used_mb);
                return refused(Refused::Memory { allowed_mb, used_mb, asked_mb });
            }
            if let Some(cpu) = spec.cpus.iter().find(|cpu| !policy.cpus.iter().any(|allowed| allowed == **cpu)) {
                return refused(if path.is_root() { Refused::HostCpu(*cpu) } else { Refused::Cpu(*cpu) });
            }
            let bridge = spec.bridge.and_then(|bridge| Bridge::new(bridge.as_bytes()).ok());
            if let Some(bridge) = bridge.filter(|bridge| !policy.bridges.as_slice().contains(bridge)) {
                return refused(if path.is_root() { Refused::HostBridge(bridge) } else { Refused::Bridge(bridge) });
            }
        }
    }
    for (index, host) in spec.blocks.iter().enumerate() {
        let label = DeviceName::cut(host.as_bytes());
        let block = name.path().join(host).ok();
        let kept = |block: &Name| world.machine.find_block(block).is_some_and(|(_, it)| it.stage() == BlockStage::Kept);
        let Some(block) = block.filter(kept) else { return Err(Refusal::Block(BlockRefused::Missing(label))) };
        if blocks::is_used(world, &block, old.map(|(old, _)| old)) || spec.blocks[..index].contains(host) {
            return Err(Refusal::Block(BlockRefused::InUse(label)));
        }
        if blocks::is_in_transfer(world, &block) {
            return Err(Refusal::Block(BlockRefused::InTransfer(label)));
        }
    }
    if spec.flaw == Flaw::NoImage {
        return Err(Refusal::NoImage);
    }
    if world.machine.unikernels().count() == U {
        return Err(Refusal::UnikernelsFull);
    }
    let kept_bytes = |(_, unikernel): (u16, &Unikernel)| world.machine.arguments_der(unikernel).len();
    let bytes: usize = world.machine.unikernels().map(kept_bytes).sum();
    if bytes + spec.arguments_der().len() > A { Err(Refusal::ArgumentsFull) } else { Ok(()) }
}

fn judge_image(spec: &Spec) -> Verdict {
    let Some(facts) = &IMAGES[spec.image].facts else {
        return Verdict::Create { refusal: Some(Refusal::Store(StoreError::Compression)), tender: None };
    };
    let tender = if facts.abi.target == Target::Hvt { Tender::Hvt } else { Tender::Spt };
    let given_mb = u64::try_from(spec.memory_mb).unwrap_or(0);
    let refusal = if facts.memory_end >= given_mb << 20 {
        Some(Refusal::MemoryForImage { needed_mb: (facts.memory_end >> 20) + 1, given_mb })
    } else {
        let declared: Vec<_> = facts.manifest.devices().iter().map(|it| (it.kind, it.name.as_str())).collect();
        let blocks = BLOCK_DEVICES.iter().take(spec.blocks.len()).map(|name| (DeviceKind::Block, *name));
        let given: Vec<_> = spec.bridge.map(|_| (DeviceKind::Net, "service")).into_iter().chain(blocks).collect();
        let missing = declared.iter().find(|device| !given.contains(device));
        let foreign = given.iter().find(|device| !declared.contains(device));
        let named = |name: &str| DeviceName::cut(name.as_bytes());
        match (missing, foreign) {
            (Some((kind, name)), _) => Some(Refusal::Arguments(ArgumentsFault::DeviceNotGiven(*kind, named(name)))),
            (_, Some((kind, name))) => Some(Refusal::Arguments(ArgumentsFault::DeviceNotDeclared(*kind, named(name)))),
            _ => None,
        }
    };
    Verdict::Create { refusal, tender: (tender == Tender::Hvt).then_some(tender) }
}

fn absolute(path: &Name, relative: &Name) -> Option<Name> {
    if path.is_root() || !path.is_path() {
        return Some(*relative);
    }
    let relative = relative.as_str();
    Name::parse(&format!("{path}{}", relative.strip_prefix(':').unwrap_or(relative))).ok()
}

/// Whether the list of unikernels is the one that clients must see.
///
/// # Errors
/// What is missing, wrong or too much.
pub fn check_infos<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize>(
    world: &World<U, P, B, C, A>,
    question: &Question,
    infos: List<'_, NamedInfo<'_>>,
) -> Result<(), Violation> {
    let asked = &question.ask.name;
    let named = infos.iter().map(|entry| Some((absolute(asked, &entry.name)?, entry.info)));
    let listed: Vec<_> = named.collect::<Option<_>>().ok_or("a name that is none")?;
    if !listed.is_sorted_by(|(one, _), (other, _)| one < other) {
        return Err("the list is not in order".into());
    }
    for (name, known) in world.known.unikernels.iter().filter(|(name, _)| asked == *name || asked.contains(name)) {
        let changes = |wish| matches!(wish, Wish::Destroy | Wish::ForceCreate(_) | Wish::RestartWith(_));
        if known.over || world.is_asked(name, |question| changes(question.ask.wish)) {
            continue;
        }
        let Some((_, info)) = listed.iter().find(|(listed, _)| listed == name) else {
            return Err(format!("{name} is not listed"));
        };
        let arguments = Arguments::decode(&known.arguments).map_err(|error| error.to_string())?;
        let same = info.digest == known.digest
            && info.memory == arguments.memory
            && info.cpuids == arguments.cpuids
            && info.argv == arguments.argv
            && info.startup == arguments.startup
            && info.fail_behaviour == arguments.fail_behaviour
            && info
                .bridges
                .iter()
                .map(|bridge| bridge.mac)
                .eq(arguments.bridges.iter().map(|it| mac::address(name, it.name)))
            && blocks::same(world, name, info, &arguments);
        if !same {
            return Err(format!("{name} is listed as {info:?}"));
        }
        if info.started.is_some() != world.processes.contains_key(&known.unit) {
            return Err(format!("{name} is listed with the start {:?}", info.started));
        }
    }
    for (name, _) in &listed {
        let create = |question: &Question| matches!(question.ask.wish, Wish::Create(_) | Wish::ForceCreate(_));
        if !world.known.unikernels.contains_key(name) && !world.is_asked(name, create) {
            return Err(format!("{name} is listed, and nobody has it"));
        }
    }
    Ok(())
}
