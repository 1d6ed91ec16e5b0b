//! The host half behind a real channel, with a host that has no kernel behind it.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use fulmar_core::halves::{Status, VirtualMachine};
use fulmar_core::limits::{DEVICES_MAX, HOST_FILES_MAX};
use fulmar_core::policy::CpuSet;
use fulmar_host::shim::fake::FakeShim;

use super::*;

/// A folder of its own for one test, gone with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fulmar-vmmd-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The control half's end of the channel.
struct Control {
    channel: Channel,
    buffer: Vec<u8>,
}

impl Control {
    fn ask(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) {
        let mut packet = vec![0; CHANNEL_BYTES_MAX];
        self.channel.send(request.encode(&mut packet).unwrap(), fds).unwrap();
    }

    fn hear(&mut self) -> Answer<'_> {
        let packet = self.channel.receive(&mut self.buffer, &mut ReceivedFds::default()).unwrap();
        Answer::decode(packet.expect("an answer")).unwrap()
    }

    fn launch(&mut self, plan: &LaunchPlan<'_>) -> Answer<'_> {
        let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        self.ask(&Request::Launch(*plan), &[null.as_fd(), null.as_fd()]);
        self.hear()
    }
}

/// Runs `test` against a host half on `shim`, and returns how that ended.
fn against(shim: FakeShim, folder: &Folder, test: impl FnOnce(&mut Control)) -> Result<Ending, HostError> {
    against_with(shim, folder, false, test)
}

/// The same, where zvols may be opened or not.
fn against_with(
    shim: FakeShim,
    folder: &Folder,
    zvols: bool,
    test: impl FnOnce(&mut Control),
) -> Result<Ending, HostError> {
    let (mine, theirs) = Channel::pair().unwrap();
    let mut half = HostHalf::new(shim, mine, &folder.0)?.with_zvols(zvols);
    // Whatever this machine allows: here nothing is watched by a file.
    half.files_max = HOST_FILES_MAX;
    std::thread::scope(|scope| {
        let host = scope.spawn(move || {
            let (mut signals, _other) = Signals::pretended();
            serve(&mut half, &mut signals, &mut || {})
        });
        let mut control = Control { channel: theirs, buffer: vec![0; CHANNEL_BYTES_MAX] };
        test(&mut control);
        drop(control);
        host.join().unwrap()
    })
}

fn plan(unit: u64) -> LaunchPlan<'static> {
    LaunchPlan {
        unit: Unit(unit),
        account: 1,
        tender: Tender::Spt,
        cpus: CpuSet::first(1),
        memory_mb: 16,
        networks: Texts::new(b"service\0br0\0").unwrap(),
        blocks: 0,
        argv: Texts::new(b"solo5-spt\0@3\0").unwrap(),
        machine: None,
    }
}

fn records_in(folder: &Folder) -> usize {
    fs::read_dir(folder.0.join("units")).unwrap().count()
}

#[test]
fn a_unit_is_launched_and_ended() {
    let folder = Folder::new();
    let ending = against(FakeShim::new().unwrap(), &folder, |control| {
        control.ask(&Request::Survey, &[]);
        let Answer::Host(host) = control.hear() else { panic!("no host") };
        assert_eq!(host.bridges, Texts::new(b"service\0br0\0").unwrap());
        assert_eq!(host.cpus, CpuSet::first(4));
        let (mut console, theirs) = UnixStream::pair().unwrap();
        control.ask(&Request::Launch(plan(7)), &[theirs.as_fd(), theirs.as_fd()]);
        drop(theirs);
        let Answer::Launched { unit: Unit(7), taps, .. } = control.hear() else { panic!("not launched") };
        assert_eq!(taps, Texts::new(b"vmmtap0\0vmmtap1\0").unwrap());
        let mut greeting = String::new();
        console.read_to_string(&mut greeting).unwrap();
        assert!(greeting.contains("greets"), "and nobody else holds the console: {greeting}");
        assert_eq!(records_in(&folder), 2);
        assert_eq!(control.launch(&plan(7)), Answer::LaunchFailed { unit: Unit(7), error: LaunchError::UnitInUse });
        control.ask(&Request::Signal { unit: Unit(7), signal: Signal::Kill }, &[]);
        assert_eq!(control.hear(), Answer::Signalled { unit: Unit(7), outcome: SignalOutcome::Sent });
        let record = StatusRecord::default();
        assert_eq!(control.hear(), Answer::Exited { unit: Unit(7), status: Status::Signal(9), record });
        assert_eq!(records_in(&folder), 2, "until what follows is durable");
        control.ask(&Request::Forget { unit: Unit(7) }, &[]);
        control.ask(&Request::Signal { unit: Unit(7), signal: Signal::Kill }, &[]);
        assert_eq!(control.hear(), Answer::Signalled { unit: Unit(7), outcome: SignalOutcome::Gone });
        assert_eq!(records_in(&folder), 0);
    });
    assert!(matches!(ending, Ok(Ending::ControlGone)));
}

#[test]
fn what_may_not_be_is_refused_and_leaves_nothing() {
    let folder = Folder::new();
    let mut shim = FakeShim::new().unwrap();
    shim.capacity.abilities.kvm = false;
    against(shim, &folder, |control| {
        let nowhere = Texts::new(b"service\0nowhere\0").unwrap();
        let cases = [
            (LaunchPlan { networks: nowhere, ..plan(1) }, LaunchError::NoSuchBridge(Bridge::new(b"nowhere").unwrap())),
            (LaunchPlan { cpus: CpuSet::first(5), ..plan(1) }, LaunchError::NoCpu),
            (LaunchPlan { tender: Tender::Hvt, ..plan(1) }, LaunchError::NoKvm),
            (LaunchPlan { memory_mb: 0, ..plan(1) }, LaunchError::NoMemory),
        ];
        for (plan, error) in cases {
            assert_eq!(control.launch(&plan), Answer::LaunchFailed { unit: Unit(1), error });
        }
        control.ask(&Request::Launch(plan(1)), &[]);
        assert_eq!(control.hear(), Answer::LaunchFailed { unit: Unit(1), error: LaunchError::Fds });
        // As many block devices as the plan says, no more and no less.
        let error = LaunchError::Fds;
        assert_eq!(control.launch(&LaunchPlan { blocks: 1, ..plan(1) }), Answer::LaunchFailed { unit: Unit(1), error });
        let null = fs::File::open("/dev/null").unwrap();
        control.ask(&Request::Launch(plan(1)), &[null.as_fd(), null.as_fd(), null.as_fd()]);
        assert_eq!(control.hear(), Answer::LaunchFailed { unit: Unit(1), error });
        assert_eq!(records_in(&folder), 0);
    })
    .unwrap();
}

#[test]
fn a_virtual_machine_is_launched_where_it_may_be() {
    let machine = |disks| VirtualMachine { processors: 1, macs: &[2; 12], disks, linux_boot: None };
    let files = machine(Texts::new(b"@\0").unwrap());
    let zvols = machine(Texts::new(b"/dev/zvol/tank/vm\0@\0").unwrap());
    let vm = |machine| LaunchPlan {
        tender: Tender::Bhyve,
        blocks: 1,
        argv: Texts::EMPTY,
        machine: Some(machine),
        ..plan(1)
    };
    let foreign = machine(Texts::new(b"/dev/ada0\0@\0").unwrap());
    for (bhyve, zvols_allowed, plan, error) in [
        (None, true, vm(files), Some(LaunchError::NoBhyve)),
        (Some(7), false, vm(zvols), Some(LaunchError::NoZvols)),
        (Some(7), true, vm(foreign), Some(LaunchError::Machine)),
        (Some(7), true, LaunchPlan { tender: Tender::Spt, ..vm(files) }, Some(LaunchError::Machine)),
        (Some(7), true, LaunchPlan { machine: None, ..vm(files) }, Some(LaunchError::Machine)),
        (Some(7), true, LaunchPlan { argv: plan(1).argv, ..vm(files) }, Some(LaunchError::Machine)),
        (Some(7), false, vm(files), None),
        (Some(7), true, vm(zvols), None),
    ] {
        let folder = Folder::new();
        let mut shim = FakeShim::new().unwrap();
        // No tender is needed for it.
        (shim.capacity.abilities.bhyve, shim.capacity.abilities.tender) = (bhyve, false);
        against_with(shim, &folder, zvols_allowed, |control| {
            let null = fs::File::open("/dev/null").unwrap();
            control.ask(&Request::Launch(plan), &[null.as_fd(), null.as_fd()]);
            let answer = control.hear();
            match error {
                Some(error) => assert_eq!(answer, Answer::LaunchFailed { unit: Unit(1), error }),
                None => assert!(matches!(answer, Answer::Launched { .. }), "{answer:?}"),
            }
            assert_eq!(records_in(&folder), if error.is_none() { 2 } else { 0 });
        })
        .unwrap();
    }
}

#[test]
fn every_call_of_a_launch_may_fail() {
    for calls in 0.. {
        let folder = Folder::new();
        let mut shim = FakeShim::new().unwrap();
        // Capacity and sweep come first.
        shim.fail_after(2 + calls);
        let mut launched = false;
        against(shim, &folder, |control| match control.launch(&plan(1)) {
            Answer::Launched { .. } => launched = true,
            Answer::LaunchFailed { error: LaunchError::Os(_), .. } => {
                assert_eq!(records_in(&folder), 0);
                assert!(matches!(control.launch(&plan(1)), Answer::Launched { .. }), "the next try succeeds");
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
        if launched {
            assert_eq!(calls, 4, "two taps, fork, execute");
            break;
        }
    }
}

#[test]
fn survivors_and_the_dead_are_told_first() {
    let folder = Folder::new();
    let mut shim = FakeShim::new().unwrap();
    let records = Records::open(&folder.0.join("units")).unwrap();
    for unit in [3, 5, 8, 9] {
        let process = match unit {
            8 | 9 => Process { pid: 1, started: 0 },
            _ => shim.survivor(Unit(unit)),
        };
        let record =
            Record { unit: Unit(unit), process, account: 40, memory_mb: 16, taps: b"vmmtap2\0".to_vec(), told: false };
        records.write(&record).unwrap();
        if matches!(unit, 5 | 9) {
            records.tell(Unit(unit));
        }
        records.open_status(Unit(unit)).unwrap().write_all(b"exited 7").unwrap();
    }
    let record = StatusRecord::new(b"exited 7");
    let dead = Answer::Ended { unit: Unit(8), record };
    // Its end was wanted, whatever it says of it.
    let told_and_dead = Answer::Ended { unit: Unit(9), record: StatusRecord::default() };
    // Whoever was told and does not live to say that it may be forgotten is told again.
    against(FakeShim::new().unwrap(), &folder, |control| control.ask(&Request::Survey, &[])).unwrap();
    against(shim, &folder, |control| {
        assert_eq!(records_in(&folder), 10);
        control.ask(&Request::Survey, &[]);
        for expected in [(Unit(3), false), (Unit(5), true)] {
            let Answer::Adopted { unit, account: 40, taps, told, .. } = control.hear() else { panic!("not adopted") };
            assert_eq!(((unit, told), taps), (expected, Texts::new(b"vmmtap2\0").unwrap()));
        }
        assert_eq!(control.hear(), dead);
        assert_eq!(control.hear(), told_and_dead);
        assert!(matches!(control.hear(), Answer::Host(_)));
        control.ask(&Request::Signal { unit: Unit(3), signal: Signal::Terminate }, &[]);
        assert_eq!(control.hear(), Answer::Signalled { unit: Unit(3), outcome: SignalOutcome::Sent });
        assert_eq!(control.hear(), Answer::Exited { unit: Unit(3), status: Status::Signal(15), record });
        // The one that runs on is not forgotten, whatever is said.
        for unit in [3, 5, 8, 9] {
            control.ask(&Request::Forget { unit: Unit(unit) }, &[]);
        }
    })
    .unwrap();
    assert_eq!(records_in(&folder), 3);
    let [Record { unit: Unit(5), told: true, .. }] = records.read().unwrap()[..] else {
        panic!("not the one that runs")
    };
}

#[test]
fn nonsense_ends_the_host_half() {
    let folder = Folder::new();
    let ending = against(FakeShim::new().unwrap(), &folder, |control| {
        control.channel.send(b"\xff\xff\xff", &[]).unwrap();
        assert!(control.channel.receive(&mut control.buffer, &mut ReceivedFds::default()).unwrap().is_none());
    });
    assert!(matches!(ending, Err(HostError::Message(MessageError::Malformed))));
}

#[test]
fn a_signal_asks_the_control_half_once() {
    let folder = Folder::new();
    let (mine, theirs) = Channel::pair().unwrap();
    let mut half = HostHalf::new(FakeShim::new().unwrap(), mine, &folder.0).unwrap();
    let (mut signals, mut sender) = Signals::pretended();
    let (mut asked, mut theirs) = (0, Some(theirs));
    sender.write_all(&[1, 1, 1]).unwrap();
    let ending = serve(&mut half, &mut signals, &mut || {
        asked += 1;
        theirs.take();
    });
    assert!(matches!(ending, Ok(Ending::Asked)));
    assert_eq!(asked, 1);
}

#[test]
fn thousands_of_units_run_at_once() {
    let folder = Folder::new();
    let mut shim = FakeShim::new().unwrap();
    shim.capacity.memory_mb *= 2;
    against(shim, &folder, |control| {
        let count = UNITS_MAX as u64;
        for unit in 0..count {
            let plan = LaunchPlan { networks: Texts::default(), ..plan(unit) };
            assert!(matches!(control.launch(&plan), Answer::Launched { .. }));
        }
        assert_eq!(
            control.launch(&plan(count)),
            Answer::LaunchFailed { unit: Unit(count), error: LaunchError::HostFull }
        );
    })
    .unwrap();
    assert_eq!(records_in(&folder), 2 * UNITS_MAX);
}

#[test]
fn taps_end_where_the_host_has_no_more() {
    let folder = Folder::new();
    let mut shim = FakeShim::new().unwrap();
    shim.bridges = vec!["b".to_owned()];
    let networks = b"b\0".repeat(DEVICES_MAX);
    let many = |unit| LaunchPlan { networks: Texts::new(&networks).unwrap(), ..plan(unit) };
    against(shim, &folder, |control| {
        let count = TAPS_MAX / DEVICES_MAX as u64;
        for unit in 0..count {
            assert!(matches!(control.launch(&many(unit)), Answer::Launched { .. }), "{unit}");
        }
        let full = Answer::LaunchFailed { unit: Unit(count), error: LaunchError::HostTaps };
        assert_eq!(control.launch(&many(count)), full);
        // The rest is somebody's who needs no more.
        let rest = usize::try_from(TAPS_MAX % DEVICES_MAX as u64).unwrap();
        let few = LaunchPlan { networks: Texts::new(&networks[..2 * rest]).unwrap(), ..plan(count) };
        assert!(matches!(control.launch(&few), Answer::Launched { .. }));
        let one = LaunchPlan { networks: Texts::new(b"b\0").unwrap(), ..plan(count + 1) };
        let full = Answer::LaunchFailed { unit: Unit(count + 1), error: LaunchError::HostTaps };
        assert_eq!(control.launch(&one), full);
    })
    .unwrap();
}

#[test]
fn the_host_is_not_exceeded_whatever_the_control_half_asks_for() {
    let folder = Folder::new();
    let records = Records::open(&folder.0.join("units")).unwrap();
    let mut shim = FakeShim::new().unwrap();
    shim.capacity.memory_mb = 200;
    // One of a predecessor's counts too.
    let process = shim.survivor(Unit(1));
    let taps = b"vmmtap7\0".to_vec();
    let record = Record { unit: Unit(1), process, account: 1, memory_mb: 100, taps, told: false };
    records.write(&record).unwrap();
    let refused = |unit| Answer::LaunchFailed { unit: Unit(unit), error: LaunchError::HostMemory(200) };
    let with = |unit, memory_mb| LaunchPlan { memory_mb, networks: Texts::EMPTY, ..plan(unit) };
    against(shim, &folder, |control| {
        // Of 200: 100 and 90 for guests, 8 for two tenders, 1 for page tables, 1 for a tap. Before it is told of, and after.
        assert_eq!(control.launch(&with(2, 91)), refused(2));
        control.ask(&Request::Survey, &[]);
        assert!(matches!(control.hear(), Answer::Adopted { .. }));
        assert!(matches!(control.hear(), Answer::Host(_)));
        for memory_mb in [91, 200, u32::MAX] {
            assert_eq!(control.launch(&with(2, memory_mb)), refused(2));
        }
        assert!(matches!(control.launch(&with(2, 90)), Answer::Launched { .. }));
        assert_eq!(control.launch(&with(3, 1)), refused(3));
        // As soon as one has ended there is room again.
        control.ask(&Request::Signal { unit: Unit(1), signal: Signal::Kill }, &[]);
        assert!(matches!(control.hear(), Answer::Signalled { .. }));
        assert!(matches!(control.hear(), Answer::Exited { .. }));
        assert!(matches!(control.launch(&with(3, 90)), Answer::Launched { .. }));
    })
    .unwrap();
}

#[test]
fn it_is_said_before_there_are_too_few_files() {
    let folder = Folder::new();
    let (mine, theirs) = Channel::pair().unwrap();
    let mut half = HostHalf::new(FakeShim::new().unwrap(), mine, &folder.0).unwrap();
    half.files_max = HOST_FILES_BASE + 2;
    std::thread::scope(|scope| {
        let mut control = Control { channel: theirs, buffer: vec![0; CHANNEL_BYTES_MAX] };
        let (mut signals, _other) = Signals::pretended();
        scope.spawn(move || serve(&mut half, &mut signals, &mut || {}).unwrap());
        control.ask(&Request::Survey, &[]);
        assert!(matches!(control.hear(), Answer::Host(_)));
        for unit in 0..2 {
            assert!(matches!(control.launch(&plan(unit)), Answer::Launched { .. }));
        }
        let error = LaunchError::TooFewFiles(HOST_FILES_BASE + 2);
        assert_eq!(control.launch(&plan(2)), Answer::LaunchFailed { unit: Unit(2), error });
        assert!(error.to_string().contains("LimitNOFILE"), "{error}");
        control.ask(&Request::Files, &[]);
        let Answer::Files { open: 1.., limit } = control.hear() else { panic!("no files") };
        assert_eq!(limit, HOST_FILES_BASE + 2);
        // As soon as one has ended there is room again.
        control.ask(&Request::Signal { unit: Unit(0), signal: Signal::Kill }, &[]);
        assert!(matches!(control.hear(), Answer::Signalled { .. }));
        assert!(matches!(control.hear(), Answer::Exited { .. }));
        assert!(matches!(control.launch(&plan(2)), Answer::Launched { .. }));
    });
}

#[test]
fn a_control_half_that_does_not_read_stops_nothing() {
    let folder = Folder::new();
    let (mine, theirs) = Channel::pair().unwrap();
    let mut half = HostHalf::new(FakeShim::new().unwrap(), mine, &folder.0).unwrap();
    let (mut signals, mut sender) = Signals::pretended();
    theirs.set_nonblocking(true).unwrap();
    let control = Mutex::new(Some(theirs));
    let mut asked = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Questions without end, and no ear: until the host half takes no more of them.
            let mut packet = vec![0; CHANNEL_BYTES_MAX];
            let packet = Request::Bridges.encode(&mut packet).unwrap();
            let mut refused = 0;
            while refused < 1000 {
                let sent = control.lock().unwrap().as_ref().unwrap().send(packet, &[]);
                refused = if sent.is_ok() { 0 } else { refused + 1 };
                std::thread::yield_now();
            }
            sender.write_all(&[1]).unwrap();
        });
        let ending = serve(&mut half, &mut signals, &mut || {
            asked += 1;
            control.lock().unwrap().take();
        });
        assert!(matches!(ending, Ok(Ending::Asked)), "{ending:?}");
    });
    assert_eq!(asked, 1);
}
