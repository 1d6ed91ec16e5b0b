//! What is known, as OpenMetrics. Names, units and labels are promised: `docs/metrics.md` lists them, and a test compares.

use std::fmt;
use std::sync::Arc;

use fulmar_core::wire::RunEnd;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::queue::Queue;
use crate::snapshot::{Domain, Interface, Measured, Shared, Snapshot, Unikernel};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// What the endpoint answers.
pub(crate) fn exposition(shared: &Arc<Shared>, queues: &[Arc<Queue>]) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Reporter { shared: Arc::clone(shared), queues: queues.to_vec() }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Reporter {
    shared: Arc<Shared>,
    queues: Vec<Arc<Queue>>,
}

impl Collector for Reporter {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let snapshot = self.shared.lock();
        unikernels(&mut page, &snapshot)?;
        measurements(&mut page, &snapshot)?;
        domains(&mut page, &snapshot)?;
        host(&mut page, &snapshot)?;
        drop(snapshot);
        self.itself(&mut page)
    }
}

/// Where metrics are written, one family after the other.
struct Page<'e>(DescriptorEncoder<'e>);

/// One metric with labels.
struct Row<L, V>(L, V);

impl Page<'_> {
    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = Row<L, f64>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        each(&mut family, rows, |metric, value| metric.encode_gauge(&value))
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = Row<L, f64>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        each(&mut family, rows, |metric, value| metric.encode_counter::<[(&str, &str); 0], f64, f64>(&value, None))
    }
}

fn each<L: EncodeLabelSet>(
    family: &mut MetricEncoder<'_>,
    rows: impl IntoIterator<Item = Row<L, f64>>,
    write: impl Fn(&mut MetricEncoder<'_>, f64) -> fmt::Result,
) -> fmt::Result {
    for Row(labels, value) in rows {
        write(&mut family.encode_family(&labels)?, value)?;
    }
    Ok(())
}

/// Counts up to 2^53 are exact, as the format's readers have them.
fn number(count: u64) -> f64 {
    count as f64
}

fn unikernels(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let rows = |value: fn(&Unikernel) -> f64| {
        let each = snapshot.survey.unikernels.iter();
        each.map(move |(name, unikernel)| Row([("unikernel", name.as_str())], value(unikernel)))
    };
    page.gauges("fulmar_unikernel_up", "Whether it runs", None, rows(|it| f64::from(u8::from(it.is_running))))?;
    page.counters(
        "fulmar_unikernel_restarts",
        "How often it was started again since vmmd started",
        None,
        rows(|it| number(it.restarts)),
    )?;
    page.gauges(
        "fulmar_unikernel_memory_limit",
        "Memory that it was given",
        Some(&Unit::Bytes),
        rows(|it| number(it.memory_mb * MIB)),
    )?;
    page.gauges(
        "fulmar_unikernel_block_size",
        "Size of its block devices together",
        Some(&Unit::Bytes),
        rows(|it| number(it.block_mb * MIB)),
    )?;
    let ended = snapshot.survey.unikernels.iter().filter_map(|(name, unikernel)| {
        let (how, code) = match unikernel.last? {
            RunEnd::Code(code) => ("exit", code),
            RunEnd::Signal(signal) => ("signal", signal),
            RunEnd::OutOfMemory => ("out-of-memory", 0),
            RunEnd::Unknown => ("unknown", 0),
            RunEnd::Stopped => ("stopped", 0),
        };
        Some(Row([("unikernel", name.as_str()), ("how", how)], code as f64))
    });
    page.gauges("fulmar_unikernel_last_exit", "Exit code or signal of its last run that has ended", None, ended)
}

fn measurements(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = || snapshot.measured.iter();
    page.counters(
        "fulmar_unikernel_cpu",
        "CPU time of its process",
        Some(&Unit::Seconds),
        all().map(|(name, it)| Row([("unikernel", name.as_str())], number(it.cpu_us) / 1e6)),
    )?;
    page.gauges(
        "fulmar_unikernel_resident",
        "Memory of its process that is resident",
        Some(&Unit::Bytes),
        all().filter_map(|(name, it)| Some(Row([("unikernel", name.as_str())], number(it.resident_bytes?)))),
    )?;
    let interfaces = |value: fn(&Interface) -> u64| {
        let of_one = move |(name, it): (&'_ fulmar_core::name::Name, &'_ Measured)| {
            let name = name.as_str().to_owned();
            let rows = it.interfaces.iter().map(move |interface| {
                let labels = [("unikernel", name.clone()), ("interface", interface.name.clone())];
                Row(labels, number(value(interface)))
            });
            rows.collect::<Vec<_>>()
        };
        all().flat_map(of_one)
    };
    let bytes = Some(&Unit::Bytes);
    page.counters("fulmar_unikernel_received", "Bytes that it received", bytes, interfaces(|it| it.received.bytes))?;
    page.counters("fulmar_unikernel_sent", "Bytes that it sent", bytes, interfaces(|it| it.sent.bytes))?;
    let storage = |value: fn(&Measured) -> Option<u64>| {
        all().filter_map(move |(name, it)| Some(Row([("unikernel", name.as_str())], number(value(it)?))))
    };
    page.counters("fulmar_unikernel_block_read", "Bytes read from storage", bytes, storage(|it| it.block_read))?;
    page.counters("fulmar_unikernel_block_written", "Bytes written to storage", bytes, storage(|it| it.block_written))?;
    page.counters("fulmar_unikernel_received_packets", "Frames", None, interfaces(|it| it.received.packets))?;
    page.counters("fulmar_unikernel_sent_packets", "Frames", None, interfaces(|it| it.sent.packets))?;
    page.counters("fulmar_unikernel_received_dropped", "Frames lost", None, interfaces(|it| it.received.dropped))?;
    page.counters("fulmar_unikernel_sent_dropped", "Frames lost", None, interfaces(|it| it.sent.dropped))
}

fn domains(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let rows = |value: fn(&Domain) -> u64| {
        snapshot.survey.domains.iter().map(move |(path, it)| Row([("path", path.as_str())], number(value(it))))
    };
    let bytes = Some(&Unit::Bytes);
    page.gauges("fulmar_domain_unikernels", "Unikernels of a path", None, rows(|it| it.unikernels))?;
    page.gauges("fulmar_domain_unikernels_limit", "How many may be", None, rows(|it| it.allowed.unikernels))?;
    page.gauges("fulmar_domain_memory", "Memory of a path", bytes, rows(|it| it.memory_mb * MIB))?;
    page.gauges("fulmar_domain_memory_limit", "How much may be", bytes, rows(|it| it.allowed.memory_mb * MIB))?;
    page.gauges("fulmar_domain_block", "Block storage of a path", bytes, rows(|it| it.block_mb * MIB))?;
    page.gauges("fulmar_domain_block_limit", "How much may be", bytes, rows(|it| it.allowed.block_mb * MIB))?;
    page.gauges("fulmar_domain_cpus_limit", "CPUs that a path may use", None, rows(|it| it.allowed.cpus))
}

fn host(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let survey = &snapshot.survey;
    let uses = || survey.uses.iter();
    let used = uses().map(|it| Row([("what", it.what.as_str())], number(it.used)));
    page.gauges("fulmar_host_used", "Of what the host has only so much of", None, used)?;
    let limit = uses().map(|it| Row([("what", it.what.as_str())], number(it.limit)));
    page.gauges("fulmar_host_limit", "How much of it may be used", None, limit)?;
    let up = survey.daemons.iter().filter(|(daemon, _)| !daemon.is_empty());
    let up = up.map(|(daemon, up)| Row([("daemon", *daemon)], f64::from(u8::from(*up))));
    page.gauges("fulmar_daemon_up", "Whether a daemon could be reached", None, up)?;
    let version = (!survey.version.is_empty()).then_some(Row([("version", survey.version.as_str())], 1.0));
    page.gauges("fulmar_vmmd_version", "1, with the version of vmmd", None, version)
}

impl Reporter {
    /// How the reporter itself fares.
    fn itself(&self, page: &mut Page<'_>) -> fmt::Result {
        let one = |count: u64| [Row([("", ""); 0], number(count))];
        page.counters(
            "fulmar_influx_measurements",
            "Measurements that came from vmmd_stats",
            None,
            one(self.shared.measurements()),
        )?;
        page.counters(
            "fulmar_influx_disconnections",
            "How often vmmd_stats was lost or not found",
            None,
            one(self.shared.disconnections()),
        )?;
        let rows = |value: fn((u64, u64, bool)) -> u64| {
            self.queues.iter().map(move |queue| Row([("to", queue.place())], number(value(queue.fate()))))
        };
        page.counters("fulmar_influx_lines_sent", "Lines that were sent", None, rows(|fate| fate.0))?;
        page.counters("fulmar_influx_lines_dropped", "Lines that were given up", None, rows(|fate| fate.1))?;
        page.gauges(
            "fulmar_influx_connected",
            "Whether the last attempt went well",
            None,
            rows(|fate| u64::from(fate.2)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fulmar_core::name::Name;

    use super::*;
    use crate::line::{Form, Lines};
    use crate::snapshot::{Allowed, Survey, Traffic, Use};

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn filled() -> Arc<Shared> {
        let shared = Shared::default();
        let allowed = Allowed { unikernels: 3, memory_mb: 64, block_mb: 7, cpus: 2 };
        let domain = Domain { unikernels: 1, memory_mb: 16, block_mb: 5, allowed };
        let web = Unikernel { is_running: true, restarts: 2, last: Some(RunEnd::Code(3)), memory_mb: 16, block_mb: 5 };
        let sent = Traffic { bytes: 42, packets: 1, dropped: 0 };
        let received = Traffic { bytes: 486, packets: 5, dropped: 1 };
        // A name that the format would have to escape.
        let interfaces = vec![Interface { name: "a\"b\\c\nd".into(), received, sent }];
        let measured = Measured {
            cpu_us: 1_500_000,
            resident_bytes: Some(4096),
            interfaces,
            block_read: Some(1024),
            block_written: Some(2048),
        };
        {
            let mut snapshot = shared.lock();
            snapshot.measured.insert(name("foo:web"), measured);
            snapshot.survey = Survey {
                version: "1.2.3".into(),
                unikernels: [(name("foo:web"), web)].into(),
                domains: [(name("foo:"), domain)].into(),
                uses: vec![Use { what: "taps".into(), used: 1, limit: 9 }],
                daemons: [("vmmd", true), ("vmmd_console", true), ("vmmd_stats", true), ("vmmd_log", false)],
            };
        }
        shared.count_measurement();
        Arc::new(shared)
    }

    #[test]
    fn what_is_known_is_told() {
        let queue = Arc::new(Queue::new("tcp", Form { full_names: true, with_time: false }));
        queue.push(Lines { text: "x\n".into(), count: 4 });
        queue.note_sent(4);
        let text = exposition(&filled(), &[queue]).unwrap();
        for line in [
            "fulmar_unikernel_up{unikernel=\"foo:web\"} 1.0",
            "fulmar_unikernel_restarts_total{unikernel=\"foo:web\"} 2.0",
            "fulmar_unikernel_last_exit{unikernel=\"foo:web\",how=\"exit\"} 3.0",
            "fulmar_unikernel_memory_limit_bytes{unikernel=\"foo:web\"} 16777216.0",
            "fulmar_unikernel_cpu_seconds_total{unikernel=\"foo:web\"} 1.5",
            "fulmar_unikernel_resident_bytes{unikernel=\"foo:web\"} 4096.0",
            "fulmar_unikernel_received_bytes_total{unikernel=\"foo:web\",interface=\"a\\\"b\\\\c\\nd\"} 486.0",
            "fulmar_domain_memory_limit_bytes{path=\"foo:\"} 67108864.0",
            "fulmar_domain_unikernels{path=\"foo:\"} 1.0",
            "fulmar_host_limit{what=\"taps\"} 9.0",
            "fulmar_daemon_up{daemon=\"vmmd_log\"} 0.0",
            "fulmar_vmmd_version{version=\"1.2.3\"} 1.0",
            "fulmar_influx_measurements_total 1.0",
            "fulmar_influx_lines_sent_total{to=\"tcp\"} 4.0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    /// Who reads these names in a dashboard relies on them.
    #[test]
    fn the_names_are_those_of_the_documentation() {
        let queue = Arc::new(Queue::new("tcp", Form { full_names: true, with_time: false }));
        let text = exposition(&filled(), &[queue]).unwrap();
        let told: BTreeSet<String> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (metric, _) = line.rsplit_once(' ').unwrap();
                let (metric, labels) = metric.split_once('{').unwrap_or((metric, ""));
                let keys = labels.split("=\"").filter_map(|part| part.rsplit([',', '}']).next());
                let keys: Vec<&str> = keys.map(|key| key.trim_end_matches('"')).filter(|key| !key.is_empty()).collect();
                format!("| `{metric}` | {} |", keys.join(", "))
            })
            .collect();
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| `fulmar_"));
        let promised: BTreeSet<String> = rows
            .map(|row| {
                let cells: Vec<&str> = row.split(" | ").collect();
                format!("{} | {} |", cells[0], cells[1].replace('`', ""))
            })
            .collect();
        assert_eq!(told, promised);
    }
}
