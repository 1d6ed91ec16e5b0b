//! What a unikernel's arguments ask for, and whether that makes sense before anything is tried.

use core::fmt;

use super::arena::{ArenaFull, Span};
use super::{Machine, Tenders, Unikernel};
use crate::limits::{
    ARGUMENTS_BYTES_MAX, COMMAND_LINE_BYTES_MAX, DEVICE_NAME_BYTES_MAX, DEVICES_MAX, MACHINE_DEVICES_MAX,
    MACHINE_MEMORY_MB_MAX, MACHINE_PROCESSORS_MAX, MEMORY_MB_MAX, POLICY_BRIDGES_MAX, SECTOR_BYTES_DEFAULT,
    SECTOR_BYTES_MAX,
};
use crate::name::Name;
use crate::policy::{Bridge, Bridges, CpuSet, NoSuchBridge, NoSuchCpu, Policy};
use crate::solo5::{DeviceKind, Manifest};
use crate::text::Short;
use crate::wire::{self, Arguments, Kind};

/// A device's name in an error.
pub type DeviceName = Short<DEVICE_NAME_BYTES_MAX>;

/// Arguments that make no sense, and what would.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ArgumentsFault {
    /// bhyve is asked for.
    Bhyve,
    /// No CPU is given.
    NoCpu,
    /// A CPU id that no host has.
    Cpu(i64),
    /// Memory of no size, or of more than a tender can map.
    Memory(i64),
    /// A name that no bridge has.
    Bridge,
    /// A name that no device in a manifest has.
    DeviceName(DeviceName),
    /// The same device is given twice.
    DeviceTwice(DeviceName),
    /// More devices than a manifest can declare.
    Devices,
    /// Sectors of a size that no block device has.
    Sector(i64),
    /// The arguments are longer than a guest's command line.
    CommandLine,
    /// An argument holds a NUL.
    Nul,
    /// All together is more than is kept of a unikernel.
    TooLong,
    /// The image declares a device that is not given.
    DeviceNotGiven(DeviceKind, DeviceName),
    /// A device is given that the image does not declare.
    DeviceNotDeclared(DeviceKind, DeviceName),
    /// A number in a policy that is negative.
    Negative(i64),
    /// More bridges than a policy keeps.
    Bridges,
    /// A virtual machine without a disk.
    NoDisk,
    /// A device of a virtual machine that is not called by its number.
    DeviceNumber(DeviceName),
    /// More devices than the bus of a virtual machine has room for.
    MachineDevices,
    /// A virtual machine and sectors.
    MachineSector,
    /// So many processors for a virtual machine, which is none, or more than it has CPUs.
    Processors(i64),
    /// A text that no partition is called.
    Partition,
    /// Memory of no size, or of more than a virtual machine can have.
    MachineMemory(i64),
}

impl fmt::Display for ArgumentsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bhyve => {
                f.write_str("bhyve virtual machines are not run here (bhyve runs on FreeBSD): give a Solo5 image")
            }
            Self::NoCpu => f.write_str("no CPU is given: name at least one"),
            Self::Cpu(cpu) => NoSuchCpu(*cpu).fmt(f),
            Self::Memory(mb) => write!(f, "{mb} MB is no amount of memory: give 1 to {MEMORY_MB_MAX} MB"),
            Self::Bridge => NoSuchBridge.fmt(f),
            Self::DeviceName(name) => {
                write!(f, "'{name}' is no name of a device: 1 to {DEVICE_NAME_BYTES_MAX} letters and digits")
            }
            Self::DeviceTwice(name) => write!(f, "device {name} is given twice"),
            Self::Devices => write!(f, "more than {DEVICES_MAX} devices"),
            Self::Sector(bytes) => write!(
                f,
                "{bytes} bytes are no sector of a block device: give a power of two from {SECTOR_BYTES_DEFAULT} to \
                 {SECTOR_BYTES_MAX}"
            ),
            Self::CommandLine => write!(f, "the arguments are longer than {COMMAND_LINE_BYTES_MAX} bytes"),
            Self::Nul => f.write_str("an argument contains a NUL byte"),
            Self::TooLong => write!(f, "devices and arguments together are longer than {ARGUMENTS_BYTES_MAX} bytes"),
            Self::DeviceNotGiven(kind, name) => {
                write!(f, "the image declares {kind} device {name}, which is not given: add it")
            }
            Self::DeviceNotDeclared(kind, name) => {
                write!(f, "{kind} device {name} is given, but the image does not declare it: leave it out")
            }
            Self::Negative(number) => write!(f, "{number} is negative: a policy allows 0 or more"),
            Self::Bridges => write!(f, "more than {POLICY_BRIDGES_MAX} bridges in a policy"),
            Self::NoDisk => f.write_str("a bhyve virtual machine boots from its block device 0: give it"),
            Self::DeviceNumber(name) => write!(
                f,
                "device {name}: the networks of a bhyve virtual machine are called 0, 1 and so on, and so are its block devices"
            ),
            Self::MachineDevices => {
                write!(f, "more than {MACHINE_DEVICES_MAX} networks and block devices of a bhyve virtual machine")
            }
            Self::MachineSector => {
                f.write_str("the disks of a bhyve virtual machine have the sectors of the host: leave their size out")
            }
            Self::Processors(count) => write!(
                f,
                "{count} virtual CPUs: give 1 to {MACHINE_PROCESSORS_MAX}, and no more than CPUs that it may run on"
            ),
            Self::Partition => f.write_str("a partition to boot Linux from is called as GRUB calls it: msdos1, gpt2"),
            Self::MachineMemory(mb) => {
                write!(f, "{mb} MB is no amount of memory: give 1 to {MACHINE_MEMORY_MB_MAX} MB")
            }
        }
    }
}

/// What arguments ask of the host.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    pub(super) memory_mb: u64,
    pub(super) cpus: CpuSet,
    /// One a network device, in their order.
    pub(super) bridges: heapless::Vec<Bridge, DEVICES_MAX>,
}

impl Needs {
    /// How many networks.
    pub(super) fn networks(&self) -> u64 {
        u64::try_from(self.bridges.len()).unwrap_or(u64::MAX)
    }

    /// What these arguments ask for.
    pub(super) fn of(kind: Kind, arguments: &Arguments<'_>) -> Result<Self, ArgumentsFault> {
        let memory = arguments.memory;
        let (max, fault) = match kind {
            Kind::Solo5 => (MEMORY_MB_MAX, ArgumentsFault::Memory(memory)),
            Kind::Bhyve => (MACHINE_MEMORY_MB_MAX, ArgumentsFault::MachineMemory(memory)),
        };
        let memory_mb = match u64::try_from(memory) {
            Ok(mb) if memory > 0 && memory <= max => mb,
            _ => return Err(fault),
        };
        let cpus = CpuSet::collect(arguments.cpuids.iter()).map_err(|NoSuchCpu(cpu)| ArgumentsFault::Cpu(cpu))?;
        if cpus.is_empty() {
            return Err(ArgumentsFault::NoCpu);
        }
        let mut bridges = heapless::Vec::new();
        for network in arguments.bridges {
            let bridge = Bridge::new(network.host().as_bytes()).map_err(|NoSuchBridge| ArgumentsFault::Bridge)?;
            bridges.push(bridge).map_err(|_| ArgumentsFault::Devices)?;
        }
        Ok(Self { memory_mb, cpus, bridges })
    }
}

/// All that can be said of a create's arguments before its image is known.
pub(super) fn check(
    tenders: Tenders,
    kind: Kind,
    name: &Name,
    arguments: &Arguments<'_>,
) -> Result<Needs, ArgumentsFault> {
    if kind == Kind::Bhyve {
        super::bhyve::check(tenders, arguments)?;
    }
    let needs = Needs::of(kind, arguments)?;
    let mut seen: heapless::Vec<(bool, &str), DEVICES_MAX> = heapless::Vec::new();
    // In a manifest no network is called as a block device is; a virtual machine has both from 0 on.
    let apart = kind == Kind::Bhyve;
    let networks = arguments.bridges.iter().map(|network| (apart, network.name));
    let blocks = arguments.block_devices.iter().map(|block| (false, block.name));
    for (group, device) in networks.chain(blocks) {
        let shown = DeviceName::cut(device.as_bytes());
        let sane = !device.is_empty() && device.len() <= DEVICE_NAME_BYTES_MAX;
        if !sane || !device.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ArgumentsFault::DeviceName(shown));
        }
        if seen.contains(&(group, device)) {
            return Err(ArgumentsFault::DeviceTwice(shown));
        }
        seen.push((group, device)).map_err(|_| ArgumentsFault::Devices)?;
    }
    for bytes in arguments.block_devices.iter().filter_map(|block| block.sector_size) {
        let size = u64::try_from(bytes).ok().filter(|size| size.is_power_of_two());
        if size.is_none() || !(SECTOR_BYTES_DEFAULT..=SECTOR_BYTES_MAX).contains(&bytes) {
            return Err(ArgumentsFault::Sector(bytes));
        }
    }
    check_argv(name, arguments)?;
    Ok(needs)
}

fn check_argv(name: &Name, arguments: &Arguments<'_>) -> Result<(), ArgumentsFault> {
    // The tender joins the arguments with blanks.
    let mut bytes = match name.label() {
        Some(label) if arguments.add_name => "--name= ".len().saturating_add(label.len()),
        _ => 0,
    };
    for argument in arguments.argv.into_iter().flatten() {
        if argument.0.contains(&0) {
            return Err(ArgumentsFault::Nul);
        }
        bytes = bytes.saturating_add(argument.0.len()).saturating_add(1);
    }
    if bytes > COMMAND_LINE_BYTES_MAX { Err(ArgumentsFault::CommandLine) } else { Ok(()) }
}

/// Whether the devices given are those that the image declares, no more and no less.
pub(super) fn check_devices(arguments: &Arguments<'_>, manifest: &Manifest) -> Result<(), ArgumentsFault> {
    let given = |kind: DeviceKind, name: &str| match kind {
        DeviceKind::Net => arguments.bridges.iter().any(|network| network.name == name),
        DeviceKind::Block => arguments.block_devices.iter().any(|block| block.name == name),
    };
    for device in manifest.devices() {
        if !given(device.kind, &device.name) {
            let name = DeviceName::cut(device.name.as_bytes());
            return Err(ArgumentsFault::DeviceNotGiven(device.kind, name));
        }
    }
    let networks = arguments.bridges.iter().map(|network| (DeviceKind::Net, network.name));
    let blocks = arguments.block_devices.iter().map(|block| (DeviceKind::Block, block.name));
    match networks.chain(blocks).find(|(kind, name)| manifest.handle(name, *kind).is_none()) {
        Some((kind, name)) => Err(ArgumentsFault::DeviceNotDeclared(kind, DeviceName::cut(name.as_bytes()))),
        None => Ok(()),
    }
}

impl TryFrom<&wire::Policy<'_>> for Policy {
    type Error = ArgumentsFault;

    fn try_from(policy: &wire::Policy<'_>) -> Result<Self, ArgumentsFault> {
        let number = |value: i64| u64::try_from(value).map_err(|_| ArgumentsFault::Negative(value));
        let mut bridges = Bridges::EMPTY;
        for name in policy.bridges {
            let bridge = Bridge::new(name.as_bytes()).map_err(|NoSuchBridge| ArgumentsFault::Bridge)?;
            bridges.insert(bridge).map_err(|_| ArgumentsFault::Bridges)?;
        }
        Ok(Self {
            unikernels: number(policy.unikernels)?,
            cpus: CpuSet::collect(policy.cpuids.iter()).map_err(|NoSuchCpu(cpu)| ArgumentsFault::Cpu(cpu))?,
            memory_mb: number(policy.memory)?,
            block_mb: policy.block.map(number).transpose()?,
            bridges,
        })
    }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// Keeps arguments in the arena, in their canonical form.
    pub(super) fn keep_arguments(&mut self, arguments: &Arguments<'_>) -> Result<Span, KeepError> {
        let mut buffer = [0; ARGUMENTS_BYTES_MAX];
        let encoded = arguments.encode(&mut buffer).map_err(|_| KeepError::TooLong)?;
        self.arena.insert(encoded).map_err(|ArenaFull| KeepError::ArenaFull)
    }

    /// Takes the label away from what a slot's unikernel is run with; `false` where it is not among that.
    pub(super) fn take_label(&mut self, slot: u16) -> bool {
        let Some(span) = self.unikernels.get(slot).map(|unikernel| unikernel.span) else { return false };
        let Some(arguments) = self.arguments(slot).filter(|arguments| arguments.add_name) else { return false };
        let mut buffer = [0; ARGUMENTS_BYTES_MAX];
        let Ok(encoded) = Arguments { add_name: false, ..arguments }.encode(&mut buffer) else { return false };
        self.arena.replace(span, encoded)
    }

    /// The arguments of a slot as they are kept: canonical DER.
    #[must_use]
    pub fn arguments_der(&self, unikernel: &Unikernel) -> &[u8] {
        self.arena.get(unikernel.span)
    }

    /// The arguments of a slot.
    #[must_use]
    pub fn arguments(&self, slot: u16) -> Option<Arguments<'_>> {
        Arguments::decode(self.arguments_der(self.unikernels.get(slot)?)).ok()
    }
}

/// Why arguments cannot be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeepError {
    /// Longer than [`ARGUMENTS_BYTES_MAX`].
    TooLong,
    /// No room among those of all unikernels.
    ArenaFull,
}
