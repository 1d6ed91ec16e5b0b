//! Where fuzzers begin: the recorded messages, certificates and streams, and good examples of what nobody has recorded.

mod scripts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use der::Encode;
use fulmar_core::event;
use fulmar_core::journal::{Header, RECORD_BYTES_MAX, Record, Stamp, encode, encode_header};
use fulmar_core::limits::EVENT_BYTES_MAX;
use fulmar_core::state_import;
use fulmar_core::wire::{
    self, Arguments, BlockCommand, Command, Config, Data, Frame, Image, Message, NamedPolicy, Payload, Policy,
    PolicyCommand, Success, UnikernelCommand,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;
use x509_cert::Certificate;

pub use self::scripts::host_half;
use self::scripts::{command_lines, consoles, halves, hypercalls, schedules, submissions};
use crate::checks::{CUT_BYTES, LENGTH_BYTES};
use crate::{generate, images, render};

/// A seed's name and bytes.
pub type Seed = (String, Vec<u8>);

const BUFFER_BYTES: usize = 64 * 1024;

/// Messages that are made up.
const GENERATED: usize = 200;

/// Bytes of the largest built unikernel that is a seed: with larger ones the fuzzers are slow.
const GUEST_BYTES_MAX: u64 = 20 * 1024;

/// The seeds of each target. Unikernels that were built are taken from `guests`; there may be none.
///
/// # Errors
/// A recorded file that cannot be read.
pub fn all(guests: &Path) -> io::Result<Vec<(&'static str, Vec<Seed>)>> {
    let recorded = Recorded::read()?;
    let images = images(guests)?;
    let messages = [&recorded.messages[..], &generated()].concat();
    Ok(vec![
        ("message_with_cut", with_cuts(&messages)),
        ("stream", streams(&messages)?),
        ("message", messages),
        ("der", elements(&recorded)),
        ("certificate", recorded.extensions.clone()),
        ("whole_certificate", recorded.certificates.clone()),
        ("revocation_list", revocation_lists()?),
        ("state_file", recorded.states.clone()),
        ("arguments", numbered("arguments", recorded.arguments())),
        ("policy", numbered("policy", recorded.policies())),
        ("journal", journals(&recorded)),
        ("event_log", segments()),
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

/// Lists of revoked certificates, made with OpenSSL: of none, of two.
fn revocation_lists() -> io::Result<Vec<Seed>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/crl");
    ["empty", "two"].into_iter().map(|name| Ok((name.into(), fs::read(folder.join(format!("{name}.der")))?))).collect()
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

/// Segments of events of every kind: whole ones, a torn one, one with a hole.
fn segments() -> Vec<Seed> {
    let (entries, mut runner) = (generate::log_entry(), TestRunner::deterministic());
    let (mut seeds, mut sequence) = (Vec::new(), 1);
    for count in [1, 3, 9, 27] {
        let header = event::Header { salt: 0x5eed, first: sequence };
        let mut bytes = event::encode_header(header).to_vec();
        let made = (0..count).filter_map(|_| entries.new_tree(&mut runner).ok());
        for entry in made.map(|tree| tree.current()) {
            let (mut der, mut record) = ([0; EVENT_BYTES_MAX], [0; event::RECORD_BYTES_MAX]);
            let Ok(payload) = entry.encode(&mut der) else { continue };
            let stored = event::Record { sequence, writer: sequence, payload };
            let len = event::encode_record(header.salt, &stored, &mut record).unwrap_or(0);
            bytes.extend_from_slice(&record[..len]);
            sequence += 1;
        }
        seeds.push((format!("of-{count}"), bytes));
    }
    if let Some((_, whole)) = seeds.last().cloned() {
        let mut hole = whole.clone();
        if let Some(byte) = hole.get_mut(whole.len() / 2) {
            *byte ^= 1;
        }
        seeds.push(("hole".into(), hole));
        seeds.push(("torn".into(), whole[..whole.len() - 5].to_vec()));
    }
    seeds
}

/// The messages that have octets to be taken out, without them and after the place where they were; and the others, as if.
fn with_cuts(messages: &[Seed]) -> Vec<Seed> {
    let cut = |(name, bytes): &Seed| {
        let message = wire::decode(Frame::whole(bytes)).ok()?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let sent = wire::encode_head(&with_cut(message)?, &mut buffer).ok()?;
        let at = u8::try_from(sent.cut?.at.checked_sub(LENGTH_BYTES)?).ok()?;
        Some((format!("cut-{name}"), [&[at], sent.head.get(LENGTH_BYTES..)?].concat()))
    };
    let others = with_prefix(messages, |_| vec![70]);
    messages.iter().filter_map(cut).chain(others).collect()
}

/// The message with as many octets taken out as the check expects; nothing where it has none.
fn with_cut(mut message: Message<'_>) -> Option<Message<'_>> {
    let away = Image::Diverted { len: CUT_BYTES as u64 };
    match &mut message.payload {
        Payload::Command(Command::Unikernel(
            UnikernelCommand::Create(config) | UnikernelCommand::ForceCreate(config),
        )) => config.image = away,
        Payload::Command(Command::Block(BlockCommand::OldAdd { data, .. })) => *data = Some(away),
        Payload::Command(Command::Block(BlockCommand::OldSet { data, .. })) => *data = away,
        Payload::Success(Success::Image { image, .. } | Success::OldBlockImage { image, .. }) => *image = away,
        Payload::Data(Data::Block(chunk)) => *chunk = Some(away),
        _ => return None,
    }
    Some(message)
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
