//! The host that `vmmd` runs on: what it has, what of it is used and how far that may go, and what keeps tenants within it.
//! The peer has no such question; it is one of our additions (`docs/wire.md`).
//!
//! Uses and facts are lists of named entries: a reader shows what it does not know, and more may come.

use crate::der::{Malformed, Reader, Writer, tag};
use crate::wire::list::{Form, Item, List, Order};
use crate::wire::text::Text;

/// The host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostInfo<'a> {
    /// The version of `vmmd`.
    pub version: Text<'a>,
    /// The CPUs that unikernels may run on; distinct, ascending.
    pub cpuids: List<'a, i64>,
    /// Its bridges; distinct, ascending.
    pub bridges: List<'a, &'a str>,
    /// What there is only so much of.
    pub uses: List<'a, Use<'a>>,
    /// What can be had here, and what bounds a tender.
    pub facts: List<'a, Fact<'a>>,
}

/// Something that there is only so much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use<'a> {
    /// What, such as `taps` or `image-bytes`.
    pub what: Text<'a>,
    /// What is used now.
    pub used: i64,
    /// What may be used.
    pub limit: i64,
}

/// Something that is so or otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fact<'a> {
    /// What, such as `kvm`.
    pub what: Text<'a>,
    /// How it is, such as `yes`.
    pub how: Text<'a>,
}

impl<'a> Item<'a> for Use<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self { what: Text(reader.text()?), used: reader.integer()?, limit: reader.integer()? })
        })
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.integer(self.limit);
            writer.integer(self.used);
            writer.text(self.what.0);
        });
    }
}

impl<'a> Item<'a> for Fact<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| Ok(Self { what: Text(reader.text()?), how: Text(reader.text()?) }))
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.text(self.how.0);
            writer.text(self.what.0);
        });
    }
}

impl<'a> HostInfo<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self {
                version: Text(reader.text()?),
                cpuids: List::read_sequence(reader, Order::Value)?,
                bridges: List::read_sequence(reader, Order::Value)?,
                uses: List::read_sequence(reader, Order::Given)?,
                facts: List::read_sequence(reader, Order::Given)?,
            })
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            self.facts.write_sequence(writer, Order::Given);
            self.uses.write_sequence(writer, Order::Given);
            self.bridges.write_sequence(writer, Order::Value);
            self.cpuids.write_sequence(writer, Order::Value);
            writer.text(self.version.0);
        });
    }
}
