//! What a client and we do in each stage of a conversation.

use std::io::Write as _;
use std::net::Shutdown;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use fulmar_core::chunks::Piece;
use fulmar_core::limits::{REVOCATION_LIST_BYTES_MAX, TLS_HANDSHAKE_MS_MAX};
use fulmar_core::wire::{self, Event, Frame, Payload, Success};

use super::{Connection, PIECE_BYTES, Stage, Surroundings, Turn, relaying};
use crate::local::Local;
use crate::removal::{Ended, Removal};
use crate::verdict::Revocation;

impl Connection {
    pub(super) fn shake(&mut self) -> Turn {
        if self.tls.is_handshaking() {
            return if self.is_gone { Turn::Over(Some("it went within the handshake".into())) } else { Turn::Waits };
        }
        match self.verifier.take_verdict() {
            Some(Ok(admitted)) => Turn::Admitted(Box::new(admitted)),
            Some(Err(refused)) => Turn::Refused(refused),
            None => Turn::Over(Some("it came without a certificate".into())),
        }
    }

    pub(super) fn settle_policies(&mut self) -> Turn {
        let Stage::Policies { follows, has_chunks } = self.stage else { return Turn::Waits };
        // Who has said all that it had to say may have closed its side already, and waits.
        if self.is_gone && (follows || has_chunks || !self.has_closed) {
            return Turn::Over(None);
        }
        let Some(local) = &mut self.local else { return Turn::Over(None) };
        let sent = local.flush();
        let Some(answer) = local.answer() else { return if sent { Turn::Goes } else { Turn::Waits } };
        match wire::decode(Frame::whole(&answer)).map(|message| message.payload) {
            Ok(Payload::Success(_)) => self.stage = relaying(has_chunks, follows),
            Ok(Payload::Failure(text)) => {
                let text = text.to_string();
                self.fail(&text);
            }
            _ => self.fail("vmmd has ended the conversation without an answer: try again"),
        }
        Turn::Goes
    }

    pub(super) fn relay(&mut self) -> Turn {
        let mut moved = self.relay_to_daemon();
        let Stage::Relaying { chunks, follows, answered, frames } = &mut self.stage else { return Turn::Goes };
        // Whatever a subscriber says ends its subscription; who goes in the middle of its chunks has not sent them.
        if self.is_gone && (*follows || chunks.is_some() || !self.has_closed) || self.has_closed && *follows {
            return Turn::Over(None);
        }
        let Some(local) = &mut self.local else { return Turn::Over(None) };
        moved |= local.flush();
        if !self.tls.wants_write() {
            let mut piece = [0; PIECE_BYTES];
            match local.read(&mut piece) {
                None => {}
                Some(0) if !*answered => self.fail("the daemon on the host has ended the conversation: try again"),
                Some(0) => self.end(),
                Some(count) => {
                    *answered = true;
                    let bytes = piece.get(..count).unwrap_or_default();
                    frames.pass(bytes);
                    // All of it has room: nothing else waits.
                    let _ = self.tls.writer().write_all(bytes);
                    moved = true;
                }
            }
            moved |= self.local.is_none();
        }
        if moved { Turn::Goes } else { Turn::Waits }
    }

    /// Hands on what the client has sent; says whether there was something.
    fn relay_to_daemon(&mut self) -> bool {
        if !self.local.as_ref().is_some_and(Local::is_flushed) {
            return false;
        }
        let mut piece = [0; PIECE_BYTES];
        let bytes = match &self.stage {
            Stage::Relaying { chunks: Some(_), .. } => self.bytes(&mut piece),
            _ => &[],
        };
        let (Stage::Relaying { chunks, follows, .. }, Some(local)) = (&mut self.stage, &mut self.local) else {
            return false;
        };
        let Some(open) = chunks else {
            // It was not asked for anything.
            let says_something = self.unread > 0;
            self.is_gone |= says_something && *follows;
            self.forget_bytes();
            return says_something;
        };
        let mut rest = bytes;
        loop {
            match open.next(&mut rest) {
                Ok(Piece::Bytes(_)) => {}
                Ok(Piece::More) => break,
                Ok(Piece::End) => {
                    *chunks = None;
                    break;
                }
                // The daemon says what is wrong with it; nothing can follow.
                Err(_) => {
                    *chunks = None;
                    break;
                }
            }
        }
        local.queue(bytes.get(..bytes.len() - rest.len()).unwrap_or_default());
        !bytes.is_empty()
    }

    pub(super) fn take_list(&mut self, around: &mut Surroundings<'_>) -> Turn {
        let mut piece = [0; PIECE_BYTES];
        let mut input = self.bytes(&mut piece);
        let Stage::List(listing) = &mut self.stage else { return Turn::Waits };
        if input.is_empty() {
            return if self.is_gone || self.has_closed { Turn::Over(None) } else { Turn::Waits };
        }
        loop {
            match listing.chunks.next(&mut input) {
                Ok(Piece::Bytes(bytes)) if listing.bytes.len() + bytes.len() > REVOCATION_LIST_BYTES_MAX => {
                    let limit_kb = REVOCATION_LIST_BYTES_MAX >> 10;
                    self.fail(&format!("the list of revoked certificates is larger than {limit_kb} KB"));
                    return Turn::Goes;
                }
                Ok(Piece::Bytes(bytes)) => listing.bytes.extend_from_slice(bytes),
                Ok(Piece::More) => return Turn::Goes,
                Ok(Piece::End) => break,
                Err(error) => {
                    self.fail(&error.to_string());
                    return Turn::Goes;
                }
            }
        }
        let taken = {
            let mut revoked = around.revoked.lock().unwrap_or_else(PoisonError::into_inner);
            let Revocation { leaf, above, .. } = &*listing.revocation;
            revoked.take(&listing.bytes, self.name.domain(), around.ca, leaf, above)
        };
        match taken {
            Err(error) => {
                let reason = error.to_string();
                around.events.refused(self.name, &reason);
                self.fail(&reason);
                Turn::Goes
            }
            Ok(taken) => {
                let count = i64::try_from(taken.count).unwrap_or(i64::MAX);
                around.events.tell(&Event::Revoked { name: self.name.path(), number: taken.number, count });
                match listing.revocation.remove {
                    Some(path) => {
                        self.stage = Stage::Removing(Box::new(Removal::new(path)));
                        self.stage_until = None;
                    }
                    None => self.say(Payload::Success(Success::Text("revoked".into()))),
                }
                Turn::Revoked
            }
        }
    }

    pub(super) fn remove(&mut self, around: &mut Surroundings<'_>) -> Turn {
        self.forget_bytes();
        let Stage::Removing(removal) = &mut self.stage else { return Turn::Waits };
        // It goes on although its client is gone: it was told that what it sent is durable, or will find it out.
        match removal.step(around.sockets, around.registry, around.token) {
            Ended::Not(true) => Turn::Goes,
            Ended::Not(false) => Turn::Waits,
            Ended::Done(text) => {
                self.say(Payload::Success(Success::Text(text.as_str().into())));
                Turn::Goes
            }
            Ended::Failed(text) => {
                self.fail(&text);
                Turn::Goes
            }
        }
    }

    pub(super) fn finish(&mut self) -> Turn {
        self.forget_bytes();
        if self.is_gone && !self.has_closed {
            return Turn::Over(None);
        }
        if self.tls.wants_write() {
            return Turn::Waits;
        }
        self.tls.send_close_notify();
        self.stage = Stage::Lingering;
        self.stage_until = Some(Instant::now() + Duration::from_millis(TLS_HANDSHAKE_MS_MAX));
        Turn::Goes
    }

    /// Waits until the client has closed too: it may still be sending, and would not get to read the answer if the connection were
    /// cut off.
    pub(super) fn linger(&mut self) -> Turn {
        self.forget_bytes();
        if self.tls.wants_write() {
            return Turn::Waits;
        }
        if self.is_gone || self.has_closed || self.tcp.shutdown(Shutdown::Write).is_err() {
            return Turn::Over(None);
        }
        Turn::Waits
    }

    /// Reads and forgets what the client still sends.
    fn forget_bytes(&mut self) {
        let mut piece = [0; PIECE_BYTES];
        while !self.bytes(&mut piece).is_empty() {}
    }
}
