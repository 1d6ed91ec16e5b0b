//! Where fuzzers begin: the recorded messages, certificates and streams, and good examples of what nobody has recorded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use der::Encode;
use fulmar_core::halves::{
    Abilities, Answer, Attempt, Host, LaunchError, LaunchPlan, OsError, Request, Signal, SignalOutcome, Status,
    StatusRecord, Tender, Texts, Unit,
};
use fulmar_core::journal::{Header, RECORD_BYTES_MAX, Record, Stamp, encode, encode_header};
use fulmar_core::limits::{CHANNEL_BYTES_MAX, CONSOLE_LINE_BYTES_MAX};
use fulmar_core::policy::{Bridge, CpuSet};
use fulmar_core::state_import;
use fulmar_core::wire::{
    self, Arguments, Command, Config, Frame, NamedPolicy, Payload, Policy, PolicyCommand, Success, UnikernelCommand,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;
use x509_cert::Certificate;

use crate::choose::{Choose, Seeded};
use crate::{generate, images, render};

/// A seed's name and bytes.
pub type Seed = (String, Vec<u8>);

const BUFFER_BYTES: usize = 64 * 1024;

/// Messages that are made up.
const GENERATED: usize = 200;

/// Bytes of the largest built unikernel that is a seed: with larger ones the fuzzers are slow.
const GUEST_BYTES_MAX: u64 = 20 * 1024;

/// Schedules for the world, and bytes of each.
const SCHEDULES: u64 = 24;
const SCHEDULE_BYTES: u32 = 1500;

/// The seeds of each target. Unikernels that were built are taken from `guests`; there may be none.
///
/// # Errors
/// A recorded file that cannot be read.
pub fn all(guests: &Path) -> io::Result<Vec<(&'static str, Vec<Seed>)>> {
    let recorded = Recorded::read()?;
    let images = images(guests)?;
    let messages = [&recorded.messages[..], &generated()].concat();
    Ok(vec![
        // The place of the cut goes before the message.
        ("message_with_cut", with_prefix(&messages, |_| vec![70])),
        ("stream", streams(&messages)?),
        ("message", messages),
        ("der", elements(&recorded)),
        ("certificate", recorded.extensions.clone()),
        ("whole_certificate", recorded.certificates.clone()),
        ("state_file", recorded.states.clone()),
        ("arguments", numbered("arguments", recorded.arguments())),
        ("policy", numbered("policy", recorded.policies())),
        ("journal", journals(&recorded)),
        ("image", images.clone()),
        ("tender_image", images),
        ("halves", halves()),
        ("host_half", host_half()),
        ("console", consoles()),
        ("world", schedules()),
        ("tender_hypercalls", vec![("good".into(), hypercalls())]),
        ("tender_ring", vec![("good".into(), submissions())]),
        ("tender_command_line", command_lines()),
    ])
}

fn numbered(name: &str, bytes: impl IntoIterator<Item = Vec<u8>>) -> Vec<Seed> {
    bytes.into_iter().enumerate().map(|(index, bytes)| (format!("{name}-{index}"), bytes)).collect()
}

fn with_prefix(seeds: &[Seed], prefix: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Seed> {
    seeds.iter().map(|(name, bytes)| (name.clone(), [prefix(bytes), bytes.clone()].concat())).collect()
}

/// Messages of every kind: those that are ours alone nobody has recorded. The same each time.
fn generated() -> Vec<Seed> {
    let (messages, mut runner) = (generate::message(), TestRunner::deterministic());
    let messages = (0..GENERATED).filter_map(|_| messages.new_tree(&mut runner).ok());
    let encode = |message| wire::encode(&message, &mut vec![0; BUFFER_BYTES]).map(<[u8]>::to_vec).ok();
    numbered("generated", messages.filter_map(|tree| encode(tree.current())))
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// What the peer's programs have said and written.
struct Recorded {
    /// Good ones and bad ones.
    messages: Vec<Seed>,
    /// Values of the extension of certificates.
    extensions: Vec<Seed>,
    certificates: Vec<Seed>,
    states: Vec<Seed>,
}

impl Recorded {
    fn read() -> io::Result<Self> {
        let mut recorded =
            Self { messages: Vec::new(), extensions: Vec::new(), certificates: Vec::new(), states: Vec::new() };
        let vectors: Vec<Value> = serde_json::from_str(&fs::read_to_string(vectors().join("index.json"))?)?;
        for vector in &vectors {
            let Some(name) = vector["name"].as_str() else { continue };
            let bytes = match (vector["hex"].as_str(), vector["file"].as_str()) {
                (Some(hex), _) => render::from_hex(hex),
                (None, Some(file)) => match fs::read(self::vectors().join(file)) {
                    Ok(bytes) => bytes,
                    // The longest are made anew by the tests, and are too long for a fuzzer.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
                (None, None) => continue,
            };
            let list = match vector["codec"].as_str() {
                Some("cert") => &mut recorded.extensions,
                Some("state") => &mut recorded.states,
                _ => &mut recorded.messages,
            };
            list.push((name.to_owned(), bytes));
        }
        for folder in ["chains", "tls", "tls/leaf", "tls/keytypes"] {
            collect_certificates(&self::vectors().join(folder), &mut recorded.certificates)?;
        }
        Ok(recorded)
    }

    fn decoded(&self) -> impl Iterator<Item = wire::Message<'_>> {
        self.messages.iter().filter_map(|(_, bytes)| wire::decode(Frame::whole(bytes)).ok())
    }

    /// What unikernels run with, as it is stored.
    fn arguments(&self) -> BTreeSet<Vec<u8>> {
        let mut stored = BTreeSet::new();
        let mut store = |arguments: &Arguments<'_>| {
            stored.extend(arguments.encode(&mut vec![0; BUFFER_BYTES]).map(<[u8]>::to_vec));
        };
        for message in self.decoded() {
            if let Payload::Command(Command::Unikernel(
                UnikernelCommand::Create(Config { arguments, .. })
                | UnikernelCommand::ForceCreate(Config { arguments, .. })
                | UnikernelCommand::Restart(Some(arguments)),
            )) = message.payload
            {
                store(&arguments);
            }
        }
        for (_, file) in &self.states {
            let state = state_import::decode(file);
            let entries = state.iter().flat_map(state_import::State::unikernels);
            entries.filter_map(|entry| entry.content.ok()).for_each(|(_, config)| store(&config.arguments));
        }
        stored
    }

    /// Policies, as they are stored.
    fn policies(&self) -> BTreeSet<Vec<u8>> {
        let mut stored = BTreeSet::new();
        let mut store = |policy: &Policy<'_>| {
            stored.extend(policy.encode(&mut vec![0; BUFFER_BYTES]).map(<[u8]>::to_vec));
        };
        for message in self.decoded() {
            match message.payload {
                Payload::Command(Command::Policy(PolicyCommand::Add(policy))) => store(&policy),
                Payload::Success(Success::Policies(policies)) => {
                    policies.iter().for_each(|NamedPolicy { policy, .. }| store(&policy));
                }
                _ => {}
            }
        }
        stored
    }
}

/// Each certificate of each file in this folder and the folders in it.
fn collect_certificates(folder: &Path, into: &mut Vec<Seed>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for path in entries.iter().map(fs::DirEntry::path) {
        if path.is_dir() {
            collect_certificates(&path, into)?;
        }
        if path.extension().is_none_or(|extension| extension != "pem") {
            continue;
        }
        let chain = Certificate::load_pem_chain(&fs::read(&path)?).map_err(io::Error::other)?;
        for certificate in chain {
            let bytes = certificate.to_der().map_err(io::Error::other)?;
            if into.iter().all(|(_, known)| *known != bytes) {
                into.push((format!("certificate-{}", into.len()), bytes));
            }
        }
    }
    Ok(())
}

/// Recorded streams, and each message as a stream: the length of the pieces goes before it.
fn streams(messages: &[Seed]) -> io::Result<Vec<Seed>> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut streams = with_prefix(messages, |bytes| [&[9], &len(bytes)[..]].concat());
    streams.push(("chunks".into(), b"\x02\0\0\0\x03abc\0\0\0\x01d\0\0\0\0\0\0\0\x09".to_vec()));
    for entry in fs::read_dir(vectors().join("captures"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            streams.push((name, [vec![50], fs::read(&path)?].concat()));
        }
    }
    Ok(streams)
}

/// Elements of every kind, and whatever else is DER.
fn elements(recorded: &Recorded) -> Vec<Seed> {
    let times = ["20231231235959Z", "20240229000000.250Z", "19691231235959Z", "00000101000000.000Z", "20230229000000Z"];
    let time = |text: &str| [&[0x18, u8::try_from(text.len()).unwrap_or(0)], text.as_bytes()].concat();
    let small: [&[u8]; 10] = [
        &[0x02, 8, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x02, 8, 0xc0, 0, 0, 0, 0, 0, 0, 0],
        &[0x02, 9, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
        &[0x30, 6, 0x02, 1, 5, 0x02, 1, 3],
        &[0x31, 6, 0x02, 1, 3, 0x02, 1, 5],
        &[0x31, 7, 0x02, 2, 1, 0, 0x02, 1, 5],
        &[0xa7, 3, 0x02, 1, 0xff],
        &[0x0c, 4, 0xf0, 0x9f, 0xa6, 0x80],
        &[0x04, 0x81, 0x80],
        &[0x01, 1, 0xff, 0x05, 0],
    ];
    let small = times.map(time).into_iter().chain(small.map(<[u8]>::to_vec));
    let all = [&recorded.messages[..], &recorded.extensions, &recorded.certificates, &recorded.states].concat();
    numbered("small", small).into_iter().chain(all).collect()
}

/// Journals of what is stored: of all kinds of records, one that is torn, and one with a hole.
fn journals(recorded: &Recorded) -> Vec<Seed> {
    let (arguments, policies) = (recorded.arguments(), recorded.policies());
    let unikernel = |name, unit, arguments| Record::Unikernel {
        name,
        unit,
        digest: [7; 32],
        image_bytes: 70_000,
        target: if unit.is_multiple_of(2) { 1 } else { 2 },
        arguments,
    };
    let mut short = vec![
        Record::Block { name: "p:b", size_mb: 3 },
        Record::Block { name: "p:q:c", size_mb: 1 },
        Record::BlockGone { name: "p:b" },
    ];
    short.extend(policies.iter().take(3).zip(["p:", "p:q:", ""]).map(|(policy, path)| Record::Policy { path, policy }));
    short.push(Record::PolicyGone { path: "p:q:" });
    let names = ["a", "p:a", "p:q:a", "p:q:r:a", "a"];
    short.extend(arguments.iter().zip(names).zip(1..).map(|((bytes, name), unit)| unikernel(name, unit, bytes)));
    short.push(Record::UnikernelGone { name: "p:q:a" });
    let mut journals: Vec<Seed> = vec![("kinds".into(), journal(&short)), ("empty".into(), journal(&[]))];
    for (index, bytes) in arguments.iter().enumerate() {
        journals
            .push((format!("unikernel-{index}"), journal(&[unikernel("p:a", 9, bytes), unikernel("b", 10, bytes)])));
    }
    for (index, policy) in policies.iter().enumerate() {
        journals.push((format!("policy-{index}"), journal(&[Record::Policy { path: "p:", policy }])));
    }
    let whole = journal(&short);
    let mut torn = whole.clone();
    torn.truncate(whole.len() - 5);
    let mut holed = whole;
    holed[60] ^= 1;
    journals.extend([("torn".into(), torn), ("holed".into(), holed)]);
    journals
}

fn journal(records: &[Record<'_>]) -> Vec<u8> {
    let header = Header { salt: 0x5eed, base: 41 };
    let mut bytes = encode_header(header).to_vec();
    for (record, generation) in records.iter().zip(header.base + 1..) {
        let mut buffer = vec![0; RECORD_BYTES_MAX];
        let stamp = Stamp { generation, durable: generation - 1 };
        let len = encode(header.salt, stamp, record, &mut buffer).unwrap_or(0);
        bytes.extend_from_slice(&buffer[..len]);
    }
    bytes
}

/// Unikernels that were built, and smaller images.
fn images(guests: &Path) -> io::Result<Vec<Seed>> {
    let mut images = numbered("image", images::IMAGES.iter().map(|image| image.bytes.clone()));
    let built = match fs::read_dir(guests) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    for entry in built {
        let path = entry.path();
        let is_image = path.extension().is_some_and(|extension| extension == "hvt" || extension == "spt");
        if is_image && entry.metadata()?.len() <= GUEST_BYTES_MAX {
            images.push((entry.file_name().to_string_lossy().into_owned(), fs::read(path)?));
        }
    }
    Ok(images)
}

/// A plan that a host with the bridges `service` and `br0` carries out.
fn plan(unit: u64, networks: &'static [u8], blocks: u8) -> LaunchPlan<'static> {
    LaunchPlan {
        unit: Unit(unit),
        account: 1,
        tender: if unit.is_multiple_of(2) { Tender::Hvt } else { Tender::Spt },
        cpus: CpuSet::first(1),
        memory_mb: 16,
        networks: Texts::new(networks).unwrap_or_default(),
        blocks,
        argv: Texts::new(b"solo5-spt\0@3\0--name=a\0").unwrap_or_default(),
    }
}

fn packet(request: &Request<'_>) -> Vec<u8> {
    request.encode(&mut vec![0; CHANNEL_BYTES_MAX]).map(<[u8]>::to_vec).unwrap_or_default()
}

/// Every kind of request and answer.
fn halves() -> Vec<Seed> {
    let unit = Unit(7);
    let requests = [
        Request::Survey,
        Request::Bridges,
        Request::Launch(plan(7, b"service\0br0\0", 1)),
        Request::Signal { unit, signal: Signal::Terminate },
        Request::Signal { unit: Unit(u64::MAX), signal: Signal::Kill },
        Request::Forget { unit },
    ];
    let taps = Texts::new(b"vmmtap0\0vmmtap1\0").unwrap_or_default();
    let error = OsError { attempt: Attempt::CreateTap, errno: 13 };
    let abilities =
        Abilities { accounts: true, taps: false, kvm: true, tender: true, memory_cgroup: true, pids_cgroup: false };
    let failed = |error| Answer::LaunchFailed { unit, error };
    let mut answers = vec![
        Answer::Adopted { unit, pid: 77, account: 9, started_ms: 1_700_000_000_000, taps, told: true },
        Answer::Host(Host { cpus: CpuSet::first(128), memory_mb: 1 << 40, bridges: taps, abilities }),
        Answer::Bridges(taps),
        Answer::SurveyFailed(error),
        Answer::Launched { unit, pid: 77, taps },
        failed(LaunchError::NoSuchAccount(9000)),
        failed(LaunchError::Os(error)),
        Answer::Signalled { unit, outcome: SignalOutcome::Sent },
        Answer::Signalled { unit, outcome: SignalOutcome::Failed(error) },
        Answer::Exited { unit, status: Status::Code(64), record: StatusRecord::new(b"exited 64") },
        Answer::Exited { unit, status: Status::Signal(9), record: StatusRecord::default() },
        Answer::Ended { unit, record: StatusRecord::OUT_OF_MEMORY },
    ];
    answers.extend(Bridge::new(b"service").map(|bridge| failed(LaunchError::NoSuchBridge(bridge))));
    let answers = answers
        .iter()
        .map(|answer| answer.encode(&mut vec![0; CHANNEL_BYTES_MAX]).map(<[u8]>::to_vec).unwrap_or_default());
    numbered("packet", requests.iter().map(packet).chain(answers))
}

/// Scripts for the host half, in the form of `fulmar_vmmd::host_half::fuzzing`: requests with their fds, ends, refusals, a
/// successor.
#[must_use]
pub fn host_half() -> Vec<Seed> {
    let send = |request: &Request<'_>, fds: u8| {
        let packet = packet(request);
        let len = u16::try_from(packet.len()).unwrap_or(0).to_le_bytes();
        [&[0, fds, len[0], len[1]], &packet[..]].concat()
    };
    let survey = send(&Request::Survey, 0);
    let launch = |unit, networks, blocks: u8| send(&Request::Launch(plan(unit, networks, blocks)), 2 + blocks);
    let signal = |unit, signal| send(&Request::Signal { unit: Unit(unit), signal }, 0);
    // The third is killed for want of memory, all others exit with 1 and have recorded that.
    let end = |number| {
        [&[1, number, if number == 2 { 8 } else { 1 }, 64][..], format!("{:63}\n", "exited 1").as_bytes()].concat()
    };
    let forget = |unit| send(&Request::Forget { unit: Unit(unit) }, 0);
    let successor = vec![3];
    let life = [&survey[..], &launch(7, b"service\0br0\0", 0), &signal(7, Signal::Terminate)].concat();
    let twice =
        [&survey[..], &launch(7, b"", 1), &launch(7, b"", 1), &launch(8, b"", 0), &end(1), &forget(7), &forget(8)]
            .concat();
    let unsurveyed = [&launch(1, b"", 0)[..], &end(0), &launch(1, b"", 0), &survey].concat();
    let launches = [launch(1, b"br0\0", 2), launch(2, b"", 0), launch(3, b"", 0)].concat();
    let succeeded =
        [&life[..], &launches, &end(2), &successor, &end(0), &survey, &end(0), &forget(3), &forget(2)].concat();
    let wrong = [
        survey.clone(),
        launch(1, b"nowhere\0", 0),
        send(&Request::Launch(plan(1, b"", 0)), 0),
        send(&Request::Launch(plan(1, b"", 1)), 2),
        send(&Request::Launch(plan(1, b"", 63)), 65),
        signal(3, Signal::Kill),
        send(&Request::Bridges, 3),
        vec![0, 1, 3, 0, 0xff, 0xff, 0xff],
    ]
    .concat();
    let refused = |calls| [&survey[..], &[2, calls], &launch(1, b"service\0", 0), &launch(1, b"service\0", 0)].concat();
    let mut scripts = vec![life, twice, unsurveyed, succeeded, wrong, [&[2, 0], &survey[..]].concat()];
    scripts.extend((0..4).map(refused));
    numbered("script", scripts)
}

/// Scripts for consoles: what is chosen, one after the other.
fn consoles() -> Vec<Seed> {
    // Which console, what, how many bytes, which byte, where lines end.
    let write = |which, len: u16, ends| {
        let len = len.to_be_bytes();
        vec![which, 0, len[0], len[1], b'x', ends]
    };
    let lines = [write(0, 40, 3), write(1, 500, 1), write(0, 7, 0), vec![0, 10], vec![1, 14]].concat();
    let long = [&write(2, 512, 0)[..], &write(2, 512, 0), &write(2, 9, 0), &[2, 10], &write(2, 90, 2)].concat();
    let full = write(1, 512, 1).repeat(60);
    let cut = write(0, 512, 0).repeat(2 + CONSOLE_LINE_BYTES_MAX / 512);
    numbered("script", [lines.clone(), long, full, cut, [lines, vec![1, 12, 0, 15, 1, 13]].concat()])
}

/// Schedules for the world, at random: what is chosen is whatever the bytes say.
fn schedules() -> Vec<Seed> {
    let schedule = |seed| {
        let mut choices = Seeded::new(seed);
        let len = choices.below(SCHEDULE_BYTES);
        (0..len).map(|_| u8::try_from(choices.below(256)).unwrap_or(0)).collect()
    };
    numbered("schedule", (1..=SCHEDULES).map(schedule))
}

fn command_lines() -> Vec<Seed> {
    let lines: [&[u8]; 5] = [
        b"--mem=32\0--net:n=@4\0--net-mac:n=2:0:0:0:0:1\0--block:b=/d\0--block-sector-size:b=512\0--user=1:2\0--\0k\0a",
        b"--kvm=@5\0--net-control=@6\0--no-net-ring\0--status-fd=7\0--exit-status-file=/s\0@3",
        b"--x-exec-heap\0--dumpcore=/c\0--gdb=/g\0k",
        b"--gdb-port=1\0k",
        b"--mem=1\0--help",
    ];
    numbered("line", lines.map(<[u8]>::to_vec))
}

/// Where a guest of the fuzzer keeps things: in the middle of what it may write.
const ROOM: u64 = 0x18_0000;

/// One good call of each kind: its number, the address of its structure, the structure, in 48 bytes each.
fn hypercalls() -> Vec<u8> {
    let calls: [(u8, &[u64]); 8] = [
        (1, &[0]),
        (2, &[ROOM + 0x100, 12]),
        (3, &[1, 0, 0]),
        (4, &[2, 512, ROOM + 0x1000, 512, 0]),
        (5, &[2, 0, ROOM + 0x1000, 512, 0]),
        (6, &[1, ROOM + 0x1000, 60, 0]),
        (7, &[1, ROOM + 0x1000, 1514, 0]),
        (8, &[ROOM + 0x100, 7]),
    ];
    let call = |(number, words): &(u8, &[u64])| {
        let mut bytes = vec![*number];
        bytes.extend((ROOM as u32).to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(48, 0);
        bytes
    };
    calls.iter().flat_map(call).collect()
}

/// A frame to send, and one to receive, as they stand in the ring.
fn submissions() -> Vec<u8> {
    let submission = |operation: u32, len: u32| {
        let words = [operation, 1, ROOM as u32, 0, len, 7, 0, 0];
        words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>()
    };
    [submission(1, 60), submission(2, 1514)].concat()
}
