//! Unikernels beside each other: two that serve the web, and others that die in every way, flood their consoles and use up what
//! they have. Nobody is the worse for his neighbours.

#![cfg(target_os = "linux")]
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fulmar_tests::bridge::with_bridge;
use fulmar_tests::built::Kind;
use fulmar_tests::siege::{Siege, arguments, tenders};
use fulmar_tests::system::wait_until;

/// Longer than an answer takes where KVM interprets and others use the processors.
const PATIENCE: Duration = Duration::from_secs(40);

const SERVERS: [(&str, &str); 2] = [("web1", "10.0.0.2"), ("web2", "10.0.0.3")];

/// Ways to die that both tenders know, and those of one.
const WAYS: [&str; 9] = ["exit", "abort", "panic", "null", "text", "data", "undefined", "divide", "stack"];
const SPT_WAYS: [&str; 2] = ["call", "align"];
const HVT_WAYS: [&str; 5] = ["port", "hypercall", "reach", "triple", "halt"];

/// Asks a server for a path; its whole answer.
fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, 80))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Each server gives its page to somebody outside.
fn expect_pages() {
    for (name, address) in SERVERS {
        let answer = get(address, "/").unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(&format!("<h1>{name}</h1>")), "{answer}");
    }
}

#[test]
fn neighbours_do_each_other_no_harm() {
    const TEST: &str = "neighbours_do_each_other_no_harm";
    with_bridge(TEST, Some("10.0.0.1/24"), |siege, _| {
        for kind in siege.kinds(TEST) {
            let ways: &[&str] = if kind == Kind::Hvt { &HVT_WAYS } else { &SPT_WAYS };
            live_together(siege, kind, ways);
        }
        siege.expect_service();
        siege.expect_nothing_left();
    });
}

fn live_together(siege: &Siege, kind: Kind, ways: &[&str]) {
    let create = |name: &str, image: &str, words: &[&str]| {
        let image = siege.image_for(image, kind);
        let said = siege.client(&[&["create", name, &image][..], words].concat());
        assert_eq!(said.code, 0, "{name}: {said:?}\n{}", siege.system.log("vmmd"));
    };
    for ((name, address), (_, other)) in SERVERS.into_iter().zip(SERVERS.into_iter().rev()) {
        let [address, fetch] = [format!("--ipv4={address}/24"), format!("--fetch={other}")];
        create(name, "http", &["--net", "service:br0", "--arg", &address, "--arg", &fetch]);
    }
    // They serve the host and each other.
    for ((name, address), (_, other)) in SERVERS.into_iter().zip(SERVERS.into_iter().rev()) {
        assert!(wait_until(|| get(address, "/health").is_ok_and(|answer| answer.ends_with("\r\n\r\nok\n"))), "{name}");
        siege.expect_line(name, &format!("http: {other}:80 says: HTTP/1.1 200 OK"));
    }
    expect_pages();
    let servers = || {
        let of = |pid: &u32| SERVERS.iter().any(|(name, _)| arguments(*pid).contains(&format!("--name={name}")));
        let mut pids: Vec<_> = tenders(siege.system.folder()).into_iter().filter(of).collect();
        pids.sort_unstable();
        pids
    };
    let before = servers();
    assert_eq!(before.len(), 2, "{before:?}");

    // One that floods its console, one that uses its processor, one that uses its memory.
    create("noise", "chatty", &[]);
    create("heat", "spin", &[]);
    create("weight", "mem", &["--mem", "64", "--arg", "--hold=1000"]);
    siege.expect_line("noise", "chatty: line ");
    siege.expect_line("heat", "spin: without end");
    siege.expect_line("weight", " MiB written and found again");
    expect_pages();
    for way in WAYS.iter().chain(ways) {
        let how = format!("--how={way}");
        // Little memory: a stack that overflows goes through all of it.
        create("siege:bad", "crash", &["--mem", "4", "--arg", &how, "--arg", "--status=3"]);
        siege.expect_line("siege:bad", &format!("crash: now {way}"));
        assert!(wait_until(|| !siege.is_listed("siege:bad")), "{way}: {:?}", siege.names());
        expect_pages();
    }
    // One that dies again and again meanwhile.
    create("siege:bad", "crash", &["--restart-on-fail", "--arg", "--how=null"]);
    siege.expect_log("vmmd", "siege:bad does not run, next try in");
    expect_pages();
    siege.expect_line("noise", "chatty: line ");
    siege.expect_service();
    assert_eq!(servers(), before, "a server was started anew");
    for name in ["siege:bad", "noise", "heat", "weight", "web1", "web2"] {
        let said = siege.client(&["destroy", name]);
        assert_eq!(said.code, 0, "{name}: {said:?}");
    }
    assert!(wait_until(|| siege.names().is_empty()));
}
