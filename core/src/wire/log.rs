//! The event log on the wire, in the places that wire version 5 keeps for it. Our own events will have tags from `[32]` up.

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::name::Name;
use crate::wire::list::{List, Order};

/// Where somebody logged in from, or out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Login {
    /// Who.
    pub name: Name,
    /// IPv4 address.
    pub address: [u8; 4],
    /// TCP port.
    pub port: i64,
}

impl Login {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            let name = reader.name()?;
            let start = *reader;
            let address = reader.held_octets()?.try_into().map_err(|_| start.error(Reason::Address))?;
            Ok(Self { name, address, port: reader.integer()? })
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.integer(self.port);
            writer.octets(&self.address);
            writer.text(self.name.as_bytes());
        });
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// With this exit code.
    Exit(i64),
    /// By this signal.
    Signal(i64),
    /// Stopped by this signal.
    Stop(i64),
}

impl ExitStatus {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, Reader::integer).map(Self::Exit),
            0xa1 => reader.within(choice, Reader::integer).map(Self::Signal),
            0xa2 => reader.within(choice, Reader::integer).map(Self::Stop),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    fn write(self, writer: &mut Writer<'_>) {
        let (tag, value) = match self {
            Self::Exit(code) => (tag::context(0), code),
            Self::Signal(signal) => (tag::context(1), signal),
            Self::Stop(signal) => (tag::context(2), signal),
        };
        writer.within(tag, |writer| writer.integer(value));
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// The daemon started.
    Startup,
    /// A client came.
    Login(Login),
    /// A client went.
    Logout(Login),
    /// A unikernel was started.
    Start {
        /// Its name.
        name: Name,
        /// Its process.
        pid: i64,
        /// Its network interfaces on the host.
        taps: List<'a, &'a str>,
        /// Its block device.
        block: Option<&'a str>,
    },
    /// A unikernel ended.
    Stop {
        /// Its name.
        name: Name,
        /// Its process.
        pid: i64,
        /// How it ended.
        status: ExitStatus,
    },
    /// The daemon was told to open its files again.
    Hup,
}

impl<'a> Event<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, Reader::null).map(|()| Self::Startup),
            0xa1 => reader.within(choice, Login::read).map(Self::Login),
            0xa2 => reader.within(choice, Login::read).map(Self::Logout),
            0xa3 => reader.within(choice, |reader| {
                reader.within(tag::SEQUENCE, |reader| {
                    Ok(Self::Start {
                        name: reader.name()?,
                        pid: reader.integer()?,
                        taps: List::read_sequence(reader, Order::Given)?,
                        block: reader.optional_utf8()?,
                    })
                })
            }),
            0xa4 => reader.within(choice, |reader| {
                reader.within(tag::SEQUENCE, |reader| {
                    Ok(Self::Stop { name: reader.name()?, pid: reader.integer()?, status: ExitStatus::read(reader)? })
                })
            }),
            0xa5 => reader.within(choice, Reader::null).map(|()| Self::Hup),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Startup => writer.within(tag::context(0), Writer::null),
            Self::Login(login) => writer.within(tag::context(1), |writer| login.write(writer)),
            Self::Logout(login) => writer.within(tag::context(2), |writer| login.write(writer)),
            Self::Start { name, pid, taps, block } => writer.within(tag::context(3), |writer| {
                writer.within(tag::SEQUENCE, |writer| {
                    writer.optional_text(*block);
                    taps.write_sequence(writer, Order::Given);
                    writer.integer(*pid);
                    writer.text(name.as_bytes());
                });
            }),
            Self::Stop { name, pid, status } => writer.within(tag::context(4), |writer| {
                writer.within(tag::SEQUENCE, |writer| {
                    status.write(writer);
                    writer.integer(*pid);
                    writer.text(name.as_bytes());
                });
            }),
            Self::Hup => writer.within(tag::context(5), Writer::null),
        }
    }
}

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
}
