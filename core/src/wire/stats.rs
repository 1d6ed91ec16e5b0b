//! Commands to the statistics daemon, and what `vmmd` tells it.

use crate::der::{Malformed, Reader, Reason, Writer, tag};
use crate::wire::list::{Form, Item, List, Order};

/// A network interface of a unikernel as the host has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tap<'a> {
    /// Name of the interface in the unikernel.
    pub bridge: &'a str,
    /// Name of the interface on the host.
    pub tap: &'a str,
}

impl<'a> Item<'a> for Tap<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| Ok(Self { bridge: reader.utf8()?, tap: reader.utf8()? }))
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.text(self.tap.as_bytes());
            writer.text(self.bridge.as_bytes());
        });
    }
}

/// What can be asked of the statistics daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatsCommand<'a> {
    /// Watch this unikernel.
    Add {
        /// Name of its device of the hypervisor (FreeBSD); may be empty.
        device: &'a str,
        /// Its process.
        pid: i64,
        /// Its network interfaces.
        taps: List<'a, Tap<'a>>,
    },
    /// Watch it no longer.
    Remove,
    /// Send what is measured, at each interval.
    Subscribe,
    /// The statistics daemon to `vmmd`: tell me of all unikernels from now on.
    Initial,
}

impl<'a> StatsCommand<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, |reader| {
                reader.within(tag::SEQUENCE, |reader| {
                    Ok(Self::Add {
                        device: reader.utf8()?,
                        pid: reader.integer()?,
                        taps: List::read_sequence(reader, Order::Given)?,
                    })
                })
            }),
            0xa1 => reader.within(choice, Reader::null).map(|()| Self::Remove),
            0xa2 => reader.within(choice, Reader::null).map(|()| Self::Subscribe),
            0xa3 => reader.within(choice, Reader::null).map(|()| Self::Initial),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Add { device, pid, taps } => writer.within(tag::context(0), |writer| {
                writer.within(tag::SEQUENCE, |writer| {
                    taps.write_sequence(writer, Order::Given);
                    writer.integer(*pid);
                    writer.text(device.as_bytes());
                });
            }),
            Self::Remove => writer.within(tag::context(1), Writer::null),
            Self::Subscribe => writer.within(tag::context(2), Writer::null),
            Self::Initial => writer.within(tag::context(3), Writer::null),
        }
    }
}
