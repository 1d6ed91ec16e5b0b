//! What is asked for: watch a unikernel, watch it no longer, send what is measured.

use fulmar_core::wire::{Command, Header, Message, Payload, StatsCommand};
use fulmar_host::clients::Role;
use fulmar_host::meter::Meter;
use fulmar_host::{info, warning};
use mio::Token;

use crate::server::Server;
use crate::subscription::Subscription;

/// Reply to who says which process runs a unikernel and is not `vmmd`.
const NOT_TRUSTED: &str = "only root and the user of the daemons may say what is to be watched";

impl<M: Meter> Server<M> {
    /// Does what a message of a client says, and answers.
    pub(crate) fn command(&mut self, token: Token, message: &Message<'_>) {
        let header = message.header;
        if matches!(message.payload, Payload::Command(Command::Stats(StatsCommand::Subscribe))) {
            return self.subscribe(token, &header);
        }
        let trusts = self.clients.get(token).is_some_and(|client| client.peer.is_trusted);
        let done = match trusts {
            true => self.watch(message),
            false => {
                matches!(message.payload, Payload::Command(Command::Stats(_))).then(|| Err(NOT_TRUSTED.to_owned()))
            }
        };
        let Some(client) = self.clients.get_mut(token) else { return };
        match done {
            Some(Ok(text)) => client.put_text(&header, text),
            Some(Err(text)) => client.put_failure(&header, &text),
            None => {
                let text = "unknown command: this is the statistics daemon";
                info!(name = header.name; "{}: {text}", header.name);
                client.put_failure(&header, text);
                client.finish();
            }
        }
    }

    fn subscribe(&mut self, token: Token, header: &Header) {
        let Some(client) = self.clients.get_mut(token) else { return };
        // It gets what is measured from now on.
        client.role = Role::Subscribed(Subscription { header: Box::new(*header), at: self.records.len() });
        client.put_text(header, "subscribed");
        self.expect_measurement();
    }

    /// Watches what a message names, or no longer. Nothing where the message says something else.
    pub(crate) fn watch(&mut self, message: &Message<'_>) -> Option<Result<&'static str, String>> {
        let name = message.header.name;
        match message.payload {
            Payload::Command(Command::Stats(StatsCommand::Add { device, pid, taps })) => {
                Some(match self.targets.add(&name, device, pid, taps) {
                    Ok(()) => Ok("added"),
                    Err(error) => {
                        let text = error.to_string();
                        warning!(name = name; "{name} is not watched: {text}");
                        Err(text)
                    }
                })
            }
            Payload::Command(Command::Stats(StatsCommand::Remove)) => {
                self.targets.remove(&name);
                Some(Ok("removed"))
            }
            _ => None,
        }
    }
}
