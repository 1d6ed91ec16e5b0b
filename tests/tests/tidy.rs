//! The source tree, as far as a machine can judge it: how files open, how long they are, where `unsafe` may stand, what must
//! not be left behind, and that the documents say what is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where `unsafe` may stand, and what for.
const UNSAFE: &[(&str, &str)] = &[
    ("daemons/vmmd/tests/allocations.rs", "counts allocations: an allocator is an unsafe trait"),
    ("guest/crash/src/hvt.rs", "does what a guest may not, to prove that it is ended"),
    ("guest/crash/src/main.rs", "does what a guest may not, to prove that it is ended"),
    ("guest/crash/src/spt.rs", "does what a guest may not, to prove that it is ended"),
    ("guest/runtime/src/device.rs", "the tender's manifest lies at an address that only the ABI gives"),
    ("guest/runtime/src/hvt/mod.rs", "hypercalls through a port, the ring at its address"),
    ("guest/runtime/src/hvt/trap.rs", "descriptor tables, and what exceptions arrive in"),
    ("guest/runtime/src/intrinsics.rs", "the memory functions that compiled code calls"),
    ("guest/runtime/src/note.rs", "notes go into sections of their own, under bare names"),
    ("guest/runtime/src/random.rs", "the processor's source of chance"),
    ("guest/runtime/src/spt.rs", "system calls"),
    ("guest/runtime/src/start.rs", "the tender's structures lie at addresses that only the ABI gives"),
    ("host/src/sys.rs", "packets with descriptors, and descriptors that a process was started with"),
    ("shim-freebsd/src/sys.rs", "ioctl, sysctl, cpuset, procctl, fork, fexecve"),
    ("shim-linux/src/sys.rs", "ioctl on taps, pidfd, fork, execveat"),
    ("tender/src/hvt/kvm.rs", "the ioctls of KVM"),
    ("tender/src/main.rs", "the C library knows its start by the bare name"),
    ("tender/src/memory.rs", "the memory of the guest"),
    ("tender/src/raw.rs", "system calls made by the instruction itself, beside a guest"),
    ("tender/src/spt/faults.rs", "what the kernel hands to a signal handler, and faults made on purpose"),
    ("tender/src/spt/mod.rs", "jumps into the guest"),
    ("tender/src/sys.rs", "system calls that have no safe wrapper"),
    ("tender/src/tap.rs", "the ioctl of a tap"),
    ("tender/tests/rows/child.rs", "makes system calls that a filter forbids"),
    ("tests/nostd/src/main.rs", "a program without std has its own entry"),
];

/// Where programs look at the clock on the wall, and what for. It may be set at any time, so nothing is decided by it.
const WALL_CLOCKS: &[(&str, &str)] = &[
    ("client/src/import/rehearsal.rs", "a machine that is only asked, at no time"),
    ("client/src/program.rs", "how long ago something was, and from when on a certificate is valid"),
    ("client/src/top/screen.rs", "how long ago something was"),
    ("core/src/machine/condition.rs", "hands out when a run ended, and about when the next one is"),
    ("core/src/machine/exchange.rs", "what comes in"),
    ("core/src/machine/life.rs", "keeps when a process started and ended"),
    ("core/src/machine/mod.rs", "passes it on"),
    ("core/src/machine/reply.rs", "hands out when a process started"),
    ("core/src/machine/restore.rs", "keeps when a process started and ended"),
    ("core/src/machine/unikernel.rs", "where it is kept"),
    ("daemons/console/src/stream.rs", "the time of a line"),
    ("daemons/influx/src/line.rs", "the time of a measurement, and how long ago its process was started"),
    ("daemons/influx/src/measure.rs", "the time of a measurement"),
    ("daemons/log/src/store.rs", "the time of its own events; segments that are older than is wanted go"),
    ("daemons/tls/src/events.rs", "the time of an event"),
    ("daemons/tls/src/revoked.rs", "whether a folder has been changed; where that is in doubt it is read"),
    ("daemons/tls/src/start.rs", "a number that no other process has"),
    ("daemons/vmmd/src/control/events.rs", "the time of an event"),
    ("daemons/vmmd/src/control/mod.rs", "reads it for the machine"),
    ("daemons/vmmd/src/control/start.rs", "when a survivor started, for the machine"),
    ("daemons/vmmd/src/host_half/records.rs", "when a unit was launched, for the machine"),
    ("shim-linux/src/usage.rs", "when a process started, for people"),
    ("tender/src/hvt/mod.rs", "the guest asks for it"),
    ("tender/src/raw.rs", "the guest asks for it"),
    ("tender/src/spt/mod.rs", "the guest asks for it"),
];

/// Files of more lines than [`LINES_MAX`], and why they are not split.
const LONG: &[(&str, &str)] = &[];
const LINES_MAX: usize = 500;

/// The hosts that the tree may name, and what for.
const HOSTS: &[(&str, &str)] = &[
    ("github.com", "projects that this one follows"),
    ("keepachangelog.com", "the form of the changelog"),
    ("mirage.io", "what the unikernels are"),
    ("rustsec.org", "the known holes of crates"),
    ("www.w3.org", "the namespace of SVG"),
    ("127.0.0.1", "this host"),
];

/// Folders of the tree that are no part of it.
const NOT_OURS: [&str; 4] = [".git", "target", "corpus", "artifacts"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every file of the tree, by its path from the top.
fn tree() -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                // A workspace of its own may have put its target folder anywhere: cargo marks it.
                if !NOT_OURS.contains(&name.as_str()) && !entry.path().join("CACHEDIR.TAG").exists() {
                    folders.push(entry.path());
                }
            } else if name != ".git" {
                files.push(entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    assert!(files.len() > 200, "{}", files.len());
    files
}

fn read(file: &str) -> String {
    String::from_utf8_lossy(&fs::read(root().join(file)).unwrap()).into_owned()
}

/// The sources, each with its text.
fn sources() -> impl Iterator<Item = (String, String)> {
    let files = tree().into_iter().filter(|file| file.ends_with(".rs"));
    files.map(|file| {
        let text = read(&file);
        (file, text)
    })
}

/// A word that this file looks for and does not contain.
fn word(halves: [&str; 2]) -> String {
    halves.concat()
}

#[test]
fn every_source_opens_with_what_it_is_for() {
    for (file, text) in sources() {
        let opens = text.lines().next().unwrap_or_default();
        assert!(opens.strip_prefix("//! ").is_some_and(|it| it.len() > 10), "{file} opens with: {opens}");
    }
}

#[test]
fn sources_are_short() {
    let long = sources().filter(|(_, text)| text.lines().count() > LINES_MAX).map(|(file, _)| file);
    assert_eq!(long.collect::<Vec<_>>(), LONG.iter().map(|(file, _)| *file).collect::<Vec<_>>());
}

#[test]
fn unsafe_stands_in_named_files_only() {
    let unsafe_code = |text: &str| text.lines().map(without_comment).any(|code| has_word(code, "unsafe"));
    let found = sources().filter(|(_, text)| unsafe_code(text)).map(|(file, _)| file);
    let listed: BTreeSet<_> = UNSAFE.iter().map(|(file, _)| (*file).to_owned()).collect();
    // The unsafe code of this file is a word within a text.
    assert_eq!(found.filter(|file| file != "tests/tests/tidy.rs").collect::<BTreeSet<_>>(), listed);
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether a line of code has this word, not as a part of another one.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |it: char| it.is_alphanumeric() || it == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(part_of_word) && !after.starts_with(part_of_word)
    })
}

#[test]
fn the_wall_clock_is_only_shown() {
    let folders = ["client/src/", "core/src/", "daemons/", "host/src/", "shim-linux/src/", "tender/src/"];
    let is_program = |file: &str| folders.iter().any(|it| file.starts_with(it)) && !file.contains("/tests");
    let clocks = ["SystemTime", "UNIX_EPOCH", "CLOCK_REALTIME", "wall_ms"];
    let looks = |text: &str| text.lines().map(without_comment).any(|code| clocks.iter().any(|it| code.contains(it)));
    let found = sources().filter(|(file, text)| is_program(file) && looks(text)).map(|(file, _)| file);
    let listed: BTreeSet<_> = WALL_CLOCKS.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(found.collect::<BTreeSet<_>>(), listed);
    // The machine keeps it and hands it out, but never looks what it says.
    for (file, text) in sources().filter(|(file, _)| file.starts_with("core/src/machine/")) {
        for line in text.lines().map(without_comment).filter(|line| line.contains("wall_ms")) {
            let compares = ["if ", "match ", " < ", " > ", "<=", ">=", "wall_ms ==", "_sub", "set_alarm"];
            assert!(!compares.iter().any(|it| line.contains(it)), "{file}: {line}");
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    let words = [["FIX", "ME"], ["XX", "X"], ["TO", "DO"]].map(word);
    let macros = [["dbg", "!("], ["todo", "!("], ["unimplemented", "!("]].map(word);
    for file in tree().into_iter().filter(|file| !file.starts_with("tests/vectors/")) {
        let text = read(&file);
        for (number, line) in text.lines().enumerate() {
            let left = words.iter().any(|it| has_word(line, it)) || macros.iter().any(|it| line.contains(it.as_str()));
            assert!(!left || !readable(&file), "{file}:{}: {line}", number + 1);
        }
    }
}

fn readable(file: &str) -> bool {
    !file.ends_with(".der") && !file.ends_with(".bin") && !file.ends_with(".journal") && !file.ends_with(".lock")
}

#[test]
fn the_tree_knows_no_machine_and_no_host_of_packages() {
    let folders = [["/wo", "rk/"], ["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"]].map(word);
    let scheme = [word(["https:", "//"]), word(["http:", "//"])];
    for file in tree().into_iter().filter(|file| readable(file)) {
        let text = read(&file);
        for folder in &folders {
            // A path of the peer's own tree may go through such a folder; one that begins with it is a machine's.
            let names = text
                .match_indices(folder.as_str())
                .any(|(at, _)| !text[..at].ends_with(|it: char| it.is_alphanumeric() || "._-".contains(it)));
            assert!(!names, "{file} names {folder}");
        }
        if file.starts_with("tests/vectors/") {
            continue;
        }
        for url in scheme.iter().flat_map(|it| text.split(it.as_str()).skip(1)) {
            let host = url.split(|it: char| !(it.is_alphanumeric() || ".-".contains(it))).next().unwrap();
            let listed = HOSTS.iter().any(|(known, _)| host == *known) || host.is_empty();
            assert!(listed, "{file} names {host}");
        }
    }
}

/// README, ARCHITECTURE, CHANGELOG, the pages of `docs/` and of the guests.
fn pages() -> Vec<String> {
    let pages: Vec<_> = tree().into_iter().filter(|file| file.ends_with(".md")).collect();
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/wire.md", "guest/README.md"] {
        assert!(pages.iter().any(|it| it == page), "{page}");
    }
    pages
}

#[test]
fn links_of_pages_lead_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        let folder = root().join(&page).parent().unwrap().to_path_buf();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if target.contains("://") {
                continue;
            }
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { root().join(&page) } else { folder.join(file) };
            assert!(file.exists(), "{page}: {target}");
            if !place.is_empty() {
                let headings = fs::read_to_string(&file).unwrap();
                let anchor = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                assert!(headings.lines().any(|it| it.starts_with('#') && anchor(it) == place), "{page}: {target}");
            }
            links += 1;
        }
    }
    assert!(links >= 4, "{links}");
}

#[test]
fn files_that_pages_name_are_there() {
    let files = tree();
    let known = |path: &str| {
        let path = path.trim_end_matches('/');
        files.iter().any(|file| file == path || file.starts_with(&format!("{path}/")))
    };
    let tops: BTreeSet<_> =
        files.iter().filter_map(|file| file.split_once('/')).map(|(top, _)| top.to_owned()).collect();
    let mut named = 0;
    for page in pages() {
        for path in read(&page).split('`').skip(1).step_by(2) {
            let of_tree = path.split_once('/').is_some_and(|(top, _)| tops.contains(top));
            if of_tree && path.chars().all(|it| it.is_alphanumeric() || "/._-".contains(it)) {
                assert!(known(path), "{page} names {path}");
                named += 1;
            }
        }
    }
    assert!(named >= 20, "{named}");
}

#[test]
fn the_folders_are_those_of_the_architecture() {
    let page = read("ARCHITECTURE.md");
    let section = page.split("\n## ").find(|it| it.starts_with("The folders")).unwrap();
    let table = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("/`"));
    let table: BTreeSet<_> = table.map(|(folder, _)| folder.split('/').next().unwrap().to_owned()).collect();
    let folders = tree().into_iter().filter_map(|file| Some(file.split_once('/')?.0.to_owned()));
    // What begins with a dot is found by the tools that it is for.
    assert_eq!(folders.filter(|it| !it.starts_with('.')).collect::<BTreeSet<_>>(), table);
}

#[test]
fn the_changelog_has_its_form() {
    const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    let page = read("CHANGELOG.md");
    assert!(page.starts_with("# Changelog\n"));
    let versions: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(versions.first(), Some(&"[Unreleased]"));
    for version in &versions[1..] {
        let (number, day) = version.split_once(" - ").unwrap_or_else(|| panic!("{version} has no day"));
        assert!(number.starts_with('[') && number.ends_with(']'), "{version}");
        assert!(day.len() == 10 && day.split('-').all(|it| it.parse::<u32>().is_ok()), "{version}");
    }
    assert!(page.lines().filter_map(|line| line.strip_prefix("### ")).all(|kind| KINDS.contains(&kind)));
    let mut within = false;
    for line in page.lines() {
        within |= line.starts_with("### ");
        let of_list = line.is_empty() || line.starts_with("- ") || line.starts_with("  ") || line.starts_with('#');
        assert!(!within || of_list, "{line}");
    }
}
