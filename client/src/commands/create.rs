//! `create`: looks at the image first, so that most mistakes never reach a daemon, then sends it piece by piece.

use std::path::PathBuf;

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::solo5::ImageFacts;
use fulmar_core::wire::{
    Arguments, BlockDevice, Bridge, Command, Config, FailBehaviour, Image, Kind, List, Text, UnikernelCommand,
};

use super::{Context, report};
use crate::connection::Daemon;
use crate::devices;
use crate::error::Failure;
use crate::image::ImageFile;
use crate::options::{self, BlockOption, NetOption};

/// The command line of `create`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local create hello hello.hvt --mem 32
  vmmc_local create shop:web web.hvt --net=service:br0 --block=storage:data --mem 64 -- --port=80")]
pub struct Create {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::unikernel)]
    name: Name,
    /// The image: a Solo5 ELF file, hvt or spt
    image: PathBuf,
    /// Put the image's network DEVICE on BRIDGE (default: the bridge called as the device)
    #[arg(long, value_name = "DEVICE[:BRIDGE[=MAC]]", value_parser = options::net)]
    net: Vec<NetOption>,
    /// Make the image's block DEVICE the host's HOSTDEVICE (default: the one called as the device)
    #[arg(long, value_name = "DEVICE[:HOSTDEVICE][@SECTOR]", value_parser = options::block)]
    block: Vec<BlockOption>,
    /// Memory in MB
    #[arg(long, value_name = "MB", default_value_t = 32, allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    mem: u32,
    /// A CPU that it may run on; repeat for several
    #[arg(long, value_name = "ID", default_value = "0", allow_negative_numbers = true, value_parser = options::cpu)]
    cpu: Vec<i64>,
    /// An argument for the unikernel; repeat for several, they come before those after --
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// Start it again when it fails
    #[arg(long)]
    restart_on_fail: bool,
    /// Start it again when it ends with exit code N and with no other; repeat for several
    #[arg(long, value_name = "N")]
    exit_code: Vec<u8>,
    /// Its place in the order of starting after a reboot, lower first (default: 50)
    #[arg(long, value_name = "N")]
    startup: Option<u32>,
    /// Do not put --name=LABEL before its arguments
    #[arg(long)]
    no_add_name: bool,
    /// Compress the image on its way: 0 (not) to 9 (most)
    #[arg(long, alias = "compress", value_name = "LEVEL", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=9))]
    compression_level: u32,
    /// Arguments for the unikernel
    #[arg(last = true, value_name = "ARGS")]
    trailing: Vec<String>,
}

impl Create {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let image = ImageFile::open(&self.image)?;
        self.check(&image, &image.inspect()?)?;
        let parcel = image.pack(self.compression_level)?;
        let arguments = Lists::new(self);
        let config = Config {
            kind: Kind::Solo5,
            compressed: parcel.is_compressed(),
            image: Image::Diverted { len: parcel.bytes() },
            arguments: arguments.arguments(self),
        };
        let mut connection = context.door.open(Daemon::Vmmd)?;
        let command = Command::Unikernel(UnikernelCommand::Create(config));
        connection.send_around(self.name, command, &mut |out| parcel.write(out))?;
        report(context, &mut connection, self.name)
    }

    /// What a daemon would refuse anyway, with the option that mends it.
    fn check(&self, image: &ImageFile, facts: &ImageFacts) -> Result<(), Failure> {
        let file = || image.path().to_owned();
        facts.check_runnable().map_err(|error| Failure::Image { file: file(), error })?;
        let faults = devices::compare(&facts.manifest, &self.net, &self.block);
        if !faults.is_empty() {
            return Err(Failure::Devices { file: file(), faults });
        }
        let needed_mib = super::inspect::memory_mib_min(facts);
        if needed_mib > u64::from(self.mem) {
            return Err(Failure::Memory { file: file(), given_mib: self.mem, needed_mib });
        }
        Ok(())
    }
}

/// The lists of a message, which borrows them.
struct Lists<'a> {
    cpuids: Vec<i64>,
    exit_codes: Vec<i64>,
    bridges: Vec<Bridge<'a>>,
    block_devices: Vec<BlockDevice<'a>>,
    argv: Vec<Text<'a>>,
}

impl<'a> Lists<'a> {
    fn new(create: &'a Create) -> Self {
        let bridges =
            create.net.iter().map(|net| Bridge { name: &net.device, bridge: net.bridge.as_deref(), mac: net.mac });
        let block_devices = create.block.iter().map(|block| BlockDevice {
            name: &block.device,
            host_device: block.host_device.as_deref(),
            sector_size: block.sector_bytes,
        });
        Self {
            cpuids: distinct(create.cpu.iter().copied()),
            exit_codes: distinct(create.exit_code.iter().map(|code| i64::from(*code))),
            bridges: bridges.collect(),
            block_devices: block_devices.collect(),
            argv: create.arg.iter().chain(&create.trailing).map(|argument| Text::from(argument.as_str())).collect(),
        }
    }

    fn arguments(&'a self, create: &Create) -> Arguments<'a> {
        let restart = create.restart_on_fail || !self.exit_codes.is_empty();
        Arguments {
            fail_behaviour: if restart {
                FailBehaviour::Restart(List::Items(&self.exit_codes))
            } else {
                FailBehaviour::Quit
            },
            startup: create.startup.map(i64::from),
            add_name: !create.no_add_name,
            cpuids: List::Items(&self.cpuids),
            memory: i64::from(create.mem),
            block_devices: List::Items(&self.block_devices),
            bridges: List::Items(&self.bridges),
            argv: (!self.argv.is_empty()).then_some(List::Items(&self.argv)),
            numcpus: 1,
            linux_boot: None,
        }
    }
}

/// In ascending order, each once: the lists that are sets on the wire.
pub(super) fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
