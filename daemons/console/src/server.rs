//! The turns of the event loop. A unikernel that writes without end has its share of each, so it delays the others by microseconds.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use fulmar_core::console::LINE_BYTES_STORED_MAX;
use fulmar_core::limits::{
    CONSOLE_CONNECTIONS_MAX, CONSOLE_FRAME_BYTES_MAX, CONSOLE_OUTPUT_BYTES_MAX, CONSOLE_TALK_MS_MAX, NAME_BYTES_MAX,
};
use fulmar_core::name::Name;
use fulmar_core::wire::Message;
use fulmar_host::clients::{Bounds, Clients, Serve, Served};
use fulmar_host::folder::Folder;
use fulmar_host::service::Service;
use mio::Token;

use crate::consoles::{Consoles, State};
use crate::subscription::{Filled, Subscription, fill};

/// How far we go for clients. A message is at most a line or a text, a name, and what is around them; a list is longer.
const BOUNDS: Bounds = Bounds {
    connections: CONSOLE_CONNECTIONS_MAX,
    frame_bytes: CONSOLE_FRAME_BYTES_MAX,
    message_bytes: LINE_BYTES_STORED_MAX + NAME_BYTES_MAX + 128,
    text_bytes: LINE_BYTES_STORED_MAX,
    output_bytes: CONSOLE_OUTPUT_BYTES_MAX,
    talk_ms: CONSOLE_TALK_MS_MAX,
};

/// The whole program.
pub(crate) struct Server<'m> {
    pub(crate) clients: Clients<Subscription>,
    pub(crate) fifo_folder: Folder,
    pub(crate) consoles: Consoles<'m>,
    /// Which console a fifo belongs to.
    pub(crate) fifos: HashMap<Token, Name>,
}

impl<'m> Server<'m> {
    /// Serves `listener`, with fifos in `fifo_folder` and lines in `memory`.
    pub(crate) fn new(
        signals: UnixStream,
        listener: UnixListener,
        fifo_folder: Folder,
        memory: &'m mut [u8],
        service: Service,
    ) -> io::Result<Self> {
        let clients = Clients::new(&BOUNDS, signals, listener, service)?;
        Ok(Self { clients, fifo_folder, consoles: Consoles::new(memory), fifos: HashMap::new() })
    }

    /// Forgets that a client gets the lines of a console, and a console that only it waited for.
    pub(crate) fn unsubscribe(&mut self, token: Token, name: &Name) {
        let Some(console) = self.consoles.get_mut(name) else { return };
        console.subscribers.retain(|subscriber| *subscriber != token);
        if matches!(console.state, State::Awaited) && console.subscribers.is_empty() {
            self.consoles.remove(name);
        }
    }
}

impl Serve for Server<'_> {
    type Subscription = Subscription;

    fn clients(&mut self) -> &mut Clients<Subscription> {
        &mut self.clients
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while self.clients.wait(&mut ready, &[])? {
            for token in ready.drain(..) {
                if self.fifos.contains_key(&token) {
                    self.fifo_turn(token);
                } else {
                    self.client_turn(token);
                }
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
        match client.serve(|client| fill(client, &self.consoles) == Filled::InTime) {
            Served::Open => self.clients.settle(token, was_behind, false, None),
            Served::Over => self.close(token),
            Served::Late => self.drop_slow(token),
        }
    }

    fn unsubscribed(&mut self, token: Token, subscription: Subscription) {
        self.unsubscribe(token, &subscription.header.name);
    }
}
