//! Answers that the channel did not take at once. A control half that does not read must not stop the half that holds the
//! privileges: signals are still heeded. While anything waits here no request is read and no exit is asked for, so what waits
//! is at most the answer to one request; the longest is that to a survey, a message for each unit.

use std::collections::VecDeque;
use std::io;

use fulmar_host::channel::Channel;

/// The answers, in their order.
#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<Box<[u8]>>);

impl Outbox {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends one, behind those that wait.
    ///
    /// # Errors
    /// The channel's. That the other half is gone is none: the next receive says so, and there is nobody to tell.
    pub(super) fn send(&mut self, channel: &Channel, packet: &[u8]) -> io::Result<()> {
        if !self.is_empty() || !try_send(channel, packet)? {
            self.0.push_back(packet.into());
        }
        Ok(())
    }

    /// Sends on, as far as the channel takes it.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub(super) fn flush(&mut self, channel: &Channel) -> io::Result<()> {
        while let Some(packet) = self.0.front() {
            if !try_send(channel, packet)? {
                break;
            }
            self.0.pop_front();
        }
        Ok(())
    }
}

/// Whether it went.
fn try_send(channel: &Channel, packet: &[u8]) -> io::Result<bool> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, WouldBlock};
    match channel.send(packet, &[]) {
        Err(error) if error.kind() == WouldBlock => Ok(false),
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => Ok(true),
        sent => sent.map(|()| true),
    }
}
