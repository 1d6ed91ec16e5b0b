//! Looking into a guest, where the operator allowed it: core files that gdb opens, and gdb itself.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tender::{await_console, end, image, kinds, tender, wait};
use fulmar_tests::built::Kind;
use fulmar_tests::skips::skip;

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str, kind: Kind) -> Folder {
        let name = format!("fulmar-{test}-{}-{}", kind.name(), std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    /// The one core in it.
    fn core(&self) -> PathBuf {
        let mut files = fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().path());
        let file = files.next().unwrap();
        assert_eq!(files.next(), None);
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn debug_tender(kind: Kind) -> Command {
    let mut command = tender(kind);
    command.arg0(format!("solo5-{}-debug", kind.name()));
    command
}

fn gdb(image: &Path, words: &[&str], commands: &[&str]) -> Option<String> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx"]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    match gdb.arg(image).args(words).stdin(Stdio::null()).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            skip("gdb looks into guests", &format!("gdb cannot be run: {error}"));
            None
        }
    }
}

#[test]
fn gdb_opens_the_core_of_a_guest_that_died() {
    for kind in kinds("core of a fault") {
        let folder = Folder::new("core", kind);
        let image = image(kind, "crash");
        let mut command = debug_tender(kind);
        command.arg("--mem=4").arg(format!("--dumpcore={}", folder.0.display())).arg(&image);
        let end = end(command.arg("--how=undefined"));
        assert!(end.stderr.contains("dumpcore: dumping guest core to: "), "{end:?}");
        let core = folder.core();
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&core).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let Some(said) = gdb(&image, &[core.to_str().unwrap()], &["x/i $rip", "x/s 0x100000", "p $rsp"]) else {
            return;
        };
        assert!(said.contains("ud2") && said.contains("/nonexistent/solo5/"), "{said}");
    }
}

#[test]
fn a_guest_that_gave_up_leaves_a_core() {
    for kind in kinds("core of an abort") {
        let folder = Folder::new("abort", kind);
        let option = format!("--dumpcore={}", folder.0.display());
        let arguments = ["--mem=4", option.as_str()];
        let ended = end(debug_tender(kind).args(arguments).arg(image(kind, "crash")).arg("--how=abort"));
        assert_eq!(ended.code(), Some(255), "{ended:?}");
        assert!(fs::metadata(folder.core()).unwrap().len() > 4096);
        // One that ends well leaves none.
        fs::remove_file(folder.core()).unwrap();
        let ended = end(debug_tender(kind).args(arguments).arg(image(kind, "hello")).arg("--ticks=0"));
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
        assert_eq!(fs::metadata(folder.core()).unwrap().len(), 0);
    }
}

#[test]
fn a_core_on_demand_and_the_guest_goes_on() {
    for kind in kinds("core on demand") {
        let folder = Folder::new("demand", kind);
        let mut command = debug_tender(kind);
        command.arg("--mem=4").arg(format!("--dumpcore={}", folder.0.display())).arg(image(kind, "hello"));
        let mut child = command.args(["--ticks=2", "--status=4"]).spawn().unwrap();
        await_console(&mut child, "My arguments");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR1).unwrap();
        let end = wait(child);
        assert_eq!(end.code(), Some(4), "{end:?}");
        assert!(end.stdout.ends_with("tick 2\nGood-bye.\n"), "{end:?}");
        assert!(end.stderr.contains("dumpcore: dumped "), "{end:?}");
        let Some(said) =
            gdb(&image(kind, "hello"), &[folder.core().to_str().unwrap()], &["x/s 0x100000", "info registers rip"])
        else {
            return;
        };
        assert!(said.contains("/nonexistent/solo5/") && said.contains("rip"), "{said}");
    }
}

#[test]
fn a_core_folder_must_be_there() {
    for kind in kinds("no core folder") {
        let refused = end(debug_tender(kind).arg("--dumpcore=/nonexistent").arg(image(kind, "hello")));
        assert_eq!(refused.code(), Some(1));
        assert!(refused.stderr.contains("dumpcore: /nonexistent/core.solo5-"), "{refused:?}");
    }
}

#[test]
fn gdb_steps_stops_and_leaves() {
    if !kinds("gdb").contains(&Kind::Hvt) {
        return;
    }
    let folder = Folder::new("gdb", Kind::Hvt);
    let socket = folder.0.join("gdb");
    // One that an earlier tender has left.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let image = image(Kind::Hvt, "hello");
    let mut command = debug_tender(Kind::Hvt);
    command.arg("--mem=4").arg(format!("--gdb={}", socket.display())).arg(&image);
    let mut child = command.args(["--ticks=1", "--status=6"]).spawn().unwrap();
    let mut waiting = [0; 64];
    let len = std::io::Read::read(child.stderr.as_mut().unwrap(), &mut waiting).unwrap();
    assert!(waiting[..len].starts_with(b"solo5-hvt-debug: gdb: waiting for a debugger"));
    let remote = format!("target remote {}", socket.display());
    let commands =
        [&remote, "x/i $rip", "stepi", "hbreak fulmar_guest_main", "continue", "p/x $cs", "x/s 0x100000", "detach"];
    let Some(said) = gdb(&image, &[], &commands) else {
        child.kill().unwrap();
        child.wait().unwrap();
        return;
    };
    assert!(said.contains("<_start>") && said.contains("Breakpoint 1, "), "{said}");
    assert!(said.contains("= 0x8") && said.contains("/nonexistent/solo5/"), "{said}");
    // It goes on as if nobody had looked.
    let end = wait(child);
    assert_eq!(end.code(), Some(6), "{end:?}");
    assert!(end.stdout.ends_with("tick 1\nGood-bye.\n"), "{end:?}");
}

#[test]
fn a_debugger_is_hvts_alone() {
    let refused = end(debug_tender(Kind::Spt).arg("--gdb=/nonexistent/s").arg(image(Kind::Spt, "hello")));
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("gdb: /nonexistent/s: No such file"), "{refused:?}");
    let folder = Folder::new("gdb", Kind::Spt);
    let option = format!("--gdb={}", folder.0.join("s").display());
    let refused = end(debug_tender(Kind::Spt).arg(option).arg(image(Kind::Spt, "hello")));
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("--gdb': only hvt has it"), "{refused:?}");
}
