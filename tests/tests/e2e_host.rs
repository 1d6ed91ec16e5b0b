//! What the host does to the daemons: full and read-only disks, networks that come and go, users without rights, floods.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command as Program, Stdio};

use fulmar_core::wire::{Bridge, Command, UnikernelCommand};
use fulmar_tests::built::Kind;
use fulmar_tests::images;
use fulmar_tests::namespace::{Disk, inside};
use fulmar_tests::raw::{Answer, Raw, Wish};
use fulmar_tests::siege::{self, MEMORY_MB, PATH, Siege, children, tenders};
use fulmar_tests::system::{self, System, wait_until};
use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;

/// Nobody's user id, which owns nothing.
const NOBODY: u32 = 65534;

fn new_system(test: &str) -> Option<System> {
    let programs = siege::programs(test)?;
    Some(System::new(system::make_folder("siege").unwrap(), programs).unwrap())
}

#[test]
fn a_full_disk() {
    inside("a_full_disk", || {
        let Some(system) = new_system("a_full_disk") else { return };
        let state = system.state();
        let disk = Disk::mount(&state, 4 << 20, MsFlags::empty());
        let siege = Siege::begin_in(system);
        let socket = siege.system.socket("vmmd.sock");
        let mut image = fs::read(siege.image("hello")).unwrap();
        image.resize(600_000, 0);

        // While the image arrives: the client hears it though it still has much to send.
        // What is kept free of the disk for the journal, 256 KiB, and room for an image that is small.
        disk.fill_up_to(262_144 + 200_000);
        let answer = Raw::connect(&socket).ask("siege:full", Wish::of(&image).command());
        assert!(answer.reason().contains("full"), "{answer:?}");
        siege.expect_log("vmmd", "full");
        let file = siege.system.folder().join("large.spt");
        fs::write(&file, &image).unwrap();
        let said = siege.client(&["create", "siege:full", &file.to_string_lossy()]);
        assert_eq!(said.code, 117, "{said:?}");
        assert!(said.err.contains("full") && said.err.contains("space"), "{said:?}");
        siege.expect_service();
        // Something smaller fits.
        siege.take_whole_policy();

        // Its image goes a little later than it.
        assert!(wait_until(|| siege::files(&state.join("images")).is_empty()));
        // While the journal is written: some records fit its last block, then none.
        disk.fill_up_to(0);
        let mut added = 0;
        let said = loop {
            let said = siege.client(&["add-policy", &format!("p{added}"), "1", "--mem", "32", "--cpu", "0"]);
            if said.code != 0 {
                break said;
            }
            added += 1;
            assert!(added < 300, "the disk is not full");
        };
        assert_eq!(said.code, 117, "{said:?}");
        assert!(said.err.contains("full") && said.err.contains("nothing was changed"), "{said:?}");
        let said = siege.client(&["create", "siege:full", &siege.image("hello")]);
        assert_eq!(said.code, 117, "{said:?}");
        assert!(said.err.contains("full"), "{said:?}");
        assert!(siege.names().is_empty() && tenders(siege.system.folder()).is_empty());

        disk.make_room();
        let listed = siege.client(&["policy", "--json"]);
        assert!(listed.out.matches("\"p").count() >= added, "{added}: {}", listed.out);
        siege.expect_nothing_left();
        drop(disk);
        siege.system.stop().unwrap();
    });
}

#[test]
fn a_full_disk_under_a_running_unikernel() {
    inside("a_full_disk_under_a_running_unikernel", || {
        let Some(system) = new_system("a_full_disk_under_a_running_unikernel") else { return };
        let disk = Disk::mount(&system.state(), 4 << 20, MsFlags::empty());
        let siege = Siege::begin_in(system);
        assert_eq!(siege.client(&["create", "siege:stays", &siege.image("hello")]).code, 0);
        disk.fill_up_to(0);
        for number in 0.. {
            let path = format!("p{number}");
            if siege.client(&["add-policy", &path, "1", "--mem", "32", "--cpu", "0"]).code != 0 {
                break;
            }
        }
        // A destruction is recorded first: without room it is refused, and the unikernel stays as it is.
        let said = siege.client(&["destroy", "siege:stays"]);
        if said.code != 0 {
            assert!(said.err.contains("full"), "{said:?}");
            assert_eq!(siege.names().len(), 1);
            assert_eq!(tenders(siege.system.folder()).len(), 1);
            disk.make_room();
            assert_eq!(siege.client(&["destroy", "siege:stays"]).code, 0);
        } else {
            disk.make_room();
        }
        siege.expect_nothing_left();
        drop(disk);
        siege.system.stop().unwrap();
    });
}

#[test]
fn a_read_only_state_folder() {
    inside("a_read_only_state_folder", || {
        let Some(mut system) = new_system("a_read_only_state_folder") else { return };
        let disk = Disk::mount(&system.state(), 1 << 20, MsFlags::empty());
        let state = system.state();
        let remount = |flags| {
            let flags = MsFlags::MS_REMOUNT | flags;
            // Somebody may still be writing his last.
            assert!(wait_until(|| mount(None::<&str>, &state, None::<&str>, flags, None::<&str>).is_ok()));
        };
        remount(MsFlags::MS_RDONLY);
        let error = system.start_vmmd(&[]).unwrap_err();
        assert!(error.contains(&*system.state().to_string_lossy()) && error.contains("Read-only"), "{error}");
        remount(MsFlags::empty());
        // Once it can be written to, all is well.
        let mut siege = Siege::begin_in(system);
        siege.system.end("vmmd", nix::sys::signal::Signal::SIGTERM).unwrap();
        remount(MsFlags::MS_RDONLY);
        let error = siege.system.start_vmmd(&[]).unwrap_err();
        assert!(error.contains("Read-only"), "{error}");
        assert!(wait_until(|| children(siege.vmmd).is_empty()));
        drop(disk);
        siege.system.stop().unwrap();
    });
}

#[test]
fn an_image_folder_that_cannot_be_written() {
    let Some(siege) = Siege::begin("an_image_folder_that_cannot_be_written") else { return };
    let images = siege.system.state().join("images");
    // Spare files are open already: more images at once than there are of those.
    let forbid = || fs::set_permissions(&images, fs::Permissions::from_mode(0o500));
    forbid().unwrap();
    let said = siege.client(&["create", "siege:no", &siege.image("hello")]);
    assert_eq!(said.code, 117, "{said:?}");
    assert!(said.err.contains("denied"), "{said:?}");
    siege.expect_log("vmmd", "denied");
    siege.expect_service();
    fs::set_permissions(&images, fs::Permissions::from_mode(0o750)).unwrap();
    siege.end();
}

#[test]
fn a_flood_on_one_console_does_not_stall_others() {
    let Some(siege) = Siege::begin("a_flood_on_one_console_does_not_stall_others") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let flooding = images::flooding();
    assert_eq!(
        Raw::connect(&socket).ask("flood", Wish::of(&flooding).command()),
        Answer::Done("created unikernel".into())
    );
    siege.expect_line("flood", "nothing to say");
    // One follows the flood and never reads; others are heard as ever.
    let mut silent = siege.system.client(&["console", "flood"]);
    let mut silent = silent.stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(siege.client(&["create", "siege:quiet", &siege.image("hello")]).code, 0);
    siege.expect_line("siege:quiet", "tick 2");
    siege.expect_line("flood", "nothing to say");
    siege.expect_service();
    assert_eq!(siege.client(&["destroy", "flood"]).code, 0);
    assert_eq!(siege.client(&["destroy", "siege:quiet"]).code, 0);
    silent.kill().unwrap();
    silent.wait().unwrap();
    // With the console daemon away it goes on writing, into the void.
    siege.end();
}

#[test]
fn an_ordinary_user_has_all_but_what_it_is_told() {
    const TEST: &str = "an_ordinary_user_has_all_but_what_it_is_told";
    let Some(programs) = siege::programs(TEST) else { return };
    let folder = system::make_folder("siege").unwrap();
    // Where an ordinary user can get at them.
    let own = folder.join("programs");
    fs::create_dir_all(own.join("guests")).unwrap();
    for name in ["vmmd", "vmmd_console", "vmmc_local", "fulmar-tender", "guests/hello.spt", "guests/hello.hvt"] {
        siege::copy_program(&programs.join(name), &own.join(name));
    }
    let image = |kind: Kind| own.join("guests").join(format!("hello.{}", kind.name())).to_string_lossy().into_owned();
    let mut system = System::new(folder, own.clone()).unwrap();
    if geteuid().is_root() {
        system.become_user(NOBODY).unwrap();
    }
    system.start_vmmd(&[]).unwrap();
    system.start_console().unwrap();
    let vmmc = |words: &[&str]| siege::said(&system.client(words).output().unwrap());
    assert_eq!(vmmc(&["add-policy", PATH, "1", "--mem", &MEMORY_MB.to_string(), "--cpu", "0"]).code, 0);
    for _ in 0..2 {
        let said = vmmc(&["create", "siege:mine", &image(Kind::Spt)]);
        assert_eq!(said.code, 0, "{said:?}\n{}", system.log("vmmd"));
        let mut console = system.client(&["console", "siege:mine"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(console.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("tick")));
        console.kill().unwrap();
        console.wait().unwrap();
        assert!(vmmc(&["info"]).out.contains("mine"));
        let [tender] = tenders(system.folder()).try_into().unwrap();
        let runs_as = fs::metadata(format!("/proc/{tender}")).unwrap().uid();
        assert_eq!(runs_as, if geteuid().is_root() { NOBODY } else { geteuid().as_raw() });
        assert_eq!(vmmc(&["destroy", "siege:mine"]).code, 0);
    }
    let log = system.log("vmmd");
    for line in ["taps cannot be made", "no privilege to change users"] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    if log.contains("/dev/kvm cannot be opened") {
        let said = vmmc(&["create", "siege:mine", &image(Kind::Hvt)]);
        assert_eq!(said.code, 117, "{said:?}");
        assert!(said.err.contains("/dev/kvm") && said.err.contains("build the unikernel for spt"), "{said:?}");
    }
    // A bridge is of no use to it, and it is told why.
    let bridges = [Bridge { name: "service", bridge: Some("br0"), mac: None }];
    let net = images::image(2, &["service"], 0x1000);
    let answer =
        Raw::connect(&system.socket("vmmd.sock")).ask("wire", Wish { bridges: &bridges, ..Wish::of(&net) }.command());
    assert!(!answer.reason().is_empty());
    assert_eq!(vmmc(&["info", "siege:mine"]).code, 117);
    system.stop().unwrap();
}

#[test]
fn hvt_where_there_is_kvm() {
    const TEST: &str = "hvt_where_there_is_kvm";
    let Some(siege) = Siege::begin(TEST) else { return };
    if !siege.kinds(TEST).contains(&Kind::Hvt) {
        return;
    }
    let hello = siege.image_for("hello", Kind::Hvt);
    for _ in 0..3 {
        assert_eq!(siege.client(&["create", "siege:kvm", &hello]).code, 0);
        siege.expect_line("siege:kvm", "tick");
        assert_eq!(siege.client(&["destroy", "siege:kvm"]).code, 0);
    }
    let crash = siege.image_for("crash", Kind::Hvt);
    for how in ["--how=port", "--how=null", "--how=text", "--how=reach"] {
        assert_eq!(siege.client(&["create", "siege:bad", &crash, "--arg", how]).code, 0);
        assert!(wait_until(|| siege.names().is_empty()), "{how}");
    }
    siege.end();
}

#[test]
fn daemons_that_cannot_start_say_why() {
    let Some(siege) = Siege::begin("daemons_that_cannot_start_say_why") else { return };
    let (run, state) = (siege.system.run(), siege.system.state());
    let other = siege.system.folder().join("other");
    let start = |program: &str, options: &[&OsStr]| {
        siege::said(&Program::new(system::programs().join(program)).args(options).output().unwrap())
    };
    let [run_is, state_is, no] = ["--run", "--state", "/dev/null/no"].map(OsStr::new);
    let (run, state, other) = (run.as_os_str(), state.as_os_str(), other.as_os_str());
    let twin = format!("another vmmd, process {}, uses the run folder", siege.vmmd);
    for (program, options, code, words) in [
        ("vmmd", &[run_is, run, state_is, state][..], 1, twin.as_str()),
        ("vmmd", &[run_is, other, state_is, state], 1, "another vmmd uses this folder, stop it first"),
        ("vmmd", &[run_is, no, state_is, state], 1, "/dev/null is no folder"),
        ("vmmd", &[run_is, other, state_is, no], 1, "/dev/null is no folder"),
        ("vmmd", &[OsStr::new("--wrong")], 124, "unknown option '--wrong', see --help"),
        ("vmmd_console", &[run_is, run], 1, "another vmmd_console serves this folder"),
        ("vmmd_console", &[run_is, no], 1, "/dev/null/no"),
        ("vmmd_console", &[OsStr::new("--wrong")], 124, "--wrong"),
    ] {
        let said = start(program, options);
        assert_eq!(said.code, code, "{program} {options:?}: {said:?}");
        assert!(said.err.contains(words), "{program} {options:?}: {said:?}");
        assert!(said.err.lines().count() <= 4, "{program} {options:?}: {said:?}");
    }
    let answer = Raw::connect(&siege.system.socket("vmmd.sock")).ask("x", Command::Unikernel(UnikernelCommand::Info));
    assert!(answer.reason().contains("not found"), "{answer:?}");
    siege.end();
}
