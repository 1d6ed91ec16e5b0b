//! What the running daemon has already, as its listings say it: so that nothing is made twice and nothing is overwritten.

use std::collections::BTreeMap;

use fulmar_core::limits::{ARGUMENTS_BYTES_MAX, SECTOR_BYTES_DEFAULT};
use fulmar_core::mac;
use fulmar_core::machine::{Digest, POLICY_BYTES_MAX};
use fulmar_core::name::Name;
use fulmar_core::policy::Policy;
use fulmar_core::wire::{
    self, Arguments, BlockCommand, BlockDevice, Bridge, Command, Info, InfoBlock, InfoBridge, Kind, List,
    PolicyCommand, Success, UnikernelCommand,
};

use crate::connection::{Connection, Daemon, Door};
use crate::error::Failure;

const UNEXPECTED: Failure = Failure::Unexpected { daemon: Daemon::Vmmd };

/// What is there.
#[derive(Debug)]
pub(super) struct Present {
    /// What the host has.
    pub(super) root: Policy,
    /// The other policies, parents first.
    pub(super) policies: BTreeMap<Name, PresentPolicy>,
    /// The block devices.
    pub(super) blocks: BTreeMap<Name, PresentBlock>,
    /// The unikernels.
    pub(super) unikernels: BTreeMap<Name, PresentUnikernel>,
}

/// A policy that is there.
#[derive(Debug)]
pub(super) struct PresentPolicy {
    pub(super) policy: Policy,
    /// The same in DER.
    pub(super) der: Vec<u8>,
}

/// A block device that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct PresentBlock {
    pub(super) size_mb: i64,
    /// Whether a unikernel has it.
    pub(super) active: bool,
}

/// A unikernel that is there.
#[derive(Debug)]
pub(super) struct PresentUnikernel {
    /// SHA-256 of its image, uncompressed; nothing for a virtual machine, which has none.
    pub(super) digest: Option<Digest>,
    /// [`canonical`] of its arguments.
    pub(super) arguments: Vec<u8>,
}

impl Present {
    /// Asks the daemon.
    pub(super) fn ask(door: &dyn Door) -> Result<Self, Failure> {
        let mut policies = policies(door)?;
        let root = policies.remove(&Name::ROOT).ok_or(UNEXPECTED)?.policy;
        Ok(Self { root, policies, blocks: blocks(door)?, unikernels: unikernels(door)? })
    }
}

fn asked(door: &dyn Door, command: Command<'_>) -> Result<Connection, Failure> {
    let mut connection = door.open(Daemon::Vmmd)?;
    connection.send(Name::ROOT, command)?;
    Ok(connection)
}

fn policies(door: &dyn Door) -> Result<BTreeMap<Name, PresentPolicy>, Failure> {
    let mut connection = asked(door, Command::Policy(PolicyCommand::Info))?;
    let Success::Policies(listed) = connection.receive(Name::ROOT)? else { return Err(UNEXPECTED) };
    let mut buffer = vec![0; POLICY_BYTES_MAX];
    let mut policy = |it: &wire::Policy<'_>| {
        let der = it.encode(&mut buffer).ok()?.to_vec();
        Some(PresentPolicy { policy: Policy::try_from(it).ok()?, der })
    };
    listed.iter().map(|entry| Ok((entry.name, policy(&entry.policy).ok_or(UNEXPECTED)?))).collect()
}

fn blocks(door: &dyn Door) -> Result<BTreeMap<Name, PresentBlock>, Failure> {
    let mut connection = asked(door, Command::Block(BlockCommand::Info))?;
    let Success::Blocks(listed) = connection.receive(Name::ROOT)? else { return Err(UNEXPECTED) };
    Ok(listed.iter().map(|it| (it.name, PresentBlock { size_mb: it.size, active: it.active })).collect())
}

fn unikernels(door: &dyn Door) -> Result<BTreeMap<Name, PresentUnikernel>, Failure> {
    let mut connection = asked(door, Command::Unikernel(UnikernelCommand::Info))?;
    let Success::Infos(listed) = connection.receive(Name::ROOT)? else { return Err(UNEXPECTED) };
    let unikernel = |name: &Name, info: &Info<'_>| {
        let digest = match info.kind {
            Kind::Solo5 => Some(Digest::try_from(info.digest).ok()?),
            Kind::Bhyve => None,
        };
        Some(PresentUnikernel { digest, arguments: arguments_of(name, info)? })
    };
    listed.iter().map(|it| Ok((it.name, unikernel(&it.name, &it.info).ok_or(UNEXPECTED)?))).collect()
}

/// What a listed unikernel runs with; nothing where it is not text that a daemon acts upon.
fn arguments_of(name: &Name, info: &Info<'_>) -> Option<Vec<u8>> {
    let blocks: Vec<BlockDevice<'_>> = info.block_devices.iter().map(block_device).collect::<Option<_>>()?;
    let bridges: Vec<Bridge<'_>> = info.bridges.iter().map(bridge).collect::<Option<_>>()?;
    let arguments = Arguments {
        fail_behaviour: info.fail_behaviour,
        startup: info.startup,
        add_name: true,
        cpuids: info.cpuids,
        memory: info.memory,
        block_devices: List::Items(&blocks),
        bridges: List::Items(&bridges),
        argv: info.argv,
        numcpus: info.numcpus,
        linux_boot: match info.linux_boot {
            Some(partition) => Some(partition.as_str()?),
            None => None,
        },
    };
    canonical(name, &arguments)
}

fn block_device<'a>(it: InfoBlock<'a>) -> Option<BlockDevice<'a>> {
    let (name, host_device) = (it.device.as_str()?, Some(it.host.as_str()?));
    Some(BlockDevice { name, host_device, sector_size: Some(it.sector_size) })
}

fn bridge<'a>(it: InfoBridge<'a>) -> Option<Bridge<'a>> {
    Some(Bridge { name: it.device.as_str()?, bridge: Some(it.host.as_str()?), mac: Some(it.mac) })
}

/// Arguments with all that is left to the daemon filled in as it does, and without what it does not tell: two unikernels of
/// the same name run alike when these bytes are the same. Nothing where it cannot have such arguments.
pub(super) fn canonical(name: &Name, arguments: &Arguments<'_>) -> Option<Vec<u8>> {
    let bridges: Vec<Bridge<'_>> = arguments
        .bridges
        .iter()
        .map(|it| Bridge {
            name: it.name,
            bridge: Some(it.host()),
            mac: Some(it.mac.unwrap_or_else(|| mac::address(name, it.name))),
        })
        .collect();
    let blocks: Vec<BlockDevice<'_>> = arguments
        .block_devices
        .iter()
        .map(|it| BlockDevice {
            name: it.name,
            host_device: Some(it.host()),
            sector_size: Some(it.sector_size.unwrap_or(SECTOR_BYTES_DEFAULT)),
        })
        .collect();
    let arguments =
        Arguments { add_name: true, block_devices: List::Items(&blocks), bridges: List::Items(&bridges), ..*arguments };
    let mut buffer = vec![0; ARGUMENTS_BYTES_MAX];
    arguments.encode(&mut buffer).ok().map(<[u8]>::to_vec)
}
