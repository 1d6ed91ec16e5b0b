//! Every recorded message decodes to what was recorded and is written again byte by byte, or is refused for the reason
//! in `docs/wire.md`. The table there, the one here and what happens must say the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use fulmar_core::name::{Name, NameError};
use fulmar_core::wire::{self, Frame, Malformed, Message, Reason};
use fulmar_core::{certificate, mac, state_import};
use fulmar_tests::render;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What the peer accepts, or does not survive, and we refuse.
const REFUSED: &[(&str, Reason)] = &[
    ("seq-9-bytes", Reason::Number),
    ("stats-int64-short", Reason::Number),
    ("len-81-7f", Reason::Length),
    ("len-oversize-8", Reason::Truncated),
    ("len-8-neg", Reason::Truncated),
    ("name-100-deep", Reason::Name(NameError::TooLong)),
    ("policy-cpu-dup", Reason::Order),
    ("policy-bridges-dup", Reason::Order),
    ("create-cpuids-unsorted", Reason::Order),
    ("create-fail-dup", Reason::Order),
    ("create-bridges-empty", Reason::Empty),
    ("create-blocks-empty", Reason::Empty),
    ("create-argv-notutf8", Reason::Utf8),
    ("time-nozone", Reason::Time),
    ("time-offset", Reason::Time),
    ("time-leap", Reason::Time),
];

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn vectors(codec: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder("vectors/index.json")).unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 420);
    all.into_iter().filter(|vector| vector["codec"] == codec).collect()
}

fn string<'v>(vector: &'v Value, field: &str) -> &'v str {
    vector[field].as_str().unwrap()
}

/// The recorded bytes, checked against their recorded digest.
fn bytes(vector: &Value) -> Vec<u8> {
    let bytes = match (vector["hex"].as_str(), string(vector, "name")) {
        (Some(hex), _) => render::from_hex(hex),
        (None, "cmd-create-image-65536") => create_with_image((0..65_536_usize).map(|index| index * 7)),
        (None, "cmd-create-image-1MiB") => create_with_image((0..1_048_576).map(|index| index * 31 + index / 251)),
        (None, _) => {
            let file = string(vector, "file").rsplit('/').next().unwrap();
            fs::read(folder("vectors").join(file)).unwrap()
        }
    };
    assert_eq!(render::hex(&Sha256::digest(&bytes)), string(vector, "sha256"), "{}", vector["name"]);
    bytes
}

/// The smallest create with this image, put together by hand.
fn create_with_image(image: impl Iterator<Item = usize>) -> Vec<u8> {
    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x83], &len[1..], content].concat()
    }
    let image: Vec<u8> = image.map(|value| u8::try_from(value & 0xff).unwrap()).collect();
    let before = render::from_hex("a0020500010100");
    let after = render::from_hex("0101ffa00205003103020100020120a303020101");
    let config = [before.as_slice(), &wrap(0x04, &image), &after].concat();
    let command = wrap(0xa0, &wrap(0xa3, &wrap(0xb4, &wrap(0x30, &config))));
    let header = render::from_hex("3015020105040800000000000000000c063a68656c6c6f");
    wrap(0x30, &[header, command].concat())
}

/// What was recorded, in the form that the rendering has: devices are a set on the wire, and the old forms of
/// information do not carry what they have no field for.
fn normal(value: &Value) -> Value {
    let mut value = render::sorted(value);
    for form in ["old_unikernel_info4", "old_unikernel_info5"] {
        let Some(Value::Array(items)) = value.pointer_mut(&format!("/payload/success/{form}")) else { continue };
        for info in items.iter_mut().map(|item| &mut item["info"]) {
            info["numcpus"] = json!(1);
            info["linux_boot_partition"] = Value::Null;
            if form == "old_unikernel_info4" {
                info["startup"] = Value::Null;
            }
        }
    }
    value
}

fn decode(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    wire::decode(Frame::whole(bytes))
}

fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 2 << 20];
    wire::encode(message, &mut buffer).unwrap().to_vec()
}

#[test]
fn messages_are_read_and_written_as_recorded() {
    let vectors = vectors("wire");
    assert_eq!(vectors.len(), 200);
    for vector in &vectors {
        let name = string(vector, "name");
        let bytes = bytes(vector);
        let message = decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(normal(&render::message(&message)), normal(&vector["decoded"]), "{name}");
        let again = encode(&message);
        if vector["decode_only"] == true {
            assert_ne!(again, bytes, "{name}");
            assert_eq!(decode(&again).unwrap(), message, "{name}");
        } else {
            assert!(again == bytes, "{name}: written as {}", render::hex(&again));
        }
    }
}

#[test]
fn certificates_are_read_and_written_as_recorded() {
    let vectors = vectors("cert");
    assert_eq!(vectors.len(), 90);
    for vector in &vectors {
        let name = string(vector, "name");
        let bytes = bytes(vector);
        let command = certificate::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let decoded = json!({ "version": 5, "command": render::command(&command) });
        assert_eq!(normal(&decoded), normal(&vector["decoded"]), "{name}");
        let mut buffer = vec![0; bytes.len()];
        assert_eq!(certificate::encode(&command, &mut buffer).unwrap(), bytes, "{name}");
    }
}

#[test]
fn state_files_are_read_as_recorded() {
    let vectors = vectors("state");
    assert_eq!(vectors.len(), 8);
    for vector in &vectors {
        let name = string(vector, "name");
        let bytes = bytes(vector);
        let state = state_import::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let unikernels: Vec<_> = state
            .unikernels()
            .map(|entry| entry.content.unwrap())
            .map(|(name, config)| json!({ "name": name.as_str(), "config": render::config(&config) }))
            .collect();
        let policies: Vec<_> = state
            .policies()
            .map(|entry| entry.content.unwrap())
            .map(|(name, policy)| json!({ "name": name.as_str(), "policy": render::policy(&policy) }))
            .collect();
        let decoded = json!({ "unikernels": unikernels, "policies": policies });
        assert_eq!(normal(&decoded), normal(&vector["decoded"]), "{name}");
        // What comes out of an old file can be written as arguments of today, and read again.
        for (_, config) in state.unikernels().map(|entry| entry.content.unwrap()) {
            let mut buffer = vec![0; 4096];
            let written = config.arguments.encode(&mut buffer).unwrap();
            let arguments = wire::Arguments::decode(written).unwrap();
            let again = render::config(&wire::Config { arguments, ..config });
            assert_eq!(normal(&again), normal(&render::config(&config)), "{name}");
        }
    }
}

#[test]
fn what_is_malformed_is_refused_and_nothing_else() {
    let vectors = vectors("malformed");
    assert_eq!(vectors.len(), 122);
    let mut refused = BTreeSet::new();
    for vector in &vectors {
        let name = string(vector, "name");
        let bytes = bytes(vector);
        match (decode(&bytes), string(vector, "verdict")) {
            (Err(_), "decode_error") => {}
            (Ok(message), "accepted") => {
                assert_eq!(normal(&render::message(&message)), normal(&vector["decoded"]), "{name}");
                assert_eq!(encode(&message) == bytes, vector["reencodes_identically"] == true, "{name}");
            }
            (Ok(_), verdict) => panic!("{name} was accepted, recorded is {verdict}"),
            (Err(error), _) => {
                let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) else {
                    panic!("{name} was refused without being in the table: {error}");
                };
                assert_eq!(error.reason, *reason, "{name}");
                refused.insert(name.to_owned());
            }
        }
    }
    let table: BTreeSet<_> = REFUSED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(refused, table, "the table here must be what is refused");
    assert_eq!(documented(), table, "the table in docs/wire.md must be the table here");
}

/// The first column of the table of refusals in the documentation.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(folder("../docs/wire.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Refused messages")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, reason)| {
        assert!(reason.len() > 10, "{name} has no reason");
        name.to_owned()
    })
    .collect()
}

#[test]
fn mac_addresses_are_the_recorded_ones() {
    let recorded: Vec<Value> = serde_json::from_str(&fs::read_to_string(folder("vectors/mac.json")).unwrap()).unwrap();
    assert!(!recorded.is_empty());
    for entry in recorded {
        let name = Name::parse(string(&entry, "name")).unwrap();
        let address = mac::address(&name, string(&entry, "unikernel_device"));
        assert_eq!(address.map(|byte| format!("{byte:02x}")).join(":"), string(&entry, "mac"), "{entry}");
    }
}
