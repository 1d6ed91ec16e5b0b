//! What clients ask for, and what `vmmd` tells.

use fulmar_core::wire::{Command, Data, LogCommand, LogFrom, Message, Payload, Success, Window};
use fulmar_host::info;
use mio::Token;

use crate::connection::Role;
use crate::server::Server;
use crate::subscription::Subscription;

impl Server {
    /// Does what a message says, and answers.
    pub(crate) fn message(&mut self, token: Token, message: &Message<'_>) {
        let Message { header, payload } = message;
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let refusal = match payload {
            Payload::Data(Data::Log(entry)) if connection.peer.is_trusted => {
                self.store.keep(header.sequence, entry);
                connection.put(header, Payload::Success(Success::Empty));
                self.appended = true;
                return;
            }
            Payload::Data(Data::Log(_)) => "only vmmd tells what has happened",
            Payload::Command(
                Command::Log(Window::Count(..0))
                | Command::Events(LogCommand { from: LogFrom::Window(Window::Count(..0)), .. }),
            ) => "the number of events must not be negative",
            Payload::Command(Command::Log(window)) => {
                let subscription = Subscription::historic(*header, *window, &self.store);
                connection.put(header, Payload::Success(Success::Text("subscribed".into())));
                connection.role = Role::Reading(Box::new(subscription));
                return;
            }
            Payload::Command(Command::Events(LogCommand { from: LogFrom::After(last), .. }))
                if *last >= self.store.next() =>
            {
                "the log has not come so far: ask for the last events"
            }
            Payload::Command(Command::Events(command)) => {
                let subscription = Subscription::full(*header, *command, &self.store);
                connection.put(header, Payload::Success(Success::Text("subscribed".into())));
                connection.role = Role::Reading(Box::new(subscription));
                return;
            }
            _ => "unknown command: this is the event log",
        };
        info!(name = header.name; "{}: {refusal}", header.name);
        connection.put_failure(header, refusal);
        connection.finish();
    }
}
