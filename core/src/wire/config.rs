//! What a unikernel is made of: its image, and the arguments that it runs with.
//!
//! [`Arguments`] also stand alone: what `restart` carries is what the machine stores and the journal keeps.
//! Older shapes are read into the one of today; only that one is written.

use crate::der::{Full, Malformed, Octets, Reader, Reason, Writer, tag};
use crate::wire::device::{BlockDevice, Bridge};
use crate::wire::list::{Form, Item, List, Order};
use crate::wire::text::Text;

/// What runs a unikernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A Solo5 tender.
    Solo5,
    /// FreeBSD's bhyve.
    Bhyve,
}

impl Kind {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = match reader.peek() {
            Some(0xa0) => Self::Solo5,
            Some(0xa1) => Self::Bhyve,
            _ => return Err(reader.error(Reason::Choice)),
        };
        reader.within(kind.tag(), Reader::null)?;
        Ok(kind)
    }

    fn tag(self) -> u8 {
        match self {
            Self::Solo5 => tag::context(0),
            Self::Bhyve => tag::context(1),
        }
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        writer.within(self.tag(), Writer::null);
    }
}

/// Octets that can be too many to be held: an image of a unikernel or of a block device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Image<'a> {
    /// Held here.
    Inline(&'a [u8]),
    /// Taken out by the scanner when it came, or sent from elsewhere.
    Diverted {
        /// Bytes of it; more than 0.
        len: u64,
    },
}

impl<'a> Image<'a> {
    /// Bytes of it.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty image has a meaning of its own, which is not this type's"
    )]
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(octets) => octets.len() as u64,
            Self::Diverted { len } => *len,
        }
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.octets()? {
            Octets::Inline(octets) => Self::Inline(octets),
            Octets::Diverted(len) => Self::Diverted { len },
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Inline(octets) => writer.octets(octets),
            Self::Diverted { len } => writer.absent_octets(*len),
        }
    }
}

/// Whether a unikernel that ends by itself is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailBehaviour<'a> {
    /// Never.
    Quit,
    /// On these exit codes; on any where the list is empty. Codes are distinct.
    Restart(List<'a, i64>),
}

impl<'a> FailBehaviour<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match reader.peek() {
            Some(0xa0) => reader.within(tag::context(0), Reader::null).map(|()| Self::Quit),
            Some(0xa1) => {
                reader.within(tag::context(1), |reader| List::read_set(reader, Order::Distinct)).map(Self::Restart)
            }
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Quit => writer.within(tag::context(0), Writer::null),
            Self::Restart(codes) => {
                writer.within(tag::context(1), |writer| codes.write_set(writer, Order::Distinct));
            }
        }
    }
}

/// What a unikernel runs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arguments<'a> {
    /// What happens when it ends by itself.
    pub fail_behaviour: FailBehaviour<'a>,
    /// Its place in the order of starting; 50 where absent, lower first.
    pub startup: Option<i64>,
    /// Whether `--name=<label>` is its first argument.
    pub add_name: bool,
    /// The CPUs that it may run on; distinct.
    pub cpuids: List<'a, i64>,
    /// Memory in MiB.
    pub memory: i64,
    /// Its block devices.
    pub block_devices: List<'a, BlockDevice<'a>>,
    /// Its network interfaces.
    pub bridges: List<'a, Bridge<'a>>,
    /// Its argument vector; UTF-8 when it comes from a decoder. Absent and empty are two things on the wire.
    pub argv: Option<List<'a, Text<'a>>>,
    /// How many virtual CPUs it has (bhyve).
    pub numcpus: i64,
    /// The partition that Linux is booted from (bhyve).
    pub linux_boot: Option<&'a str>,
}

/// Which generation of the grammar the arguments are in, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Era {
    /// State only: devices are texts.
    StateV1,
    /// State only: block devices are texts, bridges a list of pairs.
    StateV2,
    /// No start order, one CPU.
    V3,
    /// One CPU.
    V4,
    /// Today's.
    Current,
}

impl<'a> Arguments<'a> {
    /// Reads the stand-alone form: one SEQUENCE, nothing after it.
    ///
    /// # Errors
    /// [`Malformed`], as it says.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let arguments = reader.within(tag::SEQUENCE, |reader| Self::read(reader, Era::Current))?;
        reader.finish()?;
        Ok(arguments)
    }

    /// Writes the stand-alone form to the end of `buffer`.
    ///
    /// # Errors
    /// [`Full`] when `buffer` is too small.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
        let mut writer = Writer::new(buffer);
        writer.within(tag::SEQUENCE, |writer| self.write_restart(writer));
        writer.finish()
    }

    /// The fields of a restart's arguments.
    pub(crate) fn read(reader: &mut Reader<'a>, era: Era) -> Result<Self, Malformed> {
        let fail_behaviour = FailBehaviour::read(reader)?;
        let (startup, add_name) = Self::read_start(reader, era)?;
        Self::read_rest(reader, era, fail_behaviour, startup, add_name)
    }

    fn read_start(reader: &mut Reader<'a>, era: Era) -> Result<(Option<i64>, bool), Malformed> {
        if era < Era::V4 {
            return Ok((None, true));
        }
        Ok((reader.optional_integer()?, reader.boolean()?))
    }

    /// The fields that config and arguments have in the same place.
    fn read_rest(
        reader: &mut Reader<'a>,
        era: Era,
        fail_behaviour: FailBehaviour<'a>,
        startup: Option<i64>,
        add_name: bool,
    ) -> Result<Self, Malformed> {
        let cpuids = if era < Era::Current {
            List::read_one(reader, tag::INTEGER, Form::Current)?
        } else {
            List::read_set(reader, Order::Distinct)?
        };
        let memory = reader.integer()?;
        let block_devices = reader.optional(tag::context(0), |reader| read_block_devices(reader, era))?;
        let bridges = reader.optional(tag::context(1), |reader| read_bridges(reader, era))?;
        let argv = reader.optional(tag::context(2), read_argv)?;
        let (mut numcpus, mut linux_boot) = (1, None);
        if era == Era::Current {
            numcpus = reader.optional(tag::context(3), Reader::integer)?.unwrap_or(1);
            linux_boot = reader.optional(tag::context(4), Reader::utf8)?;
        }
        Ok(Self {
            fail_behaviour,
            startup,
            add_name,
            cpuids,
            memory,
            block_devices: block_devices.unwrap_or(List::EMPTY),
            bridges: bridges.unwrap_or(List::EMPTY),
            argv,
            numcpus,
            linux_boot,
        })
    }

    pub(crate) fn write_restart(&self, writer: &mut Writer<'_>) {
        self.write_rest(writer);
        self.write_start(writer);
        self.fail_behaviour.write(writer);
    }

    fn write_start(&self, writer: &mut Writer<'_>) {
        writer.boolean(self.add_name);
        writer.optional_integer(self.startup);
    }

    fn write_rest(&self, writer: &mut Writer<'_>) {
        if let Some(partition) = self.linux_boot {
            writer.within(tag::context(4), |writer| writer.text(partition.as_bytes()));
        }
        writer.within(tag::context(3), |writer| writer.integer(self.numcpus));
        if let Some(argv) = &self.argv {
            writer.within(tag::context(2), |writer| argv.write_sequence(writer, Order::Given));
        }
        write_devices(writer, tag::context(1), &self.bridges);
        write_devices(writer, tag::context(0), &self.block_devices);
        writer.integer(self.memory);
        self.cpuids.write_set(writer, Order::Distinct);
    }
}

fn write_devices<'a, T: Item<'a>>(writer: &mut Writer<'_>, tag: u8, devices: &List<'a, T>) {
    if !devices.is_empty() {
        writer.within(tag, |writer| devices.write_set(writer, Order::Encoding));
    }
}

fn read_block_devices<'a>(reader: &mut Reader<'a>, era: Era) -> Result<List<'a, BlockDevice<'a>>, Malformed> {
    if era <= Era::StateV2 {
        return reader.within(tag::SET, |reader| List::read(reader, Order::Encoding, Form::Bare));
    }
    not_empty(reader, |reader| List::read_set(reader, Order::Encoding))
}

fn read_bridges<'a>(reader: &mut Reader<'a>, era: Era) -> Result<List<'a, Bridge<'a>>, Malformed> {
    match era {
        Era::StateV1 => reader.within(tag::SET, |reader| List::read(reader, Order::Encoding, Form::Bare)),
        Era::StateV2 => List::read_sequence(reader, Order::Given).map(List::recoded),
        _ => not_empty(reader, |reader| List::read_set(reader, Order::Encoding)),
    }
}

/// No devices are written as no field: a field without devices is not what the sender means, whatever that is.
fn not_empty<'a, T: Item<'a>>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<List<'a, T>, Malformed>,
) -> Result<List<'a, T>, Malformed> {
    let start = *reader;
    let list = read(reader)?;
    if list.is_empty() { Err(start.error(Reason::Empty)) } else { Ok(list) }
}

pub(crate) fn read_argv<'a>(reader: &mut Reader<'a>) -> Result<List<'a, Text<'a>>, Malformed> {
    let start = *reader;
    let argv = List::<Text<'a>>::read_sequence(reader, Order::Given)?;
    if argv.iter().all(|argument| argument.as_str().is_some()) { Ok(argv) } else { Err(start.error(Reason::Utf8)) }
}

/// A unikernel: its image and its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config<'a> {
    /// What runs it.
    pub kind: Kind,
    /// Whether the image is a zlib stream.
    pub compressed: bool,
    /// The image; empty where it follows in chunks.
    pub image: Image<'a>,
    /// What it runs with.
    pub arguments: Arguments<'a>,
}

impl<'a> Config<'a> {
    /// Reads the next element, a SEQUENCE.
    pub(crate) fn read(reader: &mut Reader<'a>, era: Era) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            let kind = Kind::read(reader)?;
            let compressed = reader.boolean()?;
            let image = Image::read(reader)?;
            let (startup, add_name) = Arguments::read_start(reader, era)?;
            let fail_behaviour = FailBehaviour::read(reader)?;
            let arguments = Arguments::read_rest(reader, era, fail_behaviour, startup, add_name)?;
            Ok(Self { kind, compressed, image, arguments })
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            self.arguments.write_rest(writer);
            self.arguments.fail_behaviour.write(writer);
            self.arguments.write_start(writer);
            self.image.write(writer);
            writer.boolean(self.compressed);
            self.kind.write(writer);
        });
    }
}
