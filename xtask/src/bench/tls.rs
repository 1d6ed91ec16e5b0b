//! Commands from afar: a connection with its handshake and certificates for each `info`, and what connections that idle cost.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::time::{Duration, Instant};

use fulmar_core::wire::{Command, ConsoleCommand, UnikernelCommand, Window};
use fulmar_tests::pki::{Identity, Issuer, pem};
use fulmar_tests::remote::{Remote, config};
use fulmar_tests::system::System;
use fulmar_tests::tenants::policy;
use rustls::ClientConfig;

use super::{Bench, median, on_cpu, resident_kb, shown};
use crate::steps::{Done, Failure};

/// What the peer does on one of our machines: one `info`, milliseconds, and requests a second; resident memory, kB.
const PEER_MS: std::ops::RangeInclusive<f64> = 2.2..=3.9;
const PEER_RATE: std::ops::RangeInclusive<f64> = 250.0..=420.0;
const PEER_KB: u64 = 12_300;

const REQUESTS: usize = 2_000;

/// Connections that idle, and what they may cost with all else, kB.
const IDLE: usize = 100;
const IDLE_KB: u64 = 6_000;

pub(super) fn run(bench: &Bench) -> Done {
    let mut system = bench.system()?;
    let ca = Issuer::root("bench");
    let server = ca.server();
    let options = files(&system, &ca, &server)?;
    let options: Vec<&OsStr> = options.iter().map(OsString::as_os_str).collect();
    let address = system.start_tls(&options)?;
    let pid = system.pid("vmmd_tls")?;
    // What a client reads from its files, it reads once.
    let client = |identity: &Identity| config(&server.chain[0], identity);
    let connect =
        |config: &ClientConfig| Remote::connect(address, config.clone()).map_err(|error| Failure(error.to_string()));
    let ask = |config: &ClientConfig| {
        let answer = connect(config)?.receive_bytes();
        answer.map(|_| ()).map_err(|broken| Failure(format!("no answer: {broken:?}")))
    };
    let info = Command::Unikernel(UnikernelCommand::Info);
    let root = client(&ca.leaf(".", info));
    let tenant = ca.delegate("tenant", policy(4, 64)).delegate("part", policy(2, 32));
    let tenant = client(&tenant.leaf(".", info));
    for (who, config) in [("the root's", &root), ("a tenant's, two CAs and policies deep", &tenant)] {
        let mut times = vec![Duration::ZERO; REQUESTS];
        let on_cpu_before = on_cpu(pid)?;
        let begun = Instant::now();
        for time in &mut times {
            let sent = Instant::now();
            ask(config)?;
            *time = sent.elapsed();
        }
        let rate = REQUESTS as f64 / begun.elapsed().as_secs_f64();
        let middle = median(&mut times);
        let ms = middle.as_secs_f64() * 1000.0;
        println!(
            "info, {who}: median {}, by the peer's {} to {} ms: {:.2} to {:.2} (aim: 0.5); {rate:.0} requests/s, by the \
             peer's {:.0} to {:.0}: {:.1} to {:.1} times (aim: 2)",
            shown(middle),
            PEER_MS.start(),
            PEER_MS.end(),
            ms / PEER_MS.end(),
            ms / PEER_MS.start(),
            PEER_RATE.start(),
            PEER_RATE.end(),
            rate / PEER_RATE.end(),
            rate / PEER_RATE.start(),
        );
        let own = (on_cpu(pid)? - on_cpu_before) / u32::try_from(REQUESTS).unwrap_or(u32::MAX);
        println!("  of that on a CPU: vmmd_tls {}", shown(own));
    }
    println!("resident afterwards: {} kB, the peer {PEER_KB} kB", resident_kb(pid)?);
    let follow = client(&ca.leaf("nobody", Command::Console(ConsoleCommand::Subscribe(Window::Count(0)))));
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut remote = connect(&follow)?;
        remote.receive_bytes().map_err(|broken| Failure(format!("no answer: {broken:?}")))?;
        idle.push(remote);
    }
    println!("resident with {IDLE} connections that idle: {} kB (aim: {IDLE_KB} kB)", resident_kb(pid)?);
    drop(idle);
    Ok(system.stop()?)
}

/// The files of the TLS end, and the options that name them.
fn files(system: &System, ca: &Issuer, server: &Identity) -> Done<Vec<OsString>> {
    let folder = system.folder().join("tls");
    let owner = system.run().join("util").metadata().map_err(|error| Failure(error.to_string()))?;
    let mut options: Vec<OsString> = ["--ip", "127.0.0.1", "--port", "0", "--revoked"].map(OsString::from).into();
    options.push(folder.join("revoked").into());
    let write = || {
        for path in [&folder, &folder.join("revoked")] {
            fs::create_dir(path)?;
            chown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
        for (option, text) in [
            ("--ca", pem("CERTIFICATE", &[&ca.der])),
            ("--cert", pem("CERTIFICATE", &[&server.chain[0]])),
            ("--key", pem("PRIVATE KEY", &[&server.key.pkcs8])),
        ] {
            let path = folder.join(option);
            fs::write(&path, text)?;
            chown(&path, Some(owner.uid()), Some(owner.gid()))?;
            options.extend([option.into(), path.into()]);
        }
        Ok(())
    };
    let written: std::io::Result<()> = { write }();
    written.map_err(|error| Failure(format!("{}: {error}", folder.display())))?;
    Ok(options)
}
