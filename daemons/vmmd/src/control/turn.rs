//! One turn of the event loop: what has happened, who can go on, whose time is over, and then one write for all records.

use std::io;
use std::time::Duration;

use fulmar_core::limits::{CONNECTIONS_MAX, SERVING_MS};
use fulmar_core::machine::Input;
use fulmar_host::info;
use mio::event::Event;
use mio::{Events, Token};

use super::Control;
use super::connections::Stage;
use super::host::Asking;

pub(super) const LISTENER: Token = Token(0);
pub(super) const WAKER: Token = Token(1);
pub(super) const HOST: Token = Token(2);
pub(super) const CONSOLE: Token = Token(3);
pub(super) const STATS: Token = Token(4);
pub(super) const LOG: Token = Token(5);
pub(super) const SIGNALS: Token = Token(6);
const FIRST_CONNECTION: usize = 7;

/// The token of a connection.
pub(super) fn token_of(index: u16) -> Token {
    Token(FIRST_CONNECTION + usize::from(index))
}

impl Control<'_> {
    /// Waits for something to happen, at most as long as `limit`, and does all about it. `false` when the host half is gone.
    ///
    /// # Errors
    /// When the event loop or the channel to the host half fails.
    pub fn turn(&mut self, events: &mut Events, limit: Option<Duration>) -> io::Result<bool> {
        let timeout = self.timeout();
        match self.poll.poll(events, Some(limit.map_or(timeout, |limit| limit.min(timeout)))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            polled => polled?,
        }
        self.now = self.clock.now();
        let mut alive = true;
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accepting = true,
                WAKER => self.collect_outcomes(),
                HOST => {
                    alive = self.hear()?;
                    self.ask_on();
                    self.drain();
                }
                CONSOLE => self.serve_console(),
                STATS => self.serve_stats(),
                LOG => self.serve_log(),
                SIGNALS => self.asked = true,
                token => self.connection_event(token, event),
            }
        }
        // After the events, so that none of them meets another connection in the same place.
        for _ in 0..self.connections.ready.len() {
            if let Some(index) = self.connections.ready.pop_front() {
                self.serve(index);
            }
        }
        if self.accepting {
            self.accept();
        }
        self.expire();
        self.commit();
        // All that has happened in this turn.
        self.flush_log();
        Ok(alive)
    }

    fn connection_event(&mut self, token: Token, event: &Event) {
        let Some(index) = token.0.checked_sub(FIRST_CONNECTION).filter(|index| *index < CONNECTIONS_MAX) else {
            return;
        };
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        let connection = self.connections.get(index);
        let waits = matches!(connection.stage, Stage::Waiting | Stage::Deferred);
        if connection.stream.is_none() {
            return;
        }
        if waits && (event.is_write_closed() || event.is_error()) {
            return self.close(index);
        }
        self.serve(index);
    }

    fn timeout(&self) -> Duration {
        if self.accepting || !self.connections.ready.is_empty() {
            return Duration::ZERO;
        }
        let machine = self.machine.deadline().unwrap_or(u64::MAX);
        let first = machine
            .min(self.connections.alarm_ms)
            .min(self.console.link.alarm_ms())
            .min(self.log_link.alarm_ms())
            .min(self.bridges_at_ms);
        // A millisecond more than the rest of the current one, so that it has passed when we wake.
        Duration::from_millis(first.saturating_sub(self.clock.now().ms)).saturating_add(Duration::from_millis(1))
    }

    /// Ends what took too long, and does what is due.
    fn expire(&mut self) {
        let now_ms = self.now.ms;
        if self.machine.deadline().is_some_and(|deadline| deadline <= now_ms) {
            self.handle(Input::Tick);
        }
        if self.connections.alarm_ms <= now_ms {
            self.connections.alarm_ms = u64::MAX;
            for index in 0..u16::try_from(CONNECTIONS_MAX).unwrap_or(u16::MAX) {
                let connection = self.connections.get(index);
                let (stage, at_ms) = (connection.stage, connection.deadline_ms);
                if connection.stream.is_none() {
                    continue;
                }
                if at_ms > now_ms {
                    self.connections.set_deadline(index, at_ms);
                    continue;
                }
                if stage != Stage::Lingering && !(stage == Stage::Reading && connection.scanner.is_between_frames()) {
                    info!(connection = index; "connection closed: the client did not {}",
                    match stage {
                        Stage::Reading | Stage::Receiving | Stage::Imaging => "finish its message",
                        _ => "read its reply",
                    });
                }
                self.close(index);
            }
        }
        if self.bridges_at_ms <= now_ms {
            self.bridges_at_ms = now_ms + SERVING_MS;
            // An edge is told once: who came while there was no file descriptor left would wait until the next one comes.
            self.accepting = true;
            // Once is enough while the host half stands still. A bridge that is new can be used after this.
            for asking in [Asking::Bridges, Asking::Serving] {
                if !self.host.waiting.contains(&asking) {
                    self.ask(asking);
                }
            }
        }
        self.call_console();
        self.call_log();
        self.drain();
    }
}
