//! InfluxDB's line protocol: the measurements, tags and fields are those of the peer, so what reads its reports reads ours.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use fulmar_core::name::Name;
use fulmar_core::wire::{Interface, Memory, Moment, Rusage, Usage};

/// What differs between two places that are reported to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    /// Whether the tag `vm` is the whole name, and not its label alone.
    pub(crate) full_names: bool,
    /// Whether each line says when it was measured.
    pub(crate) with_time: bool,
}

/// Lines of one measurement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lines {
    pub(crate) text: String,
    pub(crate) count: u64,
}

/// The lines of one measurement of one unikernel, each with its end.
pub(crate) fn of(name: &Name, usage: &Usage<'_>, now: SystemTime, form: Form) -> Lines {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let end = if form.with_time { format!(" {}\n", since.as_millis()) } else { "\n".to_owned() };
    let vm = escape(if form.full_names { name.as_str() } else { name.label().unwrap_or_default() });
    let mut lines = Lines { text: String::new(), count: 0 };
    let mut add = |measurement: &str, tags: &str, fields: &str| {
        // Writing to a string does not fail.
        let _ = write!(lines.text, "{measurement},vm={vm}{tags} {fields}{end}");
        lines.count += 1;
    };
    add("resource_usage", "", &resource_usage(&usage.rusage));
    if let Some(memory) = &usage.memory {
        add("kinfo_mem", "", &kinfo_mem(memory, since.as_secs_f64()));
    }
    let counters = usage.counters.iter().flat_map(|counters| counters.iter());
    let counters: Vec<String> =
        counters.map(|it| format!("{}={}i", escape(&String::from_utf8_lossy(it.name.0)), it.value)).collect();
    if !counters.is_empty() {
        add("vmm", "", &counters.join(","));
    }
    for interface in usage.interfaces.iter() {
        let bridge = escape(&String::from_utf8_lossy(interface.bridge.0));
        add("interface", &format!(",bridge={bridge}"), &counts(&interface));
    }
    lines
}

fn seconds(moment: Moment) -> f64 {
    // Exact up to 2^53 seconds.
    moment.seconds as f64 + moment.microseconds as f64 / 1e6
}

fn resource_usage(it: &Rusage) -> String {
    format!(
        "utime={:.6},stime={:.6},maxrss={}i,ixrss={}i,idrss={}i,isrss={}i,minflt={}i,maxflt={}i,nswap={}i,inblock={}i,\
         outblock={}i,msgsnd={}i,msgrcv={}i,nsignals={}i,nvcsw={}i,nivcsw={}i",
        seconds(it.utime),
        seconds(it.stime),
        it.maxrss,
        it.ixrss,
        it.idrss,
        it.isrss,
        it.minflt,
        it.majflt,
        it.nswap,
        it.inblock,
        it.outblock,
        it.msgsnd,
        it.msgrcv,
        it.nsignals,
        it.nvcsw,
        it.nivcsw
    )
}

fn kinfo_mem(it: &Memory, now_s: f64) -> String {
    format!(
        "vsize={}i,rss={}i,tsize={}i,dsize={}i,ssize={}i,cow_faults={}i,runtime={}i,uptime={:.6}",
        it.vsize,
        it.rss,
        it.tsize,
        it.dsize,
        it.ssize,
        it.cow,
        it.runtime,
        // A clock that was set back makes nobody younger than new.
        (now_s - seconds(it.start)).max(0.0)
    )
}

fn counts(it: &Interface<'_>) -> String {
    format!(
        "send_queue_length={}i,max_send_queue_length={}i,send_queue_drops={}i,mtu={}i,baudrate={}i,\
         vm_to_host_packets={}i,vm_to_host_errors={}i,vm_to_host_bytes={}i,vm_to_host_mcast={}i,vm_to_host_dropped={}i,\
         collisions={}i,host_to_vm_packets={}i,host_to_vm_errors={}i,host_to_vm_bytes={}i,host_to_vm_mcast={}i,\
         host_to_vm_dropped={}i",
        it.send_length,
        it.max_send_length,
        it.send_drops,
        it.mtu,
        it.baudrate,
        it.input_packets,
        it.input_errors,
        it.input_bytes,
        it.input_mcast,
        it.input_dropped,
        it.collisions,
        it.output_packets,
        it.output_errors,
        it.output_bytes,
        it.output_mcast,
        it.output_dropped
    )
}

/// A key or the value of a tag: what separates them is escaped, what would end the line is not let through.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            ',' | '=' | ' ' => escaped.extend(['\\', character]),
            // A backslash before what follows the value would escape that.
            '\\' => escaped.push('/'),
            control if control.is_control() => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    // An empty value is no tag.
    if escaped.is_empty() { "-".to_owned() } else { escaped }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fulmar_core::wire::{Counter, List, Text};

    use super::*;

    const PEERS: Form = Form { full_names: false, with_time: false };

    fn recorded() -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/captures/influx-lineprotocol.txt");
        std::fs::read_to_string(path).unwrap()
    }

    /// The line of the peer, its numbers made zero.
    fn shape(line: &str) -> String {
        let mut shape = String::new();
        let (head, fields) = line.rsplit_once(' ').unwrap();
        shape.push_str(head);
        for field in fields.split(',') {
            let (key, value) = field.split_once('=').unwrap();
            let value = if value.ends_with('i') { "0i" } else { "0.000000" };
            shape.push_str(&format!(" {key}={value}"));
        }
        shape
    }

    #[test]
    fn lines_have_the_shape_of_the_peers() {
        let recorded = recorded();
        let wanted: Vec<String> = recorded.lines().filter(|line| line.contains(",vm=n1")).take(3).map(shape).collect();
        let interface = Interface { mtu: 1500, ..interface("service0") };
        let interfaces = [interface];
        let usage = Usage {
            rusage: Rusage::default(),
            interfaces: List::Items(&interfaces),
            counters: None,
            memory: Some(Memory::default()),
        };
        let lines = of(&Name::parse("foo:n1").unwrap(), &usage, UNIX_EPOCH, PEERS);
        assert_eq!(lines.text.lines().map(shape).collect::<Vec<_>>(), wanted);
        assert_eq!(lines.count, 3);
    }

    fn interface(name: &str) -> Interface<'_> {
        Interface {
            bridge: Text(name.as_bytes()),
            flags: 0,
            send_length: 0,
            max_send_length: 0,
            send_drops: 0,
            mtu: 0,
            baudrate: 0,
            input_packets: 0,
            input_errors: 0,
            output_packets: 0,
            output_errors: 0,
            collisions: 0,
            input_bytes: 0,
            output_bytes: 0,
            input_mcast: 0,
            output_mcast: 0,
            input_dropped: 0,
            output_dropped: 0,
        }
    }

    #[test]
    fn numbers_names_and_times() {
        let start = Moment { seconds: 1_000, microseconds: 500_000 };
        let interfaces = [Interface { input_bytes: 42, output_packets: 5, ..interface("a b,c=d\\\n") }];
        let counters = [Counter { name: Text(b"VM exits"), value: 7 }];
        let usage = Usage {
            rusage: Rusage { utime: Moment { seconds: 1, microseconds: 30 }, majflt: 2, ..Rusage::default() },
            interfaces: List::Items(&interfaces),
            counters: Some(List::Items(&counters)),
            memory: Some(Memory { rss: 410, start, ..Memory::default() }),
        };
        let form = Form { full_names: true, with_time: true };
        let now = UNIX_EPOCH + Duration::from_millis(1_002_000);
        let lines = of(&Name::parse("foo:bar:web").unwrap(), &usage, now, form);
        let lines: Vec<&str> = lines.text.lines().collect();
        assert!(lines[0].starts_with("resource_usage,vm=foo:bar:web utime=1.000030,stime=0.000000,maxrss=0i,"));
        assert!(lines[0].contains(",maxflt=2i,") && lines[0].ends_with(",nivcsw=0i 1002000"));
        assert!(
            lines[1].ends_with(",rss=410i,tsize=0i,dsize=0i,ssize=0i,cow_faults=0i,runtime=0i,uptime=1.500000 1002000")
        );
        assert_eq!(lines[2], "vmm,vm=foo:bar:web VM\\ exits=7i 1002000");
        assert!(lines[3].starts_with("interface,vm=foo:bar:web,bridge=a\\ b\\,c\\=d/? send_queue_length=0i,"));
        assert!(lines[3].contains(",vm_to_host_bytes=42i,") && lines[3].contains(",host_to_vm_packets=5i,"));
        assert_eq!(lines.len(), 4);
        // A clock that was set back.
        let early = of(&Name::parse("web").unwrap(), &usage, UNIX_EPOCH, PEERS);
        assert!(early.text.lines().nth(1).unwrap().ends_with("uptime=0.000000"));
    }
}
