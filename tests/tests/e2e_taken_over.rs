//! A control half that is fully taken over: the test speaks to the real host half, which is root, over the control half's own socket, and
//! asks for all that it should not get. `docs/security.md` says what is left then; this shows it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fulmar_core::halves::{Answer, Host, LaunchError, LaunchPlan, Request, SignalOutcome, Tender, Texts, Unit};
use fulmar_core::limits::{ACCOUNTS_MAX, CHANNEL_BYTES_MAX, CHANNEL_FDS_MAX};
use fulmar_core::machine::Usage;
use fulmar_core::policy::{Bridge, CpuSet};
use fulmar_host::channel::{Channel, ReceivedFds};
use fulmar_tests::bridge::{ip, with_bridge};
use fulmar_tests::siege::{Siege, control_half, pid_of};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{is_gone, wait_until};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, SockType, getsockopt, sendmsg, sockopt};
use nix::unistd::Uid;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// The control half, taken over: it does not run any more, and its socket is ours.
struct TakenOver {
    channel: Channel,
    buffer: Vec<u8>,
    null: File,
}

impl TakenOver {
    fn take(vmmd: u32) -> Self {
        let control = control_half(vmmd);
        kill(pid_of(control), Signal::SIGSTOP).unwrap();
        assert!(wait_until(|| stat(control).contains(") T ")));
        let channel = Channel::from(find_channel(control));
        channel.set_nonblocking(true).unwrap();
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        Self { channel, buffer: vec![0; CHANNEL_BYTES_MAX], null }
    }

    fn ask(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Answer<'_> {
        let mut packet = vec![0; CHANNEL_BYTES_MAX];
        self.channel.send(request.encode(&mut packet).unwrap(), fds).unwrap();
        self.hear()
    }

    fn hear(&mut self) -> Answer<'_> {
        let mut heard = None;
        let mut fds = ReceivedFds::default();
        assert!(wait_until(|| match self.channel.receive(&mut self.buffer, &mut fds) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            received => {
                heard = received.unwrap().map(<[u8]>::len);
                true
            }
        }));
        Answer::decode(&self.buffer[..heard.expect("the host half is gone")]).unwrap()
    }

    /// Asks for a launch with this image and returns its process, or why there is none.
    fn launch(&mut self, plan: &LaunchPlan<'_>, image: BorrowedFd<'_>) -> Result<u32, LaunchError> {
        let null = self.null.try_clone().unwrap();
        let blocks = vec![null.as_fd(); plan.blocks.into()];
        let fds = [vec![null.as_fd(), image], blocks].concat();
        match self.ask(&Request::Launch(*plan), &fds) {
            Answer::Launched { unit, pid, .. } if unit == plan.unit => Ok(pid),
            Answer::LaunchFailed { unit, error } if unit == plan.unit => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn kill(&mut self, unit: Unit) -> SignalOutcome {
        let kill = Request::Signal { unit, signal: fulmar_core::halves::Signal::Kill };
        let Answer::Signalled { unit: told, outcome } = self.ask(&kill, &[]) else { panic!("no answer to a signal") };
        assert_eq!(told, unit);
        outcome
    }

    fn expect_exit(&mut self, expected: Unit) {
        let Answer::Exited { unit, .. } = self.hear() else { panic!("no exit") };
        assert_eq!(unit, expected);
    }

    fn host_memory_mb(&mut self) -> u64 {
        let Answer::Host(Host { memory_mb, .. }) = self.ask(&Request::Survey, &[]) else { panic!("no host") };
        memory_mb
    }
}

/// A process that ends with its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stat(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/stat")).unwrap()
}

/// The end of the channel that a control half has.
fn find_channel(control: u32) -> OwnedFd {
    let process = pidfd_open(Pid::from_raw(control.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
    let numbers = fs::read_dir(format!("/proc/{control}/fd")).unwrap();
    let numbers = numbers.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let mut fds = numbers.filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
    let is_channel = |fd: &OwnedFd| getsockopt(fd, sockopt::SockType) == Ok(SockType::SeqPacket);
    fds.find(is_channel).expect("the channel of the control half")
}

/// What is asked for where nothing is wrong.
fn plan(unit: u64) -> LaunchPlan<'static> {
    LaunchPlan {
        unit: Unit(unit),
        account: 4000,
        tender: Tender::Spt,
        cpus: CpuSet::first(1),
        memory_mb: 16,
        networks: Texts::EMPTY,
        blocks: 0,
        argv: Texts::new(b"solo5-spt\0--mem=16\0@3\0").unwrap(),
        machine: None,
    }
}

/// A tender runs there and nothing else, as nobody that is anybody.
fn expect_harmless(pid: u32, tender: &Path) {
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    // It may have ended, over an image that is none.
    if let Ok(program) = program {
        assert_eq!(program, tender);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        for (name, wrong) in [("Uid:", "\t0"), ("Gid:", "\t0")] {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            assert!(!line.contains(&format!("{wrong}\t")) && !line.ends_with(wrong), "{status}");
        }
        // In a namespace of its own a tender may have some for a while, over nothing that is anybody's.
        let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/user")).ok();
        if namespace(&pid.to_string()) == namespace("self") {
            let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t"));
            assert_eq!(permitted.unwrap_or("0000000000000000"), "0000000000000000", "{status}");
        }
        assert!(status.is_empty() || status.contains("NoNewPrivs:\t1"), "{status}");
    }
}

/// All that is to be left alone while `attack` goes on: a process of root, one of the control half's user, a tap, and two files.
fn with_bystanders(folder: &Path, user: u32, net: &Path, attack: impl FnOnce(&Bystanders<'_>)) {
    assert!(ip(&["tuntap", "add", "dev", "bystander", "mode", "tap"]) && ip(&["link", "set", "bystander", "up"]));
    let tap = || {
        let of = |name: &str| fs::read_to_string(net.join("class/net/bystander").join(name)).unwrap();
        assert!(!net.join("class/net/bystander/master").exists(), "somebody put it into a bridge");
        [of("ifindex"), of("flags"), of("address"), of("mtu"), of("tun_flags")]
    };
    let before = tap();
    let sleep = || {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut processes = [sleep(), sleep()];
    processes[1].uid(user);
    let mut processes = processes.map(|mut command| Ends(command.spawn().unwrap()));

    // Outside of what the control half's user can reach.
    let folder = folder.join("root");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let (secret, evil, ran) = (folder.join("secret"), folder.join("evil"), folder.join("ran"));
    fs::write(&secret, "secret").unwrap();
    fs::write(&evil, format!("#!/bin/sh\nid > {}\n", ran.display())).unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let image = File::open(&evil).unwrap();
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    watch.add_watch(&secret, AddWatchFlags::IN_OPEN | AddWatchFlags::IN_ACCESS).unwrap();
    // What is handed over a tender reads; executed it would be opened.
    watch.add_watch(&evil, AddWatchFlags::IN_OPEN).unwrap();
    let pids = [processes[0].0.id(), processes[1].0.id()];
    attack(&Bystanders { pids, secret: secret.to_str().unwrap(), evil: evil.to_str().unwrap(), image: &image });
    assert!(!ran.exists(), "a program of its choice was run");
    assert_eq!(watch.read_events().unwrap_err(), nix::errno::Errno::EAGAIN, "a file was opened on its behalf");
    assert_eq!(tap(), before);
    for process in &mut processes {
        assert!(process.0.try_wait().unwrap().is_none(), "a bystander has ended");
    }
}

struct Bystanders<'a> {
    pids: [u32; 2],
    secret: &'a str,
    evil: &'a str,
    /// The file `evil`, open: what the control half could do with a file of its own.
    image: &'a File,
}

/// Ends of words, as [`Texts`] has them.
fn texts(words: &[&str]) -> Vec<u8> {
    words.iter().flat_map(|word| word.bytes().chain([0])).collect()
}

#[test]
fn what_a_control_half_that_was_taken_over_can_do() {
    let test = "what_a_control_half_that_was_taken_over_can_do";
    if !Uid::effective().is_root() {
        return skip(test, "what root would do for it is to be seen: run it as root");
    }
    with_bridge(test, None, |siege, net| {
        let vmmd = siege.system.pid("vmmd").unwrap();
        let user = fs::metadata(siege.system.run().join("util")).unwrap().uid();
        assert_ne!(user, 0, "the control half is not root");
        // What the host half believes of a predecessor nobody else can write.
        for (folder, mode) in [("", 0o755), ("units", 0o700)] {
            let found = fs::metadata(siege.system.run().join(folder)).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o777 | mode), (0, mode), "{folder}");
        }
        let tender = fs::canonicalize(fulmar_tests::system::programs().join("fulmar-tender")).unwrap();
        let mut control = TakenOver::take(vmmd);
        let folder = siege.system.folder().to_path_buf();
        with_bystanders(&folder, user, net, |bystanders| {
            let spin = File::open(siege.image("spin")).unwrap();
            programs_and_files(&mut control, bystanders, &tender);
            taps(&mut control, net, spin.as_fd());
            processes(&mut control, bystanders, spin.as_fd());
            root_policy(&mut control, bystanders, spin.as_fd(), &tender);
            packets(siege, control);
        });
    });
}

/// Whatever it calls the program and hands over as image, disk or console: the tender runs, under an account, or nothing does.
fn programs_and_files(control: &mut TakenOver, bystanders: &Bystanders<'_>, tender: &Path) {
    let (secret, evil) = (bystanders.secret, bystanders.evil);
    let given = format!("--block:disk={secret}");
    for (number, words) in (100..).zip([
        &[evil][..],
        &["/bin/sh", "-c", evil],
        &["solo5-spt", evil],
        &["solo5-spt", secret],
        &["solo5-spt", "--mem=16", &given, "@3"],
        &["solo5-spt", "/proc/self/fd/../../1/root/etc/shadow"],
        &["solo5-spt", "@0"],
        &["solo5-spt", "@99"],
        &[""],
    ]) {
        for tender_kind in [Tender::Spt, Tender::Hvt] {
            let argv = texts(words);
            let argv = Texts::new(&argv).unwrap();
            let asked = LaunchPlan { argv, tender: tender_kind, blocks: 2, ..plan(number) };
            match control.launch(&asked, bystanders.image.as_fd()) {
                Ok(pid) => {
                    expect_harmless(pid, tender);
                    control.expect_exit(asked.unit);
                }
                Err(error) => assert!(matches!(error, LaunchError::NoKvm | LaunchError::Arguments), "{error}"),
            }
        }
    }
    // As root, or as somebody who is not a tender.
    for account in [ACCOUNTS_MAX, u16::MAX] {
        let error = LaunchError::NoSuchAccount(account);
        assert_eq!(control.launch(&LaunchPlan { account, ..plan(200) }, bystanders.image.as_fd()), Err(error));
    }
    for (account, unit) in [(0, 201), (ACCOUNTS_MAX - 1, 202)] {
        let pid = control.launch(&LaunchPlan { account, ..plan(unit) }, bystanders.image.as_fd()).unwrap();
        expect_harmless(pid, tender);
        control.expect_exit(Unit(unit));
    }
    // More files than it says, fewer, none, no console.
    let null = control.null.try_clone().unwrap();
    for count in [0, 1, 3, CHANNEL_FDS_MAX] {
        let answer = control.ask(&Request::Launch(plan(203)), &vec![null.as_fd(); count]);
        assert_eq!(answer, Answer::LaunchFailed { unit: Unit(203), error: LaunchError::Fds });
    }
    let zvol = texts(&["/dev/sda"]);
    let machine = fulmar_core::halves::VirtualMachine {
        processors: 1,
        macs: &[],
        disks: Texts::new(&zvol).unwrap(),
        linux_boot: None,
    };
    let asked = LaunchPlan { tender: Tender::Bhyve, argv: Texts::EMPTY, machine: Some(machine), ..plan(204) };
    assert!(matches!(control.ask(&Request::Launch(asked), &[null.as_fd()]), Answer::LaunchFailed { .. }));
}

/// Bridges that are not there, and interfaces that are none.
fn taps(control: &mut TakenOver, net: &Path, image: BorrowedFd<'_>) {
    let interfaces = || {
        let names = fs::read_dir(net.join("class/net")).unwrap();
        names.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = interfaces();
    for name in ["nowhere", "bystander", "lo", "BR0"] {
        let networks = texts(&["br0", name]);
        let asked = LaunchPlan { networks: Texts::new(&networks).unwrap(), ..plan(300) };
        let error = LaunchError::NoSuchBridge(Bridge::new(name.as_bytes()).unwrap());
        assert_eq!(control.launch(&asked, image), Err(error));
    }
    for name in ["../br0", "br0,x", "a-name-that-no-interface-has", "br0\n"] {
        let networks = texts(&[name]);
        let asked = LaunchPlan { networks: Texts::new(&networks).unwrap(), ..plan(300) };
        assert_eq!(control.launch(&asked, image), Err(LaunchError::BridgeName), "{name}");
    }
    assert!(wait_until(|| interfaces() == before), "{:?}", interfaces());
}

/// Signals and words of forgetting for what it never started.
fn processes(control: &mut TakenOver, bystanders: &Bystanders<'_>, image: BorrowedFd<'_>) {
    let strangers = bystanders.pids.map(u64::from).into_iter().chain([0, 1, std::process::id().into(), u64::MAX]);
    for number in strangers {
        assert_eq!(control.kill(Unit(number)), SignalOutcome::Gone);
        let gentle = Request::Signal { unit: Unit(number), signal: fulmar_core::halves::Signal::Terminate };
        let gone = Answer::Signalled { unit: Unit(number), outcome: SignalOutcome::Gone };
        assert_eq!(control.ask(&gentle, &[]), gone);
        let mut packet = [0; 16];
        control.channel.send(Request::Forget { unit: Unit(number) }.encode(&mut packet).unwrap(), &[]).unwrap();
    }
    // A unit of that number is its own process, and forgotten only when it has ended.
    let unit = Unit(bystanders.pids[0].into());
    let pid = control.launch(&plan(unit.0), image).unwrap();
    assert!(!bystanders.pids.contains(&pid));
    assert_eq!(control.launch(&plan(unit.0), image), Err(LaunchError::UnitInUse));
    let mut packet = [0; 16];
    control.channel.send(Request::Forget { unit }.encode(&mut packet).unwrap(), &[]).unwrap();
    assert_eq!(control.kill(unit), SignalOutcome::Sent);
    control.expect_exit(unit);
    assert_eq!(control.kill(unit), SignalOutcome::Gone);
}

/// More memory than there is, at once and one after the other; CPUs that are not there; more than it says.
fn root_policy(control: &mut TakenOver, bystanders: &Bystanders<'_>, spin: BorrowedFd<'_>, tender: &Path) {
    let host_mb = control.host_memory_mb();
    let alone = |memory_mb| Usage { unikernels: 1, memory_mb, block_mb: 0, networks: 0 }.host_memory_mb();
    let most = (0..host_mb).rev().find(|memory_mb| alone(*memory_mb) <= host_mb).unwrap();
    let with = |unit, memory_mb: u64| LaunchPlan { memory_mb: u32::try_from(memory_mb).unwrap(), ..plan(unit) };
    let full = Err(LaunchError::HostMemory(host_mb));
    for memory_mb in [most + 1, host_mb, u32::MAX.into()] {
        assert_eq!(control.launch(&with(400, memory_mb), spin), full);
    }
    control.launch(&plan(401), spin).unwrap();
    assert_eq!(control.launch(&with(402, most), spin), full, "beside another one");
    assert_eq!(control.kill(Unit(401)), SignalOutcome::Sent);
    control.expect_exit(Unit(401));
    // The image is none, so the memory is not taken.
    control.launch(&with(402, most), bystanders.image.as_fd()).unwrap();
    control.expect_exit(Unit(402));

    let mut cpus = CpuSet::EMPTY;
    cpus.insert(1000).unwrap();
    for cpus in [cpus, CpuSet::EMPTY] {
        assert_eq!(control.launch(&LaunchPlan { cpus, ..plan(403) }, spin), Err(LaunchError::NoCpu));
    }
    // It says 16 MB to the host half and 4096 to the tender.
    let argv = texts(&["solo5-spt", "--mem=4096", "@3"]);
    let pid = control.launch(&LaunchPlan { argv: Texts::new(&argv).unwrap(), ..plan(404) }, spin).unwrap();
    expect_harmless(pid, tender);
    control.expect_exit(Unit(404));

    // Very many, each of them nobody; all of them count.
    let units = 500..532;
    for number in units.clone() {
        let account = u16::try_from(number).unwrap();
        let pid = control.launch(&LaunchPlan { account, ..plan(number) }, spin).unwrap();
        expect_harmless(pid, tender);
    }
    assert_eq!(control.launch(&with(402, most - 31 * 16), spin), full);
    for number in units {
        assert_eq!(control.kill(Unit(number)), SignalOutcome::Sent);
        control.expect_exit(Unit(number));
    }
}

/// What is no message ends the host half, and nothing is done of it.
fn packets(siege: &mut Siege, first: TakenOver) {
    let mut control = first;
    let mut launch = vec![0; CHANNEL_BYTES_MAX];
    let launch = Request::Launch(plan(600)).encode(&mut launch).unwrap().to_vec();
    let longer = [&launch[..], &[0]].concat();
    let (too_long, null) = (vec![0; CHANNEL_BYTES_MAX + 1], control.null.try_clone().unwrap());
    let cases: [(&str, &[u8], usize); 6] = [
        ("noise", &[0xff; 64], 0),
        ("cut short", &launch[..launch.len() - 1], 2),
        ("too long by a byte", &longer, 2),
        ("too long for any message", &too_long, 2),
        ("nothing", b"", 0),
        ("too many files", &launch, 200),
    ];
    for (what, packet, fds) in cases {
        let vmmd = siege.system.pid("vmmd").unwrap();
        let raw = vec![null.as_raw_fd(); fds];
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if fds == 0 { &[][..] } else { &rights[..] };
        sendmsg::<()>(control.channel.as_raw_fd(), &[IoSlice::new(packet)], rights, MsgFlags::empty(), None).unwrap();
        assert!(wait_until(|| is_gone(pid_of(vmmd))), "{what}: the host half goes on");
        drop(control);
        assert!(siege.system.log("vmmd").contains("unikernels keep running"));
        siege.system.end("vmmd", Signal::SIGKILL).unwrap();
        let vmmd = siege.system.start_vmmd(&[]).unwrap();
        siege.vmmd = vmmd;
        assert!(!siege.system.run().join("units/600").exists(), "{what}: something was launched");
        siege.expect_service();
        control = TakenOver::take(vmmd);
    }
    kill(pid_of(control_half(siege.vmmd)), Signal::SIGCONT).unwrap();
    siege.expect_service();
}

#[test]
fn what_the_user_of_the_control_half_can_open_is_all_that_it_can_hand_over() {
    let test = "what_the_user_of_the_control_half_can_open_is_all_that_it_can_hand_over";
    if !Uid::effective().is_root() {
        return skip(test, "users cannot be changed here, run it as root");
    }
    let Some(siege) = Siege::begin(test) else { return };
    let user = fs::metadata(siege.system.run().join("util")).unwrap().uid();
    let control = control_half(siege.vmmd);
    let status = fs::read_to_string(format!("/proc/{control}/status")).unwrap();
    assert!(status.lines().any(|line| line == format!("Uid:\t{user}\t{user}\t{user}\t{user}")), "{status}");
    assert!(status.lines().any(|line| line == "CapEff:\t0000000000000000"), "{status}");
    let as_control = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).uid(user).gid(user).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    };
    let run = siege.system.run();
    let record = run.join("units/1");
    for path in ["/etc/shadow", "/proc/1/environ"] {
        assert!(!as_control("cat", &[path]), "{path}");
    }
    assert!(!as_control("touch", &[record.to_str().unwrap()]), "it could make the host half adopt what it likes");
    assert!(!as_control("mv", &[run.join("units").to_str().unwrap(), run.join("util/units").to_str().unwrap()]));
    assert!(!as_control("rm", &["-f", run.join("vmmd.lock").to_str().unwrap()]));
    siege.end();
}
