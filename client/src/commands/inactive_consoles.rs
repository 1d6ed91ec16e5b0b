//! `inactive-consoles`: lists the consoles that are kept and whose unikernel does not run.

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, ConsoleCommand, Success};
use serde_json::json;

use super::{Context, PathArgument, full_name};
use crate::connection::{Connection, Daemon};
use crate::error::Failure;

/// The command line of `inactive-consoles`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local inactive-consoles")]
pub struct InactiveConsoles {
    #[command(flatten)]
    path: PathArgument,
}

impl InactiveConsoles {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let path = self.path.or_root(context);
        let mut connection = context.door.open(Daemon::Console)?;
        connection.send(path, Command::Console(ConsoleCommand::ListInactive))?;
        show(context, &mut connection, path)
    }
}

/// Shows the reply.
pub(crate) fn show(context: &mut Context<'_>, connection: &mut Connection, path: Name) -> Result<(), Failure> {
    let daemon = connection.daemon();
    let Success::Consoles(names) = connection.receive(path)? else {
        return Err(Failure::Unexpected { daemon });
    };
    let names = names.iter().map(|name| full_name(path, name).to_string()).collect::<Vec<_>>();
    if context.json {
        return context.print_json(&json!({ "consoles": names }));
    }
    if names.is_empty() {
        context.note(&format!("no inactive console at {path} or below"));
    }
    names.iter().try_for_each(|name| writeln!(context.out, "{name}")).map_err(Failure::print)
}
