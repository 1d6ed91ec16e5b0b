//! Policies on the wire: what a path may use.

use crate::der::{Full, Malformed, Reader, Reason, Writer, tag};
use crate::name::Name;
use crate::wire::list::{Form, Item, List, Order};

/// What a path and all below it may use. Any numbers decode; whether they make sense is not decided here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy<'a> {
    /// CPUs that may be used; distinct, ascending.
    pub cpuids: List<'a, i64>,
    /// How many unikernels may run.
    pub unikernels: i64,
    /// Memory of all of them together, in MiB.
    pub memory: i64,
    /// Block storage, in MiB; none where absent.
    pub block: Option<i64>,
    /// Bridges that may be used; distinct, ascending.
    pub bridges: List<'a, &'a str>,
}

impl<'a> Policy<'a> {
    /// Reads the stand-alone form: one SEQUENCE, nothing after it.
    ///
    /// # Errors
    /// [`Malformed`], as it says.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let policy = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(policy)
    }

    /// Writes the stand-alone form to the end of `buffer`.
    ///
    /// # Errors
    /// [`Full`] when `buffer` is too small.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
        let mut writer = Writer::new(buffer);
        self.write(&mut writer);
        writer.finish()
    }

    /// Reads the next element, a SEQUENCE.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self {
                cpuids: List::read_sequence(reader, Order::Value)?,
                unikernels: reader.integer()?,
                memory: reader.integer()?,
                block: reader.optional_integer()?,
                bridges: List::read_sequence(reader, Order::Value)?,
            })
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            self.bridges.write_sequence(writer, Order::Value);
            writer.optional_integer(self.block);
            writer.integer(self.memory);
            writer.integer(self.unikernels);
            self.cpuids.write_sequence(writer, Order::Value);
        });
    }
}

/// A policy and the path that it is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedPolicy<'a> {
    /// The path.
    pub name: Name,
    /// What it may use.
    pub policy: Policy<'a>,
}

impl<'a> Item<'a> for NamedPolicy<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| Ok(Self { name: reader.name()?, policy: Policy::read(reader)? }))
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        write_named(writer, self.name.as_str(), |writer| self.policy.write(writer));
    }
}

/// Writes an entry of a listing: a name and what belongs to it.
pub(crate) fn write_named(writer: &mut Writer<'_>, name: &str, content: impl FnOnce(&mut Writer<'_>)) {
    writer.within(tag::SEQUENCE, |writer| {
        content(writer);
        writer.text(name.as_bytes());
    });
}

/// What can be asked about policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyCommand<'a> {
    /// List those at a path and below.
    Info,
    /// Set that of a path.
    Add(Policy<'a>),
    /// Remove that of a path.
    Remove,
    /// Set those of a path and of paths above it, all or none: what the certificates of a chain say. An addition of ours.
    Chain(List<'a, NamedPolicy<'a>>),
}

const CHAIN: u8 = tag::context(30);

impl<'a> PolicyCommand<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match reader.peek() {
            Some(0xa0) => reader.within(tag::context(0), Reader::null).map(|()| Self::Info),
            Some(0xa1) => reader.within(tag::context(1), Policy::read).map(Self::Add),
            Some(0xa2) => reader.within(tag::context(2), Reader::null).map(|()| Self::Remove),
            Some(CHAIN) => reader.within(CHAIN, |reader| List::read_sequence(reader, Order::Given)).map(Self::Chain),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Info => writer.within(tag::context(0), Writer::null),
            Self::Add(policy) => writer.within(tag::context(1), |writer| policy.write(writer)),
            Self::Remove => writer.within(tag::context(2), Writer::null),
            Self::Chain(policies) => writer.within(CHAIN, |writer| policies.write_sequence(writer, Order::Given)),
        }
    }
}
