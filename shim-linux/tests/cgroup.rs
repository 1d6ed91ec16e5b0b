//! Cgroups as the kernel has them: processes get into theirs, and it is gone with them. What controllers do is not seen where the
//! kernel has given them to version 1.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use fulmar_core::halves::{LaunchPlan, Signal, Status, Tender, Texts, Unit};
use fulmar_core::policy::CpuSet;
use fulmar_host::shim::{Exit, Found, Process, Shim, Start};
use fulmar_shim_linux::{Cgroups, LinuxShim};
use fulmar_tests::skips::skip;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The first user id for these tests.
const UID_BASE: u32 = 516_096;

/// A folder of the real hierarchy, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let folder = mount.map(|mount| Path::new(mount).join(format!("fulmar-test-{test}-{}", std::process::id())));
        let made = folder.filter(|folder| fs::create_dir(folder).is_ok());
        if made.is_none() {
            skip(test, "no cgroup of version 2 can be made here");
        }
        made.map(Self)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap().flatten().filter(|entry| entry.path().is_dir());
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn shim(&self) -> LinuxShim {
        let shim = LinuxShim::new(Path::new("/bin/sleep"), UID_BASE, Path::new("/shims")).unwrap();
        shim.with_cgroups(Cgroups::unbounded(&self.0).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = fs::remove_dir(self.0.join(name));
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn start(shim: &mut LinuxShim, unit: u64) -> Process {
    start_argv(shim, unit, b"sleep\x0060\0")
}

fn start_argv(shim: &mut LinuxShim, unit: u64, argv: &[u8]) -> Process {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let plan = LaunchPlan {
        unit: Unit(unit),
        account: u16::try_from(unit).unwrap(),
        tender: Tender::Spt,
        cpus: CpuSet::first(1),
        memory_mb: 32,
        networks: Texts::default(),
        blocks: 0,
        argv: Texts::new(argv).unwrap(),
        machine: None,
    };
    let fd = null.as_fd();
    let start =
        Start { plan: &plan, console: fd, image: fd, taps: &[], tap_names: Texts::EMPTY, blocks: &[], status: fd };
    shim.spawn(&start, &mut |_| Ok(())).unwrap()
}

fn next_exit(shim: &mut LinuxShim) -> Exit {
    loop {
        assert_eq!(poll(&mut [PollFd::new(shim.exit_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000_u16)), Ok(1));
        if let Some(exit) = shim.next_exit() {
            return exit;
        }
    }
}

#[test]
fn a_tender_lives_in_its_cgroup_and_leaves_none() {
    let Some(folder) = Folder::new("lives") else { return };
    let mut shim = folder.shim();
    let processes = [3, 4].map(|unit| start(&mut shim, unit));
    assert_eq!(folder.names(), ["unit-3", "unit-4"]);
    let name = folder.0.file_name().unwrap().to_str().unwrap();
    for (process, unit) in processes.iter().zip([3, 4]) {
        let its = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap();
        let its = its.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        assert!(its.ends_with(&format!("{name}/unit-{unit}")), "{its}");
        let threads = fs::read_to_string(folder.0.join(format!("unit-{unit}/cgroup.procs"))).unwrap();
        assert_eq!(threads.trim(), process.pid.to_string());
    }
    for unit in [3, 4] {
        assert_eq!(shim.signal(Unit(unit), Signal::Kill), Ok(true));
        assert_eq!(next_exit(&mut shim), Exit { unit: Unit(unit), status: Status::Signal(9) });
    }
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    // Once more under the same number.
    start(&mut shim, 3);
    assert_eq!(folder.names(), ["unit-3"]);
    assert_eq!(shim.signal(Unit(3), Signal::Kill), Ok(true));
    next_exit(&mut shim);
}

#[test]
fn what_a_predecessor_left_is_adopted_or_swept() {
    let Some(folder) = Folder::new("swept") else { return };
    let mut predecessor = folder.shim();
    let process = start(&mut predecessor, 5);
    fs::create_dir(folder.0.join("unit-9")).unwrap();
    fs::create_dir(folder.0.join("other")).unwrap();
    let mut shim = folder.shim();
    assert_eq!(shim.adopt(Unit(5), process, Texts::default()), Ok(Found::Running));
    assert_eq!(shim.adopt(Unit(9), Process { pid: 1, started: 0 }, Texts::default()), Ok(Found::Gone(Status::Unknown)));
    shim.sweep().unwrap();
    assert_eq!(folder.names(), ["other", "unit-5"]);
    assert_eq!(shim.signal(Unit(5), Signal::Kill), Ok(true));
    next_exit(&mut shim);
    assert_eq!(folder.names(), ["other"]);
}

#[test]
fn a_launch_that_fails_leaves_no_cgroup() {
    let Some(folder) = Folder::new("fails") else { return };
    let mut shim = folder.shim();
    let null = File::open("/dev/null").unwrap();
    let nowhere = CpuSet::collect([1023].into_iter()).unwrap();
    let plan = LaunchPlan {
        unit: Unit(1),
        account: 1,
        tender: Tender::Spt,
        cpus: nowhere,
        memory_mb: 32,
        networks: Texts::default(),
        blocks: 0,
        argv: Texts::new(b"sleep\x0060\0").unwrap(),
        machine: None,
    };
    let fd = null.as_fd();
    let start =
        Start { plan: &plan, console: fd, image: fd, taps: &[], tap_names: Texts::EMPTY, blocks: &[], status: fd };
    assert!(shim.spawn(&start, &mut |_| Ok(())).is_err());
    shim.sweep().unwrap();
    assert!(folder.names().is_empty());
}

#[test]
fn a_tender_that_takes_too_much_is_killed_and_said_to_be() {
    const TEST: &str = "a_tender_that_takes_too_much_is_killed_and_said_to_be";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let run = std::env::temp_dir().join(format!("fulmar-oom-{}", std::process::id()));
    fs::create_dir(&run).unwrap();
    let found = mount.map(|mount| Cgroups::find_in(Path::new(mount), "/", &run, &|_| true));
    let Some(Ok(cgroups)) = found.filter(|found| found.as_ref().is_ok_and(Cgroups::bound_memory)) else {
        fs::remove_dir(&run).unwrap();
        return skip(TEST, "no cgroup of version 2 bounds memory here");
    };
    let folder = cgroups.folder().to_owned();
    let mut shim =
        LinuxShim::new(Path::new("/usr/bin/tail"), UID_BASE, Path::new("/shims")).unwrap().with_cgroups(cgroups);
    // The end of what has no end is kept in memory until there is none.
    start_argv(&mut shim, 1, b"tail\0/dev/zero\0");
    assert_eq!(next_exit(&mut shim), Exit { unit: Unit(1), status: Status::OutOfMemory });
    assert!(!folder.join("unit-1").exists());
    fs::remove_dir(folder).unwrap();
    fs::remove_dir(run).unwrap();
}
