//! Chains as the peer's tools made them: ours says of each what the peer has said, its name and its policies.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use der::Encode;
use fulmar_core::certificate::chain::{self, Chain};
use serde_json::{Value, json};
use x509_cert::Certificate;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/chains")
}

fn certificates(file: &str) -> Vec<Vec<u8>> {
    let pem = fs::read(vectors().join(file)).unwrap();
    Certificate::load_pem_chain(&pem).unwrap().iter().map(|it| it.to_der().unwrap()).collect()
}

/// The policies in the order in which the peer applies them: the lowest first.
fn policies(chain: &Chain<'_>) -> Value {
    let bare = |name: &str| name.trim_end_matches(':').to_owned();
    let of = |it: &fulmar_core::wire::NamedPolicy<'_>| json!({ "path": bare(it.name.as_str()), "unikernels": it.policy.unikernels, "memory": it.policy.memory });
    chain.policies.iter().rev().map(of).collect()
}

/// What is refused by who does the command, not by who reads the chain.
const REFUSED_LATER: &[&str] = &["09-cn-none-blockadd"];

#[test]
fn every_chain_is_judged_as_the_peer_judges_it() {
    let ca = certificates("ca.pem").remove(0);
    let index: Vec<Value> = serde_json::from_slice(&fs::read(vectors().join("index.json")).unwrap()).unwrap();
    let (mut good, mut refused) = (0, 0);
    for entry in &index {
        let file = entry["file"].as_str().unwrap();
        let mut sent = certificates(&format!("{file}.pem"));
        assert_eq!(sent.len() as u64, entry["chain_length"].as_u64().unwrap());
        sent.retain(|it| *it != ca);
        let above: Vec<&[u8]> = sent[1..].iter().map(Vec::as_slice).collect();
        match (chain::judge(&sent[0], &above), entry["verdict"].as_str().unwrap()) {
            (Ok(chain), "ok") => {
                assert_eq!(chain.name.as_str(), entry["name"].as_str().unwrap(), "{file}");
                assert_eq!(policies(&chain), entry["policies_in_order_applied"], "{file}");
                good += 1;
            }
            (Ok(_), "error") if REFUSED_LATER.contains(&file) => {}
            (Err(error), "error") => {
                assert!(error.to_string().contains("is refused: "), "{file}: {error}");
                refused += 1;
            }
            (ours, theirs) => panic!("{file}: {ours:?}, the peer says {theirs}"),
        }
    }
    assert!(good >= 20 && refused >= 15, "{good} good, {refused} refused");
}
