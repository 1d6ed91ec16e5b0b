//! Real processes through the shim, with a shell in the place of the tender: what the kernel says of them.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fulmar_core::halves::{Attempt, LaunchPlan, OsError, Signal, Status, Tender, Texts, Unit};
use fulmar_core::limits::ACCOUNTS_MAX;
use fulmar_core::policy::CpuSet;
use fulmar_host::shim::{Exit, Found, Process, Shim, Start, Tap};
use fulmar_shim_linux::LinuxShim;
use fulmar_tests::skips::{skip, tells_ends};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal as OsSignal, kill};
use nix::unistd::{Pid, Uid};

/// The first user id for these tests.
const UID_BASE: u32 = 516_096;

/// How long a process may take on a busy machine, milliseconds.
const PATIENCE_MS: u16 = 20_000;

/// Says that it runs, waits for a line or the end of the image, and exits with 7.
const WAIT: &str = "echo ready; read line <&3; exit 7";

/// A program that leaves its fds and signals as they are, which a shell does not.
const SLEEP: &[u8] = b"sleep\x0060\0";

struct Child {
    process: Process,
    console: BufReader<PipeReader>,
    image: PipeWriter,
}

impl Child {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.console.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.process.pid)).unwrap()
    }

    /// The value of a line `field: value` of its status.
    fn status(&self, field: &str) -> String {
        let status = self.file("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field}")).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Soft and hard limit.
    fn limit(&self, name: &str) -> (String, String) {
        let limits = self.file("limits");
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    /// What its fds are, from 0 on; a gap shows as a fd too few.
    fn fds(&self) -> Vec<String> {
        let folder = format!("/proc/{}/fd", self.process.pid);
        let count = fs::read_dir(&folder).unwrap().count();
        let target =
            |fd| fs::read_link(format!("{folder}/{fd}")).map_or(String::new(), |path| path.display().to_string());
        (0..count).map(target).collect()
    }

    /// Waits until these are its fds: while it is being loaded there are others.
    fn wait_for_fds(&self, expected: &[String]) {
        let until = Instant::now() + Duration::from_millis(PATIENCE_MS.into());
        loop {
            let fds = self.fds();
            if fds == expected {
                return;
            }
            assert!(Instant::now() < until, "{fds:?} instead of {expected:?}");
            std::thread::yield_now();
        }
    }
}

/// What a fd of this process is.
fn target_of(fd: &impl AsRawFd) -> String {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().display().to_string()
}

fn shim() -> LinuxShim {
    LinuxShim::new(Path::new("/bin/sh"), UID_BASE, Path::new("/shims")).unwrap()
}

/// Tests run at once, and an account is limited in its processes, those included that init has not reaped yet.
fn account_of(unit: u64) -> u16 {
    let (process, thread) = (u64::from(std::process::id()), nix::unistd::gettid().as_raw().cast_unsigned());
    u16::try_from((process * 61 + u64::from(thread) * 31 + unit) % u64::from(ACCOUNTS_MAX)).unwrap()
}

fn plan<'a>(unit: u64, argv: &'a [u8]) -> LaunchPlan<'a> {
    LaunchPlan {
        unit: Unit(unit),
        account: account_of(unit),
        tender: Tender::Spt,
        cpus: CpuSet::first(1),
        memory_mb: 32,
        networks: Texts::default(),
        blocks: 0,
        argv: Texts::new(argv).unwrap(),
        machine: None,
    }
}

fn start_plan(
    shim: &mut LinuxShim,
    plan: &LaunchPlan<'_>,
    taps: &[Tap],
    blocks: &[OwnedFd],
    record: &mut dyn FnMut(Process) -> Result<(), OsError>,
) -> (Result<Process, OsError>, PipeReader, PipeWriter) {
    let (console, theirs) = pipe().unwrap();
    let (image, mine) = pipe().unwrap();
    let status = status_file();
    let (console_fd, image, status) = (theirs.as_fd(), image.as_fd(), status.as_fd());
    let start = Start { plan, console: console_fd, image, taps, tap_names: Texts::EMPTY, blocks, status };
    (shim.spawn(&start, record), console, mine)
}

/// Where a tender would record how its guest fares.
fn status_file() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn start(shim: &mut LinuxShim, unit: u64, script: &str) -> Child {
    let argv = format!("tender\0-c\0{script}\0");
    start_argv(shim, &plan(unit, argv.as_bytes()), &[], &[])
}

fn start_argv(shim: &mut LinuxShim, plan: &LaunchPlan<'_>, taps: &[Tap], blocks: &[OwnedFd]) -> Child {
    let (process, console, image) = start_plan(shim, plan, taps, blocks, &mut |_| Ok(()));
    Child { process: process.unwrap(), console: BufReader::new(console), image }
}

fn end(shim: &mut LinuxShim, unit: u64) {
    assert_eq!(shim.signal(Unit(unit), Signal::Kill), Ok(true));
    assert_eq!(next_exit(shim), Exit { unit: Unit(unit), status: Status::Signal(9) });
}

/// Waits until the shim has an exit to tell.
fn next_exit(shim: &mut LinuxShim) -> Exit {
    loop {
        let ready =
            poll(&mut [PollFd::new(shim.exit_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE_MS)).unwrap();
        assert_eq!(ready, 1, "no exit within {PATIENCE_MS} ms");
        if let Some(exit) = shim.next_exit() {
            return exit;
        }
    }
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn codes_and_signals_are_told_once() {
    let mut shim = shim();
    for code in [0, 7, 255] {
        start(&mut shim, u64::from(code), &format!("exit {code}"));
        assert_eq!(next_exit(&mut shim), Exit { unit: Unit(code.into()), status: Status::Code(code) });
        assert_eq!(shim.next_exit(), None);
    }
    for (signal, number) in [(Signal::Terminate, 15), (Signal::Kill, 9)] {
        let mut child = start(&mut shim, 1, WAIT);
        assert_eq!(child.line(), "ready");
        assert_eq!(shim.next_exit(), None);
        assert_eq!(shim.signal(Unit(1), signal), Ok(true));
        assert_eq!(next_exit(&mut shim), Exit { unit: Unit(1), status: Status::Signal(number) });
        assert_eq!(shim.signal(Unit(1), signal), Ok(false));
        assert!(is_gone(child.process.pid), "it has been reaped");
    }
}

#[test]
fn many_exits_are_told_each_to_its_unit() {
    let mut shim = shim();
    let mut children: Vec<_> = (0..20).map(|unit| start(&mut shim, unit, WAIT)).collect();
    for child in children.iter_mut().rev() {
        writeln!(child.image, "end").unwrap();
    }
    let mut units: Vec<_> = (0..20).map(|_| next_exit(&mut shim)).collect();
    units.sort_by_key(|exit| exit.unit);
    assert!(units.iter().zip(0..).all(|(exit, unit)| *exit == Exit { unit: Unit(unit), status: Status::Code(7) }));
    assert_eq!(shim.next_exit(), None);
}

#[test]
fn a_tender_has_its_own_session_limits_and_cpus() {
    let mut shim = LinuxShim::new(Path::new("/bin/sleep"), UID_BASE, Path::new("/shims")).unwrap();
    let child = start_argv(&mut shim, &plan(1, SLEEP), &[], &[]);
    assert_eq!(child.status("Cpus_allowed_list"), "0");
    assert_eq!(child.status("NoNewPrivs"), "1");
    assert_eq!(child.status("SigBlk"), "0000000000000000");
    let ignored = u64::from_str_radix(&child.status("SigIgn"), 16).unwrap();
    // Those from 32 on are the C library's, and it lets nobody change them.
    assert_eq!(ignored & 0x7fff_ffff, 0);
    assert_eq!(child.status("NSsid"), child.status("NSpid"), "the leader of its session");
    assert_eq!(child.limit("Max core file size"), ("0".into(), "0".into()));
    assert_eq!(child.limit("Max open files"), ("21".into(), "21".into()));
    let memory = ((32 + 256 + 64) * 1024 * 1024).to_string();
    assert_eq!(child.limit("Max address space"), (memory.clone(), memory));
    assert_eq!(child.limit("Max file size"), ("64".into(), "64".into()), "the record of its status");
    for name in ["Max locked memory", "Max msgqueue size", "Max nice priority", "Max realtime priority"] {
        assert_eq!(child.limit(name), ("0".into(), "0".into()), "{name}");
    }
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", child.process.pid)).unwrap(), Path::new("/"));
    assert_eq!(child.file("environ"), "PATH=/usr/bin:/bin\0");
    assert_eq!(child.file("cmdline").as_bytes(), [b"/shims/", SLEEP].concat());
    end(&mut shim, 1);
}

#[test]
fn a_tender_has_its_fds_and_no_other() {
    let mut shim = LinuxShim::new(Path::new("/bin/sleep"), UID_BASE, Path::new("/shims")).unwrap();
    let taps = ["vmmtap7", "vmmtap8"].map(|name| Tap { name: name.to_owned(), fd: pipe().unwrap().0.into() });
    let tap_targets = [0, 1].map(|index: usize| target_of(&taps[index].fd));
    // Not close-on-exec, as from a careless service manager.
    let careless = nix::unistd::dup(std::io::stderr()).unwrap();
    nix::fcntl::fcntl(&careless, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let disk = OwnedFd::from(std::fs::File::open("/dev/zero").unwrap());
    let plan = LaunchPlan { networks: Texts::new(b"a\0b\0").unwrap(), blocks: 1, ..plan(1, SLEEP) };
    let child = start_argv(&mut shim, &plan, &taps, &[disk]);
    let (console, image) = (target_of(child.console.get_ref()), target_of(&child.image));
    let [seven, eight] = tap_targets;
    // Behind all of them the socket that knows the taps, and the file for the status.
    let control = child.fds()[7].clone();
    assert!(control.starts_with("socket:"), "{control}");
    child.wait_for_fds(&[
        "/dev/null".to_owned(),
        console.clone(),
        console,
        image,
        seven,
        eight,
        "/dev/zero".to_owned(),
        control,
        "/dev/full".to_owned(),
    ]);
    end(&mut shim, 1);
}

#[test]
fn no_file_of_a_tender_grows() {
    let mut shim = LinuxShim::new(Path::new("/bin/sleep"), UID_BASE, Path::new("/shims")).unwrap();
    let path = std::env::temp_dir().join(format!("fulmar-disk-{}", std::process::id()));
    let disk = File::create(&path).unwrap();
    disk.set_len(12_288).unwrap();
    fs::remove_file(&path).unwrap();
    let disks = [OwnedFd::from(File::open("/dev/zero").unwrap()), OwnedFd::from(disk)];
    let child = start_argv(&mut shim, &LaunchPlan { blocks: 2, ..plan(1, SLEEP) }, &[], &disks);
    assert_eq!(child.limit("Max file size"), ("12288".into(), "12288".into()));
    end(&mut shim, 1);
}

#[test]
fn tenders_start_in_one_empty_network() {
    if !nix::unistd::geteuid().is_root() {
        return skip("tenders start in one empty network", "no namespace can be made");
    }
    let mut shim = LinuxShim::new(Path::new("/bin/sleep"), UID_BASE, Path::new("/shims")).unwrap();
    let network = |pid: &dyn std::fmt::Display| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let children = [1, 2].map(|unit| start_argv(&mut shim, &plan(unit, SLEEP), &[], &[]));
    let [first, second] = children.each_ref().map(|child| network(&child.process.pid));
    assert_eq!(first, second);
    assert_ne!(first, network(&"self"), "vmmd stays where it is");
    for child in &children {
        let interfaces = child.file("net/dev");
        let names: Vec<&str> =
            interfaces.lines().skip(2).map(|line| line.trim_start().split(':').next().unwrap()).collect();
        assert_eq!(names, ["lo"]);
    }
    end(&mut shim, 1);
    end(&mut shim, 2);
}

#[test]
fn hvt_gets_dev_kvm_after_its_taps() {
    let mut shim = LinuxShim::new(Path::new("/bin/sleep"), UID_BASE, Path::new("/shims")).unwrap();
    if !shim.capacity().unwrap().abilities.kvm {
        skip("hvt_gets_dev_kvm_after_its_taps", "/dev/kvm cannot be opened here");
        return;
    }
    let child = start_argv(&mut shim, &LaunchPlan { tender: Tender::Hvt, ..plan(1, SLEEP) }, &[], &[]);
    let (console, image) = (target_of(child.console.get_ref()), target_of(&child.image));
    let [null, kvm, status] = ["/dev/null", "/dev/kvm", "/dev/full"].map(str::to_owned);
    child.wait_for_fds(&[null, console.clone(), console, image, kvm, status]);
    end(&mut shim, 1);
}

#[test]
fn a_tender_has_a_user_of_its_own() {
    let mut shim = shim();
    let abilities = shim.capacity().unwrap().abilities;
    let mut child = start(&mut shim, 1, WAIT);
    assert_eq!(child.line(), "ready");
    if abilities.accounts {
        let id = (UID_BASE + u32::from(account_of(1))).to_string();
        let all = [id.as_str(); 4].join(" ");
        assert_eq!(
            (child.status("Uid"), child.status("Gid"), child.status("Groups")),
            (all.clone(), all, String::new())
        );
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(child.status(set), "0000000000000000");
        }
        assert_eq!(child.limit("Max processes"), ("32".into(), "32".into()));
    } else {
        skip("a_tender_has_a_user_of_its_own", "users cannot be changed here, run it as root");
        assert_eq!(child.status("Uid").split(' ').next(), Some(Uid::effective().to_string().as_str()));
    }
    drop(child.image);
    assert_eq!(next_exit(&mut shim).status, Status::Code(7));
}

#[test]
fn a_tender_that_stays_the_same_user_has_no_capabilities() {
    // There are not that many users from here on.
    let mut shim = LinuxShim::new(Path::new("/bin/sh"), u32::MAX - 1, Path::new("/shims")).unwrap();
    assert!(!shim.capacity().unwrap().abilities.accounts);
    let mut child = start(&mut shim, 1, WAIT);
    assert_eq!(child.line(), "ready");
    assert_eq!(child.status("Uid").split(' ').next(), Some(Uid::effective().to_string().as_str()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(child.status(set), "0000000000000000", "{set}");
    }
    drop(child.image);
    assert_eq!(next_exit(&mut shim).status, Status::Code(7));
}

#[test]
fn nothing_runs_that_could_not_be_recorded() {
    let mut shim = shim();
    let refusal = OsError { attempt: Attempt::RecordProcess, errno: 28 };
    let mut recorded = None;
    let argv = format!("tender\0-c\0{WAIT}\0");
    let (result, mut console, _image) = start_plan(&mut shim, &plan(1, argv.as_bytes()), &[], &[], &mut |process| {
        recorded = Some(process);
        Err(refusal)
    });
    assert_eq!(result, Err(refusal));
    assert!(is_gone(recorded.unwrap().pid));
    let mut said = String::new();
    console.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    assert_eq!(shim.next_exit(), None);
}

#[test]
fn a_step_that_fails_is_named_and_leaves_nothing() {
    let mut shim = LinuxShim::new(Path::new("/bin/sh"), UID_BASE, Path::new("/shims")).unwrap();
    let argv = b"tender\0-c\0exit 0\0";
    let nowhere = CpuSet::collect([1023].into_iter()).unwrap();
    let (result, ..) = start_plan(&mut shim, &LaunchPlan { cpus: nowhere, ..plan(1, argv) }, &[], &[], &mut |_| Ok(()));
    assert_eq!(result, Err(OsError { attempt: Attempt::PinCpus, errno: nix::errno::Errno::EINVAL as i32 }));
    assert_eq!(shim.next_exit(), None);

    let file = std::env::temp_dir().join(format!("fulmar-no-program-{}", std::process::id()));
    fs::write(&file, "neither a program nor a script").unwrap();
    let mode = |mode| fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o755);
    let mut shim = LinuxShim::new(&file, UID_BASE, Path::new("/shims")).unwrap();
    let (result, ..) = start_plan(&mut shim, &plan(1, argv), &[], &[], &mut |_| Ok(()));
    assert_eq!(result, Err(OsError { attempt: Attempt::Execute, errno: nix::errno::Errno::ENOEXEC as i32 }));
    mode(0o644);
    assert!(!LinuxShim::new(&file, UID_BASE, Path::new("/shims")).unwrap().capacity().unwrap().abilities.tender);
    fs::remove_file(&file).unwrap();
    assert!(!LinuxShim::new(&file, UID_BASE, Path::new("/shims")).unwrap().capacity().unwrap().abilities.tender);
}

/// A process that a shim has started which is gone by now, and who waits for it then, as init does.
fn left() -> (Process, std::process::Child) {
    // This test again, in other processes: see below.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "foster_parent", "--ignored", "--nocapture"]);
    let mut parent = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(parent.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
    let line = lines.find_map(|line| Some(line.split_once("LEFT ")?.1.to_owned())).unwrap();
    let (pid, started) = line.split_once(' ').unwrap();
    (Process { pid: pid.parse().unwrap(), started: started.parse().unwrap() }, parent)
}

#[test]
#[ignore = "run by those who want a process that is left, in a process of its own"]
fn foster_parent() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let arguments = ["--exact", "predecessor", "--ignored", "--nocapture"];
    assert!(Command::new(std::env::current_exe().unwrap()).args(arguments).status().unwrap().success());
    while nix::sys::wait::wait().is_ok() {}
}

#[test]
fn a_process_outlives_its_shim_and_is_adopted() {
    let (process, mut parent) = left();
    let mut shim = shim();
    let other = Process { started: process.started ^ 1, ..process };
    let gone = Ok(Found::Gone(Status::Unknown));
    assert_eq!(shim.adopt(Unit(9), other, Texts::default()), gone, "that would be a later process of the same id");
    assert_eq!(shim.adopt(Unit(9), process, Texts::default()), Ok(Found::Running));
    assert_eq!(shim.next_exit(), None);
    assert_eq!(shim.signal(Unit(9), Signal::Terminate), Ok(true));
    let status = if tells_ends() { Status::Signal(15) } else { Status::Unknown };
    assert_eq!(next_exit(&mut shim), Exit { unit: Unit(9), status });
    assert_eq!(shim.adopt(Unit(9), process, Texts::default()), gone);
    parent.wait().unwrap();
}

#[test]
fn how_an_adopted_process_ends_is_told() {
    if !tells_ends() {
        return skip("how_an_adopted_process_ends_is_told", "only a parent is told how a process ends");
    }
    let mut shim = shim();
    for signal in [OsSignal::SIGKILL, OsSignal::SIGSEGV, OsSignal::SIGTERM, OsSignal::SIGSYS, OsSignal::SIGABRT] {
        let (process, mut parent) = left();
        assert_eq!(shim.adopt(Unit(9), process, Texts::default()), Ok(Found::Running));
        kill(Pid::from_raw(process.pid.try_into().unwrap()), signal).unwrap();
        let status = Status::Signal(u8::try_from(signal as i32).unwrap());
        assert_eq!(next_exit(&mut shim), Exit { unit: Unit(9), status });
        parent.wait().unwrap();
    }
}

#[test]
#[ignore = "run by foster_parent in a process of its own"]
fn predecessor() {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let plan = plan(9, b"tender\0-c\0exec sleep 60\0");
    let fd = null.as_fd();
    let start =
        Start { plan: &plan, console: fd, image: fd, taps: &[], tap_names: Texts::EMPTY, blocks: &[], status: fd };
    let process = shim().spawn(&start, &mut |_| Ok(())).unwrap();
    println!("LEFT {} {}", process.pid, process.started);
}

#[test]
fn a_process_that_waits_ends_with_its_shim_and_holds_nothing_of_it() {
    // This test again, in another process that is killed while the new one waits: see below.
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "killed", "--ignored", "--nocapture"];
    let output = Command::new(program).args(arguments).stderr(Stdio::inherit()).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let pid = output.lines().find_map(|line| line.split_once("LEFT ")).unwrap_or_else(|| panic!("{output}")).1;
    let until = Instant::now() + Duration::from_millis(PATIENCE_MS.into());
    // Nobody may be there to reap it.
    let ended = || match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status.lines().any(|line| line.starts_with("State:\tZ")),
        Err(_) => true,
    };
    while !ended() {
        assert!(Instant::now() < until, "it waits for somebody who is dead: {pid}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[ignore = "run by a_process_that_waits_ends_with_its_shim_and_holds_nothing_of_it in a process of its own"]
fn killed() {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let plan = plan(9, b"tender\0-c\0exec sleep 60\0");
    let fd = null.as_fd();
    let start =
        Start { plan: &plan, console: fd, image: fd, taps: &[], tap_names: Texts::EMPTY, blocks: &[], status: fd };
    let _ = shim().spawn(&start, &mut |process| {
        let fds = format!("/proc/{}/fd", process.pid);
        let until = Instant::now() + Duration::from_millis(PATIENCE_MS.into());
        // The tender's five, the line and the program: all that was open here is closed there.
        while fs::read_dir(&fds).unwrap().count() != 7 {
            assert!(Instant::now() < until, "{:?}", fs::read_dir(&fds).unwrap().collect::<Vec<_>>());
            std::thread::yield_now();
        }
        println!("LEFT {}", process.pid);
        nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL).unwrap();
        Ok(())
    });
}

#[test]
fn the_capacity_is_that_of_the_kernel() {
    let capacity = shim().capacity().unwrap();
    assert!(!capacity.cpus.is_empty());
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(capacity.memory_mb, kib / 1024);
    assert!(capacity.abilities.tender);
    assert_eq!(capacity.abilities.kvm, File::options().read(true).write(true).open("/dev/kvm").is_ok());
}
