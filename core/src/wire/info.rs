//! What is told about a unikernel that runs.

use crate::der::{Malformed, Reader, Writer, tag};
use crate::name::Name;
use crate::wire::config::{FailBehaviour, Kind};
use crate::wire::list::{Form, Item, List, Order};
use crate::wire::policy::write_named;
use crate::wire::text::Text;

/// A block device of a running unikernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InfoBlock<'a> {
    /// Its name in the unikernel.
    pub device: Text<'a>,
    /// Label of the host's block device.
    pub host: Text<'a>,
    /// Bytes of a sector.
    pub sector_size: i64,
    /// Its size in MiB.
    pub size: i64,
}

impl<'a> Item<'a> for InfoBlock<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self {
                device: Text(reader.text()?),
                host: Text(reader.text()?),
                sector_size: reader.integer()?,
                size: reader.integer()?,
            })
        })
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.integer(self.size);
            writer.integer(self.sector_size);
            writer.text(self.host.0);
            writer.text(self.device.0);
        });
    }
}

/// A network interface of a running unikernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InfoBridge<'a> {
    /// Its name in the unikernel.
    pub device: Text<'a>,
    /// The bridge on the host.
    pub host: Text<'a>,
    /// Its MAC address.
    pub mac: [u8; 6],
}

impl<'a> Item<'a> for InfoBridge<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self { device: Text(reader.text()?), host: Text(reader.text()?), mac: reader.mac()? })
        })
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.octets(&self.mac);
            writer.text(self.host.0);
            writer.text(self.device.0);
        });
    }
}

/// What is told about a unikernel that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info<'a> {
    /// What runs it.
    pub kind: Kind,
    /// Its place in the order of starting.
    pub startup: Option<i64>,
    /// What happens when it ends by itself.
    pub fail_behaviour: FailBehaviour<'a>,
    /// The CPUs that it may run on; distinct.
    pub cpuids: List<'a, i64>,
    /// Memory in MiB.
    pub memory: i64,
    /// SHA-256 of the uncompressed image.
    pub digest: &'a [u8],
    /// Its block devices.
    pub block_devices: List<'a, InfoBlock<'a>>,
    /// Its network interfaces.
    pub bridges: List<'a, InfoBridge<'a>>,
    /// Its argument vector.
    pub argv: Option<List<'a, Text<'a>>>,
    /// When it was started, in milliseconds since 1970.
    pub started: Option<i64>,
    /// How many virtual CPUs it has.
    pub numcpus: i64,
    /// The partition that Linux is booted from.
    pub linux_boot: Option<Text<'a>>,
}

impl<'a> Info<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>, form: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            let current = form == Form::Current;
            let kind = Kind::read(reader)?;
            let startup = if form == Form::Info4 { None } else { reader.optional_integer()? };
            let fail_behaviour = FailBehaviour::read(reader)?;
            let cpuids = if current {
                List::read_set(reader, Order::Distinct)?
            } else {
                List::read_one(reader, tag::INTEGER, Form::Current)?
            };
            let memory = reader.integer()?;
            let digest = reader.held_octets()?;
            let block_devices = reader.optional(tag::context(0), |reader| List::read_set(reader, Order::Encoding))?;
            let bridges = reader.optional(tag::context(1), |reader| List::read_set(reader, Order::Encoding))?;
            let argv = reader.optional(tag::context(2), |reader| List::read_sequence(reader, Order::Given))?;
            let started = reader.optional(tag::context(3), Reader::time)?;
            let (mut numcpus, mut linux_boot) = (1, None);
            if current {
                numcpus = reader.optional(tag::context(4), Reader::integer)?.unwrap_or(1);
                linux_boot = reader.optional(tag::context(5), Reader::text)?.map(Text);
            }
            Ok(Self {
                kind,
                startup,
                fail_behaviour,
                cpuids,
                memory,
                digest,
                block_devices: block_devices.unwrap_or(List::EMPTY),
                bridges: bridges.unwrap_or(List::EMPTY),
                argv,
                started,
                numcpus,
                linux_boot,
            })
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>, form: Form) {
        let current = form == Form::Current;
        writer.within(tag::SEQUENCE, |writer| {
            if current {
                if let Some(partition) = &self.linux_boot {
                    writer.within(tag::context(5), |writer| writer.text(partition.0));
                }
                writer.within(tag::context(4), |writer| writer.integer(self.numcpus));
            }
            if let Some(unix_ms) = self.started {
                writer.within(tag::context(3), |writer| writer.time(unix_ms));
            }
            if let Some(argv) = &self.argv {
                writer.within(tag::context(2), |writer| argv.write_sequence(writer, Order::Given));
            }
            if !self.bridges.is_empty() {
                writer.within(tag::context(1), |writer| self.bridges.write_set(writer, Order::Encoding));
            }
            if !self.block_devices.is_empty() {
                writer.within(tag::context(0), |writer| self.block_devices.write_set(writer, Order::Encoding));
            }
            writer.octets(self.digest);
            writer.integer(self.memory);
            if current {
                self.cpuids.write_set(writer, Order::Distinct);
            } else {
                // The old forms have room for one CPU: the first stands for all.
                writer.integer(self.cpuids.iter().next().unwrap_or(0));
            }
            self.fail_behaviour.write(writer);
            if form != Form::Info4 {
                writer.optional_integer(self.startup);
            }
            self.kind.write(writer);
        });
    }
}

/// A unikernel that runs, and its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedInfo<'a> {
    /// Its name, as the command that asked sees it.
    pub name: Name,
    /// What is told about it.
    pub info: Info<'a>,
}

impl<'a> Item<'a> for NamedInfo<'a> {
    fn read(reader: &mut Reader<'a>, form: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| Ok(Self { name: reader.name()?, info: Info::read(reader, form)? }))
    }

    fn write(&self, writer: &mut Writer<'_>, form: Form) {
        write_named(writer, self.name.as_str(), |writer| self.info.write(writer, form));
    }
}
