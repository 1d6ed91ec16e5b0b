//! Several consoles at once: a conversation and a thread each, and one writer, so that lines stay whole.

use std::env;
use std::io::{IsTerminal, stdout};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use fulmar_core::name::Name;
use fulmar_core::wire::{Command, ConsoleCommand, Data, Payload, Success, Text, Window};

use super::{WAITING, note_waiting};
use crate::commands::Context;
use crate::connection::{Daemon, Door, refused};
use crate::error::Failure;
use crate::output::json;
use crate::output::text::{plain, timestamp};

/// Lines that wait to be written: who writes a lot waits for who reads.
const LINES_MAX: usize = 64;

/// The colours of names, one after the other, as every terminal has them: cyan, yellow, green, magenta, blue, red.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// What a thread has heard.
enum Heard {
    /// There is nothing yet.
    Waiting,
    Line(i64, Vec<u8>),
    /// The conversation has ended.
    Over(Result<(), Failure>),
}

/// Shows the lines of all these, each after its name, until one has ended.
pub(super) fn follow(context: &mut Context<'_>, names: &[Name], window: Window) -> Result<(), Failure> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    for (index, name) in names.iter().copied().enumerate() {
        let (door, sender) = (context.door.again(), sender.clone());
        thread::spawn(move || {
            let over = listen(door.as_ref(), name, window, index, &sender);
            // Where nobody takes it the program is at its end.
            let _ = sender.send((index, Heard::Over(over)));
        });
    }
    drop(sender);
    let width = names.iter().map(|name| name.as_str().len()).max().unwrap_or(0);
    let has_colours = has_colours();
    for (index, heard) in receiver {
        let Some(name) = names.get(index) else { continue };
        match heard {
            Heard::Waiting => {
                note_waiting(context, name);
                continue;
            }
            Heard::Over(over) => {
                over?;
                continue;
            }
            Heard::Line(unix_ms, line) if context.json => {
                let mut document = json::line(unix_ms, Text(&line));
                if let Some(fields) = document.as_object_mut() {
                    fields.insert("name".to_owned(), name.as_str().into());
                }
                writeln!(context.out, "{document}")
            }
            Heard::Line(unix_ms, line) => {
                let colour = COLOURS.get(index % COLOURS.len()).filter(|_| has_colours);
                let (on, off) = colour.map_or_else(Default::default, |it| (format!("\x1b[{it}m"), "\x1b[0m"));
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                writeln!(context.out, "{on}{:width$}{off} {} {}", name.as_str(), timestamp(unix_ms), plain(line))
            }
        }
        .and_then(|()| context.out.flush())
        .map_err(Failure::print)?;
    }
    Ok(())
}

/// Hands on what one console says.
fn listen(
    door: &dyn Door,
    name: Name,
    window: Window,
    index: usize,
    sender: &SyncSender<(usize, Heard)>,
) -> Result<(), Failure> {
    let mut connection = door.open(Daemon::Console)?;
    connection.send(name, Command::Console(ConsoleCommand::Subscribe(window)))?;
    let daemon = connection.daemon();
    let hand_on = |heard| sender.send((index, heard)).is_ok();
    match connection.receive(name)? {
        Success::Text(text) if text.0 == WAITING => drop(hand_on(Heard::Waiting)),
        Success::Text(_) | Success::Empty => {}
        _ => return Err(Failure::Unexpected { daemon }),
    }
    connection.wait_for_ever()?;
    loop {
        match connection.next_of_stream()?.payload {
            Payload::Data(Data::Console { unix_ms, line }) => {
                if !hand_on(Heard::Line(unix_ms, line.0.to_vec())) {
                    return Ok(());
                }
            }
            Payload::Failure(text) => return Err(refused(name, text)),
            _ => return Err(Failure::Unexpected { daemon }),
        }
    }
}

/// Colours are for people who look at a terminal and have not said that they want none.
fn has_colours() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    stdout().is_terminal() && !is_set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb")
}
