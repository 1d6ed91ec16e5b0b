//! `create`: looks at the image first, so that most mistakes never reach a daemon, then sends it piece by piece. A virtual machine of
//! bhyve has none.

use std::path::PathBuf;

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::solo5::ImageFacts;
use fulmar_core::wire::{Command, Config, Image, Kind, UnikernelCommand};

use super::{Context, act, report};
use crate::arguments::{Lists, RunOptions};
use crate::connection::Daemon;
use crate::devices;
use crate::error::Failure;
use crate::image::ImageFile;
use crate::options;

/// The command line of `create`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local create hello hello.hvt --mem 32
  vmmc_local create shop:web web.hvt --net=service:br0 --block=storage:data --mem 64 -- --port=80
  vmmc_local create hello new-hello.hvt --force
  vmmc_local create shop:vm --bhyve --block=0:vm --net=0:br0 --cpu 0 --cpu 1 --numcpus 2 --mem 512")]
pub struct Create {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::unikernel)]
    name: Name,
    /// The image: a Solo5 ELF file, hvt or spt
    #[arg(required_unless_present = "bhyve", conflicts_with = "bhyve")]
    image: Option<PathBuf>,
    /// Make a virtual machine of FreeBSD's bhyve, which boots from its block device 0 and has no image
    #[arg(long)]
    bhyve: bool,
    /// Stop the one of this name, if there is one, and put this in its place
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    run: RunOptions,
    /// Compress the image on its way: 0 (not) to 9 (most)
    #[arg(long, alias = "compress", value_name = "LEVEL", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=9))]
    compression_level: u32,
}

impl Create {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let lists = Lists::new(&self.run);
        let Some(image) = &self.image else {
            let (kind, image) = (Kind::Bhyve, Image::Inline(&[]));
            let config = Config { kind, compressed: false, image, arguments: lists.arguments() };
            return act(context, Daemon::Vmmd, self.name, Command::Unikernel(self.command(config)));
        };
        if self.run.numcpus > 1 {
            let text = "--numcpus is for --bhyve: a Solo5 unikernel has one virtual CPU".to_owned();
            return Err(Failure::Usage { text });
        }
        let image = ImageFile::open(image)?;
        self.check(&image, &image.inspect()?)?;
        let parcel = image.pack(self.compression_level)?;
        let config = Config {
            kind: Kind::Solo5,
            compressed: parcel.is_compressed(),
            image: Image::Diverted { len: parcel.bytes() },
            arguments: lists.arguments(),
        };
        let command = self.command(config);
        let mut connection = context.door.open(Daemon::Vmmd)?;
        connection.send_around(self.name, Command::Unikernel(command), &mut |out| parcel.write(out))?;
        report(context, &mut connection, self.name)
    }

    fn command<'a>(&self, config: Config<'a>) -> UnikernelCommand<'a> {
        if self.force { UnikernelCommand::ForceCreate(config) } else { UnikernelCommand::Create(config) }
    }

    /// What a daemon would refuse anyway, with the option that mends it.
    fn check(&self, image: &ImageFile, facts: &ImageFacts) -> Result<(), Failure> {
        let file = || image.path().to_owned();
        facts.check_runnable().map_err(|error| Failure::Image { file: file(), error })?;
        let faults = devices::compare(&facts.manifest, &self.run.net, &self.run.block);
        if !faults.is_empty() {
            return Err(Failure::Devices { file: file(), faults });
        }
        let needed_mib = super::inspect::memory_mib_min(facts);
        if needed_mib > u64::from(self.run.mem) {
            return Err(Failure::Memory { file: file(), given_mib: self.run.mem, needed_mib });
        }
        Ok(())
    }
}
