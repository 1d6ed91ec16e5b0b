//! The terminal: keys in, pictures out, and everything as it was in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_core::name::Name;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;

use super::draw::draw;
use super::feed::{self, News};
use super::model::{Key, Model, Pane};
use crate::connection::Door;
use crate::error::Failure;

/// Between two pictures, where nobody presses a key.
const PICTURE: Duration = Duration::from_millis(250);

/// Shows all below a path, until somebody has had enough.
///
/// # Errors
/// [`Failure::Print`]: what the terminal says.
pub(crate) fn show(door: &dyn Door, path: Name, interval: Duration) -> Result<(), Failure> {
    let (sender, news) = channel();
    feed::survey(door.again(), path, interval, sender.clone());
    feed::usage(door.again(), path, sender.clone());
    feed::events(door.again(), path, sender.clone());
    let ended_by = Arc::new(AtomicUsize::new(0));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register_usize(signal, Arc::clone(&ended_by), signal.unsigned_abs() as usize).map_err(Failure::print)?;
    }
    let mut terminal = ratatui::try_init().map_err(Failure::print)?;
    let shown = turn(&mut terminal, door, &news, &sender, &ended_by);
    // Whatever has happened, the terminal is somebody's.
    let restored = ratatui::try_restore().map_err(Failure::print);
    // It shows the cursor again.
    drop(terminal);
    if let signal @ 1.. = ended_by.load(Ordering::Relaxed) {
        // It ends as who sent the signal expects. This returns only where there is no such signal.
        emulate_default_handler(i32::try_from(signal).unwrap_or(SIGTERM)).map_err(Failure::print)?;
    }
    shown.and(restored)
}

fn turn(
    terminal: &mut DefaultTerminal,
    door: &dyn Door,
    news: &Receiver<News>,
    sender: &Sender<News>,
    ended_by: &AtomicUsize,
) -> Result<(), Failure> {
    let mut model = Model::default();
    // The console that is being listened to.
    let mut followed: Option<(Name, Arc<AtomicBool>)> = None;
    while !model.is_over && ended_by.load(Ordering::Relaxed) == 0 {
        news.try_iter().for_each(|it| model.hear(it));
        let wanted = model.chosen.filter(|_| model.pane == Pane::Console);
        if followed.as_ref().map(|(name, _)| *name) != wanted {
            if let Some((_, flag)) = followed.take() {
                flag.store(false, Ordering::Relaxed);
            }
            model.console.clear();
            followed = wanted.map(|name| {
                let flag = Arc::new(AtomicBool::new(true));
                feed::console(door.again(), name, Arc::clone(&flag), sender.clone());
                (name, flag)
            });
        }
        terminal.draw(|frame| draw(frame, &model, now_unix_ms())).map_err(Failure::print)?;
        if event::poll(PICTURE).map_err(Failure::print)?
            && let Event::Key(key) = event::read().map_err(Failure::print)?
            && let Some(key) = meaning(key)
        {
            model.press(key);
        }
    }
    Ok(())
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Char('q'),
        KeyCode::Char(character) => Key::Char(character),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Tab => Key::Tab,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
