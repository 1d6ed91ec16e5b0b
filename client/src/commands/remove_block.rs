//! `remove-block`: removes a block device and what is on it.

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command};

use super::{Context, act};
use crate::connection::Daemon;
use crate::error::Failure;
use crate::options;

/// The command line of `remove-block`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local remove-block shop:data")]
pub struct RemoveBlock {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::block_device)]
    name: Name,
}

impl RemoveBlock {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        act(context, Daemon::Vmmd, self.name, Command::Block(BlockCommand::Remove))
    }
}
