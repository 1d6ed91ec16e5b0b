//! `console`: shows the last lines of a unikernel's console, or of several, and follows until one side has enough.

mod several;

use clap::Args;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, ConsoleCommand, Data, Payload, Success, Window};

use super::Context;
use crate::connection::{Connection, Daemon, refused};
use crate::error::Failure;
use crate::options;
use crate::output::json;
use crate::output::text::{plain, timestamp};

/// What the console daemon says when it does not know the name yet.
const WAITING: &[u8] = b"waiting for VM";

/// The command line of `console`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local console hello --count 100
  vmmc_local console shop:web shop:db")]
pub struct Console {
    /// Its name: LABEL, or PATH:LABEL; of several, each line begins with the name
    #[arg(value_parser = options::unikernel, required = true, value_name = "NAME")]
    names: Vec<Name>,
    /// Begin with the last N lines
    #[arg(long, value_name = "N", default_value_t = 20)]
    count: u32,
    /// Begin with the lines since TIME: 2026-11-21 or 2026-11-21T03:21:46Z
    #[arg(long, value_name = "TIME", conflicts_with = "count", value_parser = options::since)]
    since: Option<i64>,
    /// What is done in any case: fingers know it from elsewhere
    #[arg(short, long, hide = true)]
    follow: bool,
}

impl Console {
    /// Whether it is about one console, as a certificate is.
    pub(super) fn is_one(&self) -> bool {
        self.names.len() == 1
    }

    /// Does it until it is ended, which is a failure unless whoever reads the output has enough.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let window = self.since.map_or(Window::Count(i64::from(self.count)), Window::Since);
        let mut names: Vec<Name> = Vec::new();
        for name in &self.names {
            if !names.contains(name) {
                names.push(*name);
            }
        }
        let [name] = names[..] else { return several::follow(context, &names, window) };
        let mut connection = context.door.open(Daemon::Console)?;
        connection.send(name, Command::Console(ConsoleCommand::Subscribe(window)))?;
        show(context, &mut connection, name)
    }
}

/// Shows the lines as they come.
pub(crate) fn show(context: &mut Context<'_>, connection: &mut Connection, name: Name) -> Result<(), Failure> {
    let daemon = connection.daemon();
    match connection.receive(name)? {
        Success::Text(text) if text.0 == WAITING => note_waiting(context, &name),
        Success::Text(_) | Success::Empty => {}
        _ => return Err(Failure::Unexpected { daemon }),
    }
    connection.wait_for_ever()?;
    loop {
        match connection.next_of_stream()?.payload {
            Payload::Data(Data::Console { unix_ms, line }) if context.json => {
                writeln!(context.out, "{}", json::line(unix_ms, line))
            }
            Payload::Data(Data::Console { unix_ms, line }) => {
                let line = line.0.strip_suffix(b"\r").unwrap_or(line.0);
                writeln!(context.out, "{} {}", timestamp(unix_ms), plain(line))
            }
            Payload::Failure(text) => return Err(refused(name, text)),
            _ => return Err(Failure::Unexpected { daemon }),
        }
        .and_then(|()| context.out.flush())
        .map_err(Failure::print)?;
    }
}

/// Says that there is nothing to be seen of this one.
fn note_waiting(context: &mut Context<'_>, name: &Name) {
    context.note(&format!("{name}: nothing yet, waiting for it to start"));
}
