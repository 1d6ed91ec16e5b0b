//! How a unikernel fares: whether it runs, how often it had to be started again, how its last run ended, and when it is
//! tried again. The peer has no such question; it is one of our additions (`docs/wire.md`).

use core::fmt;

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::name::Name;
use crate::wire::list::{Form, Item};
use crate::wire::policy::write_named;
use crate::wire::text::Text;

/// What a unikernel does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It runs.
    Running,
    /// Its process is being started, or is about to be.
    Starting,
    /// It runs and was asked to end.
    Stopping,
    /// It does not run, and is tried again later.
    Resting,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Running, Self::Starting, Self::Stopping, Self::Resting];

    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Resting => "resting",
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let before = *reader;
        let number = reader.integer()?;
        let phase = usize::try_from(number).ok().and_then(|number| Self::ALL.get(number));
        phase.copied().ok_or_else(|| before.error(Reason::Choice))
    }

    fn number(self) -> i64 {
        match self {
            Self::Running => 0,
            Self::Starting => 1,
            Self::Stopping => 2,
            Self::Resting => 3,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// By itself, with this exit code.
    Code(i64),
    /// By this signal, which was not asked for.
    Signal(i64),
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// Nobody saw how.
    Unknown,
    /// It was asked to end, to be started anew or replaced.
    Stopped,
}

impl RunEnd {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, Reader::integer).map(Self::Code),
            0xa1 => reader.within(choice, Reader::integer).map(Self::Signal),
            0xa2 => reader.within(choice, Reader::null).map(|()| Self::OutOfMemory),
            0xa3 => reader.within(choice, Reader::null).map(|()| Self::Unknown),
            0xa4 => reader.within(choice, Reader::null).map(|()| Self::Stopped),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        match self {
            Self::Code(code) => writer.within(tag::context(0), |writer| writer.integer(code)),
            Self::Signal(signal) => writer.within(tag::context(1), |writer| writer.integer(signal)),
            Self::OutOfMemory => writer.within(tag::context(2), Writer::null),
            Self::Unknown => writer.within(tag::context(3), Writer::null),
            Self::Stopped => writer.within(tag::context(4), Writer::null),
        }
    }
}

/// The number of SIGSYS on Linux, where alone there is a sandbox that ends a process so.
const SIGSYS: i64 = 31;

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(SIGSYS) => write!(f, "signal {SIGSYS}: a system call that its sandbox forbids"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Unknown => f.write_str("unknown: nobody saw it"),
            Self::Stopped => f.write_str("stopped, to be started anew"),
        }
    }
}

/// The last run that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastRun {
    /// When it ended, in milliseconds since 1970.
    pub ended_unix_ms: i64,
    /// How.
    pub end: RunEnd,
}

/// How a unikernel fares. Counts are since `vmmd` started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition<'a> {
    /// What it does now.
    pub phase: Phase,
    /// How often it was started again after it had ended by itself.
    pub restarts: i64,
    /// Short runs and failed starts in a row: each doubles the rest.
    pub failures: i64,
    /// The last run that has ended.
    pub last: Option<LastRun>,
    /// When it is tried again, in milliseconds since 1970.
    pub next_unix_ms: Option<i64>,
    /// Why it does not run.
    pub reason: Option<Text<'a>>,
}

impl<'a> Condition<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self {
                phase: Phase::read(reader)?,
                restarts: reader.integer()?,
                failures: reader.integer()?,
                last: reader.optional(tag::context(0), |reader| {
                    reader.within(tag::SEQUENCE, |reader| {
                        Ok(LastRun { ended_unix_ms: reader.time()?, end: RunEnd::read(reader)? })
                    })
                })?,
                next_unix_ms: reader.optional(tag::context(1), Reader::time)?,
                reason: reader.optional(tag::context(2), Reader::text)?.map(Text),
            })
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            if let Some(reason) = self.reason {
                writer.within(tag::context(2), |writer| writer.text(reason.0));
            }
            if let Some(next_unix_ms) = self.next_unix_ms {
                writer.within(tag::context(1), |writer| writer.time(next_unix_ms));
            }
            if let Some(LastRun { ended_unix_ms, end }) = self.last {
                writer.within(tag::context(0), |writer| {
                    writer.within(tag::SEQUENCE, |writer| {
                        end.write(writer);
                        writer.time(ended_unix_ms);
                    });
                });
            }
            writer.integer(self.failures);
            writer.integer(self.restarts);
            writer.integer(self.phase.number());
        });
    }
}

/// How one unikernel fares, and its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedCondition<'a> {
    /// Its name, as the command that asked sees it.
    pub name: Name,
    /// How it fares.
    pub condition: Condition<'a>,
}

impl<'a> Item<'a> for NamedCondition<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| Ok(Self { name: reader.name()?, condition: Condition::read(reader)? }))
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        write_named(writer, self.name.as_str(), |writer| self.condition.write(writer));
    }
}
