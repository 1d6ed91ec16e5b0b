//! `add-block`: makes a block device, which a unikernel of the same path can then be given.

use clap::Args;
use fulmar_core::limits::BLOCK_MB_MAX;
use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command};

use super::{Context, act};
use crate::connection::Daemon;
use crate::error::Failure;
use crate::options;

/// The command line of `add-block`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local add-block shop:data 100
  vmmc_local create shop:web web.hvt --block=storage:data")]
pub struct AddBlock {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::block_device)]
    name: Name,
    /// Its size in MB
    #[arg(value_name = "MB", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..=BLOCK_MB_MAX))]
    size: i64,
}

impl AddBlock {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        act(context, Daemon::Vmmd, self.name, Command::Block(BlockCommand::Add { size: self.size }))
    }
}
