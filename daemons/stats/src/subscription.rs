//! One subscriber: what it has got of the last measurement.

use fulmar_core::limits::{DEVICES_MAX, STATS_FRAME_BYTES_MAX, STATS_OUTPUT_BYTES_MAX};
use fulmar_core::wire::{Counter, Data, Header, Interface, List, Message, Payload, Usage, encode_frame};
use fulmar_host::clients::{Client, Role};

use crate::targets::{Record, covers};

/// Bytes of what is measured of one unikernel with all interfaces that it can have: 200 for each besides its name, whose bytes
/// came in one message.
const USAGE_BYTES_MAX: usize = DEVICES_MAX * 200 + STATS_FRAME_BYTES_MAX + 2048;

const _: () = assert!(USAGE_BYTES_MAX < STATS_OUTPUT_BYTES_MAX);

/// A subscriber.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Of the command, and so of all that is sent.
    pub(crate) header: Box<Header>,
    /// How many records of the last measurement it has taken or passed.
    pub(crate) at: usize,
}

/// Puts the records that a client has not got into its output, while there is room for them.
pub(crate) fn fill(client: &mut Client<Subscription>, records: &[Record]) {
    let Some(Subscription { header, at }) = client.subscription() else { return };
    let (header, mut at) = (**header, *at);
    while let Some(record) = records.get(at) {
        if covers(&header.name, &record.name) {
            if client.waiting() + USAGE_BYTES_MAX > STATS_OUTPUT_BYTES_MAX {
                break;
            }
            put_record(client.output(USAGE_BYTES_MAX), &header, record);
        }
        at += 1;
    }
    if let Role::Subscribed(subscription) = &mut client.role {
        subscription.at = at;
    }
}

/// Adds what was measured of one unikernel, whose name is as seen from the path that was subscribed to.
fn put_record(output: &mut Vec<u8>, header: &Header, record: &Record) {
    let sample = &record.sample;
    let interfaces: Vec<Interface<'_>> = sample
        .interfaces
        .iter()
        .filter_map(|(place, counters)| {
            Some(Interface { bridge: record.devices.get(*place)?.as_str().into(), ..*counters })
        })
        .collect();
    let counters = sample.counters.as_ref().map(|counters| {
        counters.iter().map(|(name, value)| Counter { name: name.as_str().into(), value: *value }).collect::<Vec<_>>()
    });
    let usage = Usage {
        rusage: sample.rusage,
        interfaces: List::Items(&interfaces),
        counters: counters.as_deref().map(List::Items),
        memory: sample.memory,
    };
    let header = Header::new(header.sequence, record.name.relative_to(&header.name.path()));
    let mut buffer = [0; USAGE_BYTES_MAX];
    // The bound is that of as many interfaces as can be added.
    if let Ok(frame) = encode_frame(&Message { header, payload: Payload::Data(Data::Stats(usage)) }, &mut buffer) {
        output.extend_from_slice(frame);
    }
}
