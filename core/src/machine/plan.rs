//! What is executed for a unikernel, complete: the host half adds nothing but the fds that it makes.

use super::bhyve::{self, MACS_BYTES_MAX};
use super::{Life, Machine};
use crate::halves::{IMAGE_FD, LaunchPlan, TAP_FD_FIRST, Tender, Texts, TextsFull, TextsWriter, Unit, is_zvol};
use crate::limits::{ACCOUNTS_MAX, ARGV_BYTES_MAX, DEVICES_MAX, INTERFACE_BYTES_MAX, UNIKERNELS_MAX, UNITS_MAX};
use crate::mac;
use crate::name::Name;
use crate::policy::CpuSet;
use crate::wire::{Arguments, BlockDevice};

/// Where the variable parts of a plan are made.
pub struct PlanBuffers {
    argv: [u8; ARGV_BYTES_MAX],
    networks: [u8; DEVICES_MAX * (INTERFACE_BYTES_MAX + 1)],
    macs: [u8; MACS_BYTES_MAX],
}

impl PlanBuffers {
    /// Empty buffers.
    #[must_use]
    pub const fn new() -> Self {
        let networks = [0; DEVICES_MAX * (INTERFACE_BYTES_MAX + 1)];
        Self { argv: [0; ARGV_BYTES_MAX], networks, macs: [0; MACS_BYTES_MAX] }
    }
}

impl Default for PlanBuffers {
    fn default() -> Self {
        Self::new()
    }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    /// The plan of [`super::Effect::Launch`]; nothing for a slot that is to launch nothing.
    pub fn launch_plan<'b>(&'b self, slot: u16, buffers: &'b mut PlanBuffers) -> Option<LaunchPlan<'b>> {
        let unikernel = self.unikernel(slot).filter(|unikernel| unikernel.life == Life::Launching)?;
        let arguments = self.arguments(slot)?;
        let PlanBuffers { argv: argv_buffer, networks: networks_buffer, macs } = buffers;
        let (name, tender) = (&unikernel.name, unikernel.tender);
        let (networks, argv, machine) = if tender == Tender::Bhyve {
            let (machine, networks) = bhyve::plan(name, &arguments, networks_buffer, argv_buffer, macs).ok()?;
            (networks, Texts::EMPTY, Some(machine))
        } else {
            let program = if self.tenders.solo5 { Program::Solo5 } else { Program::Fulmar };
            let argv = argv(program, tender, name, &arguments, argv_buffer).ok()?;
            (networks(&arguments, networks_buffer).ok()?, argv, None)
        };
        Some(LaunchPlan {
            unit: Unit(unikernel.unit),
            account: unikernel.account,
            tender,
            cpus: CpuSet::collect(arguments.cpuids.iter()).ok()?,
            memory_mb: u32::try_from(unikernel.memory_mb).ok()?,
            networks,
            blocks: u8::try_from(self.blocks_of_plan(slot).len()).ok()?,
            argv,
            machine,
        })
    }

    /// The block devices that travel with the plan of a slot, in their order: all but zvols, which are not ours.
    #[must_use]
    pub fn blocks_of_plan(&self, slot: u16) -> heapless::Vec<BlockDevice<'_>, DEVICES_MAX> {
        let Some((unikernel, arguments)) = self.unikernel(slot).zip(self.arguments(slot)) else {
            return heapless::Vec::new();
        };
        let mut disks = bhyve::disks(unikernel.tender, &arguments);
        disks.retain(|disk| unikernel.tender != Tender::Bhyve || !is_zvol(disk.host()));
        disks
    }

    /// An account that no process runs under, the lowest.
    pub(super) fn free_account(&self) -> u16 {
        let mut taken = self.strays;
        for (_, unikernel) in self.unikernels.iter().filter(|(_, unikernel)| unikernel.life != Life::None) {
            taken.insert(unikernel.account);
        }
        taken.lowest_outside()
    }
}

const WORD_BITS: u16 = 64;
const WORDS: usize = ACCOUNTS_MAX.div_ceil(WORD_BITS) as usize;
const _: () = assert!(UNIKERNELS_MAX + UNITS_MAX <= ACCOUNTS_MAX as usize, "an account is free also beside strays");

/// A set of accounts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Accounts {
    words: [u64; WORDS],
}

impl Accounts {
    /// No account.
    pub(super) const NONE: Self = Self { words: [0; WORDS] };

    pub(super) fn insert(&mut self, account: u16) {
        if let Some(word) = self.words.get_mut(usize::from(account / WORD_BITS)) {
            *word |= 1 << (account % WORD_BITS);
        }
    }

    fn lowest_outside(&self) -> u16 {
        let free = self.words.iter().enumerate().find(|(_, word)| **word != u64::MAX);
        let (index, bit) = free.map_or((0, 0), |(index, word)| (index, word.trailing_ones()));
        let base = u16::try_from(index).unwrap_or(0).saturating_mul(WORD_BITS);
        base.saturating_add(u16::try_from(bit).unwrap_or(0))
    }
}

fn networks<'b>(arguments: &Arguments<'_>, buffer: &'b mut [u8]) -> Result<Texts<'b>, TextsFull> {
    let mut texts = TextsWriter::new(buffer);
    for network in arguments.bridges {
        texts.push(network.host().as_bytes())?;
    }
    Ok(texts.finish())
}

/// Whose program the tender is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    /// Ours.
    Fulmar,
    /// Solo5's. It opens files by their names, and that of an open one is `/dev/fd/N`.
    Solo5,
}

impl Program {
    /// What stands before the number of a fd that is a file.
    fn file(self) -> &'static str {
        match self {
            Self::Fulmar => "@",
            Self::Solo5 => "/dev/fd/",
        }
    }
}

/// The tender's argument vector. The fds are those that the host half puts in place (`core::halves`).
fn argv<'b>(
    program: Program,
    tender: Tender,
    name: &Name,
    arguments: &Arguments<'_>,
    buffer: &'b mut [u8],
) -> Result<Texts<'b>, TextsFull> {
    let mut argv = TextsWriter::new(buffer);
    let called = match tender {
        Tender::Hvt => "solo5-hvt",
        Tender::Spt => "solo5-spt",
        Tender::Bhyve => return Err(TextsFull),
    };
    argv.push(called.as_bytes())?;
    let file = program.file();
    argv.push_format(format_args!("--mem={}", arguments.memory))?;
    let mut fd = TAP_FD_FIRST;
    for network in arguments.bridges {
        argv.push_format(format_args!("--net:{}=@{fd}", network.name))?;
        fd = fd.saturating_add(1);
    }
    for network in arguments.bridges {
        let [a, b, c, d, e, f] = network.mac.unwrap_or_else(|| mac::address(name, network.name));
        let device = network.name;
        argv.push_format(format_args!("--net-mac:{device}={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"))?;
    }
    for block in arguments.block_devices {
        argv.push_format(format_args!("--block:{}={file}{fd}", block.name))?;
        fd = fd.saturating_add(1);
    }
    for block in arguments.block_devices {
        if let Some(bytes) = block.sector_size {
            argv.push_format(format_args!("--block-sector-size:{}={bytes}", block.name))?;
        }
    }
    if program == Program::Fulmar {
        own_fds(tender, arguments, fd, &mut argv)?;
    }
    argv.push(b"--")?;
    argv.push_format(format_args!("{file}{IMAGE_FD}"))?;
    if let Some(label) = name.label().filter(|_| arguments.add_name) {
        argv.push_format(format_args!("--name={label}"))?;
    }
    for argument in arguments.argv.into_iter().flatten() {
        argv.push(argument.0)?;
    }
    Ok(argv.finish())
}

/// What our tender is given beside what the guest has.
fn own_fds(
    tender: Tender,
    arguments: &Arguments<'_>,
    mut fd: u16,
    argv: &mut TextsWriter<'_>,
) -> Result<(), TextsFull> {
    if tender == Tender::Hvt {
        argv.push_format(format_args!("--kvm=@{fd}"))?;
        fd = fd.saturating_add(1);
    }
    // The tender does not start in the network namespace that the taps are in.
    if !arguments.bridges.is_empty() {
        argv.push_format(format_args!("--net-control=@{fd}"))?;
        fd = fd.saturating_add(1);
    }
    // For the time when nobody is there to be told of its end.
    argv.push_format(format_args!("--exit-status-file=@{fd}"))
}
