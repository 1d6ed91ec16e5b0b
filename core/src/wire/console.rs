//! Commands to the console daemon.

use crate::der::{Malformed, Reader, Reason, Writer, tag};

/// Which part of a history is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// From this time on, in milliseconds since 1970.
    Since(i64),
    /// The last so many entries.
    Count(i64),
}

impl Window {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.peek() {
            Some(0xa0) => reader.within(tag::context(0), Reader::time).map(Self::Since),
            Some(0xa1) => reader.within(tag::context(1), Reader::integer).map(Self::Count),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        match self {
            Self::Since(unix_ms) => writer.within(tag::context(0), |writer| writer.time(unix_ms)),
            Self::Count(count) => writer.within(tag::context(1), |writer| writer.integer(count)),
        }
    }
}

/// What can be asked of the console daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleCommand {
    /// Keep what this unikernel writes.
    Add {
        /// How many consoles of its path to keep.
        unikernels: i64,
    },
    /// Send the history of a console and then each line as it comes.
    Subscribe(Window),
    /// List the consoles of a path whose unikernel does not run.
    ListInactive,
}

impl ConsoleCommand {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.peek() {
            Some(0xa0) => reader.within(tag::context(0), Reader::integer).map(|unikernels| Self::Add { unikernels }),
            Some(0xa2) => reader.within(tag::context(2), Window::read).map(Self::Subscribe),
            Some(0xa3) => reader.within(tag::context(3), Reader::null).map(|()| Self::ListInactive),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Add { unikernels } => writer.within(tag::context(0), |writer| writer.integer(*unikernels)),
            Self::Subscribe(window) => writer.within(tag::context(2), |writer| window.write(writer)),
            Self::ListInactive => writer.within(tag::context(3), Writer::null),
        }
    }
}
