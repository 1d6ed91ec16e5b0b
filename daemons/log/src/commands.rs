//! What clients ask for, and what `vmmd` tells.

use fulmar_core::wire::{Command, Data, LogCommand, LogFrom, Message, Payload, Success, Window};
use fulmar_host::clients::Role;
use fulmar_host::info;
use mio::Token;

use crate::server::Server;
use crate::subscription::Subscription;

impl Server {
    /// Does what a message says, and answers.
    pub(crate) fn command(&mut self, token: Token, message: &Message<'_>) {
        let Message { header, payload } = message;
        let Some(client) = self.clients.get_mut(token) else { return };
        let refusal = match payload {
            Payload::Data(Data::Log(entry)) if client.peer.is_for_many => {
                self.store.keep(header.sequence, entry);
                client.put(header, Payload::Success(Success::Empty));
                self.appended = true;
                return;
            }
            Payload::Data(Data::Log(_)) => "only vmmd and vmmd_tls tell what has happened",
            Payload::Command(
                Command::Log(Window::Count(..0))
                | Command::Events(LogCommand { from: LogFrom::Window(Window::Count(..0)), .. }),
            ) => "the number of events must not be negative",
            Payload::Command(Command::Log(window)) => {
                let subscription = Subscription::historic(*header, *window, &self.store);
                client.put(header, Payload::Success(Success::Text("subscribed".into())));
                client.role = Role::Subscribed(Box::new(subscription));
                return;
            }
            Payload::Command(Command::Events(LogCommand { from: LogFrom::After(last), .. }))
                if *last >= self.store.next() =>
            {
                "the log has not come so far: ask for the last events"
            }
            Payload::Command(Command::Events(command)) => {
                let subscription = Subscription::full(*header, *command, &self.store);
                client.put(header, Payload::Success(Success::Text("subscribed".into())));
                client.role = Role::Subscribed(Box::new(subscription));
                return;
            }
            _ => "unknown command: this is the event log",
        };
        info!(name = header.name; "{}: {refusal}", header.name);
        client.put_failure(header, refusal);
        client.finish();
    }
}
