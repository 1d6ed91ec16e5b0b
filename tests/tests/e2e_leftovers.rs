//! What a `vmmd` that died has left behind goes at the next start; what is not `vmmd`'s is never touched.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command as Program, Stdio};

use fulmar_tests::bridge::{ip, with_bridge};
use fulmar_tests::siege::{self, Siege, control_half, expect_gone, kill_9};
use fulmar_tests::system::wait_until;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// Both halves at once, so that neither cleans up.
fn kill_vmmd(siege: &mut Siege) {
    let halves = [control_half(siege.vmmd), siege.vmmd];
    halves.iter().for_each(|half| kill_9(*half));
    expect_gone(&halves);
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
}

#[test]
fn files_of_the_dead_go_and_those_of_others_stay() {
    let Some(mut siege) = Siege::begin("files_of_the_dead_go_and_those_of_others_stay") else { return };
    assert_eq!(siege.client(&["create", "siege:stays", &siege.image("hello")]).code, 0);
    let before = siege.expect_listed_runs_once();
    let (state, run) = (siege.system.state(), siege.system.run());
    let own: BTreeSet<String> = siege::files(&run.join("units"));
    kill_vmmd(&mut siege);

    let unneeded = "0".repeat(64);
    // What the number of a unit's process has become since: somebody else, who is to live.
    let mut stranger = Program::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let ours = [
        (state.join("images/tmp-17"), "half an image".to_owned()),
        (state.join("images").join(&unneeded), "an image that no record names".to_owned()),
        (state.join("block/p:blank_disk"), "\0".repeat(5000)),
        (state.join("block/p:going_gone"), "a disk that was being removed".to_owned()),
        (state.join("block/p:half_new"), "half a content".to_owned()),
        (state.join("journal.new"), "fulmarJ\nhalf a journal".to_owned()),
        (run.join("units/4711"), "4194304 1 7\n".to_owned()),
        (run.join("units/4712"), format!("{} 1 7\n", stranger.id())),
        (run.join("units/4713"), "12 3".to_owned()),
        (run.join("units/4714"), String::new()),
    ];
    let foreign = [
        (state.join("images/tmp"), "not ours"),
        (state.join("images/README"), "not ours"),
        (state.join("images").join("F".repeat(64)), "not ours"),
        (state.join("block/p:disk"), "a disk of albatross"),
        (state.join("block/Z:_disk"), "not ours"),
        (state.join("block/p:lost_un1"), "a disk that no record named before"),
        (state.join("state"), "not ours"),
        (run.join("units/README"), "not ours"),
        (run.join("fifo/README"), "not ours"),
        (run.join("fifo/p:notes"), "a file where a fifo would be"),
    ];
    for (path, text) in &ours {
        fs::write(path, text).unwrap();
    }
    for (path, text) in &foreign {
        fs::write(path, text).unwrap();
    }
    let fifos = [run.join("fifo/p:gone"), run.join("fifo/:gone")];
    fifos.iter().for_each(|path| mkfifo(path, Mode::S_IRWXU).unwrap());

    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    // Unused images go in the background.
    let left = || ours.iter().map(|(path, _)| path).chain(&fifos).filter(|path| path.exists()).collect::<Vec<_>>();
    assert!(wait_until(|| left().is_empty()), "{:?}\n{}", left(), siege.system.log("vmmd"));
    for (path, text) in &foreign {
        let found = fs::read_to_string(path).unwrap_or_default();
        assert_eq!(found, *text, "{}\n{}", path.display(), siege.system.log("vmmd"));
        fs::remove_file(path).unwrap();
    }
    assert_eq!(siege::files(&run.join("units")), own);
    assert!(matches!(stranger.try_wait(), Ok(None)), "a process that is not ours was ended");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(siege.expect_listed_runs_once(), before);
    siege.expect_line("siege:stays", "tick");
    assert_eq!(siege.client(&["destroy", "siege:stays"]).code, 0);
    siege.expect_clean();
    siege.count_again();
    siege.end();
}

#[test]
fn taps_of_the_dead_go_and_those_of_others_stay() {
    with_bridge("taps_of_the_dead_go_and_those_of_others_stay", None, |siege, net| {
        let image = siege.image("network");
        let create = |siege: &Siege| siege.client(&["create", "wire", &image, "--net", "service:br0"]);
        assert_eq!(create(siege).code, 0);
        let interfaces = || siege::files(&net.join("class/net"));
        let before = interfaces();
        let running = siege.expect_listed_runs_once();
        kill_vmmd(siege);
        // A tap outlives the vmmd that made it as long as its unikernel has it.
        assert_eq!(interfaces(), before);
        let make = |name: &str| ip(&["tuntap", "add", "dev", name, "mode", "tap"]);
        assert!(make("vmmtap77") && make("vmmtap4000") && make("tap0") && make("vmmtapes"));
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        siege.expect_log("vmmd", "removed 2 taps and cgroups that a predecessor left");
        let mut expected = before.clone();
        expected.extend(["tap0", "vmmtapes"].map(str::to_owned));
        assert_eq!(interfaces(), expected);
        assert_eq!(siege.expect_listed_runs_once(), running);
        siege.expect_line("wire", "address");

        // A unikernel that dies while nobody watches takes its tap along, and comes again with another.
        kill_vmmd(siege);
        let pids: Vec<u32> = running.values().copied().collect();
        pids.iter().for_each(|pid| kill_9(*pid));
        expect_gone(&pids);
        assert!(wait_until(|| interfaces().len() == expected.len() - 1), "{:?}", interfaces());
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        assert_eq!(siege.expect_listed_runs_once().len(), 1);
        assert!(wait_until(|| interfaces().len() == expected.len()), "{:?}", interfaces());
        assert_eq!(siege.client(&["destroy", "wire"]).code, 0);
        siege.expect_clean();
        siege.count_again();
        siege.expect_nothing_left();
    });
}
