//! What a unikernel runs with, as options: `create` and `restart` have the same.

use clap::Args;
use fulmar_core::wire::{Arguments, BlockDevice, Bridge, FailBehaviour, List, Text};

use crate::options::{self, BlockOption, NetOption};

/// The options.
#[derive(Args, Debug)]
pub struct RunOptions {
    /// Put the image's network DEVICE on BRIDGE (default: the bridge called as the device)
    #[arg(long, value_name = "DEVICE[:BRIDGE[=MAC]]", value_parser = options::net)]
    pub(crate) net: Vec<NetOption>,
    /// Make the image's block DEVICE the host's HOSTDEVICE (default: the one called as the device)
    #[arg(long, value_name = "DEVICE[:HOSTDEVICE][@SECTOR]", value_parser = options::block)]
    pub(crate) block: Vec<BlockOption>,
    /// Memory in MB
    #[arg(long, value_name = "MB", default_value_t = 32, allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) mem: u32,
    /// A CPU that it may run on; repeat for several
    #[arg(long, value_name = "ID", default_value = "0", allow_negative_numbers = true, value_parser = options::cpu)]
    pub(crate) cpu: Vec<i64>,
    /// An argument for the unikernel; repeat for several, they come before those after --
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) arg: Vec<String>,
    /// Start it again when it fails
    #[arg(long)]
    pub(crate) restart_on_fail: bool,
    /// Start it again when it ends with exit code N and with no other; repeat for several
    #[arg(long, value_name = "N")]
    pub(crate) exit_code: Vec<u8>,
    /// Its place in the order of starting after a reboot, lower first (default: 50)
    #[arg(long, value_name = "N")]
    pub(crate) startup: Option<u32>,
    /// Do not put --name=LABEL before its arguments
    #[arg(long)]
    pub(crate) no_add_name: bool,
    /// The virtual CPUs of a bhyve virtual machine, no more than it has CPUs
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true,
          value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) numcpus: u8,
    /// Boot Linux from this partition of a bhyve virtual machine's block device 0, as GRUB calls it (default: boot FreeBSD)
    #[arg(long, value_name = "PARTITION")]
    pub(crate) linux_boot: Option<String>,
    /// Arguments for the unikernel
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) trailing: Vec<String>,
}

/// The lists of a message, which borrows them.
pub(crate) struct Lists<'a> {
    options: &'a RunOptions,
    cpuids: Vec<i64>,
    exit_codes: Vec<i64>,
    bridges: Vec<Bridge<'a>>,
    block_devices: Vec<BlockDevice<'a>>,
    argv: Vec<Text<'a>>,
}

impl<'a> Lists<'a> {
    pub(crate) fn new(options: &'a RunOptions) -> Self {
        let bridges =
            options.net.iter().map(|net| Bridge { name: &net.device, bridge: net.bridge.as_deref(), mac: net.mac });
        let block_devices = options.block.iter().map(|block| BlockDevice {
            name: &block.device,
            host_device: block.host_device.as_deref(),
            sector_size: block.sector_bytes,
        });
        Self {
            options,
            cpuids: distinct(options.cpu.iter().copied()),
            exit_codes: distinct(options.exit_code.iter().map(|code| i64::from(*code))),
            bridges: bridges.collect(),
            block_devices: block_devices.collect(),
            argv: options.arg.iter().chain(&options.trailing).map(|argument| Text::from(argument.as_str())).collect(),
        }
    }

    pub(crate) fn arguments(&self) -> Arguments<'_> {
        let options = self.options;
        let restart = options.restart_on_fail || !self.exit_codes.is_empty();
        Arguments {
            fail_behaviour: if restart {
                FailBehaviour::Restart(List::Items(&self.exit_codes))
            } else {
                FailBehaviour::Quit
            },
            startup: options.startup.map(i64::from),
            add_name: !options.no_add_name,
            cpuids: List::Items(&self.cpuids),
            memory: i64::from(options.mem),
            block_devices: List::Items(&self.block_devices),
            bridges: List::Items(&self.bridges),
            argv: (!self.argv.is_empty()).then_some(List::Items(&self.argv)),
            numcpus: i64::from(options.numcpus),
            linux_boot: options.linux_boot.as_deref(),
        }
    }
}

/// In ascending order, each once: the lists that are sets on the wire.
pub(crate) fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
