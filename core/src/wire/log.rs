//! The event log on the wire: what is asked of it, and what it sends. Events themselves are in `event`.

use crate::der::{Full, Malformed, Reader, Reason, Writer, tag};
use crate::wire::console::Window;
use crate::wire::event::Event;

/// An event and when it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogEntry<'a> {
    /// Milliseconds since 1970.
    pub unix_ms: i64,
    /// What happened.
    pub event: Event<'a>,
}

impl<'a> LogEntry<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| Ok(Self { unix_ms: reader.time()?, event: Event::read(reader)? }))
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            self.event.write(writer);
            writer.time(self.unix_ms);
        });
    }

    /// Reads what [`LogEntry::encode`] wrote.
    ///
    /// # Errors
    /// [`Malformed`], also where something follows.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let entry = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(entry)
    }

    /// As it is stored, at the end of `buffer`.
    ///
    /// # Errors
    /// [`Full`] when `buffer` is too small.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
        let mut writer = Writer::new(buffer);
        self.write(&mut writer);
        writer.finish()
    }
}

/// An event, and its place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbered<'a> {
    /// Its number: 1 more than that of the event before. Who has seen it asks for what comes after it.
    pub sequence: u64,
    /// What happened, and when.
    pub entry: LogEntry<'a>,
}

impl<'a> Numbered<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            let sequence = reader.number()?.cast_unsigned();
            Ok(Self { sequence, entry: LogEntry { unix_ms: reader.time()?, event: Event::read(reader)? } })
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            self.entry.event.write(writer);
            writer.time(self.entry.unix_ms);
            writer.number(self.sequence.cast_signed());
        });
    }
}

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFrom {
    /// As for consoles: with a time, or with the last so many.
    Window(Window),
    /// After the event of this number.
    After(u64),
}

/// What can be asked of the event log beyond what wire version 5 has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogCommand {
    /// Where to begin.
    pub from: LogFrom,
    /// Whether to go on with each event as it comes.
    pub follow: bool,
}

impl LogCommand {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            let after = reader.optional(tag::context(2), Reader::number)?;
            let from = match after {
                Some(after) => LogFrom::After(after.cast_unsigned()),
                None => LogFrom::Window(Window::read(reader)?),
            };
            Ok(Self { from, follow: reader.boolean()? })
        })
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.boolean(self.follow);
            match self.from {
                LogFrom::Window(window) => window.write(writer),
                LogFrom::After(after) => writer.within(tag::context(2), |writer| writer.number(after.cast_signed())),
            }
        });
    }
}

/// Why events that were asked for are not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GapCause {
    /// They were removed to make room.
    Removed,
    /// What was stored of them is damaged.
    Damaged,
}

/// What the event log says between events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// The events from `first` to the one before `next` are not there any more.
    Gap {
        /// The first that is missing.
        first: u64,
        /// The first that is not.
        next: u64,
        /// Why.
        cause: GapCause,
    },
    /// So many events could not be kept until now: the disk takes no more.
    Lost {
        /// So many.
        count: i64,
    },
    /// All that there is has been sent, up to this number.
    End {
        /// The last number that was given, whoever may see that event.
        last: u64,
    },
    /// The last word to one who reads too slowly.
    Slow,
}

impl Note {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, |reader| {
                reader.within(tag::SEQUENCE, |reader| {
                    let (first, next) = (reader.number()?.cast_unsigned(), reader.number()?.cast_unsigned());
                    let before = *reader;
                    let cause = match reader.integer()? {
                        0 => GapCause::Removed,
                        1 => GapCause::Damaged,
                        _ => return Err(before.error(Reason::Choice)),
                    };
                    Ok(Self::Gap { first, next, cause })
                })
            }),
            0xa1 => reader.within(choice, Reader::integer).map(|count| Self::Lost { count }),
            0xa2 => reader.within(choice, Reader::number).map(|last| Self::End { last: last.cast_unsigned() }),
            0xa3 => reader.within(choice, Reader::null).map(|()| Self::Slow),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        match self {
            Self::Gap { first, next, cause } => writer.within(tag::context(0), |writer| {
                writer.within(tag::SEQUENCE, |writer| {
                    writer.integer(i64::from(cause == GapCause::Damaged));
                    writer.number(next.cast_signed());
                    writer.number(first.cast_signed());
                });
            }),
            Self::Lost { count } => writer.within(tag::context(1), |writer| writer.integer(count)),
            Self::End { last } => writer.within(tag::context(2), |writer| writer.number(last.cast_signed())),
            Self::Slow => writer.within(tag::context(3), Writer::null),
        }
    }
}
