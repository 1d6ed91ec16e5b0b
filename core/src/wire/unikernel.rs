//! Commands about unikernels. The older forms of create and restart are read into those of today.

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::wire::config::{Arguments, Config, Era};

const CONDITION: u8 = tag::context(30);

/// What can be asked about unikernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnikernelCommand<'a> {
    /// List those at a path and below, or the one of this name.
    Info,
    /// The same, answered in the form before several CPUs.
    OldInfo5,
    /// The same, answered in the form before start orders.
    OldInfo4,
    /// Stop one and forget it.
    Destroy,
    /// Hand out its image.
    Get {
        /// 0 for the image as it is, more for a zlib stream.
        level: i64,
    },
    /// Make one.
    Create(Config<'a>),
    /// Make one in place of the one that may be there.
    ForceCreate(Config<'a>),
    /// Stop it and start it again, with other arguments where they are given.
    Restart(Option<Arguments<'a>>),
    /// Tell how those at a path and below fare, or the one of this name. An addition of ours.
    Condition,
}

impl<'a> UnikernelCommand<'a> {
    /// Reads the next element and hands it to `put`: so a small command is not moved as if it were the largest.
    #[inline]
    pub(crate) fn read(reader: &mut Reader<'a>, put: impl FnOnce(Self)) -> Result<(), Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        let command = match choice {
            0xb3 => Self::Info,
            0xb2 => Self::OldInfo5,
            0xaf => Self::OldInfo4,
            0xa3 => Self::Destroy,
            CONDITION => Self::Condition,
            0xab => return reader.within(choice, Reader::integer).map(|level| put(Self::Get { level })),
            0xae => return reader.within(choice, read_restart).map(|arguments| put(Self::Restart(arguments))),
            _ => {
                let (era, force) = match choice {
                    0xa9 => (Era::V3, false),
                    0xaa => (Era::V3, true),
                    0xb0 => (Era::V4, false),
                    0xb1 => (Era::V4, true),
                    0xb4 => (Era::Current, false),
                    0xb5 => (Era::Current, true),
                    _ => return Err(reader.error(Reason::Choice)),
                };
                let config = reader.within(choice, |reader| Config::read(reader, era))?;
                put(if force { Self::ForceCreate(config) } else { Self::Create(config) });
                return Ok(());
            }
        };
        reader.within(choice, Reader::null)?;
        put(command);
        Ok(())
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Info => writer.within(tag::context(19), Writer::null),
            Self::Condition => writer.within(CONDITION, Writer::null),
            Self::OldInfo5 => writer.within(tag::context(18), Writer::null),
            Self::OldInfo4 => writer.within(tag::context(15), Writer::null),
            Self::Destroy => writer.within(tag::context(3), Writer::null),
            Self::Get { level } => writer.within(tag::context(11), |writer| writer.integer(*level)),
            Self::Create(config) => writer.within(tag::context(20), |writer| config.write(writer)),
            Self::ForceCreate(config) => writer.within(tag::context(21), |writer| config.write(writer)),
            Self::Restart(arguments) => writer.within(tag::context(14), |writer| match arguments {
                None => writer.within(tag::context(0), Writer::null),
                Some(arguments) => writer.within(tag::context(3), |writer| {
                    writer.within(tag::SEQUENCE, |writer| arguments.write_restart(writer));
                }),
            }),
        }
    }
}

fn read_restart<'a>(reader: &mut Reader<'a>) -> Result<Option<Arguments<'a>>, Malformed> {
    let (choice, era) = match reader.peek() {
        Some(0xa0) => return reader.within(0xa0, Reader::null).map(|()| None),
        Some(choice @ 0xa1) => (choice, Era::V3),
        Some(choice @ 0xa2) => (choice, Era::V4),
        Some(choice @ 0xa3) => (choice, Era::Current),
        _ => return Err(reader.error(Reason::Choice)),
    };
    reader.within(choice, |reader| reader.within(tag::SEQUENCE, |reader| Arguments::read(reader, era))).map(Some)
}
