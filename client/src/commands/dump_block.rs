//! `dump-block`: fetches the content of a block device into a new file, which is as sparse as it can be.

use std::path::{Path, PathBuf};

use clap::Args;
use fulmar_core::limits::BLOCK_MB_MAX;
use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command, Data, Image, Payload, Success};

use super::{Context, default_file, report_file};
use crate::connection::{Connection, Daemon, refused};
use crate::error::Failure;
use crate::new_file::NewFile;
use crate::options;

/// The command line of `dump-block`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local dump-block shop:data disk.img")]
pub struct DumpBlock {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::block_device)]
    name: Name,
    /// The file, which must not be there yet (default: LABEL.TIME in the folder for temporary files)
    file: Option<PathBuf>,
    /// Compress it on its way: 0 (not) to 9 (most); the file is never compressed
    #[arg(long, alias = "compress", value_name = "LEVEL", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=9))]
    compression_level: u32,
}

impl DumpBlock {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let file = self.file.clone().unwrap_or_else(|| default_file(self.name, context));
        let mut connection = context.door.open(Daemon::Vmmd)?;
        let level = i64::from(self.compression_level);
        connection.send(self.name, Command::Block(BlockCommand::Dump { level }))?;
        save(context, &mut connection, self.name, &file)
    }
}

/// Puts the content into a new file.
pub(crate) fn save(
    context: &mut Context<'_>,
    connection: &mut Connection,
    name: Name,
    file: &Path,
) -> Result<(), Failure> {
    let daemon = connection.daemon();
    let Success::BlockImage { compressed } = connection.receive(name)? else {
        return Err(Failure::Unexpected { daemon });
    };
    let mut content = NewFile::create(file, BLOCK_MB_MAX.unsigned_abs() << 20)?;
    if compressed {
        content.inflate();
    }
    loop {
        match connection.next_payload()? {
            Some(Payload::Data(Data::Block(Some(Image::Inline(chunk))))) => content.take(chunk)?,
            Some(Payload::Data(Data::Block(None))) => break,
            Some(Payload::Failure(text)) => return Err(refused(name, text)),
            Some(_) => return Err(Failure::Unexpected { daemon }),
            None => return Err(Failure::Closed { daemon }),
        }
    }
    let bytes = content.finish()?;
    report_file(context, name, file, bytes)
}
