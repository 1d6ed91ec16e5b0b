//! `log`: shows what has happened, and follows it until one side has enough.

use clap::{Args, ValueEnum};
use fulmar_core::name::Name;
use fulmar_core::wire::{
    Command, Data, Event, GapCause, LogCommand, LogFrom, Note, Numbered, Payload, Success, Window,
};

use super::Context;
use crate::connection::{Connection, Daemon, refused};
use crate::error::Failure;
use crate::options;
use crate::output::json;
use crate::output::text::{plain, timestamp};

/// The command line of `log`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local log shop: --count 100 --follow")]
pub struct Log {
    /// A unikernel, or a path and all below it; everything where it is missing
    #[arg(value_parser = options::name)]
    name: Option<Name>,
    /// Begin with the last N events
    #[arg(long, value_name = "N", default_value_t = 20)]
    count: u32,
    /// Begin with the events since TIME: 2026-11-21 or 2026-11-21T03:21:46Z
    #[arg(long, value_name = "TIME", conflicts_with = "count", value_parser = options::since)]
    since: Option<i64>,
    /// Begin after the event of this number: nothing is missed, nothing comes twice
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["count", "since"])]
    after: Option<u64>,
    /// Go on with each event as it comes
    #[arg(short, long)]
    follow: bool,
    /// Only events of this kind; may be given several times. What is missing is always said
    #[arg(long, value_name = "KIND")]
    only: Vec<Kind>,
}

/// Kinds of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// What clients changed
    Change,
    /// What clients were refused
    Refusal,
    /// Unikernels that start, end, rest
    Run,
    /// What failed that nobody was waiting for
    Trouble,
    /// Clients that come and go by TLS
    Login,
    /// Daemons that start and end
    Daemon,
}

impl Kind {
    /// Of an event; nothing of one that says that others are missing.
    fn of(event: &Event<'_>) -> Option<Self> {
        match event {
            Event::Done { .. } | Event::Revoked { .. } => Some(Self::Change),
            Event::Refused { .. } => Some(Self::Refusal),
            Event::Start { .. } | Event::Stop { .. } | Event::Ended { .. } | Event::Decided { .. } => Some(Self::Run),
            Event::Trouble { .. } => Some(Self::Trouble),
            Event::Login(_) | Event::Logout(_) | Event::Proof { .. } => Some(Self::Login),
            Event::Startup | Event::Hup | Event::Daemon { .. } => Some(Self::Daemon),
            Event::Lost { .. } => None,
        }
    }
}

impl Log {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let name = self.name.unwrap_or(context.door.root());
        let from = match (self.after, self.since) {
            (Some(after), _) => LogFrom::After(after),
            (None, Some(since)) => LogFrom::Window(Window::Since(since)),
            (None, None) => LogFrom::Window(Window::Count(i64::from(self.count))),
        };
        let mut connection = context.door.open(Daemon::Log)?;
        connection.send(name, Command::Events(LogCommand { from, follow: self.follow }))?;
        show_all(context, &mut connection, name, self.follow, &self.only)
    }
}

/// Shows the events as they come, of these kinds where some are given.
pub(crate) fn show_all(
    context: &mut Context<'_>,
    connection: &mut Connection,
    name: Name,
    follow: bool,
    only: &[Kind],
) -> Result<(), Failure> {
    let daemon = connection.daemon();
    let (Success::Text(_) | Success::Empty) = connection.receive(name)? else {
        return Err(Failure::Unexpected { daemon });
    };
    if follow {
        connection.wait_for_ever()?;
    }
    let mut last = None;
    let mut complete = false;
    // Who does not follow has everything at the end; that the connection is closed then need not be waited for.
    while follow || !complete {
        match connection.next_of_stream()?.payload {
            Payload::Data(Data::Event(event)) => {
                last = Some(event.sequence);
                show(context, &event, only)?;
            }
            Payload::Data(Data::Note(note)) => {
                if let Note::End { last: end } = note {
                    last = Some(end);
                    complete = true;
                }
                if note == Note::Slow {
                    let go_on = last.map_or(String::new(), |last| format!(": go on with --after {last}"));
                    let text = format!("the log does not wait for one who reads so slowly{go_on}");
                    return Err(Failure::Refused { name: name.to_string(), text });
                }
                show_note(context, note)?;
            }
            Payload::Failure(text) => return Err(refused(name, text)),
            _ => return Err(Failure::Unexpected { daemon }),
        }
    }
    Ok(())
}

fn show(context: &mut Context<'_>, numbered: &Numbered<'_>, only: &[Kind]) -> Result<(), Failure> {
    let Numbered { sequence, entry } = numbered;
    let is_wanted = |kind: Kind| only.is_empty() || only.contains(&kind);
    if !Kind::of(&entry.event).is_none_or(is_wanted) {
        return Ok(());
    }
    if context.json {
        return print(context, &json::event(numbered).to_string());
    }
    let (time, text) = (timestamp(entry.unix_ms), entry.event.to_string());
    print(context, &format!("{time} {sequence} {}", plain(text.as_bytes())))
}

fn show_note(context: &mut Context<'_>, note: Note) -> Result<(), Failure> {
    if context.json {
        return json::note(note).map_or(Ok(()), |value| print(context, &value.to_string()));
    }
    match note {
        Note::Gap { first, next, cause } => {
            let why = match cause {
                GapCause::Removed => "were removed to make room",
                GapCause::Damaged => "are damaged on the disk",
            };
            print(context, &format!("-- events {first} to {} {why}", next.saturating_sub(1)))
        }
        Note::Lost { count } => {
            print(context, &format!("-- {count} events are lost: the disk of the log takes no more"))
        }
        Note::End { .. } | Note::Slow => Ok(()),
    }
}

fn print(context: &mut Context<'_>, line: &str) -> Result<(), Failure> {
    writeln!(context.out, "{line}").and_then(|()| context.out.flush()).map_err(Failure::print)
}
