//! Replies to commands that were done.

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::name::Name;
use crate::wire::block::{BlockInfo, read_image, write_image};
use crate::wire::condition::NamedCondition;
use crate::wire::config::Image;
use crate::wire::host::HostInfo;
use crate::wire::info::NamedInfo;
use crate::wire::list::{Form, Item, List, Order};
use crate::wire::policy::NamedPolicy;
use crate::wire::text::Text;

/// The reply to a command that was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Success<'a> {
    /// Nothing to tell.
    Empty,
    /// What was done, in words.
    Text(Text<'a>),
    /// Policies, in the order of listings.
    Policies(List<'a, NamedPolicy<'a>>),
    /// Block devices, in the order of listings.
    Blocks(List<'a, BlockInfo>),
    /// The image of a unikernel.
    Image {
        /// Whether it is a zlib stream.
        compressed: bool,
        /// The octets.
        image: Image<'a>,
    },
    /// The content of a block device in one reply.
    OldBlockImage {
        /// Whether it is a zlib stream.
        compressed: bool,
        /// The octets.
        image: Image<'a>,
    },
    /// The content of a block device follows in chunks.
    BlockImage {
        /// Whether they make a zlib stream.
        compressed: bool,
    },
    /// Names of consoles, in the order of listings.
    Consoles(List<'a, Name>),
    /// Unikernels, in the order of listings.
    Infos(List<'a, NamedInfo<'a>>),
    /// The same in the form before several CPUs.
    OldInfos5(List<'a, NamedInfo<'a>>),
    /// The same in the form before start orders.
    OldInfos4(List<'a, NamedInfo<'a>>),
    /// How unikernels fare, in the order of listings.
    Conditions(List<'a, NamedCondition<'a>>),
    /// The host that `vmmd` runs on.
    Host(HostInfo<'a>),
}

/// Tags of the replies that are lists; shared with the functions that write them from iterators.
pub(crate) const POLICIES: u8 = tag::context(2);
pub(crate) const BLOCKS: u8 = tag::context(4);
pub(crate) const CONSOLES: u8 = tag::context(12);
pub(crate) const INFOS: u8 = tag::context(13);
pub(crate) const INFOS_5: u8 = tag::context(11);
pub(crate) const INFOS_4: u8 = tag::context(9);
const HOST: u8 = tag::context(29);
pub(crate) const CONDITIONS: u8 = tag::context(30);

impl<'a> Item<'a> for Name {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.name()
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.text(self.as_bytes());
    }
}

impl<'a> Success<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, Reader::null).map(|()| Self::Empty),
            0xa1 => reader.within(choice, Reader::text).map(|text| Self::Text(Text(text))),
            POLICIES => read_list(reader, choice, Form::Current).map(Self::Policies),
            BLOCKS => read_list(reader, choice, Form::Current).map(Self::Blocks),
            0xa6 => reader.within(choice, read_image).map(|(compressed, image)| Self::Image { compressed, image }),
            0xa7 => {
                reader.within(choice, read_image).map(|(compressed, image)| Self::OldBlockImage { compressed, image })
            }
            0xaa => reader.within(choice, Reader::boolean).map(|compressed| Self::BlockImage { compressed }),
            CONSOLES => read_list(reader, choice, Form::Current).map(Self::Consoles),
            INFOS => read_list(reader, choice, Form::Current).map(Self::Infos),
            INFOS_5 => read_list(reader, choice, Form::Info5).map(Self::OldInfos5),
            INFOS_4 => read_list(reader, choice, Form::Info4).map(Self::OldInfos4),
            CONDITIONS => read_list(reader, choice, Form::Current).map(Self::Conditions),
            HOST => reader.within(choice, HostInfo::read).map(Self::Host),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Empty => writer.within(tag::context(0), Writer::null),
            Self::Text(text) => writer.within(tag::context(1), |writer| writer.text(text.0)),
            Self::Policies(list) => write_list(writer, POLICIES, list, Form::Current),
            Self::Blocks(list) => write_list(writer, BLOCKS, list, Form::Current),
            Self::Image { compressed, image } => {
                writer.within(tag::context(6), |writer| write_image(writer, *compressed, image));
            }
            Self::OldBlockImage { compressed, image } => {
                writer.within(tag::context(7), |writer| write_image(writer, *compressed, image));
            }
            Self::BlockImage { compressed } => {
                writer.within(tag::context(10), |writer| writer.boolean(*compressed));
            }
            Self::Consoles(list) => write_list(writer, CONSOLES, list, Form::Current),
            Self::Infos(list) => write_list(writer, INFOS, list, Form::Current),
            Self::OldInfos5(list) => write_list(writer, INFOS_5, list, Form::Info5),
            Self::OldInfos4(list) => write_list(writer, INFOS_4, list, Form::Info4),
            Self::Conditions(list) => write_list(writer, CONDITIONS, list, Form::Current),
            Self::Host(host) => writer.within(HOST, |writer| host.write(writer)),
        }
    }
}

fn read_list<'a, T: Item<'a>>(reader: &mut Reader<'a>, choice: u8, form: Form) -> Result<List<'a, T>, Malformed> {
    reader.within(choice, |reader| reader.within(tag::SEQUENCE, |reader| List::read(reader, Order::Given, form)))
}

fn write_list<'a, T: Item<'a>>(writer: &mut Writer<'_>, choice: u8, list: &List<'a, T>, form: Form) {
    writer.within(choice, |writer| {
        writer.within(tag::SEQUENCE, |writer| list.write(writer, Order::Given, form));
    });
}
