//! The turns of the event loop. It waits for nobody but the disk, when it writes or reads there.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use fulmar_core::limits::{
    EVENT_TEXT_BYTES_MAX, LOG_CONNECTIONS_MAX, LOG_FRAME_BYTES_MAX, LOG_OUTPUT_BYTES_MAX, LOG_READ_BYTES,
    LOG_STALL_MS_MAX, LOG_TALK_MS_MAX, NAME_BYTES_MAX,
};
use fulmar_core::wire::{Event, Message};
use fulmar_host::clients::{Bounds, Clients, Role, Sent, Serve};
use fulmar_host::service::Service;
use fulmar_host::warning;
use mio::Token;

use crate::store::Store;
use crate::subscription::{Served, Subscription};

/// How far we go for clients. A message of ours is an event, and what is around it.
const BOUNDS: Bounds = Bounds {
    connections: LOG_CONNECTIONS_MAX,
    frame_bytes: LOG_FRAME_BYTES_MAX,
    message_bytes: LOG_FRAME_BYTES_MAX + NAME_BYTES_MAX + 64,
    text_bytes: EVENT_TEXT_BYTES_MAX,
    output_bytes: LOG_OUTPUT_BYTES_MAX,
    talk_ms: LOG_TALK_MS_MAX,
};

/// Times that one reader's output is filled in a turn.
const FILLS_PER_TURN: u32 = 4;

/// The whole program.
pub(crate) struct Server {
    pub(crate) clients: Clients<Box<Subscription>>,
    pub(crate) store: Store,
    /// Whether there are events that readers have not been shown yet.
    pub(crate) appended: bool,
    /// Where the log is read.
    buffer: Vec<u8>,
}

impl Server {
    /// Serves what is in `store` on `listener`.
    pub(crate) fn new(signals: UnixStream, listener: UnixListener, store: Store, service: Service) -> io::Result<Self> {
        let clients = Clients::new(&BOUNDS, signals, listener, service)?;
        Ok(Self { clients, store, appended: false, buffer: vec![0; LOG_READ_BYTES] })
    }

    /// Shows all readers what is new.
    fn serve_readers(&mut self) {
        self.clients.subscribed().into_iter().for_each(|token| self.send(token));
    }

    /// Keeps a last event and gives all readers what there is, as far as they take it at once.
    pub(crate) fn finish(&mut self, event: &Event<'_>) {
        self.store.keep_own(event);
        self.serve_readers();
        self.store.finish();
    }
}

impl Serve for Server {
    type Subscription = Box<Subscription>;

    fn clients(&mut self) -> &mut Clients<Box<Subscription>> {
        &mut self.clients
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while self.clients.wait(&mut ready, &[])? {
            ready.drain(..).for_each(|token| self.client_turn(token));
            if std::mem::take(&mut self.appended) {
                self.serve_readers();
            }
            self.close_late();
        }
        Ok(())
    }

    fn message(&mut self, token: Token, message: &Message<'_>) {
        self.command(token, message);
    }

    fn send(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(token) else { return };
        let was_behind = client.is_behind();
        let mut has_more = false;
        for fills in 1.. {
            let mut served = Served::Rests;
            // Out of the connection while it fills the output there.
            if let Some(mut subscription) = client.take_subscription() {
                served = subscription.serve(client, &self.store, &mut self.buffer);
                client.role = Role::Subscribed(subscription);
            }
            let filled = client.is_behind();
            let waited = client.waiting();
            let sent = client.flush();
            if client.waiting() < waited {
                client.restart_deadline();
            }
            match (sent, served) {
                (Sent::Gone, _) => return self.close(token),
                (Sent::All, Served::Over) => return self.close(token),
                (Sent::All, _) if matches!(client.role, Role::Closing) => return self.close(token),
                (Sent::Some, Served::Over) => client.finish(),
                // There was no room for all of it, and now there is.
                (Sent::All, Served::Rests) if filled && fills < FILLS_PER_TURN => continue,
                (Sent::All, Served::Rests) => has_more = filled,
                (Sent::All, Served::Busy) => has_more = true,
                (Sent::Some, _) => {}
            }
            break;
        }
        let of_reader_ms = (client.waiting() > 0).then_some(LOG_STALL_MS_MAX);
        self.clients.settle(token, was_behind, has_more, of_reader_ms);
    }

    fn close_slow(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(token) else { return };
        let Some(subscription) = client.take_subscription() else { return };
        warning!("a reader that reads too slowly is closed");
        subscription.put_slow(client);
        client.finish();
        self.send(token);
    }
}
