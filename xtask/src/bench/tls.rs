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

use super::report::{Figure, Unit};
use super::{Bench, median, on_cpu, resident_kb};
use crate::steps::{Done, Failure};

/// What the peer does on two machines: one `info`, seconds, and requests a second; resident memory, bytes.
const PEER_SECONDS: [f64; 2] = [0.0039, 0.0022];
const PEER_RATE: [f64; 2] = [250.0, 420.0];
const PEER_BYTES: f64 = 12_300.0 * 1024.0;

const REQUESTS: usize = 2_000;

/// Connections that idle, and what they may cost with all else, kB.
const IDLE: usize = 100;
const IDLE_BYTES: f64 = 6_000.0 * 1024.0;

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
        let ([slow, fast], [few, many]) = (PEER_SECONDS, PEER_RATE);
        bench.add(Figure::time("tls", &format!("info, {who}"), middle).aim(fast / 2.0).peer(slow, fast));
        let what = format!("info, {who}, one after the other");
        bench.add(Figure::new("tls", &what, Unit::PerSecond, rate).aim(2.0 * many).peer(few, many));
        let own = (on_cpu(pid)? - on_cpu_before) / u32::try_from(REQUESTS).unwrap_or(u32::MAX);
        bench.add(Figure::time("tls", &format!("info, {who}: vmmd_tls's time on a CPU"), own));
    }
    bench.add(Figure::kb("tls", "vmmd_tls afterwards", resident_kb(pid)?).peer(PEER_BYTES, PEER_BYTES));
    let follow = client(&ca.leaf("nobody", Command::Console(ConsoleCommand::Subscribe(Window::Count(0)))));
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut remote = connect(&follow)?;
        remote.receive_bytes().map_err(|broken| Failure(format!("no answer: {broken:?}")))?;
        idle.push(remote);
    }
    let what = format!("vmmd_tls, {IDLE} connections that idle");
    bench.add(Figure::kb("tls", &what, resident_kb(pid)?).aim(IDLE_BYTES));
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
