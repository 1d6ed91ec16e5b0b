//! What streams to those who subscribed.

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::wire::config::Image;
use crate::wire::log::{LogEntry, Note, Numbered};
use crate::wire::text::Text;
use crate::wire::usage::Usage;

/// One piece of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data<'a> {
    /// A measurement.
    Stats(Usage<'a>),
    /// An event.
    Log(LogEntry<'a>),
    /// An event and its place in the log; one of our additions.
    Event(Numbered<'a>),
    /// What the event log says between events; one of our additions.
    Note(Note),
    /// A line of a console.
    Console {
        /// When it was read, in milliseconds since 1970.
        unix_ms: i64,
        /// The line, without its end.
        line: Text<'a>,
    },
    /// A chunk of a block device; nothing at its end.
    Block(Option<Image<'a>>),
}

/// The tags of our additions, far from those of the peer.
const EVENT: u8 = tag::context(30);
const NOTE: u8 = tag::context(29);

impl<'a> Data<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa1 => reader.within(choice, Usage::read).map(Self::Stats),
            0xa2 => reader.within(choice, LogEntry::read).map(Self::Log),
            0xa3 => reader.within(choice, |reader| {
                reader.within(tag::SEQUENCE, |reader| {
                    Ok(Self::Console { unix_ms: reader.time()?, line: Text(reader.text()?) })
                })
            }),
            0xa4 => reader.within(choice, read_block).map(Self::Block),
            EVENT => reader.within(choice, Numbered::read).map(Self::Event),
            NOTE => reader.within(choice, Note::read).map(Self::Note),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Stats(usage) => writer.within(tag::context(1), |writer| usage.write(writer)),
            Self::Log(entry) => writer.within(tag::context(2), |writer| entry.write(writer)),
            Self::Event(event) => writer.within(EVENT, |writer| event.write(writer)),
            Self::Note(note) => writer.within(NOTE, |writer| note.write(writer)),
            Self::Console { unix_ms, line } => writer.within(tag::context(3), |writer| {
                writer.within(tag::SEQUENCE, |writer| {
                    writer.text(line.0);
                    writer.time(*unix_ms);
                });
            }),
            Self::Block(chunk) => writer.within(tag::context(4), |writer| match chunk {
                Some(octets) => writer.within(tag::context(0), |writer| octets.write(writer)),
                None => writer.within(tag::context(1), Writer::null),
            }),
        }
    }
}

fn read_block<'a>(reader: &mut Reader<'a>) -> Result<Option<Image<'a>>, Malformed> {
    match reader.peek() {
        Some(0xa0) => reader.within(tag::context(0), Image::read).map(Some),
        Some(0xa1) => reader.within(tag::context(1), Reader::null).map(|()| None),
        _ => Err(reader.error(Reason::Choice)),
    }
}
