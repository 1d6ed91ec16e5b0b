//! One subscriber: which console it follows, and what it has got of it.

use fulmar_core::console::{Cursor, LINE_BYTES_STORED_MAX, Next};
use fulmar_core::wire::{Data, Header, Payload, Text};
use fulmar_host::clients::{Client, Role};

use crate::consoles::Consoles;

/// A subscriber.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Of the command, and so of each line.
    pub(crate) header: Box<Header>,
    /// What it has read.
    pub(crate) cursor: Cursor,
}

/// Whether a subscriber has kept up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filled {
    /// It has what there is, or what there is room for.
    InTime,
    /// It reads so slowly that lines were dropped before it got them.
    Late,
}

/// Puts the lines that a client has not got into its output, while there is room for them.
pub(crate) fn fill(client: &mut Client<Subscription>, consoles: &Consoles<'_>) -> Filled {
    let Some(Subscription { header, cursor }) = client.subscription() else { return Filled::InTime };
    let (header, mut at) = (**header, *cursor);
    let Some(console) = consoles.get(&header.name) else { return Filled::InTime };
    let ring = console.history.ring();
    let mut buffer = [0; LINE_BYTES_STORED_MAX];
    while !client.is_behind() {
        match ring.next_line(consoles.blocks(), &mut at, &mut buffer) {
            Next::Line { unix_ms, text } => {
                client.put(&header, Payload::Data(Data::Console { unix_ms, line: Text(text) }));
            }
            Next::End => break,
            Next::Lost => return Filled::Late,
        }
    }
    if let Role::Subscribed(subscription) = &mut client.role {
        subscription.cursor = at;
    }
    if ring.holds(&at) { Filled::InTime } else { Filled::Late }
}
