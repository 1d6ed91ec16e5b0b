//! Replies as JSON. Field names are a promise to scripts: they are added to, never changed (`docs/vmmc_local.md`).

use fulmar_core::limits::WIRE_INT_MAX;
use fulmar_core::name::Name;
use fulmar_core::solo5::ImageFacts;
use fulmar_core::wire::{
    BlockInfo, Condition, Event, ExitStatus, FailBehaviour, GapCause, HostInfo, Info, Kind, LastRun, Next, Note,
    Numbered, Policy, RunEnd, Text, Usage,
};
use serde_json::{Map, Value, json};

use super::text::{hex, mac, timestamp};

/// A unikernel; how it fares, where the daemon tells that.
#[must_use]
pub fn unikernel(name: &Name, info: &Info<'_>, condition: Option<&Condition<'_>>) -> Value {
    json!({
        "name": name.as_str(),
        "type": kind(info.kind),
        "started": info.started.map(timestamp),
        "condition": condition.map(self::condition),
        "startup": info.startup,
        "restart": restart(&info.fail_behaviour),
        "cpus": info.cpuids.iter().collect::<Vec<_>>(),
        "memory_mb": info.memory,
        "digest": hex(info.digest),
        "networks": info.bridges.iter().map(|net| json!({
            "device": lossy(net.device), "bridge": lossy(net.host), "mac": mac(&net.mac),
        })).collect::<Vec<_>>(),
        "blocks": info.block_devices.iter().map(|block| json!({
            "device": lossy(block.device), "host_device": lossy(block.host),
            "sector_bytes": block.sector_size, "size_mb": block.size,
        })).collect::<Vec<_>>(),
        "arguments": info.argv.map(|argv| argv.iter().map(lossy).collect::<Vec<_>>()),
    })
}

/// How a unikernel fares.
fn condition(condition: &Condition<'_>) -> Value {
    let last = condition.last.map(|LastRun { ended_unix_ms, end }| {
        let (code, signal) = match end {
            RunEnd::Code(code) => (Some(code), None),
            RunEnd::Signal(signal) => (None, Some(signal)),
            RunEnd::OutOfMemory | RunEnd::Unknown | RunEnd::Stopped => (None, None),
        };
        json!({ "ended": timestamp(ended_unix_ms), "how": end.to_string(), "code": code, "signal": signal })
    });
    json!({
        "phase": condition.phase.as_str(),
        "restarts": condition.restarts,
        "failures": condition.failures,
        "last_run": last,
        "next_try": condition.next_unix_ms.map(timestamp),
        "reason": condition.reason.map(lossy),
    })
}

/// An event of the log.
#[must_use]
pub fn event(numbered: &Numbered<'_>) -> Value {
    let Numbered { sequence, entry } = numbered;
    let event = &entry.event;
    let (kind, pid, user, code, signal) = match *event {
        Event::Startup | Event::Daemon { up: true, .. } => ("daemon started", None, None, None, None),
        Event::Daemon { up: false, .. } => ("daemon ended", None, None, None, None),
        Event::Hup => ("hup", None, None, None, None),
        Event::Login(_) => ("login", None, None, None, None),
        Event::Logout(_) => ("logout", None, None, None, None),
        Event::Proof { .. } => ("certificates", None, None, None, None),
        Event::Revoked { .. } => ("revoked", None, None, None, None),
        Event::Start { pid, .. } => ("start", Some(pid), None, None, None),
        Event::Stop { pid, status: ExitStatus::Exit(code), .. } => ("end", Some(pid), None, Some(code), None),
        Event::Stop { pid, status: ExitStatus::Signal(signal) | ExitStatus::Stop(signal), .. } => {
            ("end", Some(pid), None, None, Some(signal))
        }
        Event::Ended { pid, end, .. } => {
            let pid = Some(pid).filter(|pid| *pid != 0);
            match end {
                RunEnd::Code(code) => ("end", pid, None, Some(code), None),
                RunEnd::Signal(signal) => ("end", pid, None, None, Some(signal)),
                RunEnd::OutOfMemory | RunEnd::Unknown | RunEnd::Stopped => ("end", pid, None, None, None),
            }
        }
        Event::Done { deed, user, .. } => (deed.as_str(), None, user, None, None),
        Event::Refused { user, .. } => ("refused", None, user, None, None),
        Event::Decided { next, .. } => {
            let kind = match next {
                Next::Rest { .. } => "rests",
                Next::Again { .. } => "starts again",
                Next::Never => "is over",
                Next::Stays => "does not run",
            };
            (kind, None, None, None, None)
        }
        Event::Trouble { .. } => ("trouble", None, None, None, None),
        Event::Lost { .. } => ("lost", None, None, None, None),
    };
    json!({
        "number": sequence,
        "time": timestamp(entry.unix_ms),
        "event": kind,
        "name": event.name().map(Name::as_str),
        "pid": pid,
        "user": user,
        "code": code,
        "signal": signal,
        "text": event.to_string(),
    })
}

/// What the log says between events; nothing where that is for nobody.
#[must_use]
pub fn note(note: Note) -> Option<Value> {
    match note {
        Note::Gap { first, next, cause } => {
            let cause = match cause {
                GapCause::Removed => "removed",
                GapCause::Damaged => "damaged",
            };
            Some(json!({ "gap": { "first": first, "next": next, "cause": cause } }))
        }
        Note::Lost { count } => Some(json!({ "lost": count })),
        Note::End { last } => Some(json!({ "end": last })),
        Note::Slow => None,
    }
}

/// A block device.
#[must_use]
pub fn block(block: &BlockInfo) -> Value {
    json!({ "name": block.name.as_str(), "size_mb": block.size, "active": block.active })
}

/// A policy. `unikernels` is null where there is no limit, `block_mb` where block devices are not allowed.
#[must_use]
pub fn policy(path: &Name, policy: &Policy<'_>) -> Value {
    json!({
        "path": path.as_str(),
        "unikernels": (policy.unikernels < WIRE_INT_MAX).then_some(policy.unikernels),
        "cpus": policy.cpuids.iter().collect::<Vec<_>>(),
        "memory_mb": policy.memory,
        "block_mb": policy.block,
        "bridges": policy.bridges.iter().collect::<Vec<_>>(),
    })
}

/// The host: each use by its name, each fact by its own.
#[must_use]
pub fn host(host: &HostInfo<'_>) -> Value {
    let uses = host.uses.iter().map(|it| (lossy(it.what), json!({ "used": it.used, "limit": it.limit })));
    let facts = host.facts.iter().map(|fact| (lossy(fact.what), json!(lossy(fact.how))));
    json!({
        "version": lossy(host.version),
        "cpus": host.cpuids.iter().collect::<Vec<_>>(),
        "bridges": host.bridges.iter().collect::<Vec<_>>(),
        "uses": uses.collect::<Map<_, _>>(),
        "facts": facts.collect::<Map<_, _>>(),
    })
}

/// What an image says about itself.
#[must_use]
pub fn image(file: &str, bytes: u64, facts: &ImageFacts) -> Value {
    json!({
        "file": file,
        "bytes": bytes,
        "target": facts.abi.target.name(),
        "abi_version": facts.abi.version,
        "runnable": facts.check_runnable().is_ok(),
        "entry": facts.entry,
        "memory_end": facts.memory_end,
        "memory_mb_min": crate::commands::inspect::memory_mib_min(facts),
        "devices": facts.manifest.devices().iter().map(|device| json!({
            "name": device.name.as_str(), "kind": device.kind.name(),
        })).collect::<Vec<_>>(),
        "remark": facts.section_fault.map(|fault| fault.to_string()),
    })
}

/// A line of a console.
#[must_use]
pub fn line(unix_ms: i64, line: Text<'_>) -> Value {
    json!({ "time": timestamp(unix_ms), "line": lossy(line) })
}

/// What was measured of a unikernel, and how much of a CPU it has used since the measurement before.
#[must_use]
pub fn usage(name: &Name, usage: &Usage<'_>, cpu_percent: Option<f64>) -> Value {
    let Usage { rusage, interfaces, counters, memory } = usage;
    let counters = counters.iter().flat_map(|counters| counters.iter());
    json!({
        "name": name.as_str(),
        "cpu_seconds": crate::commands::stats::cpu_seconds(rusage),
        "cpu_percent": cpu_percent,
        "memory_bytes": memory.map(|memory| crate::commands::stats::bytes_of_pages(memory.rss)),
        "virtual_bytes": memory.map(|memory| memory.vsize),
        "started": memory.map(|memory| crate::commands::stats::started(&memory)).map(timestamp),
        "page_faults": { "minor": rusage.minflt, "major": rusage.majflt },
        "context_switches": { "voluntary": rusage.nvcsw, "involuntary": rusage.nivcsw },
        "networks": interfaces.iter().map(|it| json!({
            "device": lossy(it.bridge),
            "sent": { "packets": it.input_packets, "bytes": it.input_bytes, "errors": it.input_errors,
                      "dropped": it.input_dropped },
            "received": { "packets": it.output_packets, "bytes": it.output_bytes, "errors": it.output_errors,
                          "dropped": it.output_dropped },
        })).collect::<Vec<_>>(),
        "hypervisor": counters.map(|counter| (lossy(counter.name), json!(counter.value))).collect::<Map<_, _>>(),
    })
}

/// What was done to something.
#[must_use]
pub fn done(name: &Name, result: &str) -> Value {
    json!({ "name": name.as_str(), "result": result })
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Solo5 => "solo5",
        Kind::Bhyve => "bhyve",
    }
}

/// `false`: never. `true`: after any failure. A list: after these exit codes.
fn restart(behaviour: &FailBehaviour<'_>) -> Value {
    match behaviour {
        FailBehaviour::Quit => Value::Bool(false),
        FailBehaviour::Restart(codes) if codes.is_empty() => Value::Bool(true),
        FailBehaviour::Restart(codes) => json!(codes.iter().collect::<Vec<_>>()),
    }
}

fn lossy(text: Text<'_>) -> String {
    String::from_utf8_lossy(text.0).into_owned()
}
