//! Commands about unikernels. The older forms of create and restart are read into those of today.

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::wire::config::{Arguments, Config, Era};

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
}

impl<'a> UnikernelCommand<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        let null = |reader: &mut Reader<'a>, command: Self| reader.within(choice, Reader::null).map(|()| command);
        match choice {
            0xb3 => null(reader, Self::Info),
            0xb2 => null(reader, Self::OldInfo5),
            0xaf => null(reader, Self::OldInfo4),
            0xa3 => null(reader, Self::Destroy),
            0xab => reader.within(choice, Reader::integer).map(|level| Self::Get { level }),
            0xa9 => reader.within(choice, |reader| Config::read(reader, Era::V3)).map(Self::Create),
            0xaa => reader.within(choice, |reader| Config::read(reader, Era::V3)).map(Self::ForceCreate),
            0xb0 => reader.within(choice, |reader| Config::read(reader, Era::V4)).map(Self::Create),
            0xb1 => reader.within(choice, |reader| Config::read(reader, Era::V4)).map(Self::ForceCreate),
            0xb4 => reader.within(choice, |reader| Config::read(reader, Era::Current)).map(Self::Create),
            0xb5 => reader.within(choice, |reader| Config::read(reader, Era::Current)).map(Self::ForceCreate),
            0xae => reader.within(choice, read_restart).map(Self::Restart),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Info => writer.within(tag::context(19), Writer::null),
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
