//! What the statistics daemon measures of one unikernel. The fields are those of the systems' own structures, in their
//! order; what a system does not count is 0.

use crate::der::{Malformed, Reader, Writer, tag};
use crate::wire::list::{Form, Item, List, Order};
use crate::wire::text::Text;

/// Seconds and microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Whole seconds.
    pub seconds: i64,
    /// Microseconds on top.
    pub microseconds: i64,
}

impl Moment {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| Ok(Self { seconds: reader.number()?, microseconds: reader.integer()? }))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.integer(self.microseconds);
            writer.number(self.seconds);
        });
    }
}

/// `struct rusage`: two times, then the counters from `maxrss` to `nivcsw`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of getrusage(2)")]
pub struct Rusage {
    pub utime: Moment,
    pub stime: Moment,
    pub maxrss: i64,
    pub ixrss: i64,
    pub idrss: i64,
    pub isrss: i64,
    pub minflt: i64,
    pub majflt: i64,
    pub nswap: i64,
    pub inblock: i64,
    pub outblock: i64,
    pub msgsnd: i64,
    pub msgrcv: i64,
    pub nsignals: i64,
    pub nvcsw: i64,
    pub nivcsw: i64,
}

impl Rusage {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self {
                utime: Moment::read(reader)?,
                stime: Moment::read(reader)?,
                maxrss: reader.number()?,
                ixrss: reader.number()?,
                idrss: reader.number()?,
                isrss: reader.number()?,
                minflt: reader.number()?,
                majflt: reader.number()?,
                nswap: reader.number()?,
                inblock: reader.number()?,
                outblock: reader.number()?,
                msgsnd: reader.number()?,
                msgrcv: reader.number()?,
                nsignals: reader.number()?,
                nvcsw: reader.number()?,
                nivcsw: reader.number()?,
            })
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let counters = [
            self.maxrss,
            self.ixrss,
            self.idrss,
            self.isrss,
            self.minflt,
            self.majflt,
            self.nswap,
            self.inblock,
            self.outblock,
            self.msgsnd,
            self.msgrcv,
            self.nsignals,
            self.nvcsw,
            self.nivcsw,
        ];
        writer.within(tag::SEQUENCE, |writer| {
            counters.iter().rev().for_each(|counter| writer.number(*counter));
            self.stime.write(writer);
            self.utime.write(writer);
        });
    }
}

/// Memory of a process, as FreeBSD's `struct kinfo_proc` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of FreeBSD's kinfo_proc")]
pub struct Memory {
    pub vsize: i64,
    pub rss: i64,
    pub tsize: i64,
    pub dsize: i64,
    pub ssize: i64,
    pub runtime: i64,
    pub cow: i64,
    pub start: Moment,
}

impl Memory {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            vsize: reader.number()?,
            rss: reader.number()?,
            tsize: reader.number()?,
            dsize: reader.number()?,
            ssize: reader.number()?,
            runtime: reader.number()?,
            cow: reader.integer()?,
            start: Moment::read(reader)?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        self.start.write(writer);
        writer.integer(self.cow);
        for size in [self.runtime, self.ssize, self.dsize, self.tsize, self.rss, self.vsize] {
            writer.number(size);
        }
    }
}

/// Counters of a network interface, as FreeBSD's `struct ifmibdata` has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of FreeBSD's ifmibdata")]
pub struct Interface<'a> {
    pub bridge: Text<'a>,
    pub flags: i64,
    pub send_length: i64,
    pub max_send_length: i64,
    pub send_drops: i64,
    pub mtu: i64,
    pub baudrate: i64,
    pub input_packets: i64,
    pub input_errors: i64,
    pub output_packets: i64,
    pub output_errors: i64,
    pub collisions: i64,
    pub input_bytes: i64,
    pub output_bytes: i64,
    pub input_mcast: i64,
    pub output_mcast: i64,
    pub input_dropped: i64,
    pub output_dropped: i64,
}

impl<'a> Item<'a> for Interface<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self {
                bridge: Text(reader.text()?),
                flags: reader.integer()?,
                send_length: reader.integer()?,
                max_send_length: reader.integer()?,
                send_drops: reader.integer()?,
                mtu: reader.integer()?,
                baudrate: reader.number()?,
                input_packets: reader.number()?,
                input_errors: reader.number()?,
                output_packets: reader.number()?,
                output_errors: reader.number()?,
                collisions: reader.number()?,
                input_bytes: reader.number()?,
                output_bytes: reader.number()?,
                input_mcast: reader.number()?,
                output_mcast: reader.number()?,
                input_dropped: reader.number()?,
                output_dropped: reader.number()?,
            })
        })
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        let counters = [
            self.baudrate,
            self.input_packets,
            self.input_errors,
            self.output_packets,
            self.output_errors,
            self.collisions,
            self.input_bytes,
            self.output_bytes,
            self.input_mcast,
            self.output_mcast,
            self.input_dropped,
            self.output_dropped,
        ];
        writer.within(tag::SEQUENCE, |writer| {
            counters.iter().rev().for_each(|counter| writer.number(*counter));
            for value in [self.mtu, self.send_drops, self.max_send_length, self.send_length, self.flags] {
                writer.integer(value);
            }
            writer.text(self.bridge.0);
        });
    }
}

/// A counter of the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter<'a> {
    /// What it counts.
    pub name: Text<'a>,
    /// How many so far.
    pub value: i64,
}

impl<'a> Item<'a> for Counter<'a> {
    fn read(reader: &mut Reader<'a>, _: Form) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| Ok(Self { name: Text(reader.text()?), value: reader.number()? }))
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.number(self.value);
            writer.text(self.name.0);
        });
    }
}

/// One measurement of one unikernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage<'a> {
    /// Its process.
    pub rusage: Rusage,
    /// Its network interfaces.
    pub interfaces: List<'a, Interface<'a>>,
    /// Counters of the hypervisor, where it has them.
    pub counters: Option<List<'a, Counter<'a>>>,
    /// Its memory, where it could be read.
    pub memory: Option<Memory>,
}

impl<'a> Usage<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self {
                rusage: Rusage::read(reader)?,
                interfaces: List::read_sequence(reader, Order::Given)?,
                counters: reader.optional(tag::context(0), |reader| List::read_sequence(reader, Order::Given))?,
                memory: reader.optional(tag::context(1), Memory::read)?,
            })
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            if let Some(memory) = &self.memory {
                writer.within(tag::context(1), |writer| memory.write(writer));
            }
            if let Some(counters) = &self.counters {
                writer.within(tag::context(0), |writer| counters.write_sequence(writer, Order::Given));
            }
            self.interfaces.write_sequence(writer, Order::Given);
            self.rusage.write(writer);
        });
    }
}
