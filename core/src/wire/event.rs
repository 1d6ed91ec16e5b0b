//! What can happen: the events of the log, those that wire version 5 keeps places for and our own, whose tags go from `[30]`
//! downwards (`docs/wire.md`). The same encoding is stored (`core::event`), so it is a format for ever: new ones get new tags.
//! What people read of an event is its `Display`, the same in the daemons' own logs and in the client.

use core::fmt;

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::name::Name;
use crate::wire::condition::RunEnd;
use crate::wire::list::{List, Order};
use crate::wire::text::Text;

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

/// What a client had done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A unikernel was created, or another one put in its place.
    CreatedUnikernel,
    /// A unikernel is no longer desired.
    DestroyedUnikernel,
    /// A unikernel was started anew as it is.
    RestartedUnikernel,
    /// A policy was set.
    AddedPolicy,
    /// A policy was removed.
    RemovedPolicy,
    /// A block device was made.
    AddedBlock,
    /// A block device was removed.
    RemovedBlock,
    /// A block device was given another content.
    SetBlock,
}

impl Deed {
    /// In the order of their numbers on the wire.
    pub const ALL: [Self; 8] = [
        Self::CreatedUnikernel,
        Self::DestroyedUnikernel,
        Self::RestartedUnikernel,
        Self::AddedPolicy,
        Self::RemovedPolicy,
        Self::AddedBlock,
        Self::RemovedBlock,
        Self::SetBlock,
    ];

    /// In words: the text of the reply, but for the restart.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreatedUnikernel => "created unikernel",
            Self::DestroyedUnikernel => "destroyed unikernel",
            Self::RestartedUnikernel => "restarted unikernel",
            Self::AddedPolicy => "added policy",
            Self::RemovedPolicy => "removed policy",
            Self::AddedBlock => "added block device",
            Self::RemovedBlock => "removed block",
            Self::SetBlock => "set block device",
        }
    }
}

/// What follows from the end of a unikernel that nobody asked for, or from its failure to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It is tried again in so many seconds.
    Rest {
        /// So many.
        seconds: i64,
        /// Short runs and failed starts in a row.
        failures: i64,
    },
    /// It is started again at once.
    Again {
        /// How often it was started again, since `vmmd` started.
        restarts: i64,
    },
    /// It is over.
    Never,
    /// It does not run, and nothing is said about when it will.
    Stays,
}

/// Why events were lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The log daemon was not there, and more happened than can wait for it.
    Away,
    /// The log's disk took no more.
    Disk,
    /// The log daemon or its host stopped while it wrote: the count is of bytes.
    Torn,
    /// More commands were refused than the log takes in a minute.
    Refusals,
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

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A daemon started.
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
    /// One of our daemons has come up or ends.
    Daemon {
        /// Its name.
        program: &'a str,
        /// Its version.
        version: &'a str,
        /// Whether it has come up.
        up: bool,
    },
    /// A client had this done, durably.
    Done {
        /// To what.
        name: Name,
        /// What.
        deed: Deed,
        /// The user id of who asked, where that is known.
        user: Option<i64>,
    },
    /// A client was refused a change.
    Refused {
        /// Of what.
        name: Name,
        /// What it was told.
        reason: Text<'a>,
        /// The user id of who asked.
        user: Option<i64>,
    },
    /// A unikernel ended.
    Ended {
        /// Its name.
        name: Name,
        /// Its process; 0 where that is not known.
        pid: i64,
        /// How.
        end: RunEnd,
        /// Whether it was told to.
        asked: bool,
    },
    /// What follows for a unikernel that does not run.
    Decided {
        /// Its name.
        name: Name,
        /// What follows.
        next: Next,
        /// Why it does not run.
        reason: Text<'a>,
    },
    /// Something failed that nobody was waiting for: the host, a launch, a signal.
    Trouble {
        /// What it is about; the root where it is about the host.
        name: Name,
        /// What failed, and why.
        reason: Text<'a>,
    },
    /// Events before this one are missing.
    Lost {
        /// How many; bytes of a torn write.
        count: i64,
        /// Why.
        loss: Loss,
    },
}

/// The tags of our own events.
const DAEMON: u8 = tag::context(30);
const DONE: u8 = tag::context(29);
const REFUSED: u8 = tag::context(28);
const ENDED: u8 = tag::context(27);
const DECIDED: u8 = tag::context(26);
const TROUBLE: u8 = tag::context(25);
const LOST: u8 = tag::context(24);

/// The signal that stands for an end that wire version 5 has no words for: SIGKILL, by which a kernel ends what has used up
/// its memory. An end that nobody saw is given as signal 0.
const SIGKILL: i64 = 9;

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
    /// What it is about; nothing where it is about the daemons.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Startup | Self::Hup | Self::Daemon { .. } | Self::Lost { .. } => None,
            Self::Login(Login { name, .. })
            | Self::Logout(Login { name, .. })
            | Self::Start { name, .. }
            | Self::Stop { name, .. }
            | Self::Done { name, .. }
            | Self::Refused { name, .. }
            | Self::Ended { name, .. }
            | Self::Decided { name, .. }
            | Self::Trouble { name, .. } => Some(name),
        }
    }

    /// Whether it is told to whoever may see `asked`: a unikernel, or a path and all below it. What is about the daemons
    /// is told at the root alone, but that something is missing concerns everybody.
    #[must_use]
    pub fn concerns(&self, asked: &Name) -> bool {
        match self.name() {
            Some(name) if asked.is_path() => asked.contains(name),
            Some(name) => asked == name,
            None => asked.is_root() || matches!(self, Self::Lost { .. }),
        }
    }

    /// The same in the words that wire version 5 has; nothing where it has none.
    #[must_use]
    pub fn historic(&self) -> Option<Self> {
        match *self {
            Self::Startup | Self::Login(_) | Self::Logout(_) | Self::Start { .. } | Self::Stop { .. } | Self::Hup => {
                Some(*self)
            }
            Self::Daemon { up: true, .. } => Some(Self::Startup),
            Self::Ended { name, pid, end, .. } => {
                let status = match end {
                    RunEnd::Code(code) => ExitStatus::Exit(code),
                    RunEnd::Signal(signal) => ExitStatus::Signal(signal),
                    RunEnd::OutOfMemory | RunEnd::Stopped => ExitStatus::Signal(SIGKILL),
                    RunEnd::Unknown => ExitStatus::Signal(0),
                };
                Some(Self::Stop { name, pid, status })
            }
            Self::Daemon { up: false, .. }
            | Self::Done { .. }
            | Self::Refused { .. }
            | Self::Decided { .. }
            | Self::Trouble { .. }
            | Self::Lost { .. } => None,
        }
    }

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
                Self::Trouble { ref name, reason } => {
                    writer.text(reason.0);
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
            LOST..=DAEMON => Self::read_own(reader, choice),
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
            | Self::Trouble { .. }
            | Self::Lost { .. } => self.write_own(writer),
        }
    }
}

/// Who asked, in brackets.
struct AskedBy(Option<i64>);

impl fmt::Display for AskedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |user| write!(f, " (asked by user {user})"))
    }
}

/// What is said about a name: a path has its colon already.
struct Heading<'a>(&'a Name);

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, if self.0.is_path() { "" } else { ":" })
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Startup => f.write_str("the daemon started"),
            Self::Login(login) => write!(f, "{} came from {login}", login.name),
            Self::Logout(login) => write!(f, "{} went, from {login}", login.name),
            Self::Start { name, pid, taps, block } => {
                write!(f, "{name} runs: process {pid}")?;
                taps.iter().try_for_each(|tap| write!(f, ", network {}", Text(tap.as_bytes())))?;
                block.map_or(Ok(()), |block| write!(f, ", block device {}", Text(block.as_bytes())))
            }
            Self::Stop { name, status, .. } => match status {
                ExitStatus::Exit(code) => write!(f, "{name} ended: {}", RunEnd::Code(*code)),
                ExitStatus::Signal(signal) => write!(f, "{name} ended: {}", RunEnd::Signal(*signal)),
                ExitStatus::Stop(signal) => write!(f, "{name} was stopped by signal {signal}"),
            },
            Self::Hup => f.write_str("the daemon was told to open its files again"),
            Self::Daemon { program, version, up } => {
                let (program, version) = (Text(program.as_bytes()), Text(version.as_bytes()));
                write!(f, "{program} {version} {}", if *up { "started" } else { "ended" })
            }
            Self::Done { name, deed, user } => write!(f, "{} {}{}", Heading(name), deed.as_str(), AskedBy(*user)),
            Self::Refused { name, reason, user } => {
                write!(f, "{} refused: {reason}{}", Heading(name), AskedBy(*user))
            }
            Self::Ended { name, end, asked, .. } => {
                write!(f, "{name} ended: {end}{}", if *asked { ", as it was told" } else { "" })
            }
            Self::Decided { name, next, reason } => match next {
                Next::Rest { seconds, failures } => {
                    write!(
                        f,
                        "{name} does not run, next try in {seconds} s (short runs in a row: {failures}): {reason}"
                    )
                }
                Next::Again { restarts } => write!(f, "{name} is started again, restart {restarts}: {reason}"),
                Next::Never => write!(f, "{name} is not started again: {reason}"),
                Next::Stays => write!(f, "{name} does not run: {reason}"),
            },
            Self::Trouble { name, reason } if name.is_root() => write!(f, "{reason}"),
            Self::Trouble { name, reason } => write!(f, "{name} {reason}"),
            Self::Lost { count, loss } => match loss {
                Loss::Away => write!(f, "{count} events are lost: the log daemon was not there"),
                Loss::Disk => write!(f, "{count} events are lost: the disk of the log took no more"),
                Loss::Torn => {
                    write!(f, "{count} bytes of the log are lost: it was being written when everything stopped")
                }
                Loss::Refusals => write!(f, "{count} more commands were refused"),
            },
        }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.address;
        write!(f, "{a}.{b}.{c}.{d}:{}", self.port)
    }
}
