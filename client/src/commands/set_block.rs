//! `set-block`: gives a block device the content of a file, which goes from the file to the socket in pieces.

use std::path::PathBuf;

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command};

use super::{Context, report};
use crate::connection::Daemon;
use crate::content::ContentFile;
use crate::error::Failure;
use crate::options;

/// The command line of `set-block`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local set-block shop:data disk.img")]
pub struct SetBlock {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::block_device)]
    name: Name,
    /// The file; what the block device holds beyond it becomes zeros
    file: PathBuf,
    /// Compress it on its way: 0 (not) to 9 (most)
    #[arg(long, alias = "compress", value_name = "LEVEL", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=9))]
    compression_level: u32,
}

impl SetBlock {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let mut file = ContentFile::open(&self.file)?;
        let mut connection = context.door.open(Daemon::Vmmd)?;
        let compressed = self.compression_level > 0;
        connection.send(self.name, Command::Block(BlockCommand::Set { compressed }))?;
        connection.send_content(self.name, &mut file, self.compression_level)?;
        report(context, &mut connection, self.name)
    }
}
