//! How a unikernel ends whose process another `vmmd` has started: this one is not its parent, and knows it all the same.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use fulmar_tests::siege::{Siege, pid_of};
use fulmar_tests::skips::{skip, tells_ends};
use fulmar_tests::system::wait_until;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;

#[test]
fn how_an_adopted_one_ends_is_known() {
    let test = "how_an_adopted_one_ends_is_known";
    if !tells_ends() {
        return skip(test, "before Linux 6.15 only a parent is told how a process ends");
    }
    let Some(mut siege) = Siege::begin(test) else { return };
    // As init does everywhere and in some containers nobody: those that have lost their parent are waited for.
    set_child_subreaper(true).unwrap();
    let adopt = |siege: &mut Siege, words: &[&str]| {
        let image = siege.image("hello");
        let said = siege.client(&[&["create", "siege:one", &image], words].concat());
        assert_eq!(said.code, 0, "{said:?}");
        let pid = pid_of(siege.expect_listed_runs_once()["siege:one"]);
        siege.start_vmmd_again();
        let pid_now = pid_of(siege.expect_listed_runs_once()["siege:one"]);
        assert_eq!(pid_now, pid);
        std::thread::spawn(move || waitpid(pid, None).unwrap());
        pid
    };
    for (signal, said) in [
        (Signal::SIGKILL, "siege:one ended: signal 9"),
        (Signal::SIGSEGV, "siege:one ended: signal 11"),
        (Signal::SIGTERM, "siege:one ended: signal 15"),
        (Signal::SIGSYS, "siege:one ended: signal 31: a system call that its sandbox forbids"),
    ] {
        let pid = adopt(&mut siege, &[]);
        kill(pid, signal).unwrap();
        siege.expect_log("vmmd", said);
        assert!(wait_until(|| siege.names().is_empty()), "{}", siege.system.log("vmmd"));
    }
    // Told to, it is no more than what it was told.
    adopt(&mut siege, &[]);
    let said = siege.client(&["destroy", "siege:one"]);
    assert_eq!(said.code, 0, "{said:?}");
    siege.expect_log("vmmd", "siege:one ended: signal 15, as it was told");
    // One that is to run again does, and says why.
    let pid = adopt(&mut siege, &["--restart-on-fail"]);
    kill(pid, Signal::SIGKILL).unwrap();
    let is_said = || siege.client(&["info", "siege:one"]).out.contains("signal 9");
    assert!(wait_until(is_said), "{:?}\n{}", siege.client(&["info", "siege:one"]), siege.system.log("vmmd"));
    assert_eq!(siege.client(&["destroy", "siege:one"]).code, 0);
    siege.expect_clean();
    siege.end();
}
