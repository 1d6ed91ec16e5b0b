//! `vmmc_local log`: what a person and a program are shown of what the event log sends, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{FakeDaemon, frame};
use fulmar_core::name::Name;
use fulmar_core::wire::{
    Data, Deed, Event, GapCause, LogEntry, Loss, Next, Note, Numbered, Payload, RunEnd, Success, Text,
};
use serde_json::Value;

fn told(parts: &[Data<'_>]) -> FakeDaemon {
    let mut bytes = frame("a:", Payload::Success(Success::Text(Text(b"subscribed"))));
    bytes.extend(parts.iter().flat_map(|part| frame("a:", Payload::Data(*part))));
    FakeDaemon::answering("log.sock", bytes)
}

fn event(sequence: u64, event: Event<'_>) -> Data<'_> {
    Data::Event(Numbered { sequence, entry: LogEntry { unix_ms: 1500, event } })
}

/// Some of each kind, one with a text that would steer a terminal.
fn story() -> [Data<'static>; 9] {
    let name = Name::parse("a:x").unwrap();
    [
        Data::Note(Note::Gap { first: 1, next: 5, cause: GapCause::Removed }),
        event(5, Event::Done { name, deed: Deed::CreatedUnikernel, user: Some(7) }),
        event(6, Event::Ended { name, pid: 9, end: RunEnd::Signal(9), asked: false }),
        event(7, Event::Decided { name, next: Next::Rest { seconds: 2, failures: 1 }, reason: "signal 9".into() }),
        event(8, Event::Refused { name, reason: Text(b"no\x1b[2J\nroom\xff"), user: None }),
        Data::Note(Note::Gap { first: 9, next: 10, cause: GapCause::Damaged }),
        event(10, Event::Lost { count: 3, loss: Loss::Away }),
        Data::Note(Note::Lost { count: 4 }),
        Data::Note(Note::End { last: 12 }),
    ]
}

#[test]
fn people_see_lines() {
    let ran = told(&story()).client(&["log", "a:"]);
    let lines = [
        "-- events 1 to 4 were removed to make room",
        "1970-01-01T00:00:01.500Z 5 a:x: created unikernel (asked by user 7)",
        "1970-01-01T00:00:01.500Z 6 a:x ended: signal 9",
        "1970-01-01T00:00:01.500Z 7 a:x does not run, next try in 2 s (short runs in a row: 1): signal 9",
        "1970-01-01T00:00:01.500Z 8 a:x: refused: no\\u{1b}[2J\\nroom\\xff",
        "-- events 9 to 9 are damaged on the disk",
        "1970-01-01T00:00:01.500Z 10 3 events are lost: the log daemon was not there",
        "-- 4 events are lost: the disk of the log takes no more",
    ];
    assert_eq!((ran.out.lines().collect::<Vec<_>>(), ran.code), (lines.to_vec(), 0), "{}", ran.errors);
    // What is missing is said whatever is asked for.
    let ran = told(&story()).client(&["log", "a:", "--only", "refusal", "--follow"]);
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), [lines[0], lines[4], lines[5], lines[6], lines[7]]);
}

#[test]
fn programs_see_documents() {
    let ran = told(&story()).client(&["log", "a:", "--json", "--after", "0"]);
    let documents: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 9);
    assert_eq!(documents[0], serde_json::json!({ "gap": { "first": 1, "next": 5, "cause": "removed" } }));
    assert_eq!(
        documents[2],
        serde_json::json!({
            "number": 6, "time": "1970-01-01T00:00:01.500Z", "event": "end", "name": "a:x", "pid": 9, "user": null,
            "code": null, "signal": 9, "text": "a:x ended: signal 9",
        })
    );
    assert_eq!((&documents[1]["user"], &documents[1]["event"]), (&7.into(), &"created unikernel".into()));
    assert_eq!(documents[6]["name"], Value::Null);
    assert_eq!((&documents[7]["lost"], &documents[8]["end"]), (&4.into(), &12.into()));
}

#[test]
fn what_ends_early_is_no_success() {
    let one = event(5, Event::Hup);
    let ran = told(&[one, Data::Note(Note::Slow)]).client(&["log", "a:", "--follow"]);
    assert!(ran.errors.contains("go on with --after 5"), "{}", ran.errors);
    assert_eq!(ran.code, 117);
    // The daemon died over it.
    let ran = told(&[one]).client(&["log", "a:"]);
    assert_eq!(ran.code, 121, "{}", ran.errors);
    let ran = told(&[Data::Console { unix_ms: 0, line: Text(b"no") }]).client(&["log", "a:"]);
    assert_eq!(ran.code, 121, "{}", ran.errors);
    for words in
        [&["log", "a:", "--after", "x"][..], &["log", "--after", "1", "--count", "2"], &["log", "--only", "all"]]
    {
        assert_eq!(told(&[]).client(words).code, 124, "{words:?}");
    }
}
