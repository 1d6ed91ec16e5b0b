//! Replies: made in one buffer, sent at once where the client can take them, else kept where a slow reader hurts only itself.

use std::io::{self, Write};

use fulmar_core::limits::{LONG_REPLY_MS_MAX, PROGRESS_MS_MAX};
use fulmar_core::machine::{Digest, Reply};
use fulmar_core::wire::{self, Header, Message, Payload};
use fulmar_host::content::Form;
use fulmar_host::error;
use fulmar_host::store;

use super::connections::{Connections, Octets, PIECE_BYTES, Rest, Sending, Stage};
use super::worker::Pressing;
use super::{Control, ImageSpool};

/// How writing went.
pub(super) enum Written {
    All,
    Blocked,
    Failed,
}

impl Control<'_> {
    /// The machine has the reply to this connection.
    pub(super) fn reply(&mut self, index: u16) {
        let Some(header) = self.machine.reply_header(index) else { return };
        match self.machine.reply(index) {
            Reply::None => return,
            Reply::Image { digest, bytes, level: 0 } => self.send_stored(index, &header, &digest, bytes),
            Reply::Image { digest, level, .. } => {
                let serial = self.connections.get(index).serial;
                self.worker.press(Pressing::Compress { connection: index, serial, digest, level });
                return;
            }
            Reply::Host => return self.ask_about_host(index),
            Reply::Dump { slot, level, whole } => return self.begin_dump(index, slot, Form { level, whole }),
            Reply::Refused(refusal) => {
                let now_ms = self.now.ms;
                let connection = self.connections.get(index);
                if connection.linger {
                    // What it still sends is not read any more.
                    connection.early_bytes = 0;
                    self.connections.set_deadline(index, now_ms + PROGRESS_MS_MAX);
                }
                self.tell_refused(index, &header.name, &refusal);
                self.send_reply(index);
            }
            Reply::Done(_) => {
                self.tell_done(index);
                self.send_reply(index);
            }
            Reply::Infos(_) | Reply::Conditions(_) | Reply::Policies | Reply::Blocks => self.send_reply(index),
        }
        if self.serving != Some(index) {
            self.connections.wake(index);
        }
    }

    /// Makes and sends the reply that the machine has for this connection.
    pub(super) fn send_reply(&mut self, index: u16) {
        let buffer_bytes = self.connections.reply.len();
        match self.machine.encode_reply(index, &mut self.connections.reply) {
            Ok(frame) => {
                let begin = buffer_bytes - frame.len();
                self.connections.get(index).keep = self.machine.keeps_open(index);
                self.send(index, begin);
            }
            Err(_) => {
                if let Some(header) = self.machine.reply_header(index) {
                    self.refuse(index, &header, "the listing is too long for one reply: ask for a path further down");
                }
            }
        }
    }

    /// Sends a refusal; the connection ends after it.
    pub(super) fn refuse(&mut self, index: u16, header: &Header, text: &str) {
        let payload = Payload::Failure(text.into());
        let buffer_bytes = self.connections.reply.len();
        let connection = self.connections.get(index);
        connection.keep = false;
        // What came after the message will not be read. So a refusal always fits, and never waits for a long buffer: what
        // is sent after that wait is the machine's reply, and this is none.
        connection.early_bytes = 0;
        match wire::encode_frame(&Message { header: *header, payload }, &mut self.connections.reply) {
            Ok(frame) => {
                let begin = buffer_bytes - frame.len();
                self.send(index, begin);
            }
            Err(_) => self.give_up(index),
        }
    }

    /// Ends a connection in its next step.
    pub(super) fn give_up(&mut self, index: u16) {
        let connection = self.connections.get(index);
        connection.stage = Stage::Writing;
        connection.keep = false;
        connection.linger = false;
    }

    /// Sends the reply buffer from `begin` on, as far as it goes, and keeps the rest.
    pub(super) fn send(&mut self, index: u16, begin: usize) {
        let bytes = self.connections.reply.len() - begin;
        let fits = bytes <= PIECE_BYTES && self.connections.get(index).early_bytes == 0;
        if !fits && self.connections.long_taken.iter().all(|taken| *taken) {
            let connection = self.connections.get(index);
            connection.stage = Stage::Deferred;
            // It waits for others, who have their deadlines.
            connection.deadline_ms = u64::MAX;
            return;
        }
        let Connections { all, reply, .. } = &mut self.connections;
        let connection = &mut all[usize::from(index)];
        connection.stage = Stage::Writing;
        connection.rest = Rest::Nothing;
        let Some(stream) = &mut connection.stream else { return };
        let mut at = begin;
        while at < reply.len() {
            match stream.write(&reply[at..]) {
                Ok(written) => at += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.keep(index, at);
                }
                Err(_) => return self.give_up(index),
            }
        }
    }

    /// Keeps the reply buffer from `at` on where only this connection needs it.
    fn keep(&mut self, index: u16, at: usize) {
        let reply = std::mem::take(&mut self.connections.reply);
        let rest = &reply[at..];
        let (connection, _, own) = self.connections.parts(index);
        if rest.len() <= own.len() && connection.early_bytes == 0 {
            own[..rest.len()].copy_from_slice(rest);
            connection.rest = Rest::Own { begin: 0, end: rest.len() };
            self.connections.set_deadline(index, self.now.ms + PROGRESS_MS_MAX);
        } else if let Some(buffer) = self.connections.take_long() {
            self.connections.long[buffer][at..].copy_from_slice(rest);
            self.connections.get(index).rest = Rest::Long { buffer, begin: at };
            self.connections.set_deadline(index, self.now.ms + LONG_REPLY_MS_MAX);
        } else {
            self.give_up(index);
        }
        self.connections.reply = reply;
    }

    /// Sends on what is kept, then the octets that follow.
    pub(super) fn write(&mut self, index: u16) -> Written {
        loop {
            let Connections { all, long, .. } = &mut self.connections;
            let rest = all[usize::from(index)].rest;
            if rest == Rest::Nothing && all[usize::from(index)].dumping.is_some() {
                return self.write_content(index);
            }
            let sent = match rest {
                Rest::Nothing => match self.refill(index) {
                    Some(true) => continue,
                    Some(false) => return Written::All,
                    None => return Written::Failed,
                },
                Rest::Long { buffer, begin } => {
                    let stream = all[usize::from(index)].stream.as_mut();
                    stream.map_or(Ok(0), |stream| stream.write(&long[buffer][begin..]))
                }
                Rest::Own { begin, end } => {
                    let (connection, _, own) = self.connections.parts(index);
                    connection.stream.as_mut().map_or(Ok(0), |stream| stream.write(&own[begin..end]))
                }
            };
            match sent {
                Ok(0) => return Written::Failed,
                Ok(sent) => self.sent(index, rest, sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Blocked,
                Err(_) => return Written::Failed,
            }
        }
    }

    fn sent(&mut self, index: u16, rest: Rest, sent: usize) {
        let left = match rest {
            Rest::Own { begin, end } if begin + sent < end => Rest::Own { begin: begin + sent, end },
            Rest::Long { buffer, begin } if begin + sent < self.connections.long[buffer].len() => {
                Rest::Long { buffer, begin: begin + sent }
            }
            _ => Rest::Nothing,
        };
        self.connections.get(index).rest = left;
        if left == Rest::Nothing {
            self.connections.release(rest);
        }
        // Others may wait for a long buffer: a little progress does not keep it.
        if !matches!(left, Rest::Long { .. }) {
            self.connections.set_deadline(index, self.now.ms + PROGRESS_MS_MAX);
        }
    }

    /// Reads the next octets of an image into the connection's own memory. Nothing when they cannot be read.
    fn refill(&mut self, index: u16) -> Option<bool> {
        let (connection, _, own) = self.connections.parts(index);
        let Some(sending) = &mut connection.sending else { return Some(false) };
        if sending.offset == sending.bytes {
            connection.sending = None;
            return Some(false);
        }
        let left = usize::try_from(sending.bytes - sending.offset).unwrap_or(usize::MAX);
        let piece = &mut own[..left.min(PIECE_BYTES)];
        let read = sending.octets.read_at(piece, sending.offset).filter(|read| *read > 0)?;
        sending.offset += read as u64;
        connection.rest = Rest::Own { begin: 0, end: read };
        Some(true)
    }

    fn send_stored(&mut self, index: u16, header: &Header, digest: &Digest, bytes: u64) {
        match store::open(&*self.images, digest) {
            Ok(file) => {
                self.send_image(index, header, false, Sending { octets: Octets::Stored(file), offset: 0, bytes })
            }
            Err(error) => self.refuse_image(index, header, &error),
        }
    }

    /// The image that this connection asked for has been compressed.
    pub(super) fn compressed(&mut self, index: u16, serial: u32, compressed: Result<ImageSpool, store::StoreError>) {
        let connection = self.connections.get(index);
        if connection.serial != serial || connection.stream.is_none() {
            return;
        }
        let Some(header) = self.machine.reply_header(index) else { return };
        match compressed {
            Ok(spool) => {
                let bytes = spool.bytes();
                self.send_image(index, &header, true, Sending { octets: Octets::Compressed(spool), offset: 0, bytes });
            }
            Err(error) => self.refuse_image(index, &header, &error),
        }
        self.connections.wake(index);
    }

    fn refuse_image(&mut self, index: u16, header: &Header, error: &store::StoreError) {
        error!(name = header.name; "{}: {error}", header.name);
        let mut text = heapless::String::<512>::new();
        let _ = std::fmt::write(&mut text, format_args!("{error}"));
        self.refuse(index, header, &text);
    }

    fn send_image(&mut self, index: u16, header: &Header, compressed: bool, sending: Sending) {
        let buffer_bytes = self.connections.reply.len();
        match wire::encode_image_head(header, compressed, sending.bytes, &mut self.connections.reply) {
            Ok(head) => {
                let begin = buffer_bytes - head.len();
                let connection = self.connections.get(index);
                connection.early_bytes = 0;
                connection.keep = false;
                connection.sending = Some(sending);
                self.send(index, begin);
            }
            Err(_) => self.refuse(index, header, "the image is too large for one reply"),
        }
    }
}
