//! Goal: whatever fails and wherever the power goes, a block device that was made is there whole, and what is not wanted is
//! not mistaken for one. Method: a simulated folder that fails and forgets.

use super::*;
use crate::disk::simulated::{Fault, SimulatedFolder};

const BYTES: u64 = 64;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn names_and_file_names_are_one_to_one() {
    for text in [":hello", "foo:disk1", "a:b:c.d-e"] {
        assert_eq!(name_of(&file_name(&name(text))), Some((name(text), Place::Own)));
        assert_eq!(name_of(&aside_name(&name(text))), Some((name(text), Place::Aside)));
        assert_eq!(name_of(&retired_name(&name(text))), Some((name(text), Place::Retired)));
        assert_eq!(name_of(&unclaimed_name(&name(text), 99)), Some((name(text), Place::Unclaimed)));
    }
    assert_eq!(file_name(&name("foo:disk1")), "foo:disk1_disk");
    let long = format!("{}a", "a:".repeat(124));
    assert!(file_name(&name(&long)).len() <= 255 && unclaimed_name(&name(&long), 99).ends_with("_un99"));
    // Another program's, another text form, a path, none at all.
    for file in [
        "foo:disk1",
        "hello_disk",
        "Foo:a_disk",
        "foo:_disk",
        "_disk",
        "a/b_disk",
        "foo:disk1_disk~",
        "_new",
        "foo:_new",
        "foo:a_un",
        "foo:a_un0",
        "foo:a_un01",
        "foo:a_un100",
    ] {
        assert_eq!(name_of(file), None, "{file}");
    }
}

#[test]
fn the_sweep_takes_what_nobody_needs_and_nothing_else() {
    let folder = SimulatedFolder::default();
    let blocks = Blocks::new(folder.clone());
    let is_kept = |it: &Name| *it == name("p:kept");
    for made in ["p:kept", "p:left", "p:retired", "p:full"] {
        blocks.make(&name(made), BYTES).unwrap();
        blocks.open(&name(made)).unwrap().write_at(if made == "p:left" { b"" } else { b"content" }, 0).unwrap();
    }
    blocks.retire(&name("p:retired")).unwrap();
    // A new content that never took its place, of one that is wanted too.
    blocks.begin_aside(&name("p:kept"), BYTES).unwrap();
    blocks.begin_aside(&name("p:none"), BYTES).unwrap();
    folder.create("p:of.another.program").unwrap();
    assert_eq!(blocks.count().unwrap(), 4);
    let swept = blocks.sweep(is_kept).unwrap();
    let moved = |number: u8| vec![("p:full_disk".to_owned(), format!("p:full_un{number}"))];
    assert_eq!(swept, Swept { removed: 4, moved: moved(1), unclaimed: 0, foreign: 1 });
    assert_eq!(folder.names().unwrap(), ["p:full_un1", "p:kept_disk", "p:of.another.program"]);
    assert_eq!(blocks.bytes(&name("p:kept")).unwrap(), Some(BYTES));
    assert_eq!(blocks.bytes(&name("p:left")).unwrap(), None);
    assert_eq!(blocks.open(&name("p:left")).unwrap_err().error.kind(), io::ErrorKind::NotFound);
    blocks.remove(&name("p:left")).unwrap();
    // One of the same name again is kept beside it, until there are too many.
    for number in 2..=BLOCK_UNCLAIMED_MAX {
        blocks.make(&name("p:full"), BYTES).unwrap();
        blocks.open(&name("p:full")).unwrap().write_at(&[number], 0).unwrap();
        assert_eq!(blocks.sweep(is_kept).unwrap().moved, moved(number));
    }
    blocks.make(&name("p:full"), BYTES).unwrap();
    assert_eq!(blocks.sweep(is_kept).unwrap().removed, 1);
    blocks.make(&name("p:full"), BYTES).unwrap();
    blocks.open(&name("p:full")).unwrap().write_at(b"the last", 0).unwrap();
    let error = blocks.sweep(is_kept).unwrap_err().to_string();
    assert!(error.ends_with("99 of p:full are there already: move them away"), "{error}");
    assert_eq!(blocks.bytes(&name("p:full")).unwrap(), Some(BYTES));
}

#[test]
fn one_that_is_being_removed_comes_back_with_its_record_and_goes_without() {
    for is_recorded in [false, true] {
        let folder = SimulatedFolder::default();
        let blocks = Blocks::new(folder.clone());
        blocks.make(&name("p:a"), BYTES).unwrap();
        blocks.open(&name("p:a")).unwrap().write_at(b"content", 0).unwrap();
        blocks.retire(&name("p:a")).unwrap();
        let swept = blocks.sweep(|_| is_recorded).unwrap();
        assert_eq!(swept, Swept { removed: usize::from(!is_recorded), ..Swept::default() });
        assert_eq!(blocks.bytes(&name("p:a")).unwrap(), is_recorded.then_some(BYTES));
        assert_eq!(folder.names().unwrap().len(), usize::from(is_recorded));
    }
    let folder = SimulatedFolder::default();
    let blocks = Blocks::new(folder.clone());
    blocks.make(&name("p:a"), BYTES).unwrap();
    blocks.retire(&name("p:a")).unwrap();
    blocks.reinstate(&name("p:a")).unwrap();
    assert_eq!(folder.names().unwrap(), ["p:a_disk"]);
    blocks.retire(&name("p:a")).unwrap();
    blocks.remove(&name("p:a")).unwrap();
    assert_eq!(folder.names().unwrap(), [""; 0]);
}

#[test]
fn one_that_is_left_over_gives_nothing_of_itself_to_the_next() {
    let blocks = Blocks::new(SimulatedFolder::default());
    blocks.make(&name("p:a"), BYTES).unwrap();
    blocks.open(&name("p:a")).unwrap().write_at(b"secret", 0).unwrap();
    blocks.make(&name("p:a"), 2 * BYTES).unwrap();
    let file = blocks.open(&name("p:a")).unwrap();
    let mut content = [1; 2 * BYTES as usize];
    assert_eq!(file.read_at(&mut content, 0).unwrap(), content.len());
    assert_eq!(content, [0; 2 * BYTES as usize]);
}

#[test]
fn what_was_made_is_whole_whatever_the_power_does() {
    for fault in [Fault::Full, Fault::Broken, Fault::CrashBefore, Fault::CrashAfter] {
        for operation in 0..8 {
            let folder = SimulatedFolder::default();
            let blocks = Blocks::new(folder.clone());
            folder.fault_at(operation, fault);
            let made = blocks.make(&name("p:a"), BYTES);
            for survives in [false, true] {
                folder.crash(|| survives);
                if made.is_ok() {
                    assert_eq!(blocks.bytes(&name("p:a")).unwrap(), Some(BYTES), "{fault:?} at {operation}");
                } else {
                    // Whatever is there, the next try is not disturbed by it.
                    blocks.make(&name("p:a"), 2 * BYTES).unwrap();
                    assert_eq!(blocks.bytes(&name("p:a")).unwrap(), Some(2 * BYTES));
                    break;
                }
            }
        }
    }
}
