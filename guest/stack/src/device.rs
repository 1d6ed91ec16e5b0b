//! The network as smoltcp wants it: a frame in, a frame out, each in a buffer that is used again.

use fulmar_guest::Net;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::Memory;

/// Bytes of a frame before what it carries.
const HEADER_BYTES: usize = 14;

/// The network with its two buffers.
pub(crate) struct Port<'a> {
    net: Net,
    incoming: &'a mut [u8],
    outgoing: &'a mut [u8],
}

impl Port<'_> {
    pub(crate) fn new(net: Net, memory: &mut Memory) -> Option<Port<'static>> {
        let bytes = usize::from(net.mtu()) + HEADER_BYTES;
        Some(Port { net, incoming: memory.take(bytes)?, outgoing: memory.take(bytes)? })
    }
}

impl Device for Port<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let len = self.net.read(self.incoming)?;
        let frame = self.incoming.get(..len)?;
        Some((Incoming(frame), Outgoing { net: self.net, buffer: self.outgoing }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing { net: self.net, buffer: self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.net.mtu()) + HEADER_BYTES;
        capabilities
    }
}

/// A frame that has come.
pub(crate) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

/// Room for a frame that is to go out.
pub(crate) struct Outgoing<'a> {
    net: Net,
    buffer: &'a mut [u8],
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        // smoltcp asks for no more than the largest frame.
        let len = len.min(self.buffer.len());
        let (frame, _) = self.buffer.split_at_mut(len);
        let result = fill(frame);
        // A frame that the host does not take is lost, as frames are.
        self.net.write(frame);
        result
    }
}
