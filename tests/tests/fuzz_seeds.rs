//! The fuzzers begin from something: each target has seeds, the seeds are what they are meant to be, and what a fuzzer checks
//! holds for all of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fulmar_core::halves::{Answer, Request};
use fulmar_core::journal::{Replay, Tail};
use fulmar_core::wire::{self, Arguments, Cut, Frame, Policy};
use fulmar_core::{certificate, event};
use fulmar_tests::choose::Bytes;
use fulmar_tests::{checks, seeds, world};

/// A check, or none for a target whose code is not reached from here: its own crate runs its seeds.
type Check = Option<fn(&[u8])>;

const TARGETS: [(&str, Check); 21] = [
    ("message", Some(checks::message)),
    ("message_with_cut", Some(checks::message_with_cut)),
    ("stream", Some(checks::stream)),
    ("der", Some(checks::der)),
    ("certificate", Some(checks::certificate)),
    ("whole_certificate", Some(checks::whole_certificate)),
    ("revocation_list", Some(checks::revocation_list)),
    ("state_file", Some(checks::state_file)),
    ("arguments", Some(checks::arguments)),
    ("policy", Some(checks::policy)),
    ("journal", Some(checks::journal)),
    ("event_log", Some(checks::event_log)),
    ("image", Some(checks::image)),
    ("halves", Some(checks::halves)),
    ("console", Some(checks::console)),
    ("world", Some(|bytes| world::run(&mut Bytes::new(bytes)))),
    ("host_half", None),
    ("tender_image", None),
    ("tender_hypercalls", None),
    ("tender_ring", None),
    ("tender_command_line", None),
];

fn seeds() -> BTreeMap<&'static str, Vec<seeds::Seed>> {
    seeds::all(Path::new("no unikernels")).unwrap().into_iter().collect()
}

#[test]
fn each_target_has_seeds_for_which_its_check_holds() {
    let seeds = seeds();
    for (target, check) in TARGETS {
        assert!(!seeds[target].is_empty(), "{target}");
        for (_, bytes) in check.iter().flat_map(|_| &seeds[target]) {
            check.unwrap()(bytes);
        }
    }
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/fuzz_targets")).unwrap();
    let mut files: Vec<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let mut targets: Vec<&str> = TARGETS.iter().map(|(target, _)| *target).chain(["canary"]).collect();
    files.sort();
    targets.sort_unstable();
    assert_eq!(files, targets);
}

#[test]
fn seeds_are_what_they_are_meant_to_be() {
    let seeds = seeds();
    let good = |target, is_good: fn(&[u8]) -> bool| seeds[target].iter().filter(|(_, bytes)| is_good(bytes)).count();
    assert_eq!(good("arguments", |bytes| Arguments::decode(bytes).is_ok()), seeds["arguments"].len());
    assert_eq!(good("policy", |bytes| Policy::decode(bytes).is_ok()), seeds["policy"].len());
    assert!(seeds["arguments"].len() > 20 && seeds["policy"].len() > 5);
    assert!(good("certificate", |bytes| certificate::decode(bytes).is_ok()) > 50);
    assert_eq!(
        good("halves", |bytes| Request::decode(bytes).is_ok() || Answer::decode(bytes).is_ok()),
        seeds["halves"].len()
    );
    assert!(seeds["whole_certificate"].len() > 50);
    let records = |bytes: &[u8]| {
        let mut count = 0;
        let header = event::decode_header(bytes).unwrap();
        event::find_tail(header, bytes, |record| count += usize::from(record.entry().is_ok()));
        count
    };
    assert!(seeds["event_log"].iter().map(|(_, bytes)| records(bytes)).sum::<usize>() > 80);
    let is_cut = |bytes: &[u8]| {
        let cut = Cut { at: bytes[0].into(), len: 2000 };
        wire::decode(Frame { head: &bytes[1..], cut: Some(cut) }).is_ok()
    };
    assert!(good("message_with_cut", is_cut) > 15, "{}", good("message_with_cut", is_cut));
    let journal = &seeds["journal"].iter().find(|(name, _)| name == "kinds").unwrap().1;
    let mut replay = Replay::new(journal).unwrap();
    let mut entries = 0;
    while replay.next_entry().unwrap().is_some() {
        entries += 1;
    }
    assert!(entries > 12 && matches!(replay.tail(), Ok(Tail::Clean { .. })), "{entries}");
}

#[test]
#[should_panic(expected = "the canary was found")]
fn the_canary_is_there_to_be_found() {
    checks::canary(b"fulmar!");
}
