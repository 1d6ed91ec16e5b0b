//! The unikernels that use one resource to its limit: the processor, the console, the memory, a disk.

use std::fs;
use std::process::Command;

use crate::tender::{Disk, End, Running, end, image, kinds, run, tender};
use fulmar_tests::built::Kind;

#[test]
fn spin_says_its_rounds() {
    for kind in kinds("spin") {
        let end = end(run(kind, "spin").arg("--seconds=1"));
        assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""), "{end:?}");
        let rounds =
            end.stdout.strip_prefix("spin: for 1 s\nspin: ").unwrap().strip_suffix(" rounds in 1 s\n").unwrap();
        assert!(rounds.parse::<u64>().unwrap() > 0, "{end:?}");
    }
}

#[test]
fn chatty_writes_every_line_in_order() {
    for kind in kinds("chatty") {
        let end = end(run(kind, "chatty").args(["--lines=100", "--bytes=200"]));
        assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""), "{end:?}");
        assert_eq!(end.stdout.lines().count(), 100);
        for (number, line) in (1..).zip(end.stdout.lines()) {
            assert!(line.starts_with(&format!("chatty: line {number} ..")) && line.len() == 199, "{line}");
        }
    }
}

#[test]
fn chatty_has_no_end_and_takes_any_length() {
    for kind in kinds("chatty without end") {
        let mut child = Running::start(&mut run(kind, "chatty"));
        child.console("\nchatty: line 100 ");
        child.finish();
        for bytes in ["1", "0", "5", "8192", "99999999999999999999999"] {
            let end = end(run(kind, "chatty").args(["--lines=3", &format!("--bytes={bytes}")]));
            assert_eq!((end.code(), end.stdout.lines().count()), (Some(0), 3), "{bytes}: {end:?}");
        }
    }
}

#[test]
fn mem_finds_all_its_memory() {
    for kind in kinds("mem") {
        // What the image and the stack have is not free.
        for (given, arguments, least) in [("16", &[][..], 14), ("16", &["--mib=3"][..], 3), ("2", &[], 0)] {
            let mut command = tender(kind);
            command.arg(format!("--mem={given}")).arg(image(kind, "mem")).args(arguments);
            let end = end(&mut command);
            assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""), "{end:?}");
            assert!(end.stdout.starts_with(&format!("mem: {least} MiB written and found again, ")), "{end:?}");
        }
        let end = end(run(kind, "mem").arg("--mib=2"));
        assert_eq!(
            (end.code(), end.stdout.as_str()),
            (Some(1), "mem: FAILED: of 2 MiB only 0 MiB are free\n"),
            "{end:?}"
        );
    }
}

fn with_disk(kind: Kind, disk: &Disk, sector_bytes: usize) -> Command {
    let mut command = tender(kind);
    command.arg("--mem=2").arg(format!("--block:storage={}", disk.path.display()));
    command.arg(format!("--block-sector-size:storage={sector_bytes}")).arg(image(kind, "block"));
    command
}

fn held(end: &End, said: &str) {
    assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""), "{end:?}");
    assert!(end.stdout.ends_with(&format!("{said}\n")), "{end:?}");
}

#[test]
fn a_disk_keeps_what_is_written() {
    for kind in kinds("block") {
        for sector_bytes in [512, 4096, 32768] {
            let disk = Disk::new(&format!("keep-{}-{sector_bytes}", kind.name()), &vec![0xa5; 5 * sector_bytes]);
            let block = |arguments: &[&str]| end(with_disk(kind, &disk, sector_bytes).args(arguments));
            held(&block(&["--write=7"]), "block: all sectors written");
            held(&block(&["--verify=7"]), "block: all sectors as written");
            let content = fs::read(&disk.path).unwrap();
            assert!(content.chunks(8).all(|word| word != [0xa5; 8]));
            let read = block(&["--bench"]);
            assert!(read.code() == Some(0) && read.stdout.contains("block: wrote "), "{read:?}");
            assert!(fs::read(&disk.path).unwrap() == content, "a measurement changed the disk");

            let wrong = block(&["--verify=8"]);
            assert_eq!(wrong.code(), Some(1));
            assert!(wrong.stdout.contains("block: FAILED: sector 0 is not what was written"), "{wrong:?}");
            // Only the first two are others now.
            held(&block(&["--write=8", "--sectors=2"]), "block: all sectors written");
            held(&block(&["--verify=8", "--sectors=2"]), "block: all sectors as written");
            assert!(block(&["--verify=8"]).stdout.contains("sector 2 is not"));
        }
    }
}

#[test]
fn a_disk_counts_the_starts() {
    for kind in kinds("boots") {
        let disk = Disk::new(&format!("boots-{}", kind.name()), &[0; 8 * 512]);
        held(&end(&mut with_disk(kind, &disk, 512)), "block: boot 1, all sectors written");
        for boot in 2..5 {
            held(&end(&mut with_disk(kind, &disk, 512)), &format!("block: boot {boot}, all sectors as written"));
        }
        let mut content = fs::read(&disk.path).unwrap();
        content[4 * 512 + 100] ^= 1;
        fs::write(&disk.path, content).unwrap();
        let damaged = end(&mut with_disk(kind, &disk, 512));
        assert_eq!(damaged.code(), Some(1));
        assert!(damaged.stdout.ends_with("block: FAILED: sector 4 is not what was written\n"), "{damaged:?}");
    }
}

#[test]
fn a_disk_that_is_asked_for_nonsense() {
    let disk = Disk::new("nonsense", &[0; 1024]);
    for argument in ["--write=", "--write=x", "--verify=-1", "--verify=99999999999999999999"] {
        let end = end(with_disk(Kind::Spt, &disk, 512).arg(argument));
        assert_eq!(end.code(), Some(1));
        assert!(end.stdout.contains("block: FAILED: ") && end.stdout.ends_with(" is no number\n"), "{end:?}");
    }
    held(&end(with_disk(Kind::Spt, &disk, 512).args(["--write=1", "--sectors=9999"])), "block: all sectors written");
    held(&end(with_disk(Kind::Spt, &disk, 512).args(["--verify=2", "--sectors=0"])), "block: all sectors as written");
}
