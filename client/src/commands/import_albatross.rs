//! `import-albatross`: brings a host of albatross over to the daemon that runs here. The work is done in [`crate::import`].

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::error::Failure;
use crate::import::{self, Request};
use crate::local::RUN;

/// The command line of `import-albatross`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local import-albatross /var/lib/albatross/state --dry-run
  vmmc_local import-albatross /var/lib/albatross/state

Stop albatross first. What is there already stays as it is, so this can be done again after something was mended.
Exit code 117 says that not all came over.")]
pub struct ImportAlbatross {
    /// Albatross's state file
    state: PathBuf,
    /// Albatross's folder of block devices (default: 'block' beside STATE)
    #[arg(long, value_name = "DIR")]
    block_folder: Option<PathBuf>,
    /// Change nothing: say what would happen
    #[arg(long)]
    dry_run: bool,
}

impl ImportAlbatross {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let request = Request {
            state: &self.state,
            blocks: self.block_folder.as_deref(),
            dry_run: self.dry_run,
            albatross_run: RUN.as_ref(),
        };
        import::run(context, &request)
    }
}
