//! Virtual machines of bhyve: what their arguments must be, and in which order their devices stand. They have no image; what they
//! boot is on their disk 0. Their devices are called by their numbers, networks and disks each from 0 on.

use super::arguments::{ArgumentsFault, DeviceName};
use super::block::BlockRefused;
use super::refusal::Refusal;
use super::{Machine, Tenders};
use crate::halves::{BY_FD, Tender, Texts, TextsFull, TextsWriter, VirtualMachine, is_partition, is_zvol};
use crate::limits::{DEVICES_MAX, MACHINE_DEVICES_MAX, MACHINE_PROCESSORS_MAX};
use crate::mac;
use crate::name::Name;
use crate::wire::{Arguments, BlockDevice, Bridge, Kind, List};

/// Bytes of the addresses of all networks.
pub(super) const MACS_BYTES_MAX: usize = MACHINE_DEVICES_MAX * 6;

/// What a tender runs, on the wire.
pub(super) fn kind_of(tender: Tender) -> Kind {
    match tender {
        Tender::Hvt | Tender::Spt => Kind::Solo5,
        Tender::Bhyve => Kind::Bhyve,
    }
}

/// All that can be said of the arguments of a virtual machine, but for what they have in common with those of others.
pub(super) fn check(tenders: Tenders, arguments: &Arguments<'_>) -> Result<(), ArgumentsFault> {
    if tenders.bhyve.is_none() {
        return Err(ArgumentsFault::Bhyve);
    }
    check_numbers(arguments.bridges.iter().map(|network| network.name))?;
    check_numbers(arguments.block_devices.iter().map(|block| block.name))?;
    let disks = arguments.block_devices.iter().count();
    if disks == 0 {
        return Err(ArgumentsFault::NoDisk);
    }
    if arguments.bridges.iter().count().saturating_add(disks) > MACHINE_DEVICES_MAX {
        return Err(ArgumentsFault::MachineDevices);
    }
    if arguments.block_devices.iter().any(|disk| disk.sector_size.is_some()) {
        return Err(ArgumentsFault::MachineSector);
    }
    // They are pinned to their CPUs, so more of them would only wait for each other.
    let (processors, cpus) = (arguments.numcpus, arguments.cpuids.iter().count());
    let is_had = usize::try_from(processors).is_ok_and(|processors| (1..=cpus).contains(&processors));
    if processors > MACHINE_PROCESSORS_MAX || (!is_had && cpus > 0) {
        return Err(ArgumentsFault::Processors(processors));
    }
    if arguments.linux_boot.is_some_and(|partition| !is_partition(partition)) {
        return Err(ArgumentsFault::Partition);
    }
    Ok(())
}

/// Whether these are the numbers from 0 on, in any order.
fn check_numbers<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<(), ArgumentsFault> {
    let count = names.clone().count();
    for name in names {
        if number_of(name).is_none_or(|number| number >= count) {
            return Err(ArgumentsFault::DeviceNumber(DeviceName::cut(name.as_bytes())));
        }
    }
    Ok(())
}

fn number_of(name: &str) -> Option<usize> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    name.parse().ok().filter(|_| is_plain)
}

/// The block devices in the order in which they travel with a plan and stand in its argument vector.
pub(super) fn disks<'a>(tender: Tender, arguments: &Arguments<'a>) -> heapless::Vec<BlockDevice<'a>, DEVICES_MAX> {
    let mut disks = heapless::Vec::new();
    // As many as a create admits.
    disks.extend(arguments.block_devices.iter().take(DEVICES_MAX));
    if tender == Tender::Bhyve {
        disks.sort_unstable_by_key(|disk| number_of(disk.name));
    }
    disks
}

fn networks<'a>(bridges: List<'a, Bridge<'a>>) -> heapless::Vec<Bridge<'a>, DEVICES_MAX> {
    let mut networks = heapless::Vec::new();
    // As many as a create admits.
    networks.extend(bridges.iter().take(DEVICES_MAX));
    networks.sort_unstable_by_key(|network| number_of(network.name));
    networks
}

/// What a plan says of a virtual machine, and its bridges.
pub(super) fn plan<'b>(
    name: &Name,
    arguments: &Arguments<'b>,
    bridges: &'b mut [u8],
    disks_buffer: &'b mut [u8],
    macs: &'b mut [u8; MACS_BYTES_MAX],
) -> Result<(VirtualMachine<'b>, Texts<'b>), TextsFull> {
    let (mut texts, mut taken) = (TextsWriter::new(bridges), 0_usize);
    for (network, place) in networks(arguments.bridges).iter().zip(macs.as_chunks_mut::<6>().0) {
        texts.push(network.host().as_bytes())?;
        *place = network.mac.unwrap_or_else(|| mac::address(name, network.name));
        taken = taken.saturating_add(6);
    }
    let mut paths = TextsWriter::new(disks_buffer);
    for disk in disks(Tender::Bhyve, arguments) {
        paths.push(if is_zvol(disk.host()) { disk.host().as_bytes() } else { BY_FD })?;
    }
    let machine = VirtualMachine {
        processors: u8::try_from(arguments.numcpus).map_err(|_| TextsFull)?,
        macs: macs.get(..taken).ok_or(TextsFull)?,
        disks: paths.finish(),
        linux_boot: arguments.linux_boot,
    };
    Ok((machine, texts.finish()))
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// Whether a unikernel of this name may have this zvol: its path may name zvols, and no other unikernel than `old` has it.
    pub(super) fn check_zvol(&self, name: &Name, disk: &BlockDevice<'_>, old: Option<u16>) -> Result<(), Refusal> {
        let label = DeviceName::cut(disk.host().as_bytes());
        if name.path() != self.zvols {
            return Err(Refusal::Block(BlockRefused::NoZvol(label)));
        }
        let machines = self.unikernels().filter(|(slot, it)| it.tender == Tender::Bhyve && Some(*slot) != old);
        let has_it = |slot| {
            let arguments = self.arguments(slot);
            arguments.is_some_and(|it| it.block_devices.iter().any(|other| other.host() == disk.host()))
        };
        for (slot, _) in machines {
            if has_it(slot) {
                return Err(Refusal::Block(BlockRefused::InUse(label)));
            }
        }
        Ok(())
    }
}
