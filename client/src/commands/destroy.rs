//! `destroy`: stops a unikernel and forgets it; the reply comes when it has ended.

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, UnikernelCommand};

use super::{Context, act};
use crate::connection::Daemon;
use crate::error::Failure;
use crate::options;

/// The command line of `destroy`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local destroy hello")]
pub struct Destroy {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::unikernel)]
    name: Name,
}

impl Destroy {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        act(context, Daemon::Vmmd, self.name, Command::Unikernel(UnikernelCommand::Destroy))
    }
}
