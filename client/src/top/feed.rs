//! Threads that listen to the daemons and pass on what they hear. A daemon that is away is called again; that it is away is passed
//! on too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use fulmar_core::name::Name;
use fulmar_core::wire::{Command, ConsoleCommand, Data, LogCommand, LogFrom, Payload, StatsCommand, Success, Window};

use super::survey::{self, Survey};
use crate::commands::full_name;
use crate::commands::stats::{Before, bytes_of_pages};
use crate::connection::{Connection, Daemon, Door};
use crate::error::Failure;
use crate::output::text::{plain, timestamp};

/// Between two calls of a daemon that is away.
const RETRY: Duration = Duration::from_secs(2);

/// Between two looks whether a console has said something, or is followed no more.
const LOOK: Duration = Duration::from_millis(100);

/// Lines of the past.
const LINES: i64 = 100;

/// What a feed passes on.
#[derive(Debug)]
pub(crate) enum News {
    /// What `vmmd` says.
    Survey(Survey),
    /// A measurement, and the bytes that are resident.
    Usage(Name, Before, i64),
    /// Something has happened.
    Event(String),
    /// A line of this console.
    Line(Name, String),
    /// A daemon is away, and why; or it is back.
    Away(Daemon, Option<String>),
}

/// Asks `vmmd` again and again.
pub(crate) fn survey(door: Box<dyn Door + Send>, path: Name, interval: Duration, news: Sender<News>) {
    spawn(move || {
        loop {
            let mut why = None;
            match survey::ask(&*door, path) {
                // Where nobody listens the next message finds out.
                Ok(survey) => drop(news.send(News::Survey(survey))),
                Err(failure) => why = Some(failure.to_string()),
            }
            if news.send(News::Away(Daemon::Vmmd, why)).is_err() {
                return;
            }
            sleep(interval);
        }
    });
}

/// Listens to `vmmd_stats`.
pub(crate) fn usage(door: Box<dyn Door + Send>, path: Name, news: Sender<News>) {
    call_again(Daemon::Stats, news, move |news| {
        let mut connection = subscribe(&*door, Daemon::Stats, path, Command::Stats(StatsCommand::Subscribe), news)?;
        while let Some(message) = connection.next_message()? {
            let Payload::Data(Data::Stats(usage)) = message.payload else { continue };
            let resident = usage.memory.map_or(0, |memory| bytes_of_pages(memory.rss));
            let name = full_name(path, message.header.name);
            if news.send(News::Usage(name, Before::of(&usage, Instant::now()), resident)).is_err() {
                break;
            }
        }
        Ok(())
    });
}

/// Listens to `vmmd_log`; after a break it goes on where it was.
pub(crate) fn events(door: Box<dyn Door + Send>, path: Name, news: Sender<News>) {
    let mut last = None;
    call_again(Daemon::Log, news, move |news| {
        let from = last.map_or(LogFrom::Window(Window::Count(LINES)), LogFrom::After);
        let command = Command::Events(LogCommand { from, follow: true });
        let mut connection = subscribe(&*door, Daemon::Log, path, command, news)?;
        while let Some(payload) = connection.next_payload()? {
            let Payload::Data(Data::Event(event)) = payload else { continue };
            last = Some(event.sequence);
            let (time, text) = (clock(event.entry.unix_ms), event.entry.event.to_string());
            if news.send(News::Event(format!("{time} {}", plain(text.as_bytes())))).is_err() {
                break;
            }
        }
        Ok(())
    });
}

/// Listens to the console of one unikernel, as long as `followed`.
pub(crate) fn console(door: Box<dyn Door + Send>, name: Name, followed: Arc<AtomicBool>, news: Sender<News>) {
    spawn(move || {
        let listen = || -> Result<(), Failure> {
            let command = Command::Console(ConsoleCommand::Subscribe(Window::Count(LINES)));
            let mut connection = subscribe(&*door, Daemon::Console, name, command, &news)?;
            while followed.load(Ordering::Relaxed) {
                if !connection.is_readable() {
                    sleep(LOOK);
                    continue;
                }
                let Some(payload) = connection.next_payload()? else { break };
                let Payload::Data(Data::Console { unix_ms, line }) = payload else { continue };
                let line = line.0.strip_suffix(b"\r").unwrap_or(line.0);
                let line = format!("{} {}", clock(unix_ms), plain(line));
                if news.send(News::Line(name, line)).is_err() {
                    break;
                }
            }
            Ok(())
        };
        if let Err(failure) = listen() {
            // Where nobody listens nobody needs to know.
            let _ = news.send(News::Away(Daemon::Console, Some(failure.to_string())));
        }
    });
}

/// Asks for a stream.
fn subscribe(
    door: &dyn Door,
    daemon: Daemon,
    name: Name,
    command: Command<'_>,
    news: &Sender<News>,
) -> Result<Connection, Failure> {
    let mut connection = door.open(daemon)?;
    connection.send(name, command)?;
    let (Success::Text(_) | Success::Empty) = connection.receive(name)? else {
        return Err(Failure::Unexpected { daemon });
    };
    connection.wait_for_ever()?;
    // Where nobody listens the next message finds out.
    let _ = news.send(News::Away(daemon, None));
    Ok(connection)
}

/// The time of the day (UTC), to the second: there is little room.
fn clock(unix_ms: i64) -> String {
    timestamp(unix_ms).chars().skip_while(|it| *it != 'T').skip(1).take_while(|it| *it != '.').collect()
}

fn call_again(
    daemon: Daemon,
    news: Sender<News>,
    mut listen: impl FnMut(&Sender<News>) -> Result<(), Failure> + Send + 'static,
) {
    spawn(move || {
        loop {
            let failure = listen(&news).err().unwrap_or(Failure::Closed { daemon });
            if news.send(News::Away(daemon, Some(failure.to_string()))).is_err() {
                return;
            }
            sleep(RETRY);
        }
    });
}
