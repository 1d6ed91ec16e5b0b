//! Commands about block devices, and how they are listed.

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::name::Name;
use crate::wire::config::Image;
use crate::wire::list::{Form, Item};

/// What can be asked about block devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockCommand<'a> {
    /// List those at a path and below, or the one of this name.
    Info,
    /// Make one.
    Add {
        /// Its size in MiB.
        size: i64,
    },
    /// Remove it.
    Remove,
    /// Make one with this content; superseded by `Add` and `Set`.
    OldAdd {
        /// Its size in MiB.
        size: i64,
        /// Whether the content is a zlib stream.
        compressed: bool,
        /// The content.
        data: Option<Image<'a>>,
    },
    /// Replace the content by this; superseded by `Set`.
    OldSet {
        /// Whether the content is a zlib stream.
        compressed: bool,
        /// The content.
        data: Image<'a>,
    },
    /// Send the content in one reply; superseded by `Dump`.
    OldDump {
        /// 0 for the content as it is, more for a zlib stream.
        level: i64,
    },
    /// Send the content in chunks.
    Dump {
        /// 0 for the content as it is, more for a zlib stream.
        level: i64,
    },
    /// Replace the content by the chunks that follow.
    Set {
        /// Whether they make a zlib stream.
        compressed: bool,
    },
}

impl<'a> BlockCommand<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, Reader::null).map(|()| Self::Info),
            0xa1 => reader.within(choice, Reader::integer).map(|size| Self::Add { size }),
            0xa2 => reader.within(choice, Reader::null).map(|()| Self::Remove),
            0xa3 => reader.within(choice, |reader| {
                reader.within(tag::SEQUENCE, |reader| {
                    let size = reader.integer()?;
                    let compressed = reader.boolean()?;
                    let data = if reader.is_empty() { None } else { Some(Image::read(reader)?) };
                    Ok(Self::OldAdd { size, compressed, data })
                })
            }),
            0xa4 => reader.within(choice, read_image).map(|(compressed, data)| Self::OldSet { compressed, data }),
            0xa5 => reader.within(choice, Reader::integer).map(|level| Self::OldDump { level }),
            0xa6 => reader.within(choice, Reader::integer).map(|level| Self::Dump { level }),
            0xa7 => reader.within(choice, Reader::boolean).map(|compressed| Self::Set { compressed }),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Info => writer.within(tag::context(0), Writer::null),
            Self::Add { size } => writer.within(tag::context(1), |writer| writer.integer(*size)),
            Self::Remove => writer.within(tag::context(2), Writer::null),
            Self::OldAdd { size, compressed, data } => writer.within(tag::context(3), |writer| {
                writer.within(tag::SEQUENCE, |writer| {
                    if let Some(data) = data {
                        data.write(writer);
                    }
                    writer.boolean(*compressed);
                    writer.integer(*size);
                });
            }),
            Self::OldSet { compressed, data } => {
                writer.within(tag::context(4), |writer| write_image(writer, *compressed, data));
            }
            Self::OldDump { level } => writer.within(tag::context(5), |writer| writer.integer(*level)),
            Self::Dump { level } => writer.within(tag::context(6), |writer| writer.integer(*level)),
            Self::Set { compressed } => writer.within(tag::context(7), |writer| writer.boolean(*compressed)),
        }
    }
}

/// SEQUENCE of whether it is compressed, and the octets.
pub(crate) fn read_image<'a>(reader: &mut Reader<'a>) -> Result<(bool, Image<'a>), Malformed> {
    reader.within(tag::SEQUENCE, |reader| Ok((reader.boolean()?, Image::read(reader)?)))
}

pub(crate) fn write_image(writer: &mut Writer<'_>, compressed: bool, image: &Image<'_>) {
    writer.within(tag::SEQUENCE, |writer| {
        image.write(writer);
        writer.boolean(compressed);
    });
}

/// A block device as it is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Its name.
    pub name: Name,
    /// Its size in MiB.
    pub size: i64,
    /// Whether a unikernel uses it.
    pub active: bool,
}

impl<'a> Item<'a> for BlockInfo {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self { name: reader.name()?, size: reader.integer()?, active: reader.boolean()? })
        })
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.boolean(self.active);
            writer.integer(self.size);
            writer.text(self.name.as_bytes());
        });
    }
}
