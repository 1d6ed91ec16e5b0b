//! `remove-policy`: removes the policy of a path.

use clap::Args;
use fulmar_core::wire::{Command, PolicyCommand};

use super::{Context, PathArgument, act};
use crate::connection::Daemon;
use crate::error::Failure;

/// The command line of `remove-policy`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local remove-policy shop:")]
pub struct RemovePolicy {
    #[command(flatten)]
    path: PathArgument,
}

impl RemovePolicy {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let path = self.path.required("remove-policy PATH")?;
        act(context, Daemon::Vmmd, path, Command::Policy(PolicyCommand::Remove))
    }
}
