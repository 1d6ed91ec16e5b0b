//! Recorded conversations with the reference: our client sends the same bytes for the same command line, and tells people
//! and programs what the answers say.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{FakeDaemon, Folder, capture, client, frame};
use fulmar_client::connection::TIME_OUT;
use fulmar_core::name::Name;
use fulmar_core::wire::{
    BlockInfo, Condition, Data, Fact, FailBehaviour, HostInfo, Info, InfoBlock, InfoBridge, Kind, LastRun, List,
    NamedCondition, NamedInfo, NamedPolicy, Payload, Phase, Policy, RunEnd, Success, Text, Use,
};

const VMMD: &str = "vmmd.sock";
const CONSOLE: &str = "console.sock";
const STATS: &str = "stat.sock";

/// Recording, socket, command line, exit code, standard output, standard error.
type Conversation = (&'static str, &'static str, &'static [&'static str], u8, &'static str, &'static str);

const CONVERSATIONS: &[Conversation] = &[
    ("destroy-net", VMMD, &["destroy", "foo:net1"], 0, "foo:net1: destroyed unikernel\n", ""),
    ("destroy-unknown", VMMD, &["destroy", "foo:nosuch"], 117, "", "vmmc_local: foo:nosuch: destroy: not found\n"),
    ("restart-noargs", VMMD, &["restart", "foo:idle1"], 0, "foo:idle1: created unikernel\n", ""),
    (
        "restart-args",
        VMMD,
        &["restart", "foo:idle1", "--replace-arguments", "--mem", "48", "--arg=new"],
        0,
        "foo:idle1: created unikernel\n",
        "",
    ),
    (
        "info-two",
        VMMD,
        &["info"],
        0,
        "NAME       STATE       RUNS  MEMORY  CPUS  RESTART  NETWORK  BLOCK  IMAGE\n\
         foo:idle1  up 38m 13s     -   32 MB  0     on 3     -        -      d53c310eb7ab\n",
        "",
    ),
    (
        "policy-info",
        VMMD,
        &["policy"],
        0,
        "PATH  UNIKERNELS    MEMORY  CPUS      BLOCK  BRIDGES\n\
         :      unlimited  24105 MB  0,1   258019 MB  peerbr0\n\
         foo:           5    256 MB  0,1           -  -\n",
        "",
    ),
    (
        "policy-info-path",
        VMMD,
        &["policy", "-p", "foo"],
        0,
        "PATH  UNIKERNELS  MEMORY  CPUS  BLOCK  BRIDGES\n\
         foo:           5  256 MB  0,1   20 MB  peerbr0\n",
        "",
    ),
    (
        "policy-add-toobig",
        VMMD,
        &["add-policy", "foo:bar", "50", "--mem", "256", "--cpu", "0"],
        117,
        "",
        "note: this policy allows no network; add --bridge BRIDGE if it should\n\
         vmmc_local: foo:bar: policy above allows 5 unikernels, which is fewer than 50\n",
    ),
    ("policy-remove", VMMD, &["remove-policy", "-p", "foo"], 0, "foo: removed policy\n", ""),
    ("policy-remove-notfound", VMMD, &["remove-policy", "nosuch:"], 117, "", "vmmc_local: nosuch: unknown policy\n"),
    (
        "block-info",
        VMMD,
        &["block"],
        0,
        "NAME         SIZE  ACTIVE\n\
         foo:storage  2 MB  no\n\
         foo:disk1    2 MB  no\n",
        "",
    ),
    (
        "block-add-again",
        VMMD,
        &["create-block", "foo:disk1", "2"],
        117,
        "",
        "vmmc_local: foo:disk1: block device with same name already exists\n",
    ),
    (
        "block-over-limit",
        VMMD,
        &["add-block", "foo:disk3", "50"],
        117,
        "",
        "vmmc_local: foo:disk3: block device policy limit of 20 MB (used 4 MB) would be exceeded by the request (50 MB)\n",
    ),
    ("block-destroy", VMMD, &["remove-block", "foo:disk1"], 0, "foo:disk1: removed block\n", ""),
    ("inactive-consoles", CONSOLE, &["inactive-consoles"], 0, ":net1\n:hello\n", ""),
    // What follows something ends with a failure when the daemon has enough of it.
    (
        "console-unknown",
        CONSOLE,
        &["console", "nosuch"],
        121,
        "",
        ":nosuch: nothing yet, waiting for it to start\n\
         vmmc_local: the stream has ended, vmmd_console or the way to it was closed: see vmmd_console's log, and follow again\n",
    ),
    // Both measurements come at once, so there is no rate.
    (
        "stats-subscribe",
        STATS,
        &["stats"],
        121,
        "NAME                             CPU       MEMORY           SENT       RECEIVED\n\
         foo:idle1                     0.02 s       1.6 MB              -              -\n\
         foo:idle1                     0.02 s       1.6 MB              -              -\n",
        STATS_ENDED,
    ),
    (
        "stats-subscribe-one",
        STATS,
        &["stats", "--name", "foo:net1"],
        121,
        "NAME                             CPU       MEMORY           SENT       RECEIVED\n\
         foo:net1                      0.04 s       1.9 MB       42 bytes      806 bytes\n\
         foo:net1                      0.04 s       1.9 MB       42 bytes      876 bytes\n",
        STATS_ENDED,
    ),
];

const STATS_ENDED: &str = "vmmc_local: the stream has ended, vmmd_stats or the way to it was closed: see vmmd_stats's log, and follow again\n";

#[test]
fn the_same_command_line_sends_the_same_bytes() {
    for (recording, socket, words, code, out, errors) in CONVERSATIONS {
        let mut daemon = FakeDaemon::answering(socket, capture(&format!("{recording}.0.s2c.bin")));
        let ran = daemon.client(words);
        assert_eq!((ran.out.as_str(), ran.errors.as_str(), ran.code), (*out, *errors, *code), "{recording}");
        assert_eq!(daemon.heard(), capture(&format!("{recording}.0.c2s.bin")), "{recording}");
    }
}

#[test]
fn a_restart_does_not_pretend_to_keep_what_is_not_given() {
    let folder = Folder::new();
    for option in ["--mem=48", "--cpu=1", "--net=service", "--restart-on-fail", "--no-add-name", "--arg=x"] {
        let ran = client(&folder.0, TIME_OUT, &["restart", "foo:idle1", option]);
        assert!(ran.errors.contains("--replace-arguments"), "{option}: {}", ran.errors);
        assert_eq!((ran.code, ran.out.as_str()), (124, ""), "{option}");
    }
    let ran = client(&folder.0, TIME_OUT, &["restart", "foo:idle1", "--", "x"]);
    assert_eq!(ran.code, 124);
    // A path has nothing to restart.
    let ran = client(&folder.0, TIME_OUT, &["restart", "foo:"]);
    assert_eq!(ran.code, 124);
}

#[test]
fn recorded_measurements_are_documents_for_programs() {
    let daemon = FakeDaemon::answering(STATS, capture("stats-subscribe-one.0.s2c.bin"));
    let ran = daemon.client(&["stats", "foo:net1", "--json", "--count", "1"]);
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
    let expected = serde_json::json!({
        "name": "foo:net1", "cpu_seconds": 0.04, "cpu_percent": null, "memory_bytes": 1_994_752,
        "virtual_bytes": 80_310_272, "started": "2026-11-21T03:23:29.674Z",
        "page_faults": { "minor": 189, "major": 0 }, "context_switches": { "voluntary": 13, "involuntary": 18 },
        "networks": [{
            "device": "service0",
            "sent": { "packets": 1, "bytes": 42, "errors": 0, "dropped": 0 },
            "received": { "packets": 9, "bytes": 806, "errors": 0, "dropped": 0 },
        }],
        "hypervisor": {},
    });
    let lines: Vec<&str> = ran.out.lines().collect();
    let [line] = lines.as_slice() else { panic!("{}", ran.out) };
    assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap(), expected);
    for wrong in ["0", "-1", "x", "18446744073709551616"] {
        assert_eq!(client(&Folder::new().0, TIME_OUT, &["stats", "--count", wrong]).code, 124, "{wrong}");
    }
}

#[test]
fn a_recorded_console_is_shown_to_its_end() {
    let words = ["console", "hello", "--since=2026-11-21T00:00:00Z"];
    let mut daemon = FakeDaemon::answering(CONSOLE, capture("console-since.0.s2c.bin"));
    let ran = daemon.client(&words);
    assert!(ran.errors.contains("the stream has ended"), "{}", ran.errors);
    assert_eq!(ran.code, 121);
    assert_eq!(daemon.heard(), capture("console-since.0.c2s.bin"));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(
        lines[0].starts_with("2026-11-21T03:21:33.") && lines[0].ends_with("Z             |      ___|"),
        "{}",
        lines[0]
    );
    assert!(lines.iter().any(|line| line.ends_with("Solo5: Bindings version v0.12.1-7-g469c1a8")));

    let daemon = FakeDaemon::answering(CONSOLE, capture("console-since.0.s2c.bin"));
    let ran = daemon.client(&[&["--json"], words.as_slice()].concat());
    assert_eq!(ran.out.lines().count(), lines.len(), "one document a line");
    for (text, json) in lines.iter().zip(ran.out.lines()) {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let (time, line) = (value["time"].as_str().unwrap(), value["line"].as_str().unwrap());
        assert_eq!(*text, format!("{time} {line}"));
    }
}

#[test]
fn a_console_line_cannot_move_the_cursor() {
    let line = |line: &'static [u8]| frame(":x", Payload::Data(Data::Console { unix_ms: 0, line: Text(line) }));
    let subscribed = frame(":x", Payload::Success(Success::Text(Text(b"subscribed"))));
    let stream = [subscribed, line(b"\x1b]0;x\x07\xff"), line(b"ends with CR\r"), line(b"")].concat();
    let ran = FakeDaemon::answering(CONSOLE, stream).client(&["console", "x", "--count", "3"]);
    assert_eq!(
        ran.out,
        "1970-01-01T00:00:00Z \\u{1b}]0;x\\u{7}\\xff\n1970-01-01T00:00:00Z ends with CR\n1970-01-01T00:00:00Z \n"
    );
}

/// A unikernel with something in every field.
fn with_full_info(use_it: impl FnOnce(&NamedInfo<'_>)) {
    let digest = [0xab; 32];
    let blocks = [InfoBlock { device: Text(b"data"), host: Text(b"disk1"), sector_size: 512, size: 20 }];
    let nets = [
        InfoBridge { device: Text(b"service"), host: Text(b"br0"), mac: [0, 0x80, 0x41, 1, 2, 3] },
        InfoBridge { device: Text(b"mgmt"), host: Text(b"mgmt"), mac: [0, 0x80, 0x41, 4, 5, 6] },
    ];
    let argv = [Text(b"--port=80"), Text(b"--greeting=good day")];
    let info = Info {
        kind: Kind::Solo5,
        startup: Some(10),
        fail_behaviour: FailBehaviour::Restart(List::EMPTY),
        cpuids: List::Items(&[0, 1, 2, 5]),
        memory: 64,
        digest: &digest,
        block_devices: List::Items(&blocks),
        bridges: List::Items(&nets),
        argv: Some(List::Items(&argv)),
        started: Some(common::NOW_UNIX_MS - 90_000),
        numcpus: 1,
        linux_boot: None,
    };
    use_it(&NamedInfo { name: Name::parse("shop:web").unwrap(), info });
}

#[test]
fn one_unikernel_is_shown_in_full() {
    with_full_info(|info| {
        let reply = frame("shop:web", Payload::Success(Success::Infos(List::Items(&[*info]))));
        let ran = FakeDaemon::answering(VMMD, reply).client(&["info", "shop:web"]);
        let expected = "\
name       shop:web
started    2026-11-21T03:58:30Z (1m 30s ago)
memory     64 MB
CPUs       0-2,5
restart    on failure
startup    10
network    mgmt on bridge mgmt, MAC 00:80:41:04:05:06
network    service on bridge br0, MAC 00:80:41:01:02:03
block      data is disk1, 20 MB, sectors of 512 bytes
arguments  --port=80 '--greeting=good day'
image      abababababababababababababababababababababababababababababababab
";
        assert_eq!((ran.out.as_str(), ran.errors.as_str(), ran.code), (expected, "", 0));
    });
}

/// One that ended for want of memory, and rests.
fn with_rest(hand_on: impl FnOnce(&NamedInfo<'_>, &Condition<'_>)) {
    with_full_info(|info| {
        let info = NamedInfo { info: Info { started: None, ..info.info }, ..*info };
        let condition = Condition {
            phase: Phase::Resting,
            restarts: 3,
            failures: 2,
            last: Some(LastRun { ended_unix_ms: common::NOW_UNIX_MS - 1_000, end: RunEnd::OutOfMemory }),
            next_unix_ms: Some(common::NOW_UNIX_MS + 3_000),
            reason: Some("killed by the kernel: out of memory".into()),
        };
        hand_on(&info, &condition);
    });
}

fn resting(asked: &str, name: &str, words: &[&str]) -> common::Ran {
    let mut ran = None;
    with_rest(|info, condition| {
        let name = Name::parse(name).unwrap();
        let info = NamedInfo { name, ..*info };
        let infos = frame(asked, Payload::Success(Success::Infos(List::Items(&[info]))));
        let condition = NamedCondition { name, condition: *condition };
        let conditions = frame(asked, Payload::Success(Success::Conditions(List::Items(&[condition]))));
        ran = Some(FakeDaemon::answering_each(VMMD, vec![infos, conditions]).client(words));
    });
    ran.unwrap()
}

#[test]
fn what_rests_is_shown_with_its_reason() {
    let ran = resting("shop:", ":web", &["info", "shop:"]);
    let expected = "\
NAME      STATE                    RUNS  MEMORY  CPUS   RESTART     NETWORK           BLOCK       IMAGE
shop:web  resting, next try in 3s     4   64 MB  0-2,5  on failure  mgmt,service:br0  data:disk1  abababababab
";
    assert_eq!((ran.out.as_str(), ran.errors.as_str(), ran.code), (expected, "", 0));
    let ran = resting("shop:web", "shop:web", &["info", "shop:web"]);
    let expected = "\
name        shop:web
started     -
state       resting
next try    2026-11-21T04:00:03Z (in 3s)
why         killed by the kernel: out of memory
restarts    3
short runs  2 in a row
last run    out of memory, 2026-11-21T03:59:59Z (1s ago)
memory      64 MB
";
    assert!(ran.out.starts_with(expected), "{}", ran.out);
    let ran = resting("shop:web", "shop:web", &["info", "shop:web", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let expected = serde_json::json!({
        "phase": "resting", "restarts": 3, "failures": 2, "next_try": "2026-11-21T04:00:03Z",
        "reason": "killed by the kernel: out of memory",
        "last_run": { "ended": "2026-11-21T03:59:59Z", "how": "out of memory", "code": null, "signal": null },
    });
    assert_eq!(value["unikernels"][0]["condition"], expected);
}

#[test]
fn names_below_a_path_are_shown_in_full() {
    with_full_info(|info| {
        let relative = NamedInfo { name: Name::parse(":web").unwrap(), ..*info };
        let reply = frame("shop:", Payload::Success(Success::Infos(List::Items(&[relative]))));
        let ran = FakeDaemon::answering(VMMD, reply).client(&["info", "shop:"]);
        let expected = "\
NAME      STATE      RUNS  MEMORY  CPUS   RESTART     NETWORK           BLOCK       IMAGE
shop:web  up 1m 30s     -   64 MB  0-2,5  on failure  mgmt,service:br0  data:disk1  abababababab
";
        assert_eq!((ran.out.as_str(), ran.errors.as_str(), ran.code), (expected, "", 0));
    });
}

#[test]
fn the_fields_of_a_unikernel_in_json_are_a_promise() {
    with_full_info(|info| {
        let reply = frame("shop:web", Payload::Success(Success::Infos(List::Items(&[*info]))));
        let ran = FakeDaemon::answering(VMMD, reply).client(&["info", "shop:web", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let expected = serde_json::json!({ "unikernels": [{
            "name": "shop:web", "type": "solo5", "started": "2026-11-21T03:58:30Z", "condition": null, "startup": 10, "restart": true,
            "cpus": [0, 1, 2, 5], "memory_mb": 64, "digest": "ab".repeat(32),
            "networks": [
                { "device": "mgmt", "bridge": "mgmt", "mac": "00:80:41:04:05:06" },
                { "device": "service", "bridge": "br0", "mac": "00:80:41:01:02:03" },
            ],
            "blocks": [{ "device": "data", "host_device": "disk1", "sector_bytes": 512, "size_mb": 20 }],
            "arguments": ["--port=80", "--greeting=good day"],
        }]});
        assert_eq!(value, expected);
    });
}

#[test]
fn other_documents_in_json_are_promises_too() {
    let policy = |unikernels, block| Policy {
        cpuids: List::Items(&[0]),
        unikernels,
        memory: 256,
        block,
        bridges: List::Items(&["br0"]),
    };
    let policies = [
        NamedPolicy { name: Name::ROOT, policy: policy(fulmar_core::limits::WIRE_INT_MAX, Some(9)) },
        NamedPolicy { name: Name::parse("a:").unwrap(), policy: policy(3, None) },
    ];
    let blocks = [BlockInfo { name: Name::parse("x:data").unwrap(), size: 20, active: true }];
    let consoles = [Name::parse(":b").unwrap(), Name::parse("x:a").unwrap()];
    let rest = |path: &str, unikernels, block| {
        serde_json::json!({
            "path": path, "unikernels": unikernels, "cpus": [0], "memory_mb": 256, "block_mb": block, "bridges": ["br0"],
        })
    };
    let (none, three, nine) = (None::<i64>, Some(3), Some(9));
    for (socket, words, success, expected) in [
        (
            VMMD,
            ["policy", "--json"].as_slice(),
            Success::Policies(List::Items(&policies)),
            serde_json::json!({ "policies": [rest(":", none, nine), rest("a:", three, none)] }),
        ),
        (VMMD, &["info", "--json"], Success::Infos(List::EMPTY), serde_json::json!({ "unikernels": [] })),
        (
            VMMD,
            &["block", "--json"],
            Success::Blocks(List::Items(&blocks)),
            serde_json::json!({ "blocks": [{ "name": "x:data", "size_mb": 20, "active": true }] }),
        ),
        (
            CONSOLE,
            &["inactive-consoles", "--json"],
            Success::Consoles(List::Items(&consoles)),
            serde_json::json!({ "consoles": [":b", "x:a"] }),
        ),
        (
            VMMD,
            &["destroy", "x", "--json"],
            Success::Text(Text(b"destroyed unikernel")),
            serde_json::json!({ "name": ":x", "result": "destroyed unikernel" }),
        ),
    ] {
        let ran = FakeDaemon::answering(socket, frame(":", Payload::Success(success))).client(words);
        assert_eq!((serde_json::from_str::<serde_json::Value>(&ran.out).unwrap(), ran.code), (expected, 0));
    }
}

#[test]
fn nothing_there_is_said_and_is_no_failure() {
    for (socket, words, success) in [
        (VMMD, ["info"].as_slice(), Success::Infos(List::EMPTY)),
        (VMMD, &["block"], Success::Blocks(List::EMPTY)),
        (VMMD, &["policy"], Success::Policies(List::EMPTY)),
        (CONSOLE, &["inactive-consoles"], Success::Consoles(List::EMPTY)),
    ] {
        let ran = FakeDaemon::answering(socket, frame(":", Payload::Success(success))).client(words);
        assert_eq!((ran.out.as_str(), ran.code), ("", 0));
        assert!(ran.errors.starts_with("no "), "{}", ran.errors);
    }
}

#[test]
fn the_host_is_shown_with_what_a_reader_does_not_know_too() {
    let entry = |what: &'static str, used, limit| Use { what: what.into(), used, limit };
    let uses = [entry("taps", 3, 16_384), entry("image-bytes", 5 << 20, 64 << 30), entry("memory-mb", 16, 24_105)];
    let facts = [("kvm", "no"), ("new", "\u{1b}[2J")].map(|(what, how)| Fact { what: what.into(), how: how.into() });
    let host = HostInfo {
        version: "0.1.0".into(),
        cpuids: List::Items(&[0, 1]),
        bridges: List::Items(&["br0"]),
        uses: List::Items(&uses),
        facts: List::Items(&facts),
    };
    let reply = frame(":", Payload::Success(Success::Host(host)));
    let ran = FakeDaemon::answering(VMMD, reply.clone()).client(&["host"]);
    let expected = "\
vmmd     0.1.0
cpus     0,1
bridges  br0
kvm      no
new      \\u{1b}[2J

WHAT       USED       LIMIT
taps          3       16384
image    5.0 MB  65536.0 MB
memory  16.0 MB  24105.0 MB
";
    assert_eq!((ran.out.as_str(), ran.errors.as_str(), ran.code), (expected, "", 0));
    let ran = FakeDaemon::answering(VMMD, reply).client(&["host", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let expected = serde_json::json!({
        "version": "0.1.0", "cpus": [0, 1], "bridges": ["br0"],
        "uses": {
            "taps": { "used": 3, "limit": 16_384 },
            "image-bytes": { "used": 5 << 20, "limit": 64_i64 << 30 },
            "memory-mb": { "used": 16, "limit": 24_105 },
        },
        "facts": { "kvm": "no", "new": "\u{1b}[2J" },
    });
    assert_eq!(value, expected);
}
