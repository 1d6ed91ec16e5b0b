//! The devices that a unikernel is given: block devices and network interfaces.

use crate::der::{Malformed, Reader, Writer, tag};
use crate::wire::list::{Form, Item};

/// A block device of a unikernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockDevice<'a> {
    /// Its name in the unikernel's manifest.
    pub name: &'a str,
    /// Label of the host's block device in the unikernel's path; that of the device where absent.
    pub host_device: Option<&'a str>,
    /// Bytes of a sector; the tender's default where absent.
    pub sector_size: Option<i64>,
}

impl<'a> BlockDevice<'a> {
    /// The label of the block device on the host.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.host_device.unwrap_or(self.name)
    }
}

impl<'a> Item<'a> for BlockDevice<'a> {
    fn read(reader: &mut Reader<'a>, form: Form) -> Result<Self, Malformed> {
        if form == Form::Bare {
            return Ok(Self { name: reader.utf8()?, host_device: None, sector_size: None });
        }
        reader.within(tag::SEQUENCE, |reader| {
            Ok(Self {
                name: reader.utf8()?,
                host_device: reader.optional_utf8()?,
                sector_size: reader.optional_integer()?,
            })
        })
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.optional_integer(self.sector_size);
            writer.optional_text(self.host_device);
            writer.text(self.name.as_bytes());
        });
    }
}

/// A network interface of a unikernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bridge<'a> {
    /// Its name in the unikernel's manifest.
    pub name: &'a str,
    /// The bridge on the host; that of the interface's name where absent.
    pub bridge: Option<&'a str>,
    /// The MAC address; the one of [`crate::mac::address`] where absent.
    pub mac: Option<[u8; 6]>,
}

impl<'a> Bridge<'a> {
    /// The name of the bridge on the host.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.bridge.unwrap_or(self.name)
    }
}

impl<'a> Item<'a> for Bridge<'a> {
    fn read(reader: &mut Reader<'a>, form: Form) -> Result<Self, Malformed> {
        if form == Form::Bare {
            return Ok(Self { name: reader.utf8()?, bridge: None, mac: None });
        }
        reader.within(tag::SEQUENCE, |reader| {
            let name = reader.utf8()?;
            let bridge = reader.optional_utf8()?;
            let mac = if reader.peek() == Some(tag::OCTETS) { Some(reader.mac()?) } else { None };
            Ok(Self { name, bridge, mac })
        })
    }

    fn write(&self, writer: &mut Writer<'_>, _: Form) {
        writer.within(tag::SEQUENCE, |writer| {
            if let Some(mac) = &self.mac {
                writer.octets(mac);
            }
            writer.optional_text(self.bridge);
            writer.text(self.name.as_bytes());
        });
    }
}
