//! `deploy`: brings the host to what a manifest wants. The work is done in [`crate::deploy`].

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::deploy::{self, Purpose};
use crate::error::Failure;

/// The command line of `deploy`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local deploy shop.toml --dry-run
  vmmc_local deploy shop.toml --yes

What is there as it is wanted is left running, so this can be done again at any time.
Exit code 1 says that something would change and nothing was changed.")]
pub struct Deploy {
    /// The manifest: docs/deploy.md
    file: PathBuf,
    /// Change nothing: show the plan
    #[arg(long, conflicts_with_all = ["diff", "yes"])]
    dry_run: bool,
    /// Change nothing: show field by field what is there and what is wanted
    #[arg(long, conflicts_with = "yes")]
    diff: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Destroy the unikernels below the manifest's path that are not in it
    #[arg(long)]
    prune: bool,
}

impl Deploy {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let purpose = match (self.dry_run, self.diff, self.yes) {
            (true, ..) => Purpose::DryRun,
            (_, true, _) => Purpose::Diff,
            (_, _, true) => Purpose::Apply,
            _ => Purpose::Ask,
        };
        deploy::run(context, &self.file, purpose, self.prune)
    }
}
