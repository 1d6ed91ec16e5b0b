//! Clients that set or dump a block device: between the connection and the threads that move contents. A client has one piece in memory,
//! which either it or a thread works on; it is waited for only while it is its turn.

use std::io::{self, Read, Write};

use fulmar_core::limits::{CONTENT_PIECE_BYTES, CONTENT_PIECE_MS_MAX, PROGRESS_MS_MAX};
use fulmar_core::machine::{Block, BlockFileError, BlockRefused, Input, Source, Spooled};
use fulmar_host::content::Form;
use fulmar_host::{debug, info};

use super::clients::Reading;
use super::connections::Stage;
use super::replies::Written;
use super::transfers::{Client, Dumping, NotOpened, Opening, Setting, Target, Transfer, Transferred, Whole};
use super::{Control, ImageSpool};

/// Bytes of a refusal that we word ourselves.
const REFUSAL_BYTES_MAX: usize = 512;

/// The piece that a client is to send or to take, and how long it may take for that. Our own time does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Turn {
    /// When it began, milliseconds.
    begun_ms: u64,
    /// Bytes of it that have come or gone.
    bytes: usize,
    /// When it became a thread's turn.
    handed_ms: u64,
}

impl Turn {
    fn begin(now_ms: u64) -> Self {
        Self { begun_ms: now_ms, bytes: 0, handed_ms: now_ms }
    }

    /// So many bytes have come or gone; the next piece may begin.
    fn progress(&mut self, now_ms: u64, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= CONTENT_PIECE_BYTES {
            *self = Self::begin(now_ms);
        }
    }

    /// It is a thread's turn.
    fn hand_over(&mut self, now_ms: u64) {
        self.handed_ms = now_ms;
    }

    /// It is the client's turn again.
    fn take_back(&mut self, now_ms: u64) {
        self.begun_ms += now_ms.saturating_sub(self.handed_ms);
    }

    /// When the client is given up: it must do something soon, and its piece in time.
    fn deadline_ms(&self, now_ms: u64) -> u64 {
        (self.begun_ms + CONTENT_PIECE_MS_MAX).min(now_ms + PROGRESS_MS_MAX)
    }
}

impl Control<'_> {
    /// Makes the file of a block device with what came with the command.
    pub(super) fn make_block_of(&mut self, slot: u16, content: Spooled) {
        let Some(target) = self.machine.block(slot).map(|block| target_of(slot, block)) else { return };
        let (spool, compressed) = self.take_spool(content);
        self.worker.transfer(Transfer::Whole(Box::new(Whole::new(target, true, spool, compressed))));
    }

    /// Gives a block device another content.
    pub(super) fn set_content(&mut self, slot: u16, source: Source) {
        let Some(target) = self.machine.block(slot).map(|block| target_of(slot, block)) else { return };
        match source {
            Source::Message(content) => {
                let (spool, compressed) = content.map_or((None, false), |content| self.take_spool(content));
                self.worker.transfer(Transfer::Whole(Box::new(Whole::new(target, false, spool, compressed))));
            }
            Source::Chunks { connection: index } => {
                let client = self.client(index);
                let now_ms = self.now.ms;
                let connection = self.connections.get(index);
                connection.stage = Stage::Receiving;
                connection.setting = Some(Box::new(Setting::new(client, target, connection.compressed)));
                connection.turn = Turn::begin(now_ms);
                self.expect_progress(index);
            }
        }
    }

    fn take_spool(&mut self, content: Spooled) -> (Option<ImageSpool>, bool) {
        let index = u16::try_from(content.spool).unwrap_or(u16::MAX);
        let connection = self.connections.get(index);
        (connection.spool.take(), connection.compressed)
    }

    fn client(&mut self, connection: u16) -> Client {
        Client { connection, serial: self.connections.get(connection).serial }
    }

    /// Whether this client is still there.
    fn is_here(&mut self, client: Client) -> bool {
        let connection = self.connections.get(client.connection);
        connection.serial == client.serial && connection.stream.is_some()
    }

    /// Reads what has come of a new content.
    pub(super) fn receive_content(&mut self, index: u16) -> Reading {
        let now_ms = self.now.ms;
        let (connection, _, own) = self.connections.parts(index);
        // A thread works on it.
        let Some(setting) = &mut connection.setting else { return Reading::Blocked };
        let room = setting.room();
        let read = match std::mem::take(&mut connection.early_bytes) {
            0 => connection.stream.as_mut().map_or(Ok(0), |stream| stream.read(room)),
            early => {
                room[..early].copy_from_slice(&own[..early]);
                Ok(early)
            }
        };
        match read {
            Ok(0) => {
                self.drop_setting(index);
                self.connections.get(index).stage = Stage::Waiting;
                Reading::Blocked
            }
            Ok(read) => {
                setting.filled(read);
                let full = setting.room().is_empty();
                connection.turn.progress(now_ms, read);
                self.expect_progress(index);
                if full {
                    self.hand_over_setting(index);
                }
                Reading::Acted
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if setting.has_any() {
                    self.hand_over_setting(index);
                }
                Reading::Blocked
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Reading::Acted,
            Err(_) => Reading::Over,
        }
    }

    /// It is the client's turn.
    fn expect_progress(&mut self, index: u16) {
        let deadline_ms = self.connections.get(index).turn.deadline_ms(self.now.ms);
        self.connections.set_deadline(index, deadline_ms);
    }

    fn hand_over_setting(&mut self, index: u16) {
        let now_ms = self.now.ms;
        let connection = self.connections.get(index);
        if let Some(setting) = connection.setting.take() {
            connection.deadline_ms = u64::MAX;
            connection.turn.hand_over(now_ms);
            self.worker.transfer(Transfer::Take(setting));
        }
    }

    fn drop_setting(&mut self, index: u16) {
        if let Some(setting) = self.connections.get(index).setting.take() {
            self.worker.transfer(Transfer::Drop(setting, BlockFileError::Cut));
        }
    }

    /// What a connection that is being closed had to do with contents is forgotten. What a thread works on is forgotten when it comes back.
    pub(super) fn drop_content(&mut self, index: u16) {
        self.drop_setting(index);
        if let Some(dumping) = self.connections.get(index).dumping.take() {
            self.end_dump(*dumping);
        }
    }

    /// Closes its file first: from then on a unikernel may have it.
    fn end_dump(&mut self, dumping: Dumping) {
        let slot = dumping.slot;
        drop(dumping);
        self.handle(Input::Dumped { slot });
    }

    /// The machine lets this connection have the content of a block device.
    pub(super) fn begin_dump(&mut self, index: u16, slot: u16, form: Form) {
        let client = self.client(index);
        let (Some(header), Some(block)) = (self.machine.reply_header(index), self.machine.block(slot)) else { return };
        debug!(name = block.name(); "{}: content handed out", block.name());
        let target = target_of(slot, block);
        self.worker.transfer(Transfer::Open(Box::new(Opening { client, target, header, form })));
    }

    /// Sends what is ready of a content.
    pub(super) fn write_content(&mut self, index: u16) -> Written {
        loop {
            let connection = self.connections.get(index);
            let (Some(dumping), Some(stream)) = (&mut connection.dumping, &mut connection.stream) else {
                return Written::Failed;
            };
            if dumping.outgoing.ready().is_empty() {
                let over = dumping.outgoing.is_over();
                let Some(dumping) = connection.dumping.take() else { return Written::Failed };
                if over {
                    self.end_dump(*dumping);
                    return Written::All;
                }
                connection.stage = Stage::Waiting;
                connection.deadline_ms = u64::MAX;
                self.worker.transfer(Transfer::Step(dumping));
                return Written::Blocked;
            }
            match stream.write(dumping.outgoing.ready()) {
                Ok(0) => return Written::Failed,
                Ok(sent) => {
                    dumping.outgoing.sent(sent);
                    self.expect_progress(index);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Blocked,
                Err(_) => return Written::Failed,
            }
        }
    }

    /// Takes in what the threads have done.
    pub(super) fn transferred(&mut self, transferred: Transferred) {
        match transferred {
            Transferred::Made(slot, outcome) => self.handle(Input::BlockMade { slot, outcome }),
            Transferred::Set(client, slot, outcome) => {
                if let Some(client) = client.filter(|client| self.is_here(*client)) {
                    let connection = self.connections.get(client.connection);
                    connection.stage = Stage::Waiting;
                    connection.linger = outcome.is_err();
                }
                if outcome.is_ok() {
                    self.tell_content_set(slot);
                }
                self.handle(Input::ContentSet { slot, outcome });
            }
            Transferred::Taken(setting) => {
                let client = setting.client;
                if !self.is_here(client) {
                    return self.worker.transfer(Transfer::Drop(setting, BlockFileError::Cut));
                }
                let now_ms = self.now.ms;
                let connection = self.connections.get(client.connection);
                connection.setting = Some(setting);
                connection.turn.take_back(now_ms);
                self.expect_progress(client.connection);
                self.connections.wake(client.connection);
            }
            Transferred::Ready(dumping) => {
                let client = dumping.client;
                if !self.is_here(client) {
                    return self.end_dump(*dumping);
                }
                let now_ms = self.now.ms;
                let connection = self.connections.get(client.connection);
                connection.dumping = Some(dumping);
                connection.stage = Stage::Writing;
                connection.keep = false;
                connection.turn = Turn::begin(now_ms);
                self.expect_progress(client.connection);
                self.connections.wake(client.connection);
            }
            Transferred::NotOpened(client, slot, error) => {
                self.handle(Input::Dumped { slot });
                if self.is_here(client) {
                    self.refuse_dump(client.connection, &error);
                }
            }
        }
    }

    fn refuse_dump(&mut self, index: u16, error: &NotOpened) {
        let Some(header) = self.machine.reply_header(index) else { return };
        let mut text = heapless::String::<REFUSAL_BYTES_MAX>::new();
        // A text that does not fit is cut.
        let _ = match error {
            NotOpened::InUse => std::fmt::write(&mut text, format_args!("{}", BlockRefused::DumpInUse)),
            NotOpened::Size(bytes) => std::fmt::write(
                &mut text,
                format_args!(
                    "the file of the block device has another size than recorded, {bytes} bytes: set its content anew"
                ),
            ),
            NotOpened::File(error) => std::fmt::write(&mut text, format_args!("{error}")),
        };
        info!(name = header.name; "{}: refused: {text}", header.name);
        self.refuse(index, &header, &text);
        self.connections.wake(index);
    }
}

fn target_of(slot: u16, block: &Block) -> Target {
    Target { slot, name: *block.name(), bytes: block.bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_steadily_but_too_slowly_is_given_up() {
        let mut turn = Turn::begin(1_000);
        let mut now_ms = 1_000;
        // One byte just in time, each of which a thread takes five seconds to look at.
        for _ in 0..100 {
            let deadline_ms = turn.deadline_ms(now_ms);
            if now_ms + 9_999 >= deadline_ms {
                break;
            }
            now_ms += 9_999;
            turn.progress(now_ms, 1);
            turn.hand_over(now_ms);
            now_ms += 5_000;
            turn.take_back(now_ms);
        }
        assert!(turn.deadline_ms(now_ms) - now_ms < 9_999);
        assert!((80_000..110_000).contains(&now_ms), "{now_ms}");
    }

    #[test]
    fn who_sends_a_piece_in_time_goes_on_for_ever() {
        let (mut turn, mut now_ms) = (Turn::begin(0), 0);
        for _ in 0..10_000 {
            now_ms += 5_000;
            assert!(now_ms < turn.deadline_ms(now_ms - 5_000));
            turn.progress(now_ms, CONTENT_PIECE_BYTES / 8);
        }
    }
}
