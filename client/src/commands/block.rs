//! `block`: shows the block devices, as a table.

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, BlockInfo, Command, Success};
use serde_json::{Value, json};

use super::{Context, full_name};
use crate::connection::{Connection, Daemon};
use crate::error::Failure;
use crate::options;
use crate::output::json;
use crate::output::table::{Align, Table};
use crate::output::text::megabytes;

/// The command line of `block`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local block
  vmmc_local block shop:
  vmmc_local block shop:data --json")]
pub struct Block {
    /// A block device, or a path (with ':' at its end) for all in it and below; all where it is missing
    #[arg(value_name = "NAME|PATH:", value_parser = options::name)]
    place: Option<Name>,
    /// The same, as an option
    #[arg(short, long = "name", value_name = "NAME|PATH:", value_parser = options::name, conflicts_with = "place")]
    name: Option<Name>,
}

impl Block {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let asked = self.place.or(self.name).unwrap_or(context.door.root());
        let mut connection = context.door.open(Daemon::Vmmd)?;
        connection.send(asked, Command::Block(BlockCommand::Info))?;
        show(context, &mut connection, asked)
    }
}

/// Shows the reply.
pub(crate) fn show(context: &mut Context<'_>, connection: &mut Connection, asked: Name) -> Result<(), Failure> {
    let daemon = connection.daemon();
    let Success::Blocks(blocks) = connection.receive(asked)? else {
        return Err(Failure::Unexpected { daemon });
    };
    let blocks = blocks.iter().map(|entry| BlockInfo { name: full_name(asked, entry.name), ..entry });
    if context.json {
        let list: Vec<Value> = blocks.map(|entry| json::block(&entry)).collect();
        return context.print_json(&json!({ "blocks": list }));
    }
    let mut table = Table::new([("NAME", Align::Left), ("SIZE", Align::Right), ("ACTIVE", Align::Left)]);
    for BlockInfo { name, size, active } in blocks {
        table.push([name.to_string(), megabytes(size), if active { "yes" } else { "no" }.to_owned()]);
    }
    if table.is_empty() {
        context.note(&format!("no block device at {asked} or below"));
        return Ok(());
    }
    table.write(context.out).map_err(Failure::print)
}
