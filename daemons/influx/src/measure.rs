//! Measurements as they come from `vmmd_stats`: into the queues as lines, into the snapshot as the last ones.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::SystemTime;

use fulmar_core::wire::{Command, Data, Moment, Payload, StatsCommand, Usage};
use fulmar_host::meter::{BLOCK_READ, BLOCK_WRITTEN};
use fulmar_host::{info, warning};
use nix::unistd::{SysconfVar, sysconf};

use crate::daemon::{Conversation, DaemonError, RETRY};
use crate::line;
use crate::queue::Queue;
use crate::snapshot::{Interface, Measured, Shared, Traffic};

/// Receives for ever; a daemon that is not there is tried again.
pub(crate) fn receive(run: &Path, shared: &Shared, queues: &[Arc<Queue>]) {
    let socket = run.join("util/stat.sock");
    let mut said = String::new();
    loop {
        let Err(error) = subscribe(&socket, shared, queues);
        shared.count_disconnection();
        // What was measured before is not so any more.
        shared.lock().measured.clear();
        let text = format!("vmmd_stats ({}): {error}, tried again every {} s", socket.display(), RETRY.as_secs());
        if text != said {
            warning!("{text}");
            said = text;
        }
        sleep(RETRY);
    }
}

fn subscribe(socket: &Path, shared: &Shared, queues: &[Arc<Queue>]) -> Result<std::convert::Infallible, DaemonError> {
    let mut conversation = Conversation::begin(socket, Command::Stats(StatsCommand::Subscribe))?;
    conversation.reply()?;
    conversation.be_patient()?;
    info!("vmmd_stats is here");
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok());
    loop {
        let message = conversation.receive()?;
        let Payload::Data(Data::Stats(usage)) = message.payload else { return Err(DaemonError::Unexpected) };
        let name = message.header.name;
        let now = SystemTime::now();
        for queue in queues {
            queue.push(line::of(&name, &usage, now, queue.form()));
        }
        shared.count_measurement();
        let measured = measured(&usage, page_bytes);
        shared.lock().measured.insert(name, measured);
    }
}

fn measured(usage: &Usage<'_>, page_bytes: Option<u64>) -> Measured {
    let us = |moment: Moment| count(moment.seconds) * 1_000_000 + count(moment.microseconds);
    let interfaces = usage.interfaces.iter().map(|it| Interface {
        name: String::from_utf8_lossy(it.bridge.0).into_owned(),
        // What the host gets the unikernel has sent.
        sent: Traffic {
            bytes: count(it.input_bytes),
            packets: count(it.input_packets),
            dropped: count(it.input_dropped),
        },
        received: Traffic {
            bytes: count(it.output_bytes),
            packets: count(it.output_packets),
            dropped: count(it.output_dropped),
        },
    });
    let counters = || usage.counters.iter().flat_map(|counters| counters.iter());
    let counter = |name: &str| counters().find(|it| it.name.0 == name.as_bytes()).map(|it| count(it.value));
    Measured {
        cpu_us: us(usage.rusage.utime) + us(usage.rusage.stime),
        resident_bytes: usage.memory.and_then(|memory| count(memory.rss).checked_mul(page_bytes?)),
        interfaces: interfaces.collect(),
        block_read: counter(BLOCK_READ),
        block_written: counter(BLOCK_WRITTEN),
    }
}

/// Nothing is counted below zero.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
