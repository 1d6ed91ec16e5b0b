//! `list`: what was signed, and when each ends.

use clap::Args;

use super::{Context, FolderOption};
use crate::error::Failure;
use crate::output::table::{Align, Table};
use crate::output::text::{hex, plain, timestamp};
use crate::pki::register::Register;

/// The command line of `list`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmp_ca list --folder ca")]
pub(super) struct List {
    #[command(flatten)]
    folder: FolderOption,
}

impl List {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let folder = &self.folder.folder;
        if !folder.is_dir() {
            let text = format!("{}: is no folder: give that of the CA, or of whoever signs", folder.display());
            return Err(Failure::Usage { text });
        }
        let register = Register::read(folder)?;
        let mut table =
            Table::new([("NAME", Align::Left), ("STATE", Align::Left), ("ENDS", Align::Left), ("SERIAL", Align::Left)]);
        let time = |unix_s: i64| timestamp(unix_s.saturating_mul(1000));
        for issued in &register.issued {
            let state = match (issued.revoked_unix_s, issued.not_after_unix_s) {
                (Some(revoked), _) => format!("revoked {}", time(revoked)),
                (None, Some(end)) if end < context.now_unix_s => "expired".to_owned(),
                (None, Some(_)) => "valid".to_owned(),
                (None, None) => "unknown".to_owned(),
            };
            let ends = issued.not_after_unix_s.map_or("unknown".to_owned(), time);
            table.push([plain(issued.name.as_bytes()), state, ends, hex(&issued.serial)]);
        }
        if table.is_empty() {
            // A remark that nobody can read is no reason to fail.
            let _ = writeln!(context.notes, "nothing was signed yet");
            return Ok(());
        }
        table.write(context.out).map_err(Failure::print)
    }
}
