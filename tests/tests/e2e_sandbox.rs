//! The tables of system calls against what the real daemons do: every row is needed, but those that say that they are rarely so, and
//! nothing else is asked of the kernel. And what each process keeps of what it was started with: nothing.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use fulmar_host::renounce::KEPT;
use fulmar_shim_linux::sandbox::{Program, rows};
use fulmar_tests::siege::{Siege, control_half, pid_of};
use fulmar_tests::system::wait_until;
use fulmar_tests::trace::Trace;
use nix::sys::signal::{Signal, kill};

/// A process that ends with its test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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

fn expect_exact(program: Program, seen: &BTreeSet<i64>) {
    let rows = rows(program);
    let spare: Vec<_> = rows.iter().filter(|row| !row.is_rare && !seen.contains(&row.call)).collect();
    assert!(spare.is_empty(), "{program:?} does not need: {spare:#?}");
    let foreign: Vec<_> = seen.iter().filter(|call| !rows.iter().any(|row| row.call == **call)).collect();
    // What a process is in when it is stopped for the first time has no number.
    assert!(foreign.iter().all(|call| **call < 0), "{program:?}: not in the table: {foreign:?}");
}

/// Asks `vmmd_influx` for what it knows.
fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn no_row_of_the_tables_is_spare() {
    let Some(mut siege) = Siege::begin("no_row_of_the_tables_is_spare") else { return };
    let control = control_half(siege.system.pid("vmmd").unwrap());
    // Before there is an event log: that it calls one is seen.
    let control_trace = Trace::begin(pid_of(control));
    siege.start_log();
    siege.system.start_stats(&["--interval".as_ref(), "0.2".as_ref()]).unwrap();
    let folder = siege.system.folder().to_path_buf();
    let (config, log) = (folder.join("influx.toml"), folder.join("influx.log"));
    let run = siege.system.run();
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let port = std::net::TcpListener::bind(address).unwrap().local_addr().unwrap().port();
    let address = SocketAddr::new(address.ip(), port);
    fs::write(&config, format!("run = {run:?}\ninterval-seconds = 1\n[metrics]\nlisten = \"{address}\"\n")).unwrap();
    let influx = Command::new(fulmar_tests::system::programs().join("vmmd_influx"))
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn();
    let influx = Ends(influx.unwrap());
    let text = || fs::read_to_string(&log).unwrap();
    assert!(wait_until(|| text().contains("vmmd_stats is here")), "{}", text());

    expect_nothing_kept(control, "Control");
    let watched = [
        (Program::Console, siege.system.pid("vmmd_console").unwrap()),
        (Program::Log, siege.system.pid("vmmd_log").unwrap()),
        (Program::Stats, siege.system.pid("vmmd_stats").unwrap()),
        (Program::Influx, influx.0.id()),
    ];
    for (program, pid) in watched {
        expect_nothing_kept(pid, &format!("{program:?}"));
    }
    let traces = watched.map(|(program, pid)| (program, Trace::begin(pid_of(pid))));
    let traces = [(Program::Control, control_trace)].into_iter().chain(traces);

    let done = |words: &[&str]| {
        let said = siege.client(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        said.out
    };
    let content = folder.join("content");
    fs::write(&content, [7; 4096]).unwrap();
    let (content, dumped) = (content.to_str().unwrap(), folder.join("dumped"));
    done(&["add-policy", "shop:", "1", "--mem", "32", "--cpu", "0", "--block", "9"]);
    done(&["add-block", "shop:disk", "1"]);
    done(&["set-block", "shop:disk", content]);
    done(&["dump-block", "shop:disk", dumped.to_str().unwrap()]);
    done(&["create", "siege:spin", &siege.image("spin"), "--mem", "16"]);
    assert!(siege.has_console("siege:spin"));
    done(&["info"]);
    done(&["host"]);
    assert!(wait_until(|| done(&["log"]).contains("siege:spin")));
    assert!(done(&["stats", "--count", "2"]).contains("siege:spin"));
    assert!(wait_until(|| scrape(address).contains("spin")));
    done(&["destroy", "siege:spin"]);
    done(&["remove-block", "shop:disk"]);

    let mut ended = Vec::new();
    for (program, trace) in traces {
        let name = match program {
            Program::Control => "vmmd",
            Program::Console => "vmmd_console",
            Program::Log => "vmmd_log",
            Program::Stats => {
                // It calls vmmd, which has ended, again.
                siege.expect_log("vmmd_stats", "no vmmd at");
                "vmmd_stats"
            }
            _ => {
                assert!(wait_until(|| text().contains("vmmd.sock")), "{}", text());
                "vmmd_influx"
            }
        };
        let pid = if name == "vmmd_influx" { influx.0.id() } else { siege.system.pid(name).unwrap() };
        // Whoever waits for a child takes the stops that its tracer waits for: so first comes the end of the trace.
        kill(pid_of(pid), Signal::SIGTERM).unwrap();
        ended.push((program, trace.end()));
        if name != "vmmd_influx" {
            siege.system.end(name, Signal::SIGTERM).unwrap();
        }
    }
    for (program, seen) in ended {
        expect_exact(program, &seen);
    }
    siege.system.stop().unwrap();
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
