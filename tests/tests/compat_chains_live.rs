//! Chains as the peer's tools made them, sent to the real daemons: the answers are those of the peer's, byte by byte, or differ as
//! `docs/wire.md` says.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use der::Encode;
use fulmar_tests::pki::{Identity, Issuer, Key};
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::Broken;
use fulmar_tests::tenants::Tenants;
use serde_json::Value;
use x509_cert::Certificate;

/// Answers that are not the recorded ones: what ours says, and why.
const OTHERS: &[(&str, &str)] = &[
    // The peer answers a refused chain with nothing at all.
    ("05-cn-empty", "invalid name"),
    ("09-cn-none-blockadd", "a block device"),
    ("14-cn-path", "':' is not allowed"),
    ("26-inter-badcn", "'_' is not allowed"),
    ("28-inter-nocn", "no common name"),
    ("29-inter-info", "nothing but a policy"),
    ("30-inter-policyremove", "nothing but a policy"),
    ("31-inter-badext", "cannot be read"),
    ("33-leaf-noext", "carries no command"),
    ("34-leaf-badext", "cannot be read"),
    ("36-leaf-version6", "cannot be read"),
    ("38-cmd-console-add", "cannot be given by a certificate"),
    ("42-cmd-stats-remove", "cannot be given by a certificate"),
    ("43-cmd-stats-initial", "cannot be given by a certificate"),
    ("45-cmd-policy-add", "cannot be given by a certificate"),
    // The same, which breaks the peer's daemon.
    ("11-cn-none-create", "the name of a unikernel is needed"),
    // The peer lists nothing where there is no unikernel of the name.
    ("01-direct", "info: not found"),
    ("02-direct-root-in-chain", "info: not found"),
    ("17-cn-dotted", "info: not found"),
    ("18-inter1", "info: not found"),
    ("20-inter1-root", "info: not found"),
    ("21-inter2", "info: not found"),
    ("32-inter-unusable", "info: not found"),
    ("51-cmd-old-info4", "info: not found"),
    ("52-cmd-old-info5", "info: not found"),
    // The words around it are the peer's own.
    ("23-inter2-larger", "policy above allows 10 unikernels, which is fewer than 50"),
    // The peer says destroy.
    ("50-cmd-restart", "restart: not found"),
];

/// Answers that depend on what was there before, or on the order of the recording.
const OF_ITS_STATE: &[&str] = &["47-cmd-policy-info", "55-cmd-block-dump"];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/chains")
}

fn certificates(file: &str) -> Vec<Vec<u8>> {
    let pem = fs::read(vectors().join(file)).unwrap();
    Certificate::load_pem_chain(&pem).unwrap().iter().map(|it| it.to_der().unwrap()).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn identity(file: &str, keys: &Value) -> Identity {
    let chain = certificates(&format!("{file}.pem"));
    Identity { key: Key { pkcs8: unhex(keys[file].as_str().unwrap()) }, chain, serial: Vec::new() }
}

#[test]
fn the_recorded_chains_are_answered_as_the_peer_answers_them() {
    let keys: Value = serde_json::from_slice(&fs::read(vectors().join("keys.json")).unwrap()).unwrap();
    let server = identity("server", &keys);
    let der = certificates("ca.pem").remove(0);
    // Nothing is issued by it here.
    let ca = Issuer { key: Key::generate(), subject: Vec::new(), der, chain: Vec::new(), serial: Vec::new() };
    let test = "the_recorded_chains_are_answered_as_the_peer_answers_them";
    let Some(tenants) = Tenants::begin_with(test, ca, server) else { return };
    let index: Vec<Value> = serde_json::from_slice(&fs::read(vectors().join("index.json")).unwrap()).unwrap();
    let mut same = 0;
    for entry in &index {
        let file = entry["file"].as_str().unwrap();
        let mut remote = tenants.connect(&identity(file, &keys));
        let answer = remote.receive_bytes();
        if file == "58-len-10" {
            assert!(matches!(answer, Err(Broken::Alert(_))), "{answer:?}");
            continue;
        }
        let answer = answer.unwrap_or_else(|broken| panic!("{file}: {broken:?}\n{}", tenants.log()));
        match OTHERS.iter().find(|(other, _)| *other == file) {
            Some((_, reason)) => {
                let answer = Answer::of(&answer);
                assert!(answer.reason().contains(reason), "{file}: not for '{reason}': {answer:?}");
            }
            None if OF_ITS_STATE.contains(&file) => {
                let answer = Answer::of(&answer);
                assert!(!matches!(answer, Answer::Refused(_)), "{file}: {answer:?}");
            }
            None => {
                let recorded = unhex(entry["live"].as_str().unwrap());
                let without_sequence = |message: &[u8]| {
                    let at = message.windows(5).position(|it| it == [2, 1, 5, 4, 8]).unwrap();
                    [&message[..at + 5], &message[at + 13..]].concat()
                };
                // The peer's sequence is 0 for commands of its main daemon, and what that daemon counts for streams.
                assert_eq!(
                    without_sequence(&answer),
                    without_sequence(&recorded[4..]),
                    "{file}: {:?}",
                    Answer::of(&answer)
                );
                same += 1;
            }
        }
    }
    assert!(same >= 8, "{same}");
    tenants.siege.system.stop().unwrap();
}
