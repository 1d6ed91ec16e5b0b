//! The table of system calls of `vmmd_tls` against what it does: every row is needed, but those that say that they are rarely so. (That
//! it does no more is seen in every other test: it would not live.)

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use fulmar_core::wire::{self, ConsoleCommand, Window};
use fulmar_shim_linux::sandbox::{Program, rows};
use fulmar_tests::pki::Identity;
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::{Remote, config};
use fulmar_tests::siege::pid_of;
use fulmar_tests::system::wait_until;
use fulmar_tests::tenants::{INFO, REVOKE, Tenants, create, policy};
use fulmar_tests::trace::Trace;
use nix::sys::signal::{Signal, kill};

#[test]
fn no_row_of_the_table_is_spare() {
    let Some(tenants) = Tenants::begin("no_row_of_the_table_is_spare") else { return };
    let folder = tenants.siege.system.folder().to_path_buf();
    let log = folder.join("traced.log");
    #[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
    let child = Command::new(fulmar_tests::system::programs().join("vmmd_tls"))
        .arg("--run")
        .arg(tenants.siege.system.run())
        .args(tenants.options())
        .args(["--ip", "127.0.0.1", "--port", "0"])
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let text = || fs::read_to_string(&log).unwrap();
    assert!(wait_until(|| text().contains("serving on ")), "{}", text());
    let address: SocketAddr = text().split_once("serving on ").unwrap().1.trim().parse().unwrap();
    let pid = pid_of(child.id());
    let trace = Trace::begin(pid);

    let connect = |identity: &Identity| Remote::connect(address, config(&tenants.server.chain[0], identity)).unwrap();
    let tenant = tenants.ca.delegate("tenant", policy(2, 64));
    let info = tenant.leaf(".", INFO);
    assert!(matches!(connect(&info).receive().unwrap(), Answer::Other(_)));
    let mut creates = connect(&tenant.leaf("u", create(16)));
    assert!(creates.send(&fulmar_tests::contents::chunks(&tenants.image("hello"), 1 << 16)));
    assert!(matches!(creates.receive().unwrap(), Answer::Done(_)));
    let follow = wire::Command::Console(ConsoleCommand::Subscribe(Window::Count(5)));
    let mut follows = connect(&tenant.leaf("u", follow));
    assert!(matches!(follows.receive().unwrap(), Answer::Done(_)));
    for number in 1..=2 {
        let mut revokes = connect(&tenant.leaf(".", REVOKE));
        assert!(revokes.send(&fulmar_tests::contents::chunks(&tenant.list(number, &[&info.serial]), 1 << 16)));
        assert_eq!(revokes.receive().unwrap(), Answer::Done("revoked".into()));
    }
    assert!(matches!(connect(&info).receive().unwrap(), Answer::Refused(_)));
    kill(pid, Signal::SIGHUP).unwrap();
    assert!(wait_until(|| text().contains("read again")), "{}", text());
    drop(follows);
    kill(pid, Signal::SIGTERM).unwrap();
    let seen = trace.end();

    let rows = rows(Program::Tls);
    let spare: Vec<_> = rows.iter().filter(|row| !row.is_rare && !seen.contains(&row.call)).collect();
    assert!(spare.is_empty(), "not needed: {spare:?}");
    let foreign: Vec<_> = seen.iter().filter(|call| !rows.iter().any(|row| row.call == **call)).collect();
    // What a process is in when it is stopped for the first time has no number.
    assert!(foreign.iter().all(|call| **call < 0), "not in the table: {foreign:?}");
    tenants.end();
}
