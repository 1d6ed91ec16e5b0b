//! `restart`: stops a unikernel and starts it again from the image that it has, with other arguments where they are given.

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, UnikernelCommand};

use super::{Context, act};
use crate::arguments::{Lists, RunOptions};
use crate::connection::Daemon;
use crate::error::Failure;
use crate::options;

/// The command line of `restart`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local restart hello
  vmmc_local restart shop:web --replace-arguments --net=service:br0 --mem 128 -- --port=80")]
// Options alone would look as if the others were kept.
#[command(mut_group("RunOptions", |options| options.requires("replace_arguments")))]
pub struct Restart {
    /// Its name: LABEL, or PATH:LABEL
    #[arg(value_parser = options::unikernel)]
    name: Name,
    /// Run it with the options given here, as create does, instead of those that it has; none of those is kept
    #[arg(long)]
    replace_arguments: bool,
    #[command(flatten)]
    run: RunOptions,
}

impl Restart {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let lists = Lists::new(&self.run);
        let arguments = self.replace_arguments.then(|| lists.arguments());
        act(context, Daemon::Vmmd, self.name, Command::Unikernel(UnikernelCommand::Restart(arguments)))
    }
}
