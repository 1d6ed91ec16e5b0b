//! The encoding of events.

use core::net::IpAddr;

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::wire::condition::RunEnd;
use crate::wire::event::{Deed, Event, ExitStatus, Login, Loss, Next};
use crate::wire::list::{List, Order};
use crate::wire::text::Text;

/// The tags of our own events.
const DAEMON: u8 = tag::context(30);
const DONE: u8 = tag::context(29);
const REFUSED: u8 = tag::context(28);
const ENDED: u8 = tag::context(27);
const DECIDED: u8 = tag::context(26);
const TROUBLE: u8 = tag::context(25);
const LOST: u8 = tag::context(24);
const REVOKED: u8 = tag::context(23);
const PROOF: u8 = tag::context(22);

impl Login {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            let name = reader.name()?;
            let start = *reader;
            let octets = reader.held_octets()?;
            let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
            let address = address.map_err(|_| start.error(Reason::Address))?;
            Ok(Self { name, address, port: reader.integer()? })
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.integer(self.port);
            match self.address {
                IpAddr::V4(address) => writer.octets(&address.octets()),
                IpAddr::V6(address) => writer.octets(&address.octets()),
            }
            writer.text(self.name.as_bytes());
        });
    }
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

/// Things that have numbers on the wire.
trait Numbered: Copy + PartialEq + 'static {
    const NUMBERED: &'static [Self];

    fn read_number(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let before = *reader;
        let number = reader.integer()?;
        let found = usize::try_from(number).ok().and_then(|number| Self::NUMBERED.get(number));
        found.copied().ok_or_else(|| before.error(Reason::Choice))
    }

    fn write_number(self, writer: &mut Writer<'_>) {
        let number = Self::NUMBERED.iter().position(|known| *known == self).unwrap_or_default();
        writer.integer(i64::try_from(number).unwrap_or_default());
    }
}

impl Numbered for Deed {
    const NUMBERED: &'static [Self] = &Self::ALL;
}

impl Numbered for Loss {
    const NUMBERED: &'static [Self] = &[Self::Away, Self::Disk, Self::Torn, Self::Refusals];
}

impl Next {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, |reader| {
                reader.within(tag::SEQUENCE, |reader| {
                    Ok(Self::Rest { seconds: reader.integer()?, failures: reader.integer()? })
                })
            }),
            0xa1 => reader.within(choice, Reader::integer).map(|restarts| Self::Again { restarts }),
            0xa2 => reader.within(choice, Reader::null).map(|()| Self::Never),
            0xa3 => reader.within(choice, Reader::null).map(|()| Self::Stays),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    fn write(self, writer: &mut Writer<'_>) {
        match self {
            Self::Rest { seconds, failures } => writer.within(tag::context(0), |writer| {
                writer.within(tag::SEQUENCE, |writer| {
                    writer.integer(failures);
                    writer.integer(seconds);
                });
            }),
            Self::Again { restarts } => writer.within(tag::context(1), |writer| writer.integer(restarts)),
            Self::Never => writer.within(tag::context(2), Writer::null),
            Self::Stays => writer.within(tag::context(3), Writer::null),
        }
    }
}

impl<'a> Event<'a> {
    fn read_own(reader: &mut Reader<'a>, choice: u8) -> Result<Self, Malformed> {
        reader.within(choice, |reader| {
            reader.within(tag::SEQUENCE, |reader| match choice {
                DAEMON => Ok(Self::Daemon { program: reader.utf8()?, version: reader.utf8()?, up: reader.boolean()? }),
                DONE => {
                    let (name, deed) = (reader.name()?, Deed::read_number(reader)?);
                    Ok(Self::Done { name, deed, user: reader.optional(tag::context(0), Reader::integer)? })
                }
                REFUSED => {
                    let (name, reason) = (reader.name()?, Text(reader.text()?));
                    Ok(Self::Refused { name, reason, user: reader.optional(tag::context(0), Reader::integer)? })
                }
                ENDED => Ok(Self::Ended {
                    name: reader.name()?,
                    pid: reader.integer()?,
                    end: RunEnd::read(reader)?,
                    asked: reader.boolean()?,
                }),
                DECIDED => {
                    Ok(Self::Decided { name: reader.name()?, next: Next::read(reader)?, reason: Text(reader.text()?) })
                }
                REVOKED => {
                    Ok(Self::Revoked { name: reader.name()?, number: reader.integer()?, count: reader.integer()? })
                }
                PROOF => Ok(Self::Proof { name: reader.name()?, serials: Text(reader.text()?) }),
                TROUBLE => Ok(Self::Trouble { name: reader.name()?, reason: Text(reader.text()?) }),
                _ => Ok(Self::Lost { count: reader.integer()?, loss: Loss::read_number(reader)? }),
            })
        })
    }

    /// Writes one of our own.
    fn write_own(&self, writer: &mut Writer<'_>) {
        let choice = match self {
            Self::Daemon { .. } => DAEMON,
            Self::Done { .. } => DONE,
            Self::Refused { .. } => REFUSED,
            Self::Ended { .. } => ENDED,
            Self::Decided { .. } => DECIDED,
            Self::Trouble { .. } => TROUBLE,
            Self::Revoked { .. } => REVOKED,
            Self::Proof { .. } => PROOF,
            _ => LOST,
        };
        let asked_by = |writer: &mut Writer<'_>, user: Option<i64>| {
            if let Some(user) = user {
                writer.within(tag::context(0), |writer| writer.integer(user));
            }
        };
        writer.within(choice, |writer| {
            writer.within(tag::SEQUENCE, |writer| match *self {
                Self::Daemon { program, version, up } => {
                    writer.boolean(up);
                    writer.text(version.as_bytes());
                    writer.text(program.as_bytes());
                }
                Self::Done { ref name, deed, user } => {
                    asked_by(writer, user);
                    deed.write_number(writer);
                    writer.text(name.as_bytes());
                }
                Self::Refused { ref name, reason, user } => {
                    asked_by(writer, user);
                    writer.text(reason.0);
                    writer.text(name.as_bytes());
                }
                Self::Ended { ref name, pid, end, asked } => {
                    writer.boolean(asked);
                    end.write(writer);
                    writer.integer(pid);
                    writer.text(name.as_bytes());
                }
                Self::Decided { ref name, next, reason } => {
                    writer.text(reason.0);
                    next.write(writer);
                    writer.text(name.as_bytes());
                }
                Self::Proof { ref name, serials: text } | Self::Trouble { ref name, reason: text } => {
                    writer.text(text.0);
                    writer.text(name.as_bytes());
                }
                Self::Revoked { ref name, number, count } => {
                    writer.integer(count);
                    writer.integer(number);
                    writer.text(name.as_bytes());
                }
                Self::Lost { count, loss } => {
                    loss.write_number(writer);
                    writer.integer(count);
                }
                // Theirs are written elsewhere.
                Self::Startup
                | Self::Login(_)
                | Self::Logout(_)
                | Self::Start { .. }
                | Self::Stop { .. }
                | Self::Hup => {}
            });
        });
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
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
            PROOF..=DAEMON => Self::read_own(reader, choice),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
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
            Self::Daemon { .. }
            | Self::Done { .. }
            | Self::Refused { .. }
            | Self::Ended { .. }
            | Self::Decided { .. }
            | Self::Revoked { .. }
            | Self::Proof { .. }
            | Self::Trouble { .. }
            | Self::Lost { .. } => self.write_own(writer),
        }
    }
}
