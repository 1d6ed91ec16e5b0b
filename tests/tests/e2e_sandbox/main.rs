//! The tables of system calls against what the real daemons do: every row is needed, but those that say why no test can be sure of
//! them, and nothing else is asked of the kernel. And what each process keeps of what it was started with: nothing.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod everyday;
mod influx;
mod managed;

use std::fs;
use std::path::{Path, PathBuf};

use fulmar_host::renounce::KEPT;
use fulmar_shim_linux::sandbox::{Program, rows};
use fulmar_tests::bridge::{ip, with_bridge};
use fulmar_tests::siege::{Siege, control_half};
use fulmar_tests::trace::Calls;
use nix::mount::{MsFlags, mount};
use nix::unistd::Uid;

/// What was seen of each program.
type Seen = Vec<(Program, Calls)>;

/// The value of a line of a process's status.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// What a confined process has of privileges: none.
fn expect_nothing_kept(pid: u32, program: &str) {
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, capabilities), "0000000000000000", "{program}: {capabilities}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1", "{program}");
    assert_eq!(status(pid, "Seccomp"), "2", "{program}");
    // Who it is not by being root, nobody else may look into.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/environ")).unwrap());
    assert_eq!(owner, 0, "{program} can be dumped");
}

/// Has a file with this text be in the place of another one, for who is in this mount namespace; where it is itself.
fn show(folder: &Path, place: &str, text: &str) -> PathBuf {
    let made = folder.join(place.replace('/', "-"));
    fs::write(&made, text).unwrap();
    mount(Some(&made), place, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    made
}

fn what_is_wrong(program: Program, seen: &Seen) -> Vec<String> {
    let mut calls = Calls::default();
    seen.iter().filter(|(whose, _)| *whose == program).for_each(|(_, more)| calls.add(more.clone()));
    let rows = rows(program);
    let spare = rows.iter().filter(|row| row.unseen.is_none() && !calls.have(row.call, row.argument));
    let foreign = calls.numbers().filter(|call| !rows.iter().any(|row| row.call == *call));
    let foreign = foreign.map(|call| format!("{program:?} makes call {call}, which is not in its table"));
    spare.map(|row| format!("{program:?} does not need {row:?}")).chain(foreign).collect()
}

#[test]
fn no_row_of_the_tables_is_spare() {
    let test = "no_row_of_the_tables_is_spare";
    if !Uid::effective().is_root() {
        return fulmar_tests::skips::skip(test, "daemons cannot be looked at here, run it as root");
    }
    with_bridge(test, None, |siege, _| {
        assert!(ip(&["link", "set", "lo", "up"]));
        let mut seen = Seen::new();
        managed::watch(&mut seen);
        influx::watch(siege, &mut seen);
        everyday::watch(siege, &mut seen);
        let programs = [Program::Control, Program::Console, Program::Log, Program::Stats, Program::Influx];
        let wrong: Vec<_> = programs.into_iter().flat_map(|program| what_is_wrong(program, &seen)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn the_host_half_has_the_capabilities_that_it_needs_and_no_other() {
    let test = "the_host_half_has_the_capabilities_that_it_needs_and_no_other";
    let Some(siege) = Siege::begin(test) else { return };
    if !nix::unistd::Uid::effective().is_root() {
        fulmar_tests::skips::skip(test, "vmmd is not root here");
        return;
    }
    let vmmd = siege.system.pid("vmmd").unwrap();
    let kept = KEPT.iter().fold(0_u64, |bits, it| bits | 1 << it.number);
    for capabilities in ["CapPrm", "CapEff", "CapBnd"] {
        let has = u64::from_str_radix(&status(vmmd, capabilities), 16).unwrap();
        assert_eq!(has & !kept, 0, "{capabilities} has more than the table");
    }
    for capabilities in ["CapInh", "CapAmb"] {
        assert_eq!(status(vmmd, capabilities), "0000000000000000", "{capabilities}");
    }
    let environment = fs::read(format!("/proc/{}/environ", control_half(vmmd))).unwrap();
    assert!(environment.is_empty(), "the control half is given {}", String::from_utf8_lossy(&environment));
    siege.end();
}
