//! The subcommands that every way to the daemons has, one file each.

pub mod add_block;
pub mod add_policy;
pub mod block;
pub mod console;
pub mod create;
pub mod deploy;
pub mod destroy;
pub mod dump_block;
pub mod get;
pub mod host;
pub mod import_albatross;
pub mod inactive_consoles;
pub mod info;
pub mod inspect;
pub mod log;
pub mod policy;
pub mod remove_block;
pub mod remove_policy;
pub mod restart;
pub mod set_block;
pub mod stats;
pub mod top;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, Success};
use serde_json::{Value, json};

use crate::connection::{Connection, Daemon, Door};
use crate::error::Failure;
use crate::options;
use crate::output::json as document;
use crate::output::text::{heading, plain, size, timestamp};

/// What a command works with.
pub struct Context<'a> {
    /// The way to the daemons.
    pub door: &'a dyn Door,
    /// Whether the result is for programs.
    pub json: bool,
    /// The present, in milliseconds since 1970.
    pub now_unix_ms: i64,
    /// Where the result goes.
    pub out: &'a mut dyn Write,
    /// Where remarks for people go that are no result.
    pub notes: &'a mut dyn Write,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Context<'_> {
    /// Writes one JSON document.
    ///
    /// # Errors
    /// [`Failure::Print`].
    pub fn print_json(&mut self, value: &Value) -> Result<(), Failure> {
        writeln!(self.out, "{value:#}").map_err(Failure::print)
    }

    /// Tells people something that is not the result.
    pub fn note(&mut self, text: &str) {
        // A remark that nobody can read is no reason to fail.
        let _ = writeln!(self.notes, "{text}");
    }
}

/// The subcommands that are one command to one daemon: those that a certificate can carry.
#[derive(Subcommand, Debug)]
pub enum Single {
    /// Create a unikernel and run it
    Create(create::Create),
    /// Stop a unikernel and start it again
    Restart(restart::Restart),
    /// Stop a unikernel and forget it
    Destroy(destroy::Destroy),
    /// Show the unikernels that run
    Info(info::Info),
    /// Fetch the image of a unikernel into a file
    Get(get::Get),
    /// Show what a unikernel writes, and follow it
    Console(console::Console),
    /// Show what unikernels use of CPU, memory and network, and follow it
    Stats(stats::Stats),
    /// List the consoles whose unikernel does not run
    InactiveConsoles(inactive_consoles::InactiveConsoles),
    /// Show what has happened, and follow it
    Log(log::Log),
    /// Show the policies
    Policy(policy::Policy),
    /// Set what a path may use
    AddPolicy(add_policy::AddPolicy),
    /// Show the block devices
    Block(block::Block),
    /// Make a block device
    #[command(alias = "create-block")]
    AddBlock(add_block::AddBlock),
    /// Remove a block device and what is on it
    #[command(alias = "destroy-block")]
    RemoveBlock(remove_block::RemoveBlock),
    /// Give a block device the content of a file
    SetBlock(set_block::SetBlock),
    /// Fetch the content of a block device into a file
    DumpBlock(dump_block::DumpBlock),
    /// Show what the machine has, what of it is used, and what bounds unikernels
    Host(host::Host),
}

impl Single {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.run(context),
            Self::Restart(command) => command.run(context),
            Self::Destroy(command) => command.run(context),
            Self::Info(command) => command.run(context),
            Self::Get(command) => command.run(context),
            Self::Console(command) => command.run(context),
            Self::Stats(command) => command.run(context),
            Self::InactiveConsoles(command) => command.run(context),
            Self::Log(command) => command.run(context),
            Self::Policy(command) => command.run(context),
            Self::AddPolicy(command) => command.run(context),
            Self::Block(command) => command.run(context),
            Self::AddBlock(command) => command.run(context),
            Self::RemoveBlock(command) => command.run(context),
            Self::SetBlock(command) => command.run(context),
            Self::DumpBlock(command) => command.run(context),
            Self::Host(command) => command.run(context),
        }
    }

    /// Whether it is one command, as all but one kind are.
    #[must_use]
    pub fn is_one(&self) -> bool {
        match self {
            Self::Console(console) => console.is_one(),
            _ => true,
        }
    }

    /// Whether it goes on until one side has enough, and may be silent for days.
    #[must_use]
    pub fn follows(&self) -> bool {
        matches!(self, Self::Console(_) | Self::Stats(_))
    }
}

/// A path, in its place or after `--path`; the root where there is none.
#[derive(Args, Debug)]
pub struct PathArgument {
    /// The path; all paths where it is missing
    #[arg(value_name = "PATH", value_parser = options::path)]
    place: Option<Name>,
    /// The same, as an option
    #[arg(short, long = "path", value_name = "PATH", value_parser = options::path, conflicts_with = "place")]
    path: Option<Name>,
}

impl PathArgument {
    fn or_root(&self, context: &Context<'_>) -> Name {
        self.place.or(self.path).unwrap_or(context.door.root())
    }

    /// For commands where forgetting it would mean everything.
    fn required(&self, option: &str) -> Result<Name, Failure> {
        let text = format!("which path? write {option}");
        self.place.or(self.path).ok_or(Failure::Usage { text })
    }
}

/// Where what is fetched goes unless somebody says otherwise: `LABEL.TIME` in the folder for temporary files.
pub(crate) fn default_file(name: Name, context: &Context<'_>) -> PathBuf {
    let label = name.label().unwrap_or_default();
    std::env::temp_dir().join(format!("{label}.{}", timestamp(context.now_unix_ms)))
}

/// Says what was fetched and where it is.
fn report_file(context: &mut Context<'_>, name: Name, file: &Path, bytes: u64) -> Result<(), Failure> {
    let place = file.display().to_string();
    if context.json {
        return context.print_json(&json!({ "name": name.as_str(), "file": place, "bytes": bytes }));
    }
    let place = plain(place.as_bytes());
    writeln!(context.out, "{name}: {} written to {place}", size(bytes)).map_err(Failure::print)
}

/// Sends a command and waits for words that say what was done.
fn act(context: &mut Context<'_>, daemon: Daemon, name: Name, command: Command<'_>) -> Result<(), Failure> {
    let mut connection = context.door.open(daemon)?;
    connection.send(name, command)?;
    report(context, &mut connection, name)
}

/// Waits for words that say what was done, and passes them on.
pub(crate) fn report(context: &mut Context<'_>, connection: &mut Connection, name: Name) -> Result<(), Failure> {
    let daemon = connection.daemon();
    match connection.receive(name)? {
        Success::Text(text) if context.json => {
            let value = document::done(&name, &String::from_utf8_lossy(text.0));
            context.print_json(&value)
        }
        Success::Text(text) => {
            writeln!(context.out, "{} {}", heading(name.as_str()), plain(text.0)).map_err(Failure::print)
        }
        Success::Empty if context.json => {
            let value = document::done(&name, "done");
            context.print_json(&value)
        }
        Success::Empty => writeln!(context.out, "{} done", heading(name.as_str())).map_err(Failure::print),
        _ => Err(Failure::Unexpected { daemon }),
    }
}

/// The full name of what a daemon lists below `asked`: names in a listing of a path are relative to it.
pub(crate) fn full_name(asked: Name, listed: Name) -> Name {
    if !asked.is_path() || asked.is_root() {
        return listed;
    }
    let text = format!("{asked}{}", listed.as_str().trim_start_matches(':'));
    Name::parse(&text).unwrap_or(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_names_become_full() {
        for (asked, listed, full) in [
            (":", ":hello", ":hello"),
            (":", "foo:t1", "foo:t1"),
            ("foo:", ":t1", "foo:t1"),
            ("foo:", "bar:t1", "foo:bar:t1"),
            ("foo:", ":", "foo:"),
            ("foo:", "bar:", "foo:bar:"),
            ("foo:t1", "foo:t1", "foo:t1"),
        ] {
            let parse = |text| Name::parse(text).unwrap();
            assert_eq!(full_name(parse(asked), parse(listed)).as_str(), full);
        }
    }
}
