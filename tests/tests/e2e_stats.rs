//! What unikernels use, measured while they and the daemons die and come back: each number is that of the unikernel whose name it
//! has, and nobody waits for the statistics daemon.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Instant;

use fulmar_core::wire::{self, Command, Data, Frame, Payload, StatsCommand};
use fulmar_tests::bridge::with_bridge;
use fulmar_tests::raw::{Answer, Raw};
use fulmar_tests::siege::{Siege, control_half, expect_gone, kill_9, pid_of};
use fulmar_tests::system::wait_until;
use fulmar_tests::{contents, images};
use nix::sys::signal::{Signal, kill};

/// Measurements in quick succession.
const QUICK: [&str; 2] = ["--interval", "0.1"];

/// What a test looks at of a measurement.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Measured {
    cpu_us: i64,
    runtime_us: i64,
    start: (i64, i64),
    resident_pages: i64,
    /// Packets and bytes that each interface has sent, and received.
    interfaces: BTreeMap<String, [i64; 4]>,
    /// Bytes read from storage, and written.
    storage: Option<[i64; 2]>,
}

/// Somebody who hears of everything, or of what is below a path.
struct Subscriber(Raw);

impl Subscriber {
    fn new(siege: &Siege, path: &str) -> Self {
        let mut client = Raw::connect(&siege.system.socket("stat.sock"));
        let answer = client.ask(path, Command::Stats(StatsCommand::Subscribe));
        assert_eq!(answer, Answer::Done("subscribed".into()));
        Self(client)
    }

    fn next(&mut self) -> (String, Measured) {
        let bytes = self.0.receive_bytes().expect("the statistics daemon is gone");
        let message = wire::decode(Frame::whole(&bytes)).unwrap();
        let Payload::Data(Data::Stats(usage)) = message.payload else { panic!("{message:?}") };
        let us = |moment: wire::Moment| moment.seconds * 1_000_000 + moment.microseconds;
        let memory = usage.memory.unwrap();
        let interfaces = usage.interfaces.iter().map(|it| {
            let counters = [it.input_packets, it.input_bytes, it.output_packets, it.output_bytes];
            (String::from_utf8(it.bridge.0.to_vec()).unwrap(), counters)
        });
        let counters = || usage.counters.iter().flat_map(|counters| counters.iter());
        let counter = |name: &str| counters().find(|it| it.name.0 == name.as_bytes()).map(|it| it.value);
        let measured = Measured {
            cpu_us: us(usage.rusage.utime) + us(usage.rusage.stime),
            runtime_us: memory.runtime,
            start: (memory.start.seconds, memory.start.microseconds),
            resident_pages: memory.rss,
            interfaces: interfaces.collect(),
            storage: counter("block_read_bytes").zip(counter("block_written_bytes")).map(<[i64; 2]>::from),
        };
        let blocks = measured.storage.unwrap_or_default().map(|bytes| bytes / 512);
        assert_eq!([usage.rusage.inblock, usage.rusage.outblock], blocks, "{usage:?}");
        (message.header.name.to_string(), measured)
    }

    /// The next measurement of this unikernel.
    fn next_of(&mut self, name: &str) -> Measured {
        let mut found = None;
        let others = (0..100_000).any(|_| {
            let (heard, measured) = self.next();
            found = (heard == name).then_some(measured);
            found.is_some()
        });
        assert!(others, "nothing is heard of {name}");
        found.unwrap()
    }

    /// The next measurement of this unikernel with which this holds.
    fn expect(&mut self, name: &str, holds: impl Fn(&Measured) -> bool) -> Measured {
        let mut last = None;
        let found = wait_until(|| {
            let measured = self.next_of(name);
            let holds = holds(&measured);
            last = Some(measured);
            holds
        });
        assert!(found, "{name}: {last:?}");
        last.unwrap()
    }

    /// Nothing is heard of this unikernel any more. Another one is, for as long as that.
    fn expect_silence(&mut self, name: &str, other: &str) {
        let mut since = 0;
        assert!(wait_until(|| {
            let (heard, _) = self.next();
            since = if heard == name { 0 } else { since + usize::from(heard == other) };
            since > 10
        }));
    }
}

fn begin(test: &str) -> Option<Siege> {
    let mut siege = Siege::begin(test)?;
    siege.system.start_stats(&QUICK.map(OsStr::new)).unwrap();
    siege.expect_log("vmmd_stats", "vmmd is here");
    Some(siege)
}

fn create(siege: &Siege, name: &str, image: &str, more: &[&str]) {
    let said = siege.client(&[&["create", name, &siege.image(image), "--mem", "16"], more].concat());
    assert_eq!(said.code, 0, "{said:?}\n{}", siege.system.log("vmmd"));
}

fn end(siege: Siege) {
    for name in siege.names() {
        assert_eq!(siege.client(&["destroy", &name]).code, 0);
    }
    siege.expect_service();
    siege.system.stop().unwrap();
}

/// The CPU time of a process, as the kernel counts it for others.
fn cpu_us(pid: u32) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<i64>().unwrap() * 10_000).sum()
}

/// Bytes that this thread has written to storage.
fn written_bytes() -> i64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

#[test]
fn what_is_written_to_a_disk_is_counted_for_who_writes_it() {
    const TEST: &str = "what_is_written_to_a_disk_is_counted_for_who_writes_it";
    let Some(mut siege) = begin(TEST) else { return };
    let before = written_bytes();
    let image = siege.system.folder().join("filling.spt");
    std::fs::write(&image, images::filling()).unwrap();
    let is_storage = written_bytes() > before;
    let image = image.to_string_lossy().into_owned();
    create(&siege, "other", "hello", &["--arg=--silent"]);
    assert_eq!(siege.client(&["add-block", "tenant:data", "1"]).code, 0);
    let disk = ["create", "tenant:disk", &image, "--mem", "16", "--block=storage:data"];
    assert_eq!(siege.client(&disk).code, 0);
    let mut client = Subscriber::new(&siege, ":");
    if siege.system.log("vmmd").contains("what unikernels read and write is not measured") {
        // Nothing is said where nothing is known.
        assert_eq!(client.next_of("tenant:disk").storage, None);
        fulmar_tests::skips::skip(TEST, "the kernel's taskstats cannot be asked");
        return end(siege);
    }
    if !is_storage {
        fulmar_tests::skips::skip(TEST, "the folder of the tests is in memory: nothing is written to storage");
    }
    let written = |it: &Measured| it.storage.map(|[_, written]| written);
    // The kernel counts a little more than a guest writes: its tender's record of the start, and what the filesystem keeps of a file.
    let filled = i64::try_from(images::FILLED_BYTES).unwrap();
    let once = if is_storage { filled..2 * filled } else { 0..1 };
    let is_once = |it: &Measured| written(it).is_some_and(|bytes| once.contains(&bytes));
    let before = client.expect("tenant:disk", is_once);
    let other = client.expect(":other", |it| it.storage.is_some());
    assert!(written(&other) < Some(filled), "{other:?}");
    // It goes on across an upgrade, and what is said then is not what was written before.
    kill_9(siege.vmmd);
    std::fs::remove_file(siege.system.run().join("block-traffic")).unwrap();
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    siege.expect_log("vmmd_stats", "vmmd is here");
    let adopted = client.expect("tenant:disk", is_once);
    assert!(written(&adopted) >= written(&before), "{before:?} {adopted:?}");
    // Another process begins at nothing. What is on the disk already is counted when it is written once more.
    for file in contents::files(&siege) {
        std::fs::File::open(contents::folder(&siege).join(file)).unwrap().sync_all().unwrap();
    }
    let said = siege.client(&["restart", "tenant:disk"]);
    assert_eq!(said.code, 0, "{said:?}\n{}", siege.system.log("vmmd"));
    client.expect("tenant:disk", |it| it.start != before.start && is_once(it));
    // And stays so for longer than `vmmd` takes to look again.
    for _ in 0..50 {
        let later = client.next_of("tenant:disk");
        assert!(is_once(&later), "{before:?} {later:?}");
    }
    for name in ["tenant:disk", "other"] {
        assert_eq!(siege.client(&["destroy", name]).code, 0);
    }
    assert_eq!(siege.client(&["remove-block", "tenant:data"]).code, 0);
    end(siege);
}

#[test]
fn time_is_counted_for_who_uses_it() {
    let Some(mut siege) = begin("time_is_counted_for_who_uses_it") else { return };
    create(&siege, "busy", "spin", &[]);
    create(&siege, "tenant:idle", "hello", &["--arg=--silent"]);
    let mut client = Subscriber::new(&siege, ":");
    let first = client.next_of(":busy");
    let grown = client.expect(":busy", |now| now.cpu_us >= first.cpu_us + 500_000);
    assert_eq!((grown.start, grown.cpu_us), (first.start, grown.runtime_us));
    let idle = client.next_of("tenant:idle");
    assert!(idle.cpu_us < 200_000 && idle.resident_pages > 0 && idle.interfaces.is_empty(), "{idle:?}");
    // What is said is what the kernel says of that process, no more and no less.
    let [busy] = siege.running()[":busy"].as_slice().try_into().unwrap();
    let before = cpu_us(busy);
    let said = client.expect(":busy", |now| now.cpu_us > before);
    assert!(said.cpu_us <= cpu_us(busy), "{said:?}");

    // Started anew it is another process, whose time begins again.
    let before = Instant::now();
    assert_eq!(siege.client(&["restart", "busy"]).code, 0);
    let again = client.expect(":busy", |now| now.start != first.start);
    assert!(again.cpu_us <= before.elapsed().as_micros().try_into().unwrap(), "{again:?} after {said:?}");
    assert!(again.start > first.start);
    // Killed, it is gone; a new one of its name is somebody else.
    kill_9(siege.running()[":busy"][0]);
    client.expect_silence(":busy", "tenant:idle");
    create(&siege, "busy", "spin", &[]);
    client.expect(":busy", |now| now.start > again.start);
    assert_eq!(siege.client(&["destroy", "busy"]).code, 0);
    client.expect_silence(":busy", "tenant:idle");

    // A tenant hears of its own.
    let mut tenant = Subscriber::new(&siege, "tenant:");
    create(&siege, "busy", "spin", &[]);
    client.next_of(":busy");
    for _ in 0..10 {
        assert_eq!(tenant.next().0, ":idle");
    }
    siege.system.end("vmmd_stats", Signal::SIGTERM).unwrap();
    end(siege);
}

#[test]
fn daemons_that_die_and_come_back_go_on_counting() {
    let Some(mut siege) = begin("daemons_that_die_and_come_back") else { return };
    create(&siege, "busy", "spin", &[]);
    create(&siege, "idle", "hello", &[]);
    let mut client = Subscriber::new(&siege, ":");
    let mut last = client.next_of(":busy");
    let goes_on = |last: &Measured, now: &Measured| (now.start.0 - last.start.0).abs() <= 1 && now.cpu_us > last.cpu_us;
    for round in 0..4 {
        let halves = [control_half(siege.vmmd), siege.vmmd];
        halves.iter().take(1 + round % 2).for_each(|half| kill_9(*half));
        expect_gone(&halves);
        siege.system.end("vmmd", Signal::SIGTERM).unwrap();
        if round == 2 {
            // It ends while nobody watches: of that end vmmd learns first.
            kill_9(siege.running()[":idle"][0]);
        }
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        last = client.expect(":busy", |now| goes_on(&last, now));
        client.next_of(":idle");
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        siege.system.end("vmmd_stats", signal).unwrap();
        // Nobody misses it.
        create(&siege, "meanwhile", "hello", &[]);
        assert_eq!(siege.client(&["destroy", "idle"]).code, 0);
        siege.system.start_stats(&QUICK.map(OsStr::new)).unwrap();
        client = Subscriber::new(&siege, ":");
        last = client.expect(":busy", |now| goes_on(&last, now));
        client.expect_silence(":idle", ":meanwhile");
        assert_eq!(siege.client(&["destroy", "meanwhile"]).code, 0);
        client.expect_silence(":meanwhile", ":busy");
        create(&siege, "idle", "hello", &[]);
        client.next_of(":idle");
    }
    end(siege);
}

/// It stands still while others come and go; nobody waits, and afterwards it knows all.
#[test]
fn a_statistics_daemon_that_stands_still_stalls_nobody() {
    let Some(mut siege) = begin("a_statistics_daemon_that_stands_still") else { return };
    let stats = pid_of(siege.system.pid("vmmd_stats").unwrap());
    kill(stats, Signal::SIGSTOP).unwrap();
    for round in 0..20 {
        create(&siege, "some", "hello", &[]);
        if round < 19 {
            assert_eq!(siege.client(&["destroy", "some"]).code, 0);
        }
    }
    create(&siege, "busy", "spin", &[]);
    kill(stats, Signal::SIGCONT).unwrap();
    let mut client = Subscriber::new(&siege, ":");
    client.next_of(":some");
    client.next_of(":busy");
    // Another one takes its place, as after an upgrade that left the old one running.
    let mut other = Raw::connect(&siege.system.socket("vmmd.sock"));
    assert!(matches!(other.ask(":", Command::Stats(StatsCommand::Initial)), Answer::Other(_)));
    siege.expect_log("vmmd", "another statistics daemon takes the place");
    let told: Vec<String> = (0..2).map(|_| name_of(&other.receive_bytes().unwrap())).collect();
    assert_eq!(told, [":some", ":busy"]);
    // The one before calls again and is told everything.
    assert_eq!(other.receive(), Answer::Closed);
    client.expect(":busy", |now| now.cpu_us > 0);
    // Whatever else is asked of vmmd about statistics, it does not know.
    for command in [StatsCommand::Subscribe, StatsCommand::Remove] {
        let answer = Raw::connect(&siege.system.socket("vmmd.sock")).ask("some", Command::Stats(command));
        assert_eq!(answer, Answer::Refused("unknown command".into()));
    }
    let answer = Raw::connect(&siege.system.socket("vmmd.sock")).ask("foo:", Command::Stats(StatsCommand::Initial));
    assert_eq!(answer, Answer::Refused("unknown command".into()));
    siege.system.end("vmmd_stats", Signal::SIGTERM).unwrap();
    end(siege);
}

/// The unikernel that a message to the statistics daemon is about.
fn name_of(bytes: &[u8]) -> String {
    let message = wire::decode(Frame::whole(bytes)).unwrap();
    let Payload::Command(Command::Stats(StatsCommand::Add { pid, .. })) = message.payload else {
        panic!("{message:?}")
    };
    assert!(pid > 1);
    message.header.name.to_string()
}

#[test]
fn frames_are_counted_for_whose_they_are() {
    const TEST: &str = "frames_are_counted_for_whose_they_are";
    with_bridge(TEST, None, |siege, net| {
        siege.system.start_stats(&QUICK.map(OsStr::new)).unwrap();
        create(siege, "sends", "network", &["--net", "service:br0"]);
        // Its device is called as the other's, and its tap comes after it. It reads what comes.
        create(siege, "tenant:other", "echo", &["--net", "service:br0", "--arg=--ipv4=10.0.0.2/24"]);
        create(siege, "quiet", "hello", &[]);
        let mut client = Subscriber::new(siege, ":");
        let first = client.next_of(":sends");
        assert_eq!(first.interfaces.keys().collect::<Vec<_>>(), ["service"]);
        let later = client.expect(":sends", |now| now.interfaces["service"][0] >= first.interfaces["service"][0] + 2);
        let [packets, bytes, ..] = later.interfaces["service"];
        assert_eq!(bytes, packets * 60, "each frame has 60 bytes");
        assert!(client.next_of(":quiet").interfaces.is_empty());
        // What one sends the other receives.
        client.expect("tenant:other", |now| now.interfaces["service"][2] >= 2);

        // What is said is what the kernel says of that tap.
        let received = |tap: &str| -> i64 {
            let file = net.join("class/net").join(tap).join("statistics/rx_packets");
            std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
        };
        let matches = |client: &mut Subscriber, name: &str, tap: &str| {
            let before = received(tap);
            let measured = client.expect(name, |now| now.interfaces["service"][0] >= before);
            assert!(measured.interfaces["service"][0] <= received(tap), "{name} {measured:?}");
        };
        matches(&mut client, ":sends", "vmmtap0");
        matches(&mut client, "tenant:other", "vmmtap1");

        // The lowest tap goes and another unikernel gets it: what it counts is its own.
        assert_eq!(siege.client(&["destroy", "sends"]).code, 0);
        client.expect_silence(":sends", ":quiet");
        create(siege, "heir", "echo", &["--net", "service:br0", "--arg=--ipv4=10.0.0.3/24"]);
        let heir = client.next_of(":heir");
        assert!(heir.interfaces["service"][0] <= received("vmmtap0"), "{heir:?}");
        matches(&mut client, ":heir", "vmmtap0");
        matches(&mut client, "tenant:other", "vmmtap1");

        // A tap that is taken away has no number, nor has another one of its name.
        assert!(fulmar_tests::bridge::ip(&["link", "set", "vmmtap0", "down"]));
        assert!(fulmar_tests::bridge::ip(&["link", "set", "vmmtap0", "name", "gone0"]));
        client.expect(":heir", |now| now.interfaces.is_empty());
        assert!(fulmar_tests::bridge::ip(&["tuntap", "add", "vmmtap0", "mode", "tap"]));
        for _ in 0..5 {
            assert!(client.next_of(":heir").interfaces.is_empty());
        }
        client.expect("tenant:other", |now| now.interfaces.contains_key("service"));
        for name in siege.names() {
            assert_eq!(siege.client(&["destroy", &name]).code, 0);
        }
    });
}

#[test]
fn people_and_programs_can_read_it() {
    let Some(siege) = begin("people_and_programs_can_read_it") else { return };
    create(&siege, "tenant:busy", "spin", &[]);
    let said = siege.client(&["stats", "--count", "12"]);
    assert_eq!(said.code, 0, "{said:?}");
    let lines: Vec<Vec<&str>> = said.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "CPU", "MEMORY", "SENT", "RECEIVED"]);
    assert_eq!(lines.len(), 13);
    let [name, _, "s", _, "kB" | "MB", "-", "-"] = lines[1].as_slice() else { panic!("{said:?}") };
    assert_eq!(*name, "tenant:busy");
    // It has one CPU, if it gets it. Of two that arrive in one go, since somebody had to wait, the later has no rate.
    let percents: Vec<f64> =
        lines[2..].iter().filter(|line| line[2] == "%").map(|line| line[1].parse().unwrap()).collect();
    assert!(percents.iter().any(|percent| *percent > 5.0), "{said:?}");
    let said = siege.client(&["stats", "tenant:", "--count=5", "--json"]);
    let documents: Vec<serde_json::Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 5);
    assert!(documents.iter().all(|it| it["name"] == "tenant:busy" && it["networks"] == serde_json::json!([])));
    assert!(documents[0]["cpu_percent"].is_null(), "{said:?}");
    assert!(documents.iter().any(|it| it["cpu_percent"].is_number()), "{said:?}");
    assert!(documents[1]["cpu_seconds"].as_f64() >= documents[0]["cpu_seconds"].as_f64());
    assert!(documents[0]["memory_bytes"].as_u64().unwrap() > 100_000, "{said:?}");
    end(siege);
}
