//! What operators and tenants do in one day.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use fulmar_core::wire::{Command, ConsoleCommand, UnikernelCommand};
use fulmar_shim_linux::sandbox::Program;
use fulmar_tests::namespace::Disk;
use fulmar_tests::raw::{self, Answer, Raw};
use fulmar_tests::siege::{Siege, control_half, pid_of};
use fulmar_tests::system::wait_until;
use fulmar_tests::trace::Trace;
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};

use super::{Seen, expect_nothing_kept};

/// Events that fill a segment of the log and more.
const EVENTS: usize = 900;

/// Adds what is seen of the daemons meanwhile.
pub(crate) fn watch(siege: &mut Siege, seen: &mut Seen) {
    let control = control_half(siege.system.pid("vmmd").unwrap());
    // Before there is an event log: that it calls one is seen.
    let control_trace = Trace::begin(pid_of(control));
    let (events, owner) = (siege.system.state().join("log"), fs::metadata(siege.system.state()).unwrap().uid());
    let disk = Disk::mount(&events, 1 << 20, MsFlags::empty());
    chown(&events, Some(owner), Some(owner)).unwrap();
    siege.system.start_log(&["--size".as_ref(), "1".as_ref()]).unwrap();
    siege.system.start_stats(&["--interval".as_ref(), "0.2".as_ref()]).unwrap();
    expect_nothing_kept(control, "vmmd");
    let watched = [Program::Console, Program::Log, Program::Stats].map(|program| {
        let pid = siege.system.pid(name(program)).unwrap();
        expect_nothing_kept(pid, name(program));
        (program, Trace::begin(pid_of(pid)))
    });
    work(siege);
    fill(siege, &disk);
    let mut traces = vec![(Program::Control, control_trace)];
    traces.extend(watched);
    for (program, trace) in traces {
        if program == Program::Stats {
            // It calls vmmd, which has ended, again.
            siege.expect_log("vmmd_stats", "no vmmd at");
        }
        // Whoever waits for a child takes the stops that its tracer waits for: so first comes the end of the trace.
        kill(pid_of(siege.system.pid(name(program)).unwrap()), Signal::SIGTERM).unwrap();
        seen.push((program, trace.end()));
        siege.system.end(name(program), Signal::SIGTERM).unwrap();
    }
    drop(disk);
}

fn name(program: Program) -> &'static str {
    match program {
        Program::Console => "vmmd_console",
        Program::Log => "vmmd_log",
        Program::Stats => "vmmd_stats",
        _ => "vmmd",
    }
}

fn work(siege: &Siege) {
    let done = |words: &[&str]| {
        let said = siege.client(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        said.out
    };
    let folder = siege.system.folder();
    let (content, dumped) = (folder.join("content"), folder.join("dumped"));
    fs::write(&content, [7; 4096]).unwrap();
    let (content, dumped) = (content.to_str().unwrap(), dumped.to_str().unwrap());
    done(&["add-policy", "shop:", "2", "--mem", "64", "--cpu", "0", "--block", "9", "--bridge", "br0"]);
    done(&["add-block", "shop:disk", "1"]);
    done(&["set-block", "shop:disk", content]);
    for level in ["0", "9"] {
        done(&["dump-block", "shop:disk", &format!("{dumped}{level}"), "--compression-level", level]);
    }
    done(&["create", "shop:sends", &siege.image("network"), "--mem", "16", "--net", "service:br0"]);
    done(&["create", "siege:spin", &siege.image("spin"), "--mem", "16", "--compression-level", "9"]);
    assert!(siege.has_console("siege:spin"));
    let got = folder.join("got");
    done(&["get", "siege:spin", "--output", got.to_str().unwrap(), "--compression-level", "9"]);
    // There is no such fifo.
    let add = Command::Console(ConsoleCommand::Add { unikernels: 1 });
    assert!(matches!(Raw::connect(&siege.system.socket("console.sock")).ask("siege:none", add), Answer::Refused(_)));
    // Who announces more than there may be is told so while it may be saying more.
    let mut client = Raw::connect(&siege.system.socket("vmmd.sock"));
    let asked = raw::frame(":", Command::Unikernel(UnikernelCommand::Info));
    client.send(&[&i32::MAX.to_be_bytes(), &asked[4..]].concat());
    assert!(matches!(client.receive(), Answer::Refused(_)));
    done(&["info"]);
    done(&["host"]);
    assert!(wait_until(|| done(&["log"]).contains("siege:spin")));
    for name in ["siege:spin", "shop:sends"] {
        assert!(done(&["stats", name, "--count", "2"]).contains(name));
        done(&["destroy", name]);
    }
    done(&["remove-block", "shop:disk"]);
}

/// More events than a segment of the log has room for, and then than its disk has.
fn fill(siege: &Siege, disk: &Disk) {
    let policy = |number: usize| {
        let said = siege.client(&["add-policy", &format!("path{number}:"), "1", "--mem", "32", "--cpu", "0"]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    (0..EVENTS).for_each(policy);
    disk.fill_up_to(0);
    let losing = || siege.system.log("vmmd_log").contains("events are being lost");
    for number in EVENTS.. {
        policy(number);
        if losing() {
            return;
        }
    }
}
