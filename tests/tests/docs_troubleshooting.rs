//! `docs/troubleshooting.md` knows no message that is not said: each is in the sources, word by word.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::Path;

/// Where what people read is written.
const SOURCES: [&str; 5] = ["core/src", "host/src", "daemons", "client/src", "shim-linux/src"];

/// A part of a message that is shorter than this proves nothing.
const PART_BYTES_MIN: usize = 4;

/// What is in all Rust files below a folder, texts over several lines joined as the compiler joins them.
fn collect(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                collect(&path, all);
            }
        } else if path.extension().is_some_and(|it| it == "rs") {
            let mut lines = fs::read_to_string(&path).unwrap();
            while let Some(at) = lines.find("\\\n") {
                let rest = lines.split_off(at);
                lines.push_str(rest[2..].trim_start());
            }
            all.push_str(&lines);
        }
    }
}

#[test]
fn each_message_is_one_that_is_said() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = String::new();
    SOURCES.iter().for_each(|folder| collect(&root.join(folder), &mut sources));
    let page = fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let messages: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    assert!(messages.len() > 40, "{}", messages.len());
    for message in messages {
        let parts = message.split('…').flat_map(|part| part.split([':', ',', ';', '(', ')'])).map(str::trim);
        let parts: Vec<&str> = parts.filter(|part| part.len() >= PART_BYTES_MIN).collect();
        assert!(!parts.is_empty(), "{message}: nothing of it can be looked for");
        for part in parts {
            assert!(sources.contains(part), "nobody says '{part}' of: {message}");
        }
    }
}
