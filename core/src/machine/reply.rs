//! What a client is told, and the questions that are answered from what the machine knows.

use core::fmt::Write as _;

use super::bhyve::kind_of;
use super::block::Block;
use super::record::with_wire_policy;
use super::refusal::Refusal;
use super::unikernel::{Digest, Life, Unikernel};
use super::{Machine, Now};
use crate::halves::{Tender, Unit, machine_name};
use crate::limits::{DEVICES_MAX, NAME_BYTES_MAX, SECTOR_BYTES_DEFAULT, WIRE_INT_MAX};
use crate::mac;
use crate::name::Name;
use crate::wire::{
    self, Arguments, BlockInfo, Full, Header, Info, InfoBlock, InfoBridge, InfoForm, List, Message, Payload, Success,
};

/// Bytes of a refusal's text.
const REFUSAL_BYTES_MAX: usize = 320 + NAME_BYTES_MAX;

/// What a client is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)] // a tag of its own, 0 for the first: see `Machine::new`
pub enum Reply {
    /// Nothing yet.
    None,
    /// It is done.
    Done(Done),
    /// It is refused.
    Refused(Refusal),
    /// The unikernels at the name, in the form that was asked for.
    Infos(InfoForm),
    /// How the unikernels at the name fare, as it was when that was asked.
    Conditions(Now),
    /// The policies at the path.
    Policies,
    /// The block devices at the name.
    Blocks,
    /// The host, of which the caller knows most: see [`Machine::uses_of_host`].
    Host,
    /// An image, whose octets are the caller's to send.
    Image {
        /// Which.
        digest: Digest,
        /// Its bytes, uncompressed.
        bytes: u64,
        /// 0 for the image as it is, more for a zlib stream of this level, 9 at most.
        level: u8,
    },
    /// The content of a block device, which is the caller's to send; then [`super::Input::Dumped`].
    Dump {
        /// The slot of the block device.
        slot: u16,
        /// 0 for the content as it is, more for a zlib stream of this level, 9 at most.
        level: u8,
        /// In one reply instead of chunks.
        whole: bool,
    },
}

/// What was done. The texts are the peer's (`docs/wire.md`, replies).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Done {
    /// The unikernel is desired, durably, and was launched.
    CreatedUnikernel,
    /// The unikernel is no longer desired, durably, and its process is gone.
    DestroyedUnikernel,
    /// The policy is durable.
    AddedPolicy,
    /// Exactly this policy was there already.
    PolicyUnchanged,
    /// The policy is gone, durably.
    RemovedPolicy,
    /// The block device is there, durably.
    AddedBlock,
    /// The block device is gone, durably, and its file with it.
    RemovedBlock,
    /// The block device has this content, durably.
    SetBlock,
}

impl Done {
    /// The text of the reply.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreatedUnikernel => "created unikernel",
            Self::DestroyedUnikernel => "destroyed unikernel",
            Self::AddedPolicy => "added policy",
            Self::PolicyUnchanged => "no modification of policy",
            Self::RemovedPolicy => "removed policy",
            Self::AddedBlock => "added block device",
            Self::RemovedBlock => "removed block",
            Self::SetBlock => "set block device",
        }
    }
}

impl<const U: usize, const P: usize, const B: usize, const C: usize, const A: usize> Machine<U, P, B, C, A> {
    pub(super) fn info(&mut self, connection: u16, name: &Name, form: InfoForm) {
        let known = name.is_path() || self.find(name).is_some_and(|(_, unikernel)| unikernel.is_listed());
        let reply = if known { Reply::Infos(form) } else { Reply::Refused(Refusal::InfoNotFound) };
        self.answer(connection, reply);
    }

    pub(super) fn get(&mut self, connection: u16, name: &Name, level: i64) {
        let image = self.find(name).filter(|(_, unikernel)| unikernel.is_listed());
        let reply = match image.and_then(|(_, unikernel)| Some((unikernel.digest()?, unikernel.image_bytes))) {
            Some((digest, bytes)) => {
                let level = u8::try_from(level.clamp(0, 9)).unwrap_or(0);
                Reply::Image { digest: *digest, bytes, level }
            }
            None => Reply::Refused(Refusal::GetNotFound),
        };
        self.answer(connection, reply);
    }

    /// What this connection is told; [`Reply::None`] while it waits.
    #[must_use]
    pub fn reply(&self, connection: u16) -> Reply {
        self.connections.get(usize::from(connection)).map_or(Reply::None, |client| client.reply)
    }

    /// Whether the connection stays open for another command after its reply (the peer's rule: after a policy was set).
    #[must_use]
    pub fn keeps_open(&self, connection: u16) -> bool {
        matches!(self.reply(connection), Reply::Done(Done::AddedPolicy | Done::PolicyUnchanged))
    }

    /// The header of the reply to this connection.
    #[must_use]
    pub fn reply_header(&self, connection: u16) -> Option<Header> {
        let client = self.connections.get(usize::from(connection))?;
        Some(Header::new(client.sequence, client.name))
    }

    /// The whole frame of the reply, at the end of `buffer`. What an image or the content of a block device is sent in, and what is
    /// said about the host, is not made here: see [`wire::encode_image_head`] and [`Machine::uses_of_host`].
    ///
    /// # Errors
    /// [`Full`] when `buffer` is too small.
    pub fn encode_reply<'b>(&self, connection: u16, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
        let Some(header) = self.reply_header(connection) else { return Err(Full) };
        let payload = match self.reply(connection) {
            Reply::Infos(form) => return self.encode_infos(&header, form, buffer),
            Reply::Conditions(now) => return self.encode_conditions(&header, now, buffer),
            Reply::Policies => return self.encode_policies(&header, buffer),
            Reply::Blocks => return self.encode_blocks(&header, buffer),
            Reply::None | Reply::Host | Reply::Image { .. } | Reply::Dump { .. } => return Err(Full),
            Reply::Done(done) => Payload::Success(Success::Text(done.as_str().into())),
            Reply::Refused(refusal) => {
                let mut text = heapless::String::<REFUSAL_BYTES_MAX>::new();
                // A text that does not fit is cut.
                let _ = write!(text, "{}", refusal.to_whom(&header.name));
                let payload = Payload::Failure(text.as_str().into());
                return wire::encode_frame(&Message { header, payload }, buffer);
            }
        };
        wire::encode_frame(&Message { header, payload }, buffer)
    }

    fn encode_infos<'b>(&self, header: &Header, form: InfoForm, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
        let name = &header.name;
        let exact = self.unikernels.find(name);
        let listed = self.listed(name, &exact);
        wire::encode_infos(header, form, listed, buffer, |(slot, unikernel), write| {
            let Some(arguments) = self.arguments(slot) else { return };
            let mut bridges = heapless::Vec::<InfoBridge<'_>, DEVICES_MAX>::new();
            for network in arguments.bridges {
                let mac = network.mac.unwrap_or_else(|| mac::address(&unikernel.name, network.name));
                let bridge = InfoBridge { device: network.name.into(), host: network.host().into(), mac };
                // As many as a create admits.
                let _ = bridges.push(bridge);
            }
            let mut blocks = heapless::Vec::<InfoBlock<'_>, DEVICES_MAX>::new();
            for device in arguments.block_devices {
                let block = InfoBlock {
                    device: device.name.into(),
                    host: device.host().into(),
                    sector_size: device.sector_size.unwrap_or(SECTOR_BYTES_DEFAULT),
                    size: self.block_of(&unikernel.name, &device).map_or(0, |(_, block)| wire_mb(block)),
                };
                // As many as a create admits.
                let _ = blocks.push(block);
            }
            let own = &unikernel.name;
            let name = if name.is_path() { own.relative_text(name) } else { own.as_str() };
            // What a virtual machine is called is told in the place of what an image is.
            let machine = self.tenders.bhyve.filter(|_| unikernel.tender == Tender::Bhyve);
            let machine = machine.map(|tag| machine_name(tag, Unit(unikernel.unit)));
            let digest = machine.as_ref().map_or(unikernel.digest.as_slice(), |machine| machine.as_bytes());
            write(name, &describe(unikernel, digest, &arguments, &bridges, &blocks));
        })
    }

    /// The unikernels that are told of at this path, or of this name, whose slot is `exact`.
    pub(super) fn listed<'m>(
        &'m self,
        name: &Name,
        exact: &'m Option<u16>,
    ) -> impl DoubleEndedIterator<Item = (u16, &'m Unikernel)> {
        let slots = if name.is_path() { self.unikernels.below(name) } else { exact.as_slice() };
        let known = slots.iter().filter_map(|slot| Some((*slot, self.unikernel(*slot)?)));
        known.filter(|(_, unikernel)| unikernel.is_listed())
    }

    fn encode_policies<'b>(&self, header: &Header, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
        let path = header.name.path();
        let listed = self.ledger.listing(&path).filter_map(|account| Some((account, account.policy()?)));
        wire::encode_policies(header, listed, buffer, |(account, policy), write| {
            with_wire_policy(policy, |policy| write(account.path().relative_text(&path), policy));
        })
    }

    fn encode_blocks<'b>(&self, header: &Header, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
        let name = &header.name;
        let exact = self.blocks.find(name);
        let slots = if name.is_path() { self.blocks.below(name) } else { exact.as_slice() };
        let listed = slots.iter().filter_map(|slot| self.block(*slot)).filter(|block| block.is_listed());
        let describe = |block: &Block| BlockInfo {
            name: if name.is_path() { block.name.relative_to(name) } else { block.name },
            size: wire_mb(block),
            active: block.held,
        };
        wire::encode_blocks(header, listed.map(describe), buffer)
    }
}

/// The size of a block device as the wire has it: the record's bound is far below.
fn wire_mb(block: &Block) -> i64 {
    i64::try_from(block.size_mb).unwrap_or(WIRE_INT_MAX)
}

/// What is told about one unikernel.
fn describe<'a>(
    unikernel: &Unikernel,
    digest: &'a [u8],
    arguments: &Arguments<'a>,
    bridges: &'a [InfoBridge<'a>],
    blocks: &'a [InfoBlock<'a>],
) -> Info<'a> {
    Info {
        kind: kind_of(unikernel.tender),
        startup: arguments.startup,
        fail_behaviour: arguments.fail_behaviour,
        cpuids: arguments.cpuids,
        memory: arguments.memory,
        digest,
        block_devices: List::Items(blocks),
        bridges: List::Items(bridges),
        argv: arguments.argv,
        // A unikernel that rests has no time of start.
        started: (unikernel.life == Life::Alive).then_some(unikernel.started_wall_ms),
        numcpus: arguments.numcpus,
        linux_boot: arguments.linux_boot.map(Into::into),
    }
}
