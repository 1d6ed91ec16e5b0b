//! `vmmd_tls` under a service manager: the socket that it is handed, what it says about itself, how it ends.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

use fulmar_tests::managed::{Place, hear, listen_at};
use fulmar_tests::pki::{Identity, Issuer, pem};
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::{Remote, config};
use fulmar_tests::system::wait_until;
use fulmar_tests::tenants::INFO;

/// Writes the files of a CA and its server there, and gives the options that name them.
fn files(place: &Place, ca: &Issuer, server: &Identity) -> Vec<OsString> {
    let mut options = Vec::new();
    for (option, text) in [
        ("--ca", pem("CERTIFICATE", &[&ca.der])),
        ("--cert", pem("CERTIFICATE", &[&server.chain[0]])),
        ("--key", pem("PRIVATE KEY", &[&server.key.pkcs8])),
    ] {
        let path = place.folder.join(option);
        fs::write(&path, text).unwrap();
        options.extend([option.into(), path.into()]);
    }
    options.extend(["--revoked".into(), place.folder.join("revoked").into()]);
    options
}

#[test]
fn a_socket_is_handed_over_and_the_manager_is_told() {
    let Some(place) = Place::begin("a_socket_is_handed_over_and_the_manager_is_told") else { return };
    let ca = Issuer::root("service");
    let server = ca.server();
    let manager = listen_at(&place.folder.join("notify"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = place.handed("vmmd_tls", OwnedFd::from(listener.try_clone().unwrap()), "1");
    command.args(files(&place, &ca, &server)).env("NOTIFY_SOCKET", place.folder.join("notify"));
    command.env("WATCHDOG_USEC", "2000000");
    let mut running = place.start(command);
    assert_eq!(hear(&manager).unwrap(), format!("READY=1\nSTATUS=serving on {address}"), "{}", running.log());
    assert_eq!(hear(&manager).unwrap(), "WATCHDOG=1");
    // There is no vmmd here: what it says is enough to know that it serves.
    let mut remote = Remote::connect(address, config(&server.chain[0], &ca.leaf(".", INFO))).unwrap();
    let Answer::Refused(text) = remote.receive().unwrap() else { panic!("an answer without vmmd") };
    assert!(text.starts_with("vmmd cannot be reached on the host, try again later: "), "{text}");
    assert!(running.end().success(), "{}", running.log());
    while hear(&manager).unwrap() != "STOPPING=1\nSTATUS=ending" {}
    // It belongs to who made it: the next one is handed it again.
    assert_eq!(listener.local_addr().unwrap(), address);
}

#[test]
fn what_it_cannot_use_is_named() {
    let Some(place) = Place::begin("what_it_cannot_use_is_named") else { return };
    let ca = Issuer::root("service");
    let options = files(&place, &ca, &ca.server());
    let unix = UnixListener::bind(place.folder.join("door")).unwrap();
    let mut command = place.handed("vmmd_tls", OwnedFd::from(unix), "1");
    command.args(&options);
    let mut running = place.start(command);
    assert!(wait_until(|| running.child.try_wait().unwrap().is_some()));
    assert!(running.log().contains("is no socket for TCP"), "{}", running.log());

    let check = |options: &[OsString]| {
        let mut command: Command = place.command("vmmd_tls");
        let output = command.args(options).arg("--check").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check(&options);
    let is_well = said.lines().all(|line| line.contains("this runs as root"));
    assert!(code == Some(0) && is_well, "{said}");
    // The key of another server.
    fs::write(place.folder.join("--key"), pem("PRIVATE KEY", &[&ca.server().key.pkcs8])).unwrap();
    let (code, said) = check(&options);
    assert!(code == Some(1) && said.contains("is not the key of the certificate"), "{said}");
    fs::write(place.folder.join("--ca"), "nothing").unwrap();
    let (code, said) = check(&options);
    assert!(code == Some(1) && said.contains("exactly one certificate of a CA is needed, there are 0"), "{said}");
}
