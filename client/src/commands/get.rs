//! `get`: fetches the image of a unikernel into a new file. The image goes from the socket to the file in pieces.

use std::path::{Path, PathBuf};

use clap::Args;
use fulmar_core::limits::IMAGE_BYTES_MAX;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, UnikernelCommand};

use super::{Context, default_file, report_file};
use crate::connection::{Connection, Daemon};
use crate::error::Failure;
use crate::new_file::NewFile;
use crate::options;

/// The command line of `get`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local get hello --output hello-copy.hvt")]
pub struct Get {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::unikernel)]
    name: Name,
    /// Compress it on its way: 0 (not) to 9 (most); the file is never compressed
    #[arg(long, alias = "compress", value_name = "LEVEL", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=9))]
    compression_level: u32,
    /// The file, which must not be there yet (default: LABEL.TIME in the folder for temporary files)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Get {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let file = self.output.clone().unwrap_or_else(|| default_file(self.name, context));
        let mut connection = context.door.open(Daemon::Vmmd)?;
        let level = i64::from(self.compression_level);
        connection.send(self.name, Command::Unikernel(UnikernelCommand::Get { level }))?;
        save(context, &mut connection, self.name, &file)
    }
}

/// Puts the image into a new file.
pub(crate) fn save(
    context: &mut Context<'_>,
    connection: &mut Connection,
    name: Name,
    file: &Path,
) -> Result<(), Failure> {
    let bytes = connection.receive_image(name, || NewFile::create(file, IMAGE_BYTES_MAX))?.finish()?;
    report_file(context, name, file, bytes)
}
