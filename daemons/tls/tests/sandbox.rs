//! The table of system calls of `vmmd_tls` against what it does: every row is needed, but those that say why no test can be sure of
//! them. (That it does no more is seen in every other test: it would not live.)

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use fulmar_core::wire::{self, ConsoleCommand, Window};
use fulmar_shim_linux::sandbox::{Program, rows};
use fulmar_tests::managed::{hear, listen_at};
use fulmar_tests::pki::Identity;
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::{Remote, config};
use fulmar_tests::system::PATIENCE;
use fulmar_tests::tenants::{INFO, REVOKE, Tenants, create, policy};
use fulmar_tests::trace::Traced;
use nix::sys::signal::{Signal, kill};

/// Starts it, as a service manager does, with its lines there.
fn start(tenants: &Tenants, lines: &str) -> (Traced, UnixDatagram) {
    let system = &tenants.siege.system;
    let notify = system.folder().join("notify");
    let manager = listen_at(&notify);
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(fulmar_tests::system::programs().join("vmmd_tls"));
    command.arg("--run").arg(system.run()).args(tenants.options());
    command.args(["--ip", "127.0.0.1", "--port", "0", "--log", lines]).env("NOTIFY_SOCKET", notify);
    (Traced::start(&command, system.folder().join("traced.log")), manager)
}

#[test]
fn no_row_of_the_table_is_spare() {
    let test = "no_row_of_the_table_is_spare";
    if !nix::unistd::Uid::effective().is_root() {
        return fulmar_tests::skips::skip(test, "daemons cannot be looked at here, run it as root");
    }
    let Some(tenants) = Tenants::begin(test) else { return };
    let (traced, manager) = start(&tenants, "syslog");
    assert!(hear(&manager).unwrap().starts_with("READY=1"), "{}", traced.log());
    let mut seen = traced.end();
    let (traced, _manager) = start(&tenants, "stderr");
    traced.expect("serving on ");
    let address: SocketAddr = traced.log().split_once("serving on ").unwrap().1.trim().parse().unwrap();

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
    kill(traced.pid, Signal::SIGHUP).unwrap();
    traced.expect("read again");
    drop(follows);
    seen.add(traced.end());

    let rows = rows(Program::Tls);
    let spare: Vec<_> = rows.iter().filter(|row| row.unseen.is_none() && !seen.have(row.call, row.argument)).collect();
    assert!(spare.is_empty(), "not needed: {spare:?}");
    let foreign: Vec<_> = seen.numbers().filter(|call| !rows.iter().any(|row| row.call == *call)).collect();
    assert!(foreign.is_empty(), "not in the table: {foreign:?}");
    tenants.end();
}
